"""Offers files, whatever they hold: one reading whichever way, format, order or block size."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.errors import InputError
from shared.units import hours_to_ms
from shared.wire import ALLOWED, MAX_MS, OfferLine
from sim import offers_csv, offers_jsonl
from sim.distinct import surely_distinct
from sim.offers_checks import checked, hours_to_ms_column, joined, rows_of
from sim.offers_file import read_offers, write_offers
from sim.offers_jsonl import read_exact, read_fast
from sim.offers_text import Block
from sim.offers_write import hours_of
from sim.stream import OfferStream, in_handling_order

# any character that UTF-8 can hold
characters = st.characters(exclude_categories=["Cs"])
counts = st.none() | st.integers(0, 2**53) | st.integers(0, 10**6).map(float)

valid = st.fixed_dictionaries(
    {
        "received_at": st.integers(0, MAX_MS)
        | st.sampled_from(["2024-02-29T23:59:59.9999Z", "2024-01-01 00:00:00+05:30"]),
        "task_id": st.text(characters, min_size=1, max_size=64),
        "model": st.text(characters, min_size=1, max_size=20) | st.just("org/m-7b"),
        "task_type": st.sampled_from(["DpoTask", "ImageTask"]),
        "hours_to_complete": st.floats(0, 10_000, exclude_min=True) | st.integers(1, 10_000),
    },
    optional={
        "ds_size": counts,
        "model_params_count": counts,
        "train_hours": st.none() | st.floats(0, 1e9),
    },
)
anything = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=70)
    | st.sampled_from(["2024-01-01T00:00:00", "1700000000", "2024-01-01T24:00:00Z", [], {}])
    | st.sampled_from([2**53, 2**53 + 1, -0.0, 1e4, 1e9, 10_000.000001, MAX_MS, MAX_MS + 1])
)


@st.composite
def json_line(draw) -> bytes:
    """A line: mostly a valid offer, else one with a wrong value, key or form."""
    fields = draw(valid)
    fault = draw(st.sampled_from(["none", "none", "none", "value", "unknown", "missing", "bytes"]))
    if fault == "value":
        fields[draw(st.sampled_from(list(ALLOWED)))] = draw(anything)
    if fault == "unknown":
        fields[draw(st.text(max_size=5))] = 1
    if fault == "missing":
        del fields[draw(st.sampled_from(sorted(fields)))]
    line = json.dumps(fields, ensure_ascii=draw(st.booleans()))
    text = line.encode("utf-8", "surrogatepass")
    if fault == "bytes":
        at = draw(st.integers(0, len(text)))
        new = draw(st.sampled_from([b"", b" ", b"\r", b"\t", b"\x00", b"\xff", b"}", b"{", b"null",
                                    b'"', b",", b"\\", b"0", b"-", b"NaN", b"1e400", b'"model":1,',
                                    b'"ds_size":null,', text]))  # fmt: skip
        text = text[:at] + new + text[at + draw(st.integers(0, 3)) :]
    return text.replace(b"\n", b" ") + draw(st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b" \n"]))


def outcome(read, *arguments) -> object:
    """What reading gives: every value, or the message."""
    try:
        rows = read(*arguments)
    except InputError as wrong:
        return str(wrong)
    stream, where = joined([rows])
    return as_lists(stream), where.tolist()


def as_lists(stream: OfferStream) -> tuple[object, ...]:
    return (
        stream.at_ms.tolist(),
        stream.task_id.to_pylist(),
        [stream.model[index] for index in range(len(stream))],
        [stream.task_type[index] for index in range(len(stream))],
        stream.hours.tolist(),
        stream.ds_size.tolist(),
        stream.params.tolist(),
        stream.train_ms.tolist(),
        stream.model.names,
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(json_line(), min_size=1, max_size=4))
def test_columns_never_take_json_that_pydantic_refuses(lines):
    block = Block(1, b"".join(lines))
    fast = read_fast(block)
    if fast is not None:
        assert outcome(lambda: fast) == outcome(read_exact, block, Path("f"))


@settings(max_examples=100, deadline=None)
@given(st.lists(json_line(), min_size=1, max_size=6), st.integers(20, 600))
def test_first_bad_line_whichever_way_and_block_size(lines, size):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "o.jsonl")
        path.write_bytes(b"".join(lines))
        told = outcome_of_file(path)
        with mock.patch("sim.offers_text.BLOCK_BYTES", size):
            assert outcome_of_file(path) == told
        with mock.patch.object(offers_jsonl, "read_fast", return_value=None):
            assert outcome_of_file(path) == told


def outcome_of_file(path: Path) -> object:
    try:
        return as_lists(read_offers(path))
    except InputError as wrong:
        return str(wrong)


cells = st.one_of(
    st.sampled_from(["", "0", "1", " 1", "1\t", "01", "+1", "-1", "1.", ".5", "1e3", "1E+5", "-0",
                     "0x10", "0X1f", "nan", "inf", "1e400", "1_0", "true", "٣", "8.25",
                     "2024-01-01T00:00:00Z", "2024-01-01", "9007199254740993", "\x0b1", "1\x0c",
                     '"1"', '""', '" 1 "', '"a""b"', 'a"b', '"a"b', '"a"b"c"', '"""a"', '"a', 'a"',
                     '"x\ny"', '"x\r\ny"', "a\rb", " a ", "\ufeffa", "a\x00b", "'a'", "a\\",
                     "null"]),
    st.integers(0, MAX_MS).map(str),
    st.floats(0, 10_000).map(str),
    st.text(max_size=5),
)  # fmt: skip
right = {
    "received_at": st.integers(0, MAX_MS).map(str),
    "task_id": st.text(
        st.characters(exclude_characters='",\r\n', exclude_categories=["Cs"]), min_size=1
    ),
    "hours_to_complete": st.floats(0.01, 10_000).map(str),
}  # fmt: skip


@st.composite
def csv_record(draw) -> bytes:
    """A record: mostly right, else with any text in the place of some cells."""
    record = [
        draw(right.get(name, st.just("7")))
        if draw(st.integers(0, 11)) or not draw(st.booleans())
        else draw(cells)
        for name in ALLOWED
    ]
    ragged = draw(st.sampled_from([0] * 20 + [1, -1]))
    record = record[:-1] if ragged < 0 else [*record, "1"][: len(record) + ragged]
    text = ",".join(record) + draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    return text.encode("utf-8", "surrogateescape")


@settings(max_examples=300, deadline=None)
@given(st.lists(csv_record(), min_size=1, max_size=4))
@example([b'1,",",m",t,8,1,1,1\n'])
@example([b'1,a"\n', b'b",m,t,8,1,1,1\n'])
def test_columns_never_take_csv_that_pydantic_refuses(records):
    block = Block(2, b"".join(records))
    if not block.data.endswith(b"\n"):
        block = Block(2, block.data + b"\n")
    header = list(ALLOWED)
    fast = offers_csv.read_fast(block, header)
    if fast is not None:
        assert outcome(lambda: fast) == outcome(offers_csv.read_exact, block, header, Path("f"))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["hours_to_complete", "ds_size", "model_params_count", "train_hours"]),
    st.lists(st.none() | st.floats() | st.integers(0, 2**54).map(float), min_size=1, max_size=4),
)
def test_columns_never_take_numbers_that_pydantic_refuses(key, values):
    base = {"received_at": 1, "task_id": "a", "model": "m", "task_type": "t",
            "hours_to_complete": 1.0}  # fmt: skip
    table = pa.table(
        {name: [value] * len(values) for name, value in base.items()}
        | {key: pa.array(values, pa.float64())}
    )
    fast = checked(table, np.arange(len(values)))
    if fast is not None:
        offers = [OfferLine.model_validate(base | {key: value}) for value in values]
        assert outcome(lambda: fast) == outcome(rows_of, offers, range(len(values)))


def stream_of(lines: list[dict[str, object]]) -> OfferStream:
    """A stream of these offers, times and ids made distinct enough to be allowed."""
    offers = [
        OfferLine.model_validate(one | {"task_id": f"{index}{one['task_id']}"[:64]})
        for index, one in enumerate(lines)
    ]
    return in_handling_order(joined([rows_of(offers, range(len(offers)))])[0])


@settings(max_examples=40, deadline=None)
@given(st.lists(valid, min_size=1, max_size=8), st.randoms(use_true_random=False))
@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet", "csv.gz"])
def test_written_then_read_is_the_same(ending, lines, random):
    stream = stream_of(lines)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"o.{ending}")
        write_offers(stream, path)
        assert as_lists(read_offers(path)) == as_lists(stream)
        if ending == "jsonl":
            shuffled = path.read_bytes().splitlines(keepends=True)
            random.shuffle(shuffled)
            path.write_bytes(b"".join(shuffled))
            assert as_lists(read_offers(path)) == as_lists(stream)


@settings(deadline=None)
@given(st.integers(0, 3_600_000_000_000_000))
@example(3_599_999_999_999_999)
@example(2_251_799_813_685_249)
def test_train_hours_give_their_milliseconds_back(train_ms):
    hours = hours_of(np.array([train_ms], dtype=np.int64))
    assert hours_to_ms(float(hours[0])) == train_ms
    assert 0 <= hours[0] <= 1e9


@settings(max_examples=500, deadline=None)
@given(st.floats(0, 1e9) | st.integers(0, 10**12).map(lambda half: (half + 0.5) / 3_600_000))
@example(0.5 / 3_600_000)
@example(1.5 / 3_600_000)
def test_hours_round_alike_one_by_one_and_by_column(hours):
    assert hours_to_ms_column(np.array([hours])).tolist() == [hours_to_ms(hours)]


@given(st.lists(st.text("ab é\x00", max_size=5), max_size=6))
def test_distinct_means_distinct(texts):
    column = pa.array(texts, pa.string())
    if surely_distinct(column):
        assert len(set(texts)) == len(texts)


@given(st.lists(valid, min_size=2, max_size=6), st.integers(0, 70_000), st.data())
@settings(deadline=None)
def test_a_repeat_within_a_minute_is_found_wherever_it_stands(lines, gap, data):
    stream = stream_of(lines)
    at_ms = np.minimum(stream.at_ms, MAX_MS - 70_000)
    twice = data.draw(st.integers(0, len(stream) - 1))
    order = np.array([*range(len(stream)), twice])
    both = in_handling_order(
        replace(
            stream,
            at_ms=np.append(at_ms, at_ms[twice] + gap),
            task_id=stream.task_id.take(pa.array(order)),
            model=stream.model.taken(order),
            task_type=stream.task_type.taken(order),
            **{
                key: getattr(stream, key)[order]
                for key in ("hours", "ds_size", "params", "train_ms")
            },
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "o.jsonl")
        write_offers(both, path)
        if gap > 60_000:
            assert len(read_offers(path)) == len(both)
        else:
            with pytest.raises(InputError, match=rf"task_id: .* {gap} ms from line "):
                read_offers(path)
