"""From a file of rows, however bad, to the two files that a trainer reads."""

import csv
import gzip
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from live.training import data as data_module
from live.training import raw as raw_module
from live.training.data import HELD_OUT, RAW, TRAIN, DataLimits, DataRecord, prepare
from live.training.fetch import Fetched, FetchFailed
from live.training.read import Table, read, read_shards
from live.training.rows import CHAT, DPO, EXAMPLES, GRPO, INSTRUCT, examples, filled
from live.training.split import split
from live.training.store import CHUNK_ROWS
from live.training.table import ReadLimits
from shared.errors import InputError

COLUMNS = {"field_instruction": "q", "field_output": "a"}
SMALL = ReadLimits(row_bytes=200, early_rows=50)


def idle() -> None:
    """A sign of life that nobody sees."""


def table_of(folder: Path, content: bytes | str, limits: ReadLimits = SMALL) -> Table:
    path = folder / "rows"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(path, limits)


def rows_of(folder: Path, content: bytes | str) -> list[dict[str, Any]]:
    return [row for _, row in table_of(folder, content)]


def prepared(
    folder: Path,
    content: bytes | str,
    told: dict[str, Any] | str = COLUMNS,
    task_type: str = INSTRUCT,
    limits: ReadLimits = SMALL,
    **more: Any,
) -> DataRecord:
    path = folder / "rows"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    request = {"dataset": str(path), "dataset_type": told, "file_format": "json"}
    bounds = DataLimits(read=limits)
    return prepare(request, task_type, folder, limits=bounds, local_files=True, beat=idle, **more)


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def written(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    parts = [pq.read_table(folder / "data" / name).to_pylist() for name in (TRAIN, HELD_OUT)]
    return parts[0], parts[1]


# Reading.

GOOD = [{"q": f'é {number}\n, "x"', "a": "😀" * 3, "n": "1"} for number in range(30)]


def as_csv(rows: list[dict[str, Any]], mark: str = ",") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=mark)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("json", json.dumps(GOOD)),
        ("json", json.dumps(GOOD, ensure_ascii=False, indent=2)),
        ("json", "\ufeff \n" + json.dumps(GOOD)),
        ("jsonl", lines(GOOD)),
        ("jsonl", "\ufeff" + lines(GOOD).replace("\n", "\r\n\r\n")),
        ("csv", as_csv(GOOD)),
        ("csv", "\ufeff" + as_csv(GOOD, "\t")),
        ("csv", as_csv(GOOD, ";")),
        ("parquet", as_parquet(GOOD)),
    ],
)
def test_the_content_tells_what_a_file_is(tmp_path: Path, kind: str, content: bytes | str) -> None:
    table = table_of(tmp_path, content)
    assert table.kind == kind
    assert [row for _, row in table] == GOOD
    assert (table.seen.faults.total, table.seen.cut) == (0, "")
    assert list(table.seen.columns) == ["q", "a", "n"]


def test_a_list_larger_than_what_is_held_of_it_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("live.training.text_rows.BLOCK_CHARS", 7)
    assert rows_of(tmp_path, json.dumps(GOOD, indent=3)) == GOOD
    assert [number for number, _ in table_of(tmp_path, "[1234567890123, {}]")] == [2]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04zip", "a zip archive"),
        (gzip.compress(b'{"q": 1}'), "gzip"),
        (pickle.dumps({"q": 1}), "a pickle"),
        ('[{"q": 1}]'.encode("utf-16"), "UTF-16"),
        (b"", "nothing"),
        (b"\xef\xbb\xbf \n", "nothing"),
        (b"<html>", "a page of markup"),
        (b"q,a\n\x00\x01", "bytes that are no text"),
        (b"PAR1PAR1", "no readable Parquet"),
        (as_parquet(GOOD)[:-9], "no readable Parquet"),
        (as_parquet(GOOD)[:300] + b"\x00" * 99 + as_parquet(GOOD)[300:], "no readable Parquet"),
    ],
)
def test_other_files_are_refused_in_a_line(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(InputError, match=f"rows: found {what}") as refused:
        rows_of(tmp_path, content)
    assert "\n" not in str(refused.value)


def test_a_file_over_its_bound_or_none_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 30 bytes, allowed are 29"):
        table_of(tmp_path, "q" * 30, ReadLimits(most_bytes=29))
    with pytest.raises(InputError, match="found no file"):
        read(tmp_path, SMALL)
    with pytest.raises(InputError, match="found no file"):
        read(tmp_path / "none", SMALL)


def faults(table: Table) -> tuple[list[int], dict[str, tuple[int, int]]]:
    return [number for number, _ in table], table.seen.faults.by_reason


DEEP = '{"q":' + "[" * 5_000 + "]" * 5_000 + "}"


def test_bad_lines_are_counted_with_the_first_of_them(tmp_path: Path) -> None:
    bad = ['{"q": 1', "[1]", '{"q": "' + "x" * 300 + '"}', "nul", "", '"text"', DEEP]
    good = '{"q": NaN, "q": Infinity, "n": ' + "9" * 90 + ', "f": 1e999}'
    wide = ReadLimits(row_bytes=20_000)
    table = table_of(tmp_path, "\n".join(['{"a": 1}', *bad, good, good]), wide)
    assert faults(table) == (
        [1, 4, 9, 10],
        {"no valid JSON": (2, 2), "no object": (2, 3), "nested too deep": (1, 8)},
    )
    table = table_of(tmp_path, "\n".join(['{"a": 1}', *bad, good, good]))
    numbers, reasons = faults(table)
    assert numbers == [1, 9, 10]
    assert reasons["too long"] == (2, 4)


def test_a_number_of_thousands_of_digits_is_text(tmp_path: Path) -> None:
    digits = "7" * 6_000
    for content in (f'{{"q": {digits}}}\n', f'[{{"q": {digits}}}]'):
        table = table_of(tmp_path, content, ReadLimits())
        assert [row for _, row in table] == [{"q": digits}]


def test_bytes_that_are_no_utf8_spoil_their_row_alone(tmp_path: Path) -> None:
    rows = b'{"q": "\xff", "a": "x"}\n{"q": "y", "a": "\\ud800"}\n{"q": "y", "a": "z"}\n'
    record = prepared(tmp_path, rows * 1, limits=ReadLimits(most_bad_share=0.9))
    assert {reason: (bad.count, bad.first) for reason, bad in record.bad.items()} == {
        'not UTF-8 in "q"': (1, 1),
        'not UTF-8 in "a"': (1, 2),
    }
    assert record.usable == 1


@pytest.mark.parametrize(
    ("content", "numbers", "reason", "first"),
    [
        ('[{"q": 1}, {"q": 2}, {"q" 3}, {"q": 4}]', [1, 2], "no valid JSON", 3),
        ('[{"q": 1}, {"q": 2}, {"q": ', [1, 2], "no valid JSON", 3),
        ('[{"q": 1}, {"q": 2}', [1, 2], "no valid JSON", 3),
        ('[{"q": 1}, {"q": 2},', [1, 2], "no valid JSON", 3),
        ('[{"q": 1} {"q": 2}]', [1], "no valid JSON", 2),
        ('[{"q": 1}, {"q": 2}] [{"q": 3}]', [1, 2], "no valid JSON", 3),
        (f'[{{"q": 1}}, {DEEP}, {{"q": 3}}]', [1], "nested too deep", 2),
    ],
)
def test_a_list_is_read_up_to_where_it_breaks(
    tmp_path: Path, content: str, numbers: list[int], reason: str, first: int
) -> None:
    table = table_of(tmp_path, content, ReadLimits(row_bytes=20_000))
    assert faults(table) == (numbers, {reason: (1, first)})
    assert table.seen.cut == f"{reason} from row {first} on"
    assert 0 <= table.seen.left_share < 1


def test_rows_of_a_list_that_are_none_are_passed_over(tmp_path: Path) -> None:
    content = json.dumps([1, {"q": 1}, None, {"q": "x" * 300}, "text", [{}], {"q": 2}])
    assert faults(table_of(tmp_path, content)) == (
        [2, 7],
        {"no object": (4, 1), "too long": (1, 4)},
    )
    assert rows_of(tmp_path, "[]") == []
    assert rows_of(tmp_path, " [ ] \n") == []


def test_csv_goes_on_after_a_bad_row(tmp_path: Path) -> None:
    rows = ["q,a,q,", "1,2,3,4", "1,2,3,4,5", "7", "", "x" * 300, "5,6", '"open', *["x" * 50] * 5]
    table = table_of(tmp_path, "\n".join(rows) + '\n8,"9"\n')
    got = list(table)
    assert [row for _, row in got if row["a"]] == [
        {"q": "1", "a": "2"},
        {"q": "5", "a": "6"},
        {"q": "8", "a": "9"},
    ]
    assert table.seen.faults.by_reason == {
        "more fields than columns": (1, 3),
        "too long": (2, 6),
    }
    assert faults(table_of(tmp_path, "x" * 500))[1] == {"no names of columns": (1, 1)}


def test_one_line_of_a_whole_file_is_not_held(tmp_path: Path) -> None:
    for head in (b'{"q": "', b'q,a\n"'):
        table = table_of(tmp_path, head + b"x" * 5_000_000 + b'\n{"q": 1}\n')
        assert faults(table)[1]["too long"][0] == 1


def test_rows_are_bounded_in_number(tmp_path: Path) -> None:
    for content in (lines(GOOD), json.dumps(GOOD), as_csv(GOOD), as_parquet(GOOD)):
        table = table_of(tmp_path, content, ReadLimits(most_rows=7))
        assert len(list(table)) == 7
        assert table.seen.cut == "only the first 7 rows are used"


def test_parquet_that_unfolds_is_bounded(tmp_path: Path) -> None:
    many = as_parquet([{"q": "x" * 100_000}] * 2_000)
    assert len(many) < 300_000
    table = table_of(tmp_path, many, ReadLimits(most_bytes=40_000_000))
    assert len(list(table)) < 450
    assert table.seen.cut == "only the first 40000000 bytes are used"
    table = table_of(tmp_path, many, ReadLimits(row_bytes=99_999, early_rows=300))
    assert list(table) == []
    assert table.seen.faults.by_reason == {"too long": (512, 1)}


def test_parquet_reads_what_is_wanted_and_knows_the_rest(tmp_path: Path) -> None:
    odd = pa.table(
        {
            "q": pa.array(["a", "b"]),
            "when": pa.array([2**62, 1], pa.timestamp("us")),
            "bad": pa.Array.from_buffers(
                pa.string(),
                2,
                [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffx")],
            ),
        }
    )
    path = tmp_path / "rows"
    pq.write_table(odd, path)
    table = read(path, SMALL, ("q", "absent"))
    assert [row for _, row in table] == [{"q": "a"}, {"q": "b"}]
    assert list(table.seen.columns) == ["q", "when", "bad"]
    assert faults(read(path, SMALL, ("bad",))) == ([2], {"not UTF-8": (1, 1)})
    assert faults(read(path, SMALL, ("when",))) == ([2], {"no readable value": (1, 1)})


# Rows as examples.


def mapped(
    task_type: str, told: dict[str, Any] | str, *rows: dict[str, Any], messages: bool = True
) -> tuple[list[dict[str, Any]], dict[str, tuple[int, int]]]:
    got = examples(task_type, told, list(enumerate(rows, start=1)), messages=messages)
    return list(got), got.faults.by_reason


def said(*texts: str) -> list[dict[str, str]]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[text[0]], "content": text[2:]} for text in texts]


FORMS = {
    **COLUMNS,
    "field_input": "i",
    "field_system": "s",
    "system_prompt": "be kind",
    "system_format": "<<{system}>>",
    "format": "Q {instruction} I {input} S {system} {other} {0}",
    "no_input_format": "Q {instruction}!",
}


def test_instructions_within_their_templates() -> None:
    rows = [
        {"q": "{input}", "i": "{instruction} {0.__class__}", "a": "yes", "s": "be brief"},
        {"q": "what", "a": 42},
        {"q": "what", "i": " ", "a": "x", "s": None},
    ]
    got, bad = mapped(INSTRUCT, FORMS, *rows)
    asked = "Q {input} I {instruction} {0.__class__} S <<be brief>> {other} {0}"
    assert got[0] == {"prompt": said("s:<<be brief>>", f"u:{asked}"), "completion": said("a:yes")}
    assert got[1] == {"prompt": said("s:<<be kind>>", "u:Q what!"), "completion": said("a:42")}
    assert got[2]["prompt"] == got[1]["prompt"]
    assert bad == {}
    texts, _ = mapped(INSTRUCT, {**FORMS, "system_format": None}, rows[1], messages=False)
    assert texts == [{"prompt": "be kind\nQ what!", "completion": "42"}]


def test_instructions_without_templates_and_names() -> None:
    row = {"instruction": "add", "input": "1 2", "output": "3"}
    for told in ("alpaca", {}, {"format": "", "system_format": "no place"}):
        got, _ = mapped(INSTRUCT, told, row)
        assert got == [{"prompt": said("u:add 1 2"), "completion": said("a:3")}]
    got, _ = mapped(INSTRUCT, {"field": "t"}, {"t": "once"})
    assert got == [{"prompt": "", "completion": "once"}]


def test_what_a_row_lacks_is_the_reason() -> None:
    rows = [
        {"q": "x"},
        {"a": "x"},
        {"q": "x", "a": " \n"},
        {"q": "x", "a": None},
        {"q": "x", "a": ["x"]},
        {"q": "x", "a": float("nan")},
    ]
    got, bad = mapped(INSTRUCT, COLUMNS, *rows)
    assert got == []
    assert bad == {
        'no column "a"': (1, 1),
        'no column "q"': (1, 2),
        'empty "a"': (3, 3),
        'no text in "a"': (1, 5),
    }


def test_what_is_not_known_is_refused() -> None:
    for task_type, told, key in (
        (INSTRUCT, "sharegpt", "dataset_type"),
        ("ImageTask", {}, "task_type"),
        (CHAT, "alpaca", "dataset_type"),
    ):
        with pytest.raises(InputError, match=f"^{key}: found "):
            examples(task_type, told, [])


NAMED = {
    "chat_column": "talk",
    "chat_role_field": "who",
    "chat_content_field": "says",
    "chat_user_reference": "Kunde",
    "chat_assistant_reference": "user",
}


def talk(*turns: str, who: str = "who", says: str = "says") -> list[dict[str, str]]:
    return [dict(zip((who, says), turn.split(":", 1), strict=True)) for turn in turns]


def test_conversations_by_the_names_of_the_request() -> None:
    row = {"talk": talk("Kunde:hi", "user:hello")}
    got, bad = mapped(CHAT, NAMED, row, {"talk": json.dumps(row["talk"])})
    assert got == [{"messages": said("u:hi", "a:hello")}] * 2
    assert bad == {}


@pytest.mark.parametrize("column", ["conversations", "messages"])
@pytest.mark.parametrize("parts", [("from", "value"), ("role", "content")])
def test_conversations_by_their_usual_names(column: str, parts: tuple[str, str]) -> None:
    turns = talk("system:s", "human:hi", "gpt:hello", who=parts[0], says=parts[1])
    got, _ = mapped(CHAT, "chatml", {column: turns})
    assert got == [{"messages": said("s:s", "u:hi", "a:hello")}]


@pytest.mark.parametrize(
    ("turns", "mended"),
    [
        (["user:1", "assistant:2", "user:3"], ["u:1", "a:2"]),
        (["assistant:0", "user:1", "assistant:2"], ["u:1", "a:2"]),
        (["user:1", "user:2", "assistant:3", "assistant:4"], ["u:1\n\n2", "a:3\n\n4"]),
        (["system:s", "assistant:0", "user:1", "assistant:2"], ["s:s", "u:1", "a:2"]),
    ],
)
def test_conversations_are_put_in_turn(turns: list[str], mended: list[str]) -> None:
    rows = [(1, {"c": talk(*turns, who="role", says="content")})]
    got = examples(CHAT, {"chat_column": "c"}, rows)
    assert list(got) == [{"messages": said(*mended)}]
    assert got.repaired == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (talk("user:1", "system:s", "assistant:2", who="role", says="content"), "a system message"),
        (talk("user:1", who="role", says="content"), "no question with an answer"),
        (talk("tool:1", "user:1", who="role", says="content"), "a role that is not known"),
        (talk("user:", "assistant:2", who="role", says="content"), "an empty message"),
        ([{"role": "user", "content": ["x"]}], "a message without role or content"),
        ([{"role": 5, "content": "x"}], "a message without role or content"),
        (["x"], "a message that is no object"),
        ([], "no messages"),
        (None, "no messages"),
        ("no json", "no list of messages"),
        ("[" * 5_000, "no list of messages"),
        ({"role": "user"}, "no list of messages"),
        ([{}] * 5_000, "over 4096 messages"),
        (talk("user:\udcff", "assistant:2", who="role", says="content"), "not UTF-8"),
    ],
)
def test_conversations_that_are_none(value: Any, reason: str) -> None:
    got, bad = mapped(CHAT, {"chat_column": "c"}, {"c": value})
    assert got == []
    assert len(bad) == 1
    assert next(iter(bad)).startswith(reason)


def test_a_conversation_has_the_system_prompt_it_lacks() -> None:
    told = {"chat_column": "c", "system_prompt": "be kind"}
    turns = talk("user:1", "assistant:2", who="role", says="content")
    own = talk("system:own", who="role", says="content") + turns
    got, _ = mapped(CHAT, told, {"c": turns}, {"c": own})
    assert [each["messages"][0]["content"] for each in got] == ["be kind", "own"]


def test_preferences() -> None:
    told = {"field_prompt": "p", "prompt_format": "Q: {prompt}", "chosen_format": "{chosen}."}
    chat = talk("user:x", "assistant:good", who="role", says="content")
    rows = [
        {"p": "x", "chosen": "good", "rejected": "{chosen}"},
        {"p": "x", "chosen": chat, "rejected": "bad"},
        {"p": "x", "chosen": "same", "rejected": "same."},
        {"p": "x", "chosen": "x"},
    ]
    got, bad = mapped(DPO, told, *rows)
    assert got[0] == {
        "prompt": said("u:Q: x"),
        "chosen": said("a:good."),
        "rejected": said("a:{chosen}"),
    }
    assert got[1]["chosen"] == said("a:good.")
    assert bad == {"chosen and rejected are alike": (1, 3), 'no column "rejected"': (1, 4)}
    texts, _ = mapped(DPO, told, rows[0], messages=False)
    assert texts == [{"prompt": "Q: x", "chosen": "good.", "rejected": "{chosen}"}]


def test_prompts_with_what_their_rewards_are_told() -> None:
    told = {"field_prompt": "p", "extra_column": "e", "reward_functions": []}
    values: list[Any] = ["text", {"n": [1, "\udc00"]}, None, 3]
    got, bad = mapped(GRPO, told, *({"p": "x", "e": value} for value in values), {"p": "x"})
    assert [each["extra_data"] for each in got] == ["text", r'{"n": [1, "\udc00"]}', "", "3", ""]
    assert got[0]["prompt"] == said("u:x")
    assert bad == {}
    assert mapped(GRPO, {"field_prompt": "p"}, {"p": "x", "e": 1}) == (
        [{"prompt": said("u:x")}],
        {},
    )


def test_templates_are_filled_in_one_go() -> None:
    assert filled("{prompt}{chosen}{{input}}{x}", {"prompt": "{chosen}", "input": "i"}) == (
        "{chosen}{i}{x}"
    )


# The split.


def test_a_split_is_the_same_each_time_and_by_lot() -> None:
    first = split(1_000, 7)
    assert first == split(1_000, 7)
    assert first.held_out != split(1_000, 8).held_out
    assert len(first.held_out) == 50
    assert sorted(first.train + first.held_out) == list(range(1_000))
    assert first.train == sorted(first.train)
    assert max(first.held_out) - min(first.held_out) > 800


def test_rows_that_are_alike_stay_on_one_side_wherever_they_stand() -> None:
    alike = [number % 90 for number in range(900)]
    dealt = split(900, 3, alike=alike)
    held = {alike[index] for index in dealt.held_out}
    assert held
    assert not held & {alike[index] for index in dealt.train}
    turned = split(900, 3, alike=alike[::-1])
    assert {alike[::-1][index] for index in turned.held_out} == held


@pytest.mark.parametrize(
    ("count", "held"), [(2, 1), (4, 1), (10, 2), (40, 8), (200, 10), (100_000, 500)]
)
def test_a_hold_out_is_neither_too_small_nor_too_large(count: int, held: int) -> None:
    assert len(split(count, 1).held_out) == held


def test_what_is_all_alike_is_held_out_and_trained_on() -> None:
    assert split(1, 1) == ([0], [0], True)
    assert split(3, 1, alike=[5, 5, 5]) == ([0, 1, 2], [0], True)
    assert split(4, 1, alike=[5, 5, 5, 6]) == ([0, 1, 2], [3], False)
    with pytest.raises(ValueError, match="no row"):
        split(0, 1)


# All of it.

ROWS = [{"q": f"how much is {n} + 1", "a": str(n + 1)} for n in range(CHUNK_ROWS + 700)]


@pytest.mark.parametrize("task_type", EXAMPLES)
def test_a_request_becomes_two_files(tmp_path: Path, task_type: str) -> None:
    told: dict[str, Any] = {**COLUMNS, "field_prompt": "q", "field_chosen": "q"}
    told |= {"field_rejected": "a", "extra_column": "a", "chat_column": "c"}
    rows = [{**row, "c": talk(f"user:{row['q']}", "assistant:x", who="role", says="content")} for row in ROWS]  # noqa: E501  # fmt: skip
    record = prepared(tmp_path, lines(rows), told, task_type, ReadLimits())
    train, held_out = written(tmp_path)
    assert (record.train, record.held_out) == (len(train), len(held_out)) == (1_615, 85)
    assert record.columns == tuple(train[0]) == EXAMPLES[task_type]
    whole = [json.dumps(row) for row in train + held_out]
    assert len(set(whole)) == len(ROWS) == record.rows == record.usable
    first = examples(task_type, told, [(1, rows[0])])
    assert next(iter(first)) in train[:1] + held_out
    names = {each.name for each in (tmp_path / "data").iterdir()}
    assert names == {TRAIN, HELD_OUT, "data.json"}
    assert record.source == str(tmp_path / "rows")


def test_equal_examples_are_on_one_side(tmp_path: Path) -> None:
    rows = [{"q": str(n % 40), "a": "x", "other": n} for n in range(400)]
    prepared(tmp_path, lines(rows))
    train, held_out = ([json.dumps(row) for row in part] for part in written(tmp_path))
    assert held_out
    assert not set(train) & set(held_out)


def test_one_row_is_trained_on_and_judged_by(tmp_path: Path) -> None:
    record = prepared(tmp_path, lines(ROWS[:1]))
    assert (record.train, record.held_out, record.held_out_is_train) == (1, 1, True)


def test_what_was_prepared_is_not_done_again(tmp_path: Path) -> None:
    record = prepared(tmp_path, lines(ROWS[:20]))
    (tmp_path / "data" / HELD_OUT).touch()
    assert prepared(tmp_path, b"") == record
    (tmp_path / "data" / HELD_OUT).unlink()
    with pytest.raises(InputError, match="found nothing"):
        prepared(tmp_path, b"")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[]", "found no row"),
        ("q,a\n", "found no row"),
        ('{"data": [{"q": 1}]}', 'column "q": found in none of 1 rows, columns there are "data"'),
        (as_csv([{"question": 1, "a": 2}] * 9), '"q": found in none of 9 .* "question", "a"$'),
        (as_parquet([{"question": 1, "a": 2}]), '"q": found in none .* "question", "a"$'),
        (lines([{"q": "x", "a": ""}] * 4), 'found 4 of 4 .* fault: empty "a" .first in row 1.$'),
        (lines(GOOD[:4]) + "x\n" * 5, "found 5 of 9 .* fault: no valid JSON .first in row 5.$"),
        (json.dumps(GOOD)[:-1].replace('{"q": "\\u00e9 9', "[", 1), "no valid JSON from row 10 on"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_trained_on_fails_in_a_line(
    tmp_path: Path, content: bytes | str, why: str
) -> None:
    with pytest.raises(InputError, match=why) as refused:
        prepared(tmp_path, content)
    assert str(tmp_path / "rows") in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list((tmp_path / "data").iterdir()) == []


def test_hopeless_data_is_given_up_early(tmp_path: Path) -> None:
    for content in ("x: 1\n" * 500_000, "{\n" * 500_000, lines([{"q": ""}] * 100_000)):
        with pytest.raises(InputError, match=r"found (\d\d) of \1 rows|in none of 50"):
            prepared(tmp_path, content)


def test_few_bad_rows_are_left_out_and_reported(tmp_path: Path) -> None:
    rows = lines(ROWS[:8]) + '{"q": "x"}\n[]\n' + lines(ROWS[8:9]) + "\n[]\n"
    record = prepared(tmp_path, rows, {**COLUMNS, "field_input": "i"})
    assert (record.rows, record.usable) == (12, 9)
    assert {why: (bad.count, bad.first) for why, bad in record.bad.items()} == {
        "no object": (2, 10),
        'no column "a"': (1, 9),
    }
    assert record.absent == ("i",)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({"dataset": "/etc/passwd"}, "dataset: found .*/etc/passwd.*allowed is an https address"),
        ({"dataset": "owner/name", "file_format": "hf"}, "owner/name.* of file_format hf"),
        ({"dataset": 5}, "dataset: found 5"),
        ({}, "dataset: found null"),
        ({"dataset": "https://h/x", "dataset_type": 5}, "dataset_type: found 5"),
    ],
)
def test_requests_for_what_is_not_fetched(
    tmp_path: Path, request_: dict[str, Any], why: str
) -> None:
    request = {"dataset_type": COLUMNS, **request_}
    with pytest.raises(InputError, match=why):
        prepare(request, INSTRUCT, tmp_path, limits=DataLimits(), local_files=False, beat=idle)


def test_what_was_fetched_before_a_restart_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetched(address: str, target: Path, *_: object) -> Fetched:
        asked.append(address)
        target.write_text(lines(ROWS[:20]))
        return Fetched(target.stat().st_size, "00", ".jsonl")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(raw_module, "fetch", fetched)
    request = {"dataset": "https://h.example/x?secret=1", "dataset_type": COLUMNS}

    def go() -> DataRecord:
        return prepare(
            request, INSTRUCT, tmp_path, limits=DataLimits(), local_files=True, beat=idle
        )

    with monkeypatch.context() as patched:
        patched.setattr(data_module, "deal", full)
        with pytest.raises(OSError, match="No space"):
            go()
    assert [each.name for each in (tmp_path / "data").iterdir()] == [RAW]
    record = go()
    assert len(asked) == 1
    assert record.source == "https://h.example/x"
    assert "secret" not in (tmp_path / "data" / "data.json").read_text()
    assert not (tmp_path / "data" / RAW).exists()


def test_what_could_not_be_fetched_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Fetched:
        raise FetchFailed("dataset: not now")

    monkeypatch.setattr(raw_module, "fetch", fails)
    request = {"dataset": "https://h.example/x", "dataset_type": COLUMNS}
    with pytest.raises(FetchFailed):
        prepare(request, INSTRUCT, tmp_path, limits=DataLimits(), local_files=False, beat=idle)
    assert list((tmp_path / "data").iterdir()) == []


def test_signs_of_life_are_given_while_rows_are_read(tmp_path: Path) -> None:
    beats: list[int] = []
    path = tmp_path / "rows"
    path.write_text(lines(ROWS))
    request = {"dataset": str(path), "dataset_type": COLUMNS}
    beat: Callable[[], None] = lambda: beats.append(1)  # noqa: E731
    prepare(request, INSTRUCT, tmp_path, limits=DataLimits(), local_files=True, beat=beat)
    assert len(beats) >= 5


def test_a_dataset_of_the_hub_is_read_shard_by_shard(tmp_path: Path) -> None:
    def bring(name: str, folder: Path) -> None:
        assert name == "owner/rows"
        folder.mkdir()
        for shard in range(3):
            rows = [{"q": f"{shard} {n}", "a": "b"} for n in range(10)] + [{"q": 1}]
            (folder / f"{shard:05d}").write_text(lines(rows))

    def bring_from(from_hub: Any) -> DataRecord:
        request = {"dataset": "owner/rows", "dataset_type": COLUMNS, "file_format": "hf"}
        return prepare(request, INSTRUCT, tmp_path, limits=DataLimits(), local_files=False,
                       beat=idle, from_hub=from_hub)  # fmt: skip

    with pytest.raises(InputError, match=r"training\.hub_datasets is off"):
        bring_from(None)
    record = bring_from(bring)
    assert (record.usable, record.train + record.held_out) == (30, 30)
    ((_, bad),) = record.bad.items()
    assert (bad.count, bad.first) == (3, 11)
    assert not (tmp_path / "data" / RAW).exists()
    assert bring_from(None) == record


def test_shards_are_of_one_kind(tmp_path: Path) -> None:
    (tmp_path / "0").write_text(lines(GOOD))
    (tmp_path / "1").write_text("q,a\n1,2\n")
    with pytest.raises(InputError, match="found csv, allowed is jsonl"):
        list(read_shards(tmp_path, SMALL))
