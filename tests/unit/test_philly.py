"""The Philly trace becomes an offers file; a trace that is not as published is explained."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from shared.errors import InputError
from sim.catalogue import CATALOGUE
from sim.offers_file import read_offers
from sim.philly import import_philly, read_philly

HEADER = "timestamp,duration,num_gpus,gpu_time,cluster"
JOBS = (
    "2017-10-09 07:01:55,66.0,1,66.0,11cb48",
    "2017-10-09 06:13:03,2951.0,1,2951.0,6214e9",
    "2017-09-29 07:58:32,860662.0,8,6885296.0,6c71a0",
    "2017-10-09 06:13:03,2951.0,1,2951.0,6214e9",
    "2017-10-09 06:16:03,0,1,0,6214e9",
)
SAMPLE = Path(
    os.environ.get("FOUR_SLOT_PHILLY")
    or Path(__file__).parents[3] / "shared" / "traces" / "philly.csv.gz"
)


def trace(folder, *lines, header=HEADER, end="\n", name="trace.csv"):
    path = folder / name
    path.write_bytes(end.join([header, *lines, ""]).encode("latin-1"))
    return path


def refused(path, *args):
    with pytest.raises(InputError) as caught:
        read_philly(path, *args)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(str(path))


def test_rows_become_offers_sorted_by_time(tmp_path):
    stream, found = read_philly(trace(tmp_path, *JOBS))
    assert stream.at_ms.tolist() == [
        1_506_671_912_000,  # 2017-09-29 07:58:32, read as UTC
        1_507_529_583_000,
        1_507_529_583_000,
        1_507_529_763_000,
        1_507_532_515_000,
    ]
    assert stream.hours.tolist() == [860662 / 3600, 2951 / 3600, 2951 / 3600, 1 / 3600, 66 / 3600]
    assert stream.train_ms.tolist() == [860_662_000, 2_951_000, 2_951_000, 1_000, 66_000]
    assert found.first_ms == 1_506_671_912_000
    assert found.last_ms == 1_507_532_515_000
    assert (found.offers, found.rows) == (5, 5)


def test_equal_rows_are_two_jobs_and_are_counted(tmp_path):
    stream, found = read_philly(trace(tmp_path, *JOBS))
    assert found.repeated_rows == 1
    assert stream.previous is None  # each has its own id
    ids = stream.task_id.to_pylist()
    assert ids[1] < ids[2]  # the tie goes by code point


def test_what_a_job_asks_for_belongs_to_its_row(tmp_path):
    path = trace(tmp_path, *JOBS)
    whole = {o.task_id: o for o in map(read_philly(path)[0].offer, range(5))}
    part, found = read_philly(path, "6214e9")
    assert (len(part), found.rows) == (3, 5)
    assert all(whole[part.offer(i).task_id] == part.offer(i) for i in range(3))
    first, _ = read_philly(path, None, 2)
    assert first.offer(1).task_id in whole
    assert first.at_ms.tolist() == [1_506_671_912_000, 1_507_529_583_000]


def test_the_seed_is_fixed_and_can_be_changed(tmp_path):
    path = trace(tmp_path, *JOBS)
    ids = read_philly(path)[0].task_id.to_pylist()
    assert ids == read_philly(path)[0].task_id.to_pylist()
    assert ids[0] == "394c5de1-55a0-4321-81c3-a01ebb06c5ac"
    assert not set(ids) & set(read_philly(path, seed=1)[0].task_id.to_pylist())


def test_models_and_sizes_come_from_the_market_mix(tmp_path):
    jobs = [f"2017-10-09 07:{i // 60:02}:{i % 60:02},60,1,60,a" for i in range(3000)]
    stream, _ = read_philly(trace(tmp_path, *jobs))
    counts = {model.id: model.params for model in CATALOGUE}
    offers = [stream.offer(i) for i in range(len(stream))]
    assert all(counts[offer.model] == offer.model_params_count for offer in offers)
    images = [offer for offer in offers if offer.task_type == "ImageTask"]
    assert all(10 <= (offer.ds_size or 0) <= 50 for offer in images)
    assert {offer.ds_size for offer in offers if offer.task_type != "ImageTask"} == {100_000}
    assert abs(len(images) / 3000 - 0.35) < 4 * np.sqrt(0.35 * 0.65 / 3000)


def test_gzip_blank_lines_line_ends_mark_and_more_columns_make_no_difference(tmp_path):
    plain, _ = read_philly(trace(tmp_path, *JOBS))
    packed = tmp_path / "trace.csv.gz"
    packed.write_bytes(gzip.compress("\n".join([HEADER, *JOBS]).encode()))
    windows = trace(tmp_path, *JOBS, end="\r\n", name="windows.csv")
    marked = trace(tmp_path, "", *JOBS, "", header="\xef\xbb\xbf" + HEADER, name="marked.csv")
    more = trace(tmp_path, *(f"x,{j}" for j in JOBS), header=f"extra,{HEADER}", name="more.csv")
    for path in (packed, windows, marked, more):
        other, _ = read_philly(path)
        assert other.task_id.equals(plain.task_id)
        assert np.array_equal(other.at_ms, plain.at_ms)


@pytest.mark.parametrize("name", ["offers.jsonl", "offers.csv", "offers.parquet"])
def test_the_import_is_an_offers_file(tmp_path, name):
    path, out = trace(tmp_path, *JOBS), tmp_path / name
    found = import_philly(path, out, "6214e9", 2)
    assert found.offers == 2
    made, read = read_philly(path, "6214e9", 2)[0], read_offers(out)
    assert [read.offer(i) for i in range(2)] == [made.offer(i) for i in range(2)]
    assert np.array_equal(read.at_ms, made.at_ms)
    assert np.array_equal(read.train_ms, made.train_ms)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("2017-10-09 07:01:55,abc,1,1,a", "duration: found 'abc', allowed is a number of seconds"),
        ("2017-10-09 07:01:55,-1,1,1,a", "duration: found '-1', allowed is a number of seconds"),
        ("2017-10-09 07:01:55,nan,1,1,a", "duration: found 'nan'"),
        ("2017-10-09 07:01:55,inf,1,1,a", "duration: found 'inf'"),
        ("2017-10-09 07:01:55,,1,1,a", "duration: found ''"),
        (
            "2017-10-09 07:01:55,36000001,1,1,a",
            "duration: found '36000001', allowed is a number of seconds from 0 to 36000000",
        ),
        ("2017-10-09 07:01:55,1,x,1,a", "num_gpus: found 'x', allowed is a number of GPUs"),
        ("2017-10-09 07:01:55,1,1,x,a", "gpu_time: found 'x', allowed is GPU seconds"),
        ("2017-10-09 07:01:55,1,1,1, ", "cluster: found '', allowed is the id of a cluster"),
        ("09.10.2017 07:01,1,1,1,a", "timestamp: found '09.10.2017 07:01', allowed is a time like"),
        ("2017-02-30 07:01:55,1,1,1,a", "timestamp: found '2017-02-30 07:01:55'"),
        ("1969-12-31 23:59:59,1,1,1,a", "timestamp: found '1969-12-31 23:59:59'"),
        (",1,1,1,a", "timestamp: found ''"),
        ("2017-10-09 07:01:55,1,1", "line: found 3 fields, allowed is 5, as in the header"),
        ("2017-10-09 07:01:55,1,1,1,a,b", "line: found 6 fields, allowed is 5"),
        ("\x80\x02", "line: found bytes that are no plain text"),
        ("2017-10-09 07:01:55,1,1,1,a\0", "line: found bytes that are no plain text"),
        ("1" * 5000, "line: found over 4096 bytes in a line"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, row, told):
    # an empty line before it and another fault after it: neither moves the line that is told
    path = trace(tmp_path, *JOBS[:2], "", row, "2017-10-09 07:01:55,bad,1,1,a")
    assert refused(path).startswith(f":5: {told}")


def test_a_long_field_is_shown_in_part(tmp_path):
    path = trace(tmp_path, f"2017-10-09 07:01:55,{'7x' * 1000},1,1,a")
    assert len(refused(path)) < 200


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("timestamp,num_gpus,gpu_time,cluster", ":1: duration: found the columns 'timestamp, num"),
        (f"{HEADER},cluster", ":1: cluster: found the columns"),
        (f"{HEADER},x,x", ":1: x: found the columns"),
        ("", ":1: timestamp: found the columns ''"),
    ],
)
def test_a_wrong_header_is_explained(tmp_path, header, told):
    message = refused(trace(tmp_path, *JOBS, header=header))
    assert message.startswith(told)
    assert "timestamp, duration, num_gpus, gpu_time, cluster" in message


def test_files_that_hold_no_jobs(tmp_path):
    empty = tmp_path / "empty.csv"
    empty.touch()
    assert refused(empty).startswith(":1: timestamp: found the columns ''")
    assert refused(trace(tmp_path)) == (
        ":2: line: found the end of the file, allowed is at least one job"
    )
    assert refused(tmp_path / "none.csv") == ": cannot be read: no such file or directory"
    assert refused(tmp_path) == ": cannot be read: is a directory"


def test_gzip_that_is_none_or_damaged(tmp_path):
    named = trace(tmp_path, *JOBS, name="trace.csv.gz")
    assert refused(named).startswith(":1: file: found no gzip data")
    jobs = "\n".join([HEADER, *(JOBS * 500)]).encode()
    whole = gzip.compress(jobs)
    short = tmp_path / "short.csv.gz"
    short.write_bytes(whole[: len(whole) // 2])
    assert refused(short).startswith(": file: found damaged gzip data")
    spoilt = tmp_path / "spoilt.csv.gz"
    spoilt.write_bytes(whole[:-8] + bytes(8))  # the check sum
    assert refused(spoilt).startswith(": file: found damaged gzip data")
    inside = tmp_path / "inside.csv.gz"
    inside.write_bytes(whole[:20] + b"\xff" * 30 + whole[50:])
    assert refused(inside).startswith(": file: found damaged gzip data")


def test_an_unknown_cluster_names_those_that_exist(tmp_path):
    message = refused(trace(tmp_path, *JOBS), "philly")
    assert message == (
        ": cluster: found no job of 'philly', allowed is one of 6214e9, 11cb48, 6c71a0"
    )


def test_a_limit_below_one_is_refused(tmp_path):
    path = trace(tmp_path, *JOBS)
    with pytest.raises(InputError, match="--limit: found 0, allowed is a whole number of 1"):
        read_philly(path, limit=0)


def test_nothing_is_written_when_the_trace_is_wrong(tmp_path):
    out = tmp_path / "offers.jsonl"
    with pytest.raises(InputError):
        import_philly(trace(tmp_path, "x"), out)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["trace.csv"]


@pytest.mark.skipif(not SAMPLE.exists(), reason="the Philly trace is not at hand")
def test_the_real_trace():
    stream, found = read_philly(SAMPLE)
    assert (len(stream), found.repeated_rows) == (82_247, 65)
    assert stream.at_ms[0] == 1_504_521_041_000  # 2017-09-04 10:30:41
    assert stream.at_ms[-1] == 1_513_929_731_000  # 2017-12-22 08:02:11
    assert np.median(stream.hours) == pytest.approx(0.32, abs=0.005)
    assert np.sum(stream.hours > 72) == 805
    largest, _ = read_philly(SAMPLE, "6214e9")
    assert len(largest) == 41_226
