"""Named random streams: keyed draws, the same in every process and on every machine."""

import uuid
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sim.streams import KEY_LIMIT, exponential, generator, lognormal, uniforms, uuids, words

KEYS = st.integers(0, KEY_LIMIT - 1)
PURPOSES = st.text(max_size=30)
SIZES = st.integers(0, 300)


@given(KEYS, KEYS, PURPOSES, SIZES, SIZES)
def test_the_first_draws_do_not_depend_on_how_many_follow(seed, replication, purpose, k, n):
    k, n = sorted((k, n))
    long = uniforms(seed, replication, purpose, n)
    assert np.array_equal(uniforms(seed, replication, purpose, k), long[:k])
    ids = uuids(seed, replication, purpose, n).to_pylist()
    assert uuids(seed, replication, purpose, k).to_pylist() == ids[:k]


@given(KEYS, KEYS, st.lists(PURPOSES, min_size=2, max_size=4, unique=True), st.randoms())
def test_the_order_in_which_purposes_are_drawn_changes_nothing(seed, replication, purposes, rng):
    first = {purpose: uniforms(seed, replication, purpose, 5).tolist() for purpose in purposes}
    rng.shuffle(purposes)
    again = {purpose: uniforms(seed, replication, purpose, 5).tolist() for purpose in purposes}
    assert again == first
    assert all(first[a] != first[b] for a, b in combinations(first, 2))


@given(KEYS, KEYS, KEYS)
def test_seed_and_replication_both_matter(seed, replication, other):
    base = uniforms(seed, replication, "x", 4).tolist()
    assert (uniforms(other, replication, "x", 4).tolist() == base) == (other == seed)
    assert (uniforms(seed, other, "x", 4).tolist() == base) == (other == replication)


def test_wide_keys_do_not_run_into_each_other():
    # as plain word lists these two would both be 1, 2, 3
    a = uniforms(1 + (2 << 32), 3, "x", 4)
    b = uniforms(1, 2 + (3 << 32), "x", 4)
    assert not np.array_equal(a, b)


def test_golden_values_of_any_process_and_machine():
    assert uniforms(1, 0, "service", 3).tolist() == [
        0.8815778213799728,
        0.5076056864457302,
        0.9083967186851702,
    ]
    assert uniforms(2**63, 5, "arrivals.network.gap", 2).tolist() == [
        0.36806871287908316,
        0.18781747711568164,
    ]
    assert uuids(7, 1, "task_id", 2).to_pylist() == [
        "34dfffe8-8e00-4ecb-b941-dc6ddca7b7bd",
        "b4289e0b-f532-479d-8b82-1572a71df2dc",
    ]
    assert generator(1, 0, "service").bit_generator.random_raw() != words(1, 0, "service", 1)[0]


def test_uniforms_are_uniform_and_below_one():
    u = uniforms(3, 0, "uniformity", 100_000)
    assert u.dtype == np.float64
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    # neighbours do not follow each other: the correlation's standard error is 1/sqrt(n)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / np.sqrt(len(u))


@pytest.mark.parametrize(("seed", "replication"), [(-1, 0), (0, -1), (KEY_LIMIT, 0)])
def test_keys_out_of_range_are_named(seed, replication):
    with pytest.raises(ValueError, match="allowed is 0 to 18446744073709551615"):
        uniforms(seed, replication, "x", 1)


def test_uuids_are_valid_and_distinct():
    ids = uuids(1, 2, "x", 5_000).to_pylist()
    assert len(set(ids)) == len(ids)
    for text in ids[:500]:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 4
        assert parsed.variant == uuid.RFC_4122


def test_a_generator_repeats_itself():
    first = generator(1, 2, "x").integers(0, 1000, 5).tolist()
    assert generator(1, 2, "x").integers(0, 1000, 5).tolist() == first
    assert generator(1, 3, "x").integers(0, 1000, 5).tolist() != first


def test_inverse_cdfs_agree_with_scipy():
    u = np.linspace(0, 1, 1000, endpoint=False)
    assert np.allclose(exponential(u, 3.0), stats.expon.ppf(u, scale=3.0))
    u = u[1:]
    sigma, mean = 0.7, 5.0
    scale = mean * np.exp(-(sigma**2) / 2)
    assert np.allclose(lognormal(u, mean, sigma), stats.lognorm.ppf(u, sigma, scale=scale))
    assert stats.lognorm.mean(sigma, scale=scale) == pytest.approx(mean)
