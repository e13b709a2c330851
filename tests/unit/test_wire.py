"""One offer line: what is taken, what is refused, and what the refusal says."""

import json
import subprocess
import sys

import pytest

from shared.errors import InputError
from shared.offers import Offer
from shared.wire import MAX_MS, NotJson, found, instant_ms, offer_line, offer_of

GOOD = {
    "received_at": 1_700_000_000_000,
    "task_id": "t1",
    "model": "org/model-7b",
    "task_type": "InstructTextTask",
    "hours_to_complete": 8.0,
}


def line(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def refusal(text: bytes) -> str:
    with pytest.raises(InputError) as caught:
        offer_line(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_line():
    read = offer_line(line(ds_size=10, model_params_count=7, train_hours=9.5))
    assert read.received_at == 1_700_000_000_000
    assert read.train_ms == 34_200_000
    assert read.offer() == Offer("t1", "org/model-7b", "InstructTextTask", 8.0, 10, 7)


def test_what_may_be_absent_or_null():
    read = offer_line(line(ds_size=None, train_hours=None))
    assert (read.ds_size, read.model_params_count, read.train_ms) == (None, None, 28_800_000)


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2024-01-01T00:00:00+01:00", 1_704_063_600_000),
        ("2024-01-01 00:00:00.1239999Z", 1_704_067_200_123),
        ("1969-12-31T23:59:59.9999Z", -1),
        ("9999-12-31T23:59:59.999999Z", MAX_MS),
        ("2262-04-11T23:47:16.854999-00:00", 9_223_372_036_854),
    ],
)
def test_instants_are_floored_to_milliseconds(text, at_ms):
    assert instant_ms(text) == at_ms


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01T00:00:00",
        "2024-01-01",
        "1700000000",
        "1700000000.5",
        "",
        "now",
        "2024-13-01T0:0Z",
    ],
)
def test_instants_without_zone_or_day_are_refused(text):
    with pytest.raises(ValueError):
        instant_ms(text)
    assert refusal(line(received_at=text)).startswith(
        f'received_at: found "{text}", allowed is UTC'
    )


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("received_at", 1.0, "1.0"),
        ("received_at", True, "true"),
        ("received_at", -1, "-1"),
        ("received_at", MAX_MS + 1, "253402300800000"),
        ("received_at", None, "null"),
        ("received_at", "1969-12-31T23:59:59.9999Z", '"1969-12-31T23:59:59.9999Z"'),
        ("task_id", "", '""'),
        ("task_id", "x" * 65, '"' + "x" * 36 + "..."),
        ("task_id", 5, "5"),
        ("task_id", "\ud800", '"\\ud800"'),
        ("model", None, "null"),
        ("model", "m" * 257, '"' + "m" * 36 + "..."),
        ("model", {"a": 1}, "an object"),
        ("task_type", "t" * 65, '"' + "t" * 36 + "..."),
        ("task_type", ["t"], "a list"),
        ("hours_to_complete", 0, "0"),
        ("hours_to_complete", -0.5, "-0.5"),
        ("hours_to_complete", 10000.001, "10000.001"),
        ("hours_to_complete", "8", '"8"'),
        ("hours_to_complete", True, "true"),
        ("hours_to_complete", None, "null"),
        ("hours_to_complete", float("nan"), "NaN"),
        ("hours_to_complete", float("inf"), "Infinity"),
        ("hours_to_complete", 10**400, "1" + "0" * 36 + "..."),
        ("ds_size", -1, "-1"),
        ("ds_size", 1.5, "1.5"),
        ("ds_size", False, "false"),
        ("ds_size", "1", '"1"'),
        ("ds_size", 2**53 + 1, "9007199254740993"),
        ("ds_size", float("nan"), "NaN"),
        ("model_params_count", float("-inf"), "-Infinity"),
        ("train_hours", -1, "-1"),
        ("train_hours", 1.1e9, "1100000000.0"),
        ("train_hours", "", '""'),
    ],
)
def test_wrong_values_name_key_and_find(key, value, shown):
    assert refusal(line(**{key: value})).startswith(f"{key}: found {shown}, allowed is ")


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("ds_size", 100_000.0, 100_000),
        ("ds_size", 2**53, 2**53),
        ("model_params_count", 0, 0),
        ("hours_to_complete", 10_000, 10_000.0),
        ("train_hours", 0, 0.0),
        ("task_id", "\U0001f600" * 64, "\U0001f600" * 64),
        ("received_at", "2024-01-01T00:00Z", 1_704_067_200_000),
    ],
)
def test_right_values_at_the_edge(key, value, read):
    assert getattr(offer_line(line(**{key: value})), key) == read


@pytest.mark.parametrize("key", list(GOOD))
def test_each_key_is_needed(key):
    fields = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(InputError, match=f"^{key}: found nothing, allowed is "):
        offer_of(fields)


def test_unknown_keys():
    assert refusal(line(colour=1)).startswith("colour: found an unknown key, allowed are received_")
    assert refusal(line(**{"a\nb": 1})).startswith('"a\\nb": found an unknown key')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "found an empty line"),
        (b"null", "found null, allowed is one JSON object a line"),
        (b"[]", "found a list, "),
        (b"NaN", "found NaN, "),
        (b"\xff\xfe", "found bytes that are not UTF-8 (at byte 1), "),
        (b'{"a": 1', "found no valid JSON ("),
        (line() + line(), "found more after the object (column "),
        (b"[" * 100_000, "found values nested too deep, "),
        (line()[:-1] + b', "model": "m"}', "model: found the key twice, "),
        (line()[:-1] + b', "ds_size": {"b": 1, "b": 2}}', "b: found the key twice, "),
        (line()[:-1] + b', "ds_size": ' + b"9" * 5000 + b"}", "found a number of thousands of"),
        (line()[:-1] + b', "ds_size": 1e400}', "ds_size: found Infinity, "),
    ],
)
def test_lines_that_are_no_object(text, message):
    assert refusal(text).startswith(message)


def test_only_a_broken_line_is_not_json():
    with pytest.raises(NotJson):
        offer_line(b'{"a"')
    with pytest.raises(InputError) as caught:
        offer_line(b"[]")
    assert not isinstance(caught.value, NotJson)


def test_found_is_short_and_on_one_line():
    assert found(10**5000) == "a number of thousands of digits"
    assert found("a\nb") == '"a\\nb"'
    assert all(len(found(value)) <= 40 for value in ("é" * 100, 10**100, "x" * 38, "x" * 39))


def test_import_needs_no_array_library():
    code = "import sys, shared.wire; print(*(m for m in ('numpy', 'pyarrow') if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
