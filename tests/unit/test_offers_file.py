"""Offers files: what each format may hold, and where and how each fault is told."""

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import InputError
from shared.wire import ALLOWED
from sim import offers_csv, offers_file, offers_jsonl, offers_text
from sim.distinct import surely_distinct
from sim.offers_file import read_offers, write_offers
from sim.stream import OfferStream

DAY = 1_700_000_000_000


def row(index: int, **changes: object) -> dict[str, object]:
    return {
        "received_at": DAY + index * 1_000,
        "task_id": f"task-{index}",
        "model": f"org/m-{index % 3}b",
        "task_type": "DpoTask",
        "hours_to_complete": 8.5,
        "ds_size": 1_000 + index,
        "model_params_count": None,
        "train_hours": 9.25,
        **changes,
    }


ROWS = [row(index) for index in range(5)]
TEXT = ("task_id", "model", "task_type")


def json_lines(rows: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in rows)


def csv_cell(value: object) -> str:
    if value is None:
        return ""
    text = str(value)
    quoted = '"' + text.replace('"', '""') + '"'
    return quoted if any(sign in text for sign in ',"\r\n') else text


def csv_lines(rows: list[dict[str, object]], columns: tuple[str, ...] = tuple(ALLOWED)) -> bytes:
    lines = [",".join(columns)]
    lines += [",".join(csv_cell(one.get(name)) for name in columns) for one in rows]
    return ("\n".join(lines) + "\n").encode()


def put(path: Path, rows: list[dict[str, object]], **types: pa.DataType) -> Path:
    """Write rows in the format of the name; types: of Parquet columns."""
    if path.suffix == ".parquet":
        columns = {
            key: pa.array([one.get(key) for one in rows], types.get(key))
            for key in dict.fromkeys(key for one in rows for key in one)
        }
        pq.write_table(pa.table(columns), path)
    else:
        path.write_bytes(csv_lines(rows) if path.suffix == ".csv" else json_lines(rows))
    return path


def refusal(path: Path) -> str:
    """The one line told about a file, without the file's name, which must start it."""
    with pytest.raises(InputError) as caught:
        read_offers(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:")
    assert "\n" not in message
    return message.removeprefix(f"{path}:")


def at(suffix: str, index: int) -> str:
    """How the place of a row (from 0) begins a message."""
    return {".jsonl": f"{index + 1}", ".csv": f"{index + 2}", ".parquet": f" row {index + 1}"}[
        suffix
    ]


def same(one: OfferStream, other: OfferStream) -> bool:
    return (
        one.task_id.to_pylist() == other.task_id.to_pylist()
        and (one.model.names, one.task_type.names) == (other.model.names, other.task_type.names)
        and all(
            np.array_equal(a, b)
            for a, b in [
                (one.model.codes, other.model.codes),
                (one.task_type.codes, other.task_type.codes),
                *((getattr(one, key), getattr(other, key)) for key in NUMBERS),
            ]
        )
    )


NUMBERS = ("at_ms", "hours", "ds_size", "params", "train_ms")

every_format = pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
text_formats = pytest.mark.parametrize("suffix", [".jsonl", ".csv"])


@pytest.fixture(params=["fast", "exact"])
def way(request, monkeypatch):
    """Both ways through a block of text: by column, and line by line."""
    if request.param == "exact":
        monkeypatch.setattr(offers_jsonl, "read_fast", lambda *_: None)
        monkeypatch.setattr(offers_csv, "read_fast", lambda *_: None)
    return request.param


# ---- what is taken


@every_format
def test_reads_what_is_there(tmp_path, suffix, way):
    stream = read_offers(put(tmp_path / f"o{suffix}", ROWS[::-1]))
    assert stream.at_ms.tolist() == [one["received_at"] for one in ROWS]
    assert stream.task_id.to_pylist() == [one["task_id"] for one in ROWS]
    assert [stream.model[index] for index in range(5)] == [one["model"] for one in ROWS]
    assert [stream.task_type[index] for index in range(5)] == ["DpoTask"] * 5
    assert stream.hours.tolist() == [8.5] * 5
    assert stream.ds_size.tolist() == [1_000, 1_001, 1_002, 1_003, 1_004]
    assert stream.params.tolist() == [-1] * 5
    assert stream.train_ms.tolist() == [33_300_000] * 5


@every_format
def test_valid_files_take_the_fast_way(tmp_path, suffix, monkeypatch):
    def never(*_):
        raise AssertionError

    for module in (offers_jsonl, offers_csv, offers_file.read_parquet.__globals__):
        if isinstance(module, dict):
            monkeypatch.setitem(module, "read_exact", never)
        else:
            monkeypatch.setattr(module, "read_exact", never)
    iso = [row(0, received_at="2024-01-01T00:00:00.5Z", model='say "hi", you'), row(1)]
    iso[1]["received_at"] = "2024-01-01T00:00:00+01:00"
    assert len(read_offers(put(tmp_path / f"o{suffix}", ROWS))) == 5
    assert read_offers(put(tmp_path / f"p{suffix}", iso)).at_ms.tolist() == [
        1_704_063_600_000,
        1_704_067_200_500,
    ]


@every_format
def test_optional_columns_may_be_absent(tmp_path, suffix, way):
    short = [{k: v for k, v in one.items() if k not in ("ds_size", "train_hours")} for one in ROWS]
    path = tmp_path / f"o{suffix}"
    if suffix == ".csv":
        path.write_bytes(csv_lines(short, tuple(short[0])))
    else:
        put(path, short)
    stream = read_offers(path)
    assert stream.ds_size.tolist() == [-1] * 5
    assert stream.train_ms.tolist() == [30_600_000] * 5


@every_format
def test_nulls_among_numbers(tmp_path, suffix, way):
    rows = [row(0, ds_size=None), row(1, train_hours=None), row(2, model_params_count=7)]
    stream = read_offers(put(tmp_path / f"o{suffix}", rows))
    assert stream.ds_size.tolist() == [-1, 1_001, 1_002]
    assert stream.params.tolist() == [-1, -1, 7]
    assert stream.train_ms.tolist() == [33_300_000, 30_600_000, 33_300_000]


@every_format
def test_whole_floats_and_mixed_forms(tmp_path, suffix):
    rows = [row(0, ds_size=100_000.0), row(1, ds_size=2.0**53), row(2, hours_to_complete=8.0)]
    if suffix != ".parquet":
        rows[0]["received_at"] = "2024-01-01T00:00Z"  # a form arrow does not know, beside integers
    stream = read_offers(put(tmp_path / f"o{suffix}", rows, ds_size=pa.float64()))
    assert sorted(stream.ds_size.tolist()) == [1_002, 100_000, 2**53]


@text_formats
@pytest.mark.parametrize("change", ["bom", "crlf", "no end", "blank end", "spaces at end"])
def test_harmless_differences(tmp_path, suffix, change, way):
    path = put(tmp_path / f"o{suffix}", ROWS)
    plain, data = read_offers(path), path.read_bytes()
    path.write_bytes(
        {
            "bom": b"\xef\xbb\xbf" + data,
            "crlf": data.replace(b"\n", b"\r\n"),
            "no end": data[:-1],
            "blank end": data + b"\n \r\n\t\n",
            "spaces at end": data + b"   ",
        }[change]
    )
    assert same(read_offers(path), plain)


@pytest.mark.parametrize("name", ["o.json", "o.ndjson", "o.JSONL", "o.jsonl.gz"])
def test_other_names_for_json_lines(tmp_path, name):
    data = json_lines(ROWS)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert len(read_offers(tmp_path / name)) == 5


def test_csv_columns_in_any_order_and_quoted_cells(tmp_path, way):
    odd = [row(0, model='a "b", c'), row(1, model="two\r\nlines"), row(2, model=" x ")]
    path = tmp_path / "o.csv"
    path.write_bytes(csv_lines(odd, tuple(ALLOWED)[::-1]))
    stream = read_offers(path)
    assert [stream.model[index] for index in range(3)] == [one["model"] for one in odd]


def test_json_that_arrow_alone_would_misread(tmp_path):
    spread = json_lines(ROWS[:1])[:-1] + b" " + json_lines(ROWS[1:3]).replace(b"\n", b" \n")
    path = tmp_path / "o.jsonl"
    path.write_bytes(json_lines([row(9, model="{}"), row(8, model='\\"/é\U0001f600')]))
    assert read_offers(path).model.names == ('\\"/é\U0001f600', "{}")
    path.write_bytes(spread)
    assert refusal(path).startswith("1: found more after the object")


@pytest.mark.parametrize(
    ("key", "kind", "values"),
    [
        ("received_at", pa.timestamp("s", "UTC"), [0, 1]),
        ("received_at", pa.timestamp("ms", "Europe/Berlin"), [0, 1_999]),
        ("received_at", pa.timestamp("us", "UTC"), [1, 1_999_999]),
        ("received_at", pa.timestamp("ns", "UTC"), [1, 1_999_999_999]),
        ("received_at", pa.uint64(), [0, 1]),
        ("task_id", pa.large_string(), ["a", "b"]),
        ("task_id", pa.dictionary(pa.int8(), pa.string()), ["a", "b"]),
        ("model", pa.dictionary(pa.int64(), pa.large_string()), ["a", "b"]),
        ("model", pa.string_view(), ["a", "b"]),
        ("hours_to_complete", pa.int16(), [1, 2]),
        ("hours_to_complete", pa.float32(), [1.5, 2]),
        ("ds_size", pa.float64(), [1.0, None]),
        ("ds_size", pa.null(), [None, None]),
        ("train_hours", pa.int64(), [None, 1]),
    ],
)
def test_parquet_types_that_are_fine(tmp_path, key, kind, values):
    rows = [row(index, **{key: value}) for index, value in enumerate(values)]
    stream = read_offers(put(tmp_path / "o.parquet", rows, **{key: kind}))
    assert len(stream) == 2
    if pa.types.is_timestamp(kind):
        assert stream.at_ms.tolist() == [0, 1_000 if kind.unit == "s" else 1_999]


# ---- what is refused

WRONG = [
    ("received_at", -1, "-1"),
    ("received_at", None, "null"),
    ("received_at", "2024-01-01T00:00:00", '"2024-01-01T00:00:00"'),
    ("received_at", "yesterday", '"yesterday"'),
    ("received_at", 253_402_300_800_000, "253402300800000"),
    ("task_id", None, "null"),
    ("task_id", "x" * 65, '"' + "x" * 36 + "..."),
    ("model", None, "null"),
    ("model", "é" * 257, '"' + "\\u00e9" * 6 + "..."),
    ("task_type", "x" * 65, '"' + "x" * 36 + "..."),
    ("hours_to_complete", -2.5, "-2.5"),
    ("hours_to_complete", 0.0, "0"),
    ("hours_to_complete", None, "null"),
    ("hours_to_complete", float("nan"), "NaN"),
    ("hours_to_complete", float("inf"), "Infinity"),
    ("hours_to_complete", 10_000.5, "10000.5"),
    ("ds_size", -1, "-1"),
    ("ds_size", 1.5, "1.5"),
    ("ds_size", float("nan"), "NaN"),
    ("ds_size", 2**53 + 1, "9007199254740993"),
    ("model_params_count", -7, "-7"),
    ("model_params_count", float("inf"), "Infinity"),
    ("train_hours", -0.5, "-0.5"),
    ("train_hours", float("nan"), "NaN"),
    ("train_hours", float("-inf"), "-Infinity"),
    ("train_hours", 2e9, "2000000000.0"),
]


@every_format
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(("key", "value", "shown"), WRONG)
def test_a_wrong_value_is_told_by_line_and_key(tmp_path, suffix, alone, key, value, shown):
    rows = [row(index) for index in range(9)]
    if isinstance(value, str) and key == "received_at" and suffix == ".parquet":
        rows = [row(index, received_at=f"2024-01-0{index + 1}T00:00:00Z") for index in range(9)]
    rows[3][key] = value
    if not alone:
        rows[6]["model"] = ""  # a later fault is not told first
    message = refusal(put(tmp_path / f"o{suffix}", rows))
    if suffix == ".csv" and shown in ("NaN", "Infinity", "-Infinity"):
        shown = f'"{value}"'
    assert message.startswith(f"{at(suffix, 3)}: {key}: found {shown}")
    assert f", allowed is {ALLOWED[key]}" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("received_at", "1700000000000"),
        ("received_at", 1.7e12),
        ("received_at", True),
        ("task_id", 5),
        ("task_id", True),
        ("model", ["m"]),
        ("task_type", {"t": 1}),
        ("hours_to_complete", "8"),
        ("hours_to_complete", True),
        ("ds_size", "1"),
        ("ds_size", False),
        ("train_hours", "NaN"),
        ("model", ""),
        ("model", "\ud800"),
        ("task_id", "\udfff"),
    ],
)
def test_json_types_are_not_coerced(tmp_path, key, value):
    rows = [row(0), row(1, **{key: value}), row(2)]
    path = put(tmp_path / "o.jsonl", rows)
    assert refusal(path).startswith(f"2: {key}: found ")


@pytest.mark.parametrize(
    ("cell", "key"),
    [
        ("0x10", "received_at"),
        ("1e3", "received_at"),
        ("1.5", "received_at"),
        ("+5", "received_at"),
        ("0x10", "ds_size"),
        ("1_000", "ds_size"),
        ("true", "ds_size"),
        ("nan", "hours_to_complete"),
        ("inf", "train_hours"),
        ("1e400", "hours_to_complete"),
        ("8h", "hours_to_complete"),
        (" ", "ds_size"),
    ],
)
def test_csv_cells_that_are_no_number(tmp_path, cell, key):
    rows = [row(0), row(1, **{key: cell}), row(2)]
    assert refusal(put(tmp_path / "o.csv", rows)).startswith(f"3: {key}: found ")
    first = [row(1, **{key: cell}), row(2)]
    assert refusal(put(tmp_path / "p.csv", first)).startswith(f"2: {key}: found ")


@pytest.mark.parametrize(
    ("key", "kind", "value"),
    [
        ("received_at", pa.timestamp("ms"), 5),
        ("received_at", pa.float64(), 5.0),
        ("received_at", pa.date32(), 5),
        ("task_id", pa.int64(), 5),
        ("task_id", pa.binary(), b"a"),
        ("model", pa.null(), None),
        ("task_type", pa.list_(pa.string()), ["a"]),
        ("hours_to_complete", pa.string(), "8"),
        ("hours_to_complete", pa.bool_(), True),
        ("ds_size", pa.bool_(), True),
        ("train_hours", pa.string(), "8"),
    ],
)
def test_parquet_types_that_are_refused(tmp_path, key, kind, value):
    path = put(tmp_path / "o.parquet", [row(0, **{key: value})], **{key: kind})
    message = refusal(path)
    assert message.startswith(f" {key}: found a column of type ")
    assert message.endswith(f"allowed is {ALLOWED[key]}")


def test_parquet_strings_that_are_not_utf8(tmp_path):
    broken = pa.array([b"a", b"\xff", b"b"]).cast(pa.binary())
    for key in ("task_id", "model"):
        table = pa.table({**{k: [v] * 3 for k, v in row(0).items()}, "task_id": ["x", "y", "z"]})
        strings = pa.Array.from_buffers(pa.string(), 3, broken.buffers())
        table = table.set_column(table.column_names.index(key), key, strings)
        pq.write_table(table, tmp_path / "o.parquet")
        assert refusal(tmp_path / "o.parquet").startswith(
            f' row 2: {key}: found "\\udcff", allowed'
        )


def test_timestamps_out_of_range_in_parquet(tmp_path):
    rows = [row(0, received_at=0), row(1, received_at=-1), row(2, received_at=2**60)]
    path = put(tmp_path / "o.parquet", rows, received_at=pa.timestamp("us", "UTC"))
    assert refusal(path).startswith(" row 2: received_at: found -1, allowed")
    rows[1] = row(1, received_at=None)
    path = put(tmp_path / "o.parquet", rows, received_at=pa.timestamp("us", "UTC"))
    assert refusal(path).startswith(" row 2: received_at: found null, allowed")


def test_unknown_and_double_keys(tmp_path):
    path = put(tmp_path / "o.jsonl", [row(0), row(1, colour=1)])
    assert refusal(path).startswith("2: colour: found an unknown key, allowed are received_at, ")
    path.write_bytes(json_lines(ROWS)[:-2] + b', "model": "again"}\n')
    assert refusal(path).startswith("5: model: found the key twice, allowed is once")
    path.write_bytes(json_lines(ROWS)[:-2] + b', "mod\\u0065l": "again"}\n')
    assert refusal(path).startswith("5: model: found the key twice, allowed is once")
    path.write_bytes(json_lines([ROWS[0], {k: v for k, v in ROWS[1].items() if k != "model"}]))
    assert refusal(path).startswith("2: model: found nothing, allowed is text")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_wrong_columns(tmp_path, suffix):
    def told(columns: list[str]) -> str:
        path = tmp_path / f"o{suffix}"
        if suffix == ".csv":
            path.write_bytes(csv_lines(ROWS, tuple(columns)))
            return refusal(path).removeprefix("1")
        arrays = [pa.array([one.get(key) for one in ROWS]) for key in columns]
        pq.write_table(pa.table(arrays, names=columns), path)
        return refusal(path)

    names = list(ALLOWED)
    assert 'found the column "colour", allowed are received_at' in told([*names, "colour"])
    assert "model: found the column twice, allowed is once" in told([*names, "model"])
    assert "task_id: found no such column, allowed to be left out are ds_size" in told(
        [name for name in names if name != "task_id"]
    )


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"1,a,m\n", "3: found 3 cells, allowed are the 8 of the header"),
        (b"1,a,m,t,8,1,1,1,1\n", "3: found 9 cells, allowed are the 8 of the header"),
        (b'1,a"b,m,t,8,1,1,1\n', "3: found a stray or unclosed quote"),
        (b'1,"a"b,m,t,8,1,1,1\n', "3: found a stray or unclosed quote"),
        (b'1,"a,m,t,8,1,1,1\n', "3: found a stray or unclosed quote"),
        (b"1,a\rb,m,t,8,1,1,1\n", "3: found a stray or unclosed quote, or a bare carriage"),
        (b"1,\xff,m,t,8,1,1,1\n", "3: found bytes that are not UTF-8"),
        (b"\n", "3: found an empty line, allowed are empty lines at the end only"),
    ],
)
def test_broken_csv_records(tmp_path, broken, message):
    lines = csv_lines(ROWS).splitlines(keepends=True)
    path = tmp_path / "o.csv"
    path.write_bytes(b"".join([*lines[:2], broken, *lines[2:]]))
    assert refusal(path).startswith(message)


def test_csv_lines_count_through_quoted_line_ends(tmp_path):
    rows = [row(0, model="a\nb\nc"), row(1), row(2, hours_to_complete=-1)]
    assert refusal(put(tmp_path / "o.csv", rows)).startswith("6: hours_to_complete: found -1,")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"null\n", "3: found null, allowed is one JSON object a line"),
        (b"[]\n", "3: found a list"),
        (b"\n", "3: found an empty line, allowed are empty lines at the end only"),
        (b" \t\r\n", "3: found an empty line"),
        (b"\x00\x01\x02\n", "3: found no valid JSON"),
        (b"\xff\xfe\n", "3: found bytes that are not UTF-8"),
        (b"{'a': 1}\n", "3: found no valid JSON"),
        (json_lines([row(7)])[:-1] + json_lines([row(8)]), "3: found more after the object"),
        (json_lines([row(7)])[:-1] + b" null " + json_lines([row(8)]), "3: found more after"),
        (json_lines([row(7)]).replace(b", ", b",\n", 1), "3: found no valid JSON"),
        (json_lines([row(7)]).replace(b"8.5", b"08.5"), "3: found no valid JSON"),
        (json_lines([row(7, model="a")]).replace(b'"a"', b'"\xff"'), "3: found bytes that are not"),
        (json_lines([row(7, model="a")]).replace(b'"a"', b'"a\tb"'), "3: found no valid JSON"),
        (b"[" * 100_000 + b"\n", "3: found values nested too deep"),
    ],
)
def test_broken_json_lines(tmp_path, broken, message):
    path = tmp_path / "o.jsonl"
    path.write_bytes(json_lines(ROWS[:2]) + broken + json_lines(ROWS[2:]))
    assert refusal(path).startswith(message)


def test_two_faults_that_keep_the_count_of_lines(tmp_path):
    two = json_lines([row(7)])[:-1] + json_lines([row(8)])
    spread = json_lines([row(9)]).replace(b", ", b",\n", 1)
    path = tmp_path / "o.jsonl"
    path.write_bytes(json_lines(ROWS[:2]) + spread + two)
    assert refusal(path).startswith("3: found no valid JSON")
    path.write_bytes(json_lines(ROWS[:2]) + two + spread)
    assert refusal(path).startswith("3: found more after the object")


@text_formats
def test_truncated_last_line(tmp_path, suffix):
    path = put(tmp_path / f"o{suffix}", ROWS)
    path.write_bytes(path.read_bytes()[:-25])
    assert refusal(path).startswith(f"{at(suffix, 4)}: found a truncated last line: found ")


@every_format
def test_no_offers(tmp_path, suffix):
    path = tmp_path / f"o{suffix}"
    path.write_bytes(b"")
    assert refusal(path).startswith(" found no ")
    if suffix == ".parquet":
        put(path, ROWS)
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    else:
        path.write_bytes(csv_lines([]) if suffix == ".csv" else b"\n\n")
    assert refusal(path) == " found no offers, allowed is one or more"


@every_format
def test_files_that_cannot_be_read(tmp_path, suffix):
    path = tmp_path / f"o{suffix}"
    assert refusal(path) == " found no such file or directory, allowed is a readable offers file"
    path.mkdir()
    assert refusal(path) == " found is a directory, allowed is a readable offers file"


@every_format
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read(tmp_path, suffix):
    path = put(tmp_path / f"o{suffix}", ROWS)
    path.chmod(0)
    assert refusal(path) == " found permission denied, allowed is a readable offers file"


@every_format
def test_binary_files(tmp_path, suffix):
    path = tmp_path / f"o{suffix}"
    path.write_bytes(bytes(range(256)) * 64)
    assert "found" in refusal(path)
    path.write_bytes(bytes(3 << 20))
    assert "found" in refusal(path)


def test_names_that_say_no_format(tmp_path):
    for name in ("o.txt", "o", "o.gz", "o.parquet.gz", "o.jsonl.zip"):
        assert refusal(tmp_path / name).startswith(f' found the name "{name}", allowed are names')


@pytest.mark.parametrize("damage", ["cut", "no gzip", "bits"])
def test_damaged_gzip(tmp_path, damage):
    packed = bytearray(gzip.compress(json_lines([row(index) for index in range(100)])))
    if damage == "bits":
        packed[40:60] = bytes(20)
    path = tmp_path / "o.jsonl.gz"
    path.write_bytes({"cut": packed[:-20], "no gzip": b"hello", "bits": packed}[damage])
    assert refusal(path).startswith(" found a damaged gzip file (")


def test_damaged_parquet(tmp_path):
    path = put(tmp_path / "o.parquet", [row(index) for index in range(1_000)])
    data = bytearray(path.read_bytes())
    data[50:2_000] = bytes(1_950)
    for damaged in (data, data[:-9], b"PAR1", b"PAR1" + b"x" * 99 + b"PAR1"):
        path.write_bytes(damaged)
        assert refusal(path).startswith(" found no whole Parquet file (")


@text_formats
@pytest.mark.parametrize("place", ["first", "last", "valid", "unended"])
def test_long_lines(tmp_path, suffix, place):
    good = put(tmp_path / f"g{suffix}", ROWS).read_bytes()
    head, last = good[: good[:-1].rindex(b"\n") + 1], good[good[:-1].rindex(b"\n") + 1 :]
    path = tmp_path / f"o{suffix}"
    long, room = b"x" * (3 << 20), b" " * (1 << 20)
    path.write_bytes(
        {
            "first": long + b"\n" + good,
            "last": good + long + b"\n",
            # JSON allows it within an object, and CSV beside a number
            "valid": head + (room + last if suffix == ".csv" else b"{" + room + last[1:]),
            "unended": good + long * 4,
        }[place]
    )
    line = {"first": 1, "valid": good.count(b"\n")}.get(place, good.count(b"\n") + 1)
    assert refusal(path) == f"{line}: found a line of over 1048576 bytes, allowed is 1048576"


def test_two_gigabytes_in_a_line(tmp_path):
    path = tmp_path / "o.jsonl"
    path.write_bytes(json_lines(ROWS) + b'{"task_id": "')
    os.truncate(path, 2 << 30)  # NULs without end, no bytes on disk
    code = (
        "import sys, pathlib; from sim.offers_file import read_offers\n"
        "try: read_offers(pathlib.Path(sys.argv[1]))\n"
        "except ValueError as wrong: print(wrong)\n"
        "status = pathlib.Path('/proc/self/status').read_text().split()\n"
        "print(status[status.index('VmHWM:') + 1])"  # getrusage counts the parent before exec
    )
    start = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    message, peak_kb = run.stdout.splitlines()
    assert message.startswith(f"{path}:6: found a line of over 1048576 bytes")
    assert int(peak_kb) < 1_000_000
    assert time.monotonic() - start < 10


# ---- the same task twice


@every_format
@pytest.mark.parametrize("gap", [0, 1, 60_000])
def test_a_task_offered_again_within_a_minute(tmp_path, suffix, gap):
    rows = [row(9, received_at=DAY + 500_000 + gap), *ROWS, row(9, received_at=DAY + 500_000)]
    first = f"row {1}" if suffix == ".parquet" else f"line {at(suffix, 0)}"
    assert refusal(put(tmp_path / f"o{suffix}", rows)) == (
        f'{at(suffix, 6)}: task_id: found "task-9" {gap} ms from {first}, '
        "allowed is the same task again after more than 60000 ms"
    )


def test_repeats_after_a_quoted_line_end_are_told_by_line(tmp_path):
    rows = [row(0, model="a\nb"), row(1), row(2), row(1)]
    assert refusal(put(tmp_path / "o.csv", rows)).startswith(
        '6: task_id: found "task-1" 0 ms from line 4,'
    )


def test_a_bare_return_and_a_quoted_line_end_do_not_cancel_out(tmp_path):
    lines = csv_lines([row(0), row(1), row(2), row(3, model="a\nb")]).split(b"\n", 3)
    path = tmp_path / "o.csv"
    path.write_bytes(b"\n".join(lines[:3]) + b"\r" + lines[3])
    assert refusal(path).startswith("3: found a stray or unclosed quote, or a bare carriage return")


@every_format
def test_a_later_repeat_is_a_retry(tmp_path, suffix):
    rows = [*ROWS, row(2, received_at=DAY + 2_000 + 60_001), row(2, received_at=DAY + 200_000)]
    stream = read_offers(put(tmp_path / f"o{suffix}", rows))
    assert stream.task_id.to_pylist()[-2:] == ["task-2", "task-2"]


def test_the_first_repeat_of_the_file_is_told(tmp_path):
    rows = [row(1), row(2), row(3), row(2), row(1)]
    path = put(tmp_path / "o.jsonl", rows)
    assert refusal(path).startswith('4: task_id: found "task-2" 0 ms from line 2')
    path = put(tmp_path / "o.jsonl", [*rows, row(5, model="")])
    assert refusal(path).startswith("6: model: ")  # a line wrong by itself comes first


def test_strings_are_told_apart():
    many = pa.array([f"task-{index}" for index in range(10_000)])
    assert surely_distinct(many)
    assert surely_distinct(many.cast(pa.large_string()).slice(7))
    assert surely_distinct(many.slice(0, 1))
    assert not surely_distinct(pa.concat_arrays([many, pa.array(["task-77"])]))
    uuids = pa.array([f"{index:036d}" for index in range(1_000)])
    assert surely_distinct(uuids.slice(3))
    assert not surely_distinct(pa.concat_arrays([uuids, uuids.slice(500, 1)]))
    assert not surely_distinct(pa.array(["a", "a "]))  # it cannot tell; who asks looks closer
    assert not surely_distinct(pa.array(["a" * 300, "b"]))


# ---- blocks


@text_formats
@pytest.mark.parametrize("size", [1, 7, 100, 150, 1_000])
def test_blocks_of_any_size_give_the_same(tmp_path, suffix, size, monkeypatch):
    rows = [row(index, model=f'a "{index}"\nb') for index in range(20)]
    good = put(tmp_path / f"g{suffix}", rows)
    bad = put(tmp_path / f"b{suffix}", [*rows, row(30, ds_size=-1), row(31)])
    blank = tmp_path / f"c{suffix}"
    blank.write_bytes(good.read_bytes() + b"\n" * 30 + b"x\n")
    ends = tmp_path / f"e{suffix}"
    ends.write_bytes(good.read_bytes() + b"\n" * 300)
    before = [read_offers(good), refusal(bad), refusal(blank)]
    monkeypatch.setattr(offers_text, "BLOCK_BYTES", size)
    assert same(read_offers(good), before[0])
    assert same(read_offers(ends), before[0])
    assert [refusal(bad), refusal(blank)] == before[1:]
    assert "found an empty line" in before[2]


def test_a_mark_within_the_file_is_no_byte_order_mark(tmp_path, monkeypatch):
    lines = csv_lines([row(0), row(1)], ("task_id", *[k for k in ALLOWED if k != "task_id"]))
    head, one, two = lines.splitlines(keepends=True)
    path = tmp_path / "o.csv"
    path.write_bytes(head + one + b"\xef\xbb\xbf" + two)
    monkeypatch.setattr(offers_text, "BLOCK_BYTES", len(head + one))
    assert read_offers(path).task_id.to_pylist() == ["task-0", "\ufefftask-1"]


def test_a_fault_far_into_a_parquet_file(tmp_path):
    rows = [row(index) for index in range(70_000)]
    rows[69_000]["ds_size"] = -5
    path = put(tmp_path / "o.parquet", rows)
    assert refusal(path).startswith(" row 69001: ds_size: found -5")


# ---- writing


@pytest.mark.parametrize("name", ["o.jsonl", "o.csv", "o.parquet", "o.jsonl.gz", "o.csv.gz"])
def test_written_offers_read_the_same(tmp_path, name):
    odd = [row(7, model='q"\\,\n', task_id="é\U0001f600\x7f\x01", ds_size=0, train_hours=1e-7)]
    stream = read_offers(put(tmp_path / "in.jsonl", [*ROWS, *odd]))
    write_offers(stream, tmp_path / name)
    assert same(read_offers(tmp_path / name), stream)
    first = (tmp_path / name).read_bytes()
    assert not name.endswith("gz") or first[4:8] == bytes(4)  # no time of writing in it
    write_offers(stream, tmp_path / name)
    assert (tmp_path / name).read_bytes() == first
    assert [path.name for path in sorted(tmp_path.iterdir())] == sorted(["in.jsonl", name])


@every_format
def test_an_interrupted_write_leaves_what_was_there(tmp_path, suffix, monkeypatch):
    stream = read_offers(put(tmp_path / "in.jsonl", ROWS))
    path = tmp_path / f"o{suffix}"
    path.write_bytes(b"before")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sim.offers_write.hours_of", stop)
    with pytest.raises(KeyboardInterrupt):
        write_offers(stream, path)
    assert path.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 2


def test_places_that_cannot_be_written(tmp_path):
    stream = read_offers(put(tmp_path / "in.jsonl", ROWS))
    with pytest.raises(InputError, match="found the name"):
        write_offers(stream, tmp_path / "o.txt")
    with pytest.raises(InputError, match=f"^{tmp_path}/none/o.csv: "):
        write_offers(stream, tmp_path / "none" / "o.csv")


def test_reading_needs_no_pandas():
    code = "import sys, sim.offers_file; print('pandas' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
