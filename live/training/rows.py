"""Rows of the protocol's data sets as examples that a trainer takes. Pure: rows in, examples out.

A template stands around texts by plain replacement of ``{instruction}``, ``{input}``, ``{system}``,
``{prompt}``, ``{chosen}``, ``{rejected}``, all at once: braces in a stranger's text stay what they
are. A template that has none of its places is left out, as it would hide the data.

- Instruct: ``format`` where the row has an input, ``no_input_format`` where it has none, without
  them ``{instruction} {input}`` and ``{instruction}``; the system text is the row's, else
  ``system_prompt``, within ``system_format``. As messages they are the user's and the system's;
  as text the system text comes before, on a line of its own.
- Preference: ``prompt_format``, ``chosen_format`` and ``rejected_format`` likewise.
- Columns without a name are those of ``NAMES``. A row may lack its input and system columns.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from live.training.chat import BadRow, ChatColumns, conversation, last_answer
from live.training.table import Faults
from shared.errors import InputError
from shared.wire import found

INSTRUCT, CHAT, DPO, GRPO = "InstructTextTask", "ChatTask", "DpoTask", "GrpoTask"
EXAMPLES: Final = {
    INSTRUCT: ("prompt", "completion"),
    CHAT: ("messages",),
    DPO: ("prompt", "chosen", "rejected"),
    GRPO: ("prompt", "extra_data"),
}
"""The columns of an example by task type.

Each is a list of messages ``{"role", "content"}``, roles ``system``, ``user``, ``assistant``; or
text, where text and not messages was asked for. ``messages`` are always messages, ``extra_data``
always text (JSON, where it was no text in the row; empty where the row has none).
"""
NAMES: Final = {
    "field_instruction": "instruction",
    "field_input": "input",
    "field_output": "output",
    "field_system": "system",
    "field_prompt": "prompt",
    "field_chosen": "chosen",
    "field_rejected": "rejected",
}
"""Columns where the request names none."""
WORDS: Final = {
    INSTRUCT: ("alpaca", "instruct", "completion"),
    CHAT: ("chat", "chatml", "chat_template", "sharegpt"),
    DPO: ("dpo", "preference"),
    GRPO: ("grpo",),
}
"""A data set's type in one word: the usual columns. ``completion`` is plain ``text``."""

Message = dict[str, str]
Example = dict[str, Any]
Mapper = Callable[[Mapping[str, Any]], Example]
Row = tuple[int, dict[str, Any]]

_PLACE = re.compile(r"\{(instruction|input|system|prompt|chosen|rejected)\}")


class Prepared:
    """Examples, to be gone through once; what was left out is known after.

    required, optional: the columns that were looked for. usable, repaired: examples so far.
    """

    def __init__(self, mapper: "_Task", rows: Iterable[Row], early_rows: int) -> None:
        self._task, self._rows, self._early = mapper, rows, early_rows
        self.required, self.optional = mapper.required, mapper.optional
        self.faults, self.present = Faults(), set[str]()
        self.usable = self.repaired = 0

    def __iter__(self) -> Iterator[Example]:
        """Each example. Ends when of the first ``early_rows`` rows none could be used."""
        for number, row in self._rows:
            self.present.update(self._looked_for() & row.keys())
            try:
                example, repaired = self._task.example(row)
            except BadRow as why:
                self.faults.add(str(why), number)
                if not self.usable and self.faults.total >= self._early:
                    return
                continue
            self.usable += 1
            self.repaired += repaired
            yield example

    def _looked_for(self) -> set[str]:
        return {*self.required, *self.optional}

    def absent(self) -> tuple[str, ...]:
        """Columns that no row had so far: those required, then those else that were asked for."""
        asked = [name for name in self.optional if name in self._task.told.values()]
        return tuple(name for name in (*self.required, *asked) if name not in self.present)


def examples(
    task_type: str,
    dataset_type: Mapping[str, Any] | str,
    rows: Iterable[Row],
    *,
    messages: bool = True,
    early_rows: int = 10_000,
) -> Prepared:
    """Examples of numbered rows. messages: whether prompts are messages (else plain text).

    Raises InputError for a task type or a word that is not known.
    """
    return Prepared(_task(task_type, dataset_type, messages), rows, early_rows)


def columns_of(task_type: str, dataset_type: Mapping[str, Any] | str) -> tuple[str, ...]:
    """Columns that are looked for, those first that every row needs. Raises InputError."""
    task = _task(task_type, dataset_type, messages=True)
    return (*task.required, *task.optional)


def _task(task_type: str, dataset_type: Mapping[str, Any] | str, messages: bool) -> "_Task":
    if task_type not in EXAMPLES:
        allowed = ", ".join(EXAMPLES)
        raise InputError(f"task_type: found {found(task_type)}, allowed is {allowed}")
    told = _columns(task_type, dataset_type)
    makers = {INSTRUCT: _Instruct, CHAT: _Chat, DPO: _Preference, GRPO: _Prompts}
    return makers[task_type](told, messages)


def _columns(task_type: str, told: Mapping[str, Any] | str) -> Mapping[str, Any]:
    if not isinstance(told, str):
        return told
    word = told.strip().lower()
    if word and word not in WORDS[task_type]:
        allowed = ", ".join(WORDS[task_type])
        raise InputError(f"dataset_type: found {found(told)}, allowed is {allowed}, or its columns")
    return {"field": "text"} if word == "completion" else {}


def filled(template: str, texts: Mapping[str, str]) -> str:
    """A template with its places filled, in one go."""
    return _PLACE.sub(lambda place: texts.get(place[1], ""), template)


def text_of(row: Mapping[str, Any], name: str, *, needed: bool = True) -> str:
    """A column as text; a number as Python writes it. Raises BadRow, by reason."""
    value = row.get(name)
    if isinstance(value, (int, float)) and math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, float) or value == "":
        if needed:
            why = "empty" if name in row else "no column"
            raise BadRow(f"{why} {found(name)}")
        return ""
    if not isinstance(value, str):
        raise BadRow(f"no text in {found(name)}")
    return checked(value, name, needed)


def checked(value: str, name: str, needed: bool = True) -> str:
    """A text that can be written as UTF-8 and is not all space. Raises BadRow."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadRow(f"not UTF-8 in {found(name)}") from None
    if needed and not value.strip():
        raise BadRow(f"empty {found(name)}")
    return value if value.strip() else ""


class _Task:
    """How rows of one request become examples."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def __init__(self, told: Mapping[str, Any], messages: bool) -> None:
        self.told, self.messages = told, messages

    def example(self, row: Mapping[str, Any]) -> tuple[Example, bool]:
        """The example, and whether it had to be repaired. Raises BadRow."""
        raise NotImplementedError

    def name(self, key: str) -> str:
        return self.told.get(key) or NAMES[key]

    def template(self, key: str, usual: str, places: tuple[str, ...]) -> str:
        told = self.told.get(key)
        return told if told and any(f"{{{place}}}" in told for place in places) else usual

    def system(self, row: Mapping[str, Any]) -> str:
        own = text_of(row, self.name("field_system"), needed=False)
        text = own or self.told.get("system_prompt") or ""
        usual = "{system}" if self.messages else "{system}\n"
        form = self.template("system_format", usual, ("system",))
        return filled(form, {"system": text}) if text.strip() else ""

    def prompt(self, system: str, user: str) -> list[Message] | str:
        if not self.messages:
            return system + user
        first = [{"role": "system", "content": system}] if system else []
        return [*first, {"role": "user", "content": user}]

    def answer(self, text: str) -> list[Message] | str:
        return [{"role": "assistant", "content": text}] if self.messages else text


class _Instruct(_Task):
    def __init__(self, told: Mapping[str, Any], messages: bool) -> None:
        super().__init__(told, messages)
        named = any(told.get(key) for key in ("field_instruction", "field_output"))
        self.plain = None if named else told.get("field")
        if self.plain:
            self.required, self.messages = (self.plain,), False
            return
        self.asked, self.given = self.name("field_instruction"), self.name("field_output")
        self.required = (self.asked, self.given)
        self.optional = (self.name("field_input"), self.name("field_system"))
        places = ("instruction", "input")
        usual = ("{instruction} {input}", "{instruction}")
        self.format = self.template("format", usual[0], places)
        self.no_input = self.template("no_input_format", usual[1], places)

    def example(self, row: Mapping[str, Any]) -> tuple[Example, bool]:
        if self.plain:
            return {"prompt": "", "completion": text_of(row, self.plain)}, False
        more = text_of(row, self.name("field_input"), needed=False)
        texts = {"instruction": text_of(row, self.asked, needed=not more), "input": more}
        system, answer = self.system(row), text_of(row, self.given)
        user = filled(self.format if more else self.no_input, {**texts, "system": system})
        return {"prompt": self.prompt(system, user), "completion": self.answer(answer)}, False


class _Chat(_Task):
    def __init__(self, told: Mapping[str, Any], messages: bool) -> None:
        super().__init__(told, messages)
        self.columns = ChatColumns.of(told)
        self.required = (self.columns.column,) if self.columns.column else ("conversations",)
        self.optional = () if self.columns.column else ("messages",)

    def example(self, row: Mapping[str, Any]) -> tuple[Example, bool]:
        column = next((name for name in (*self.required, *self.optional) if name in row), None)
        if column is None:
            raise BadRow(f"no column {found(self.required[0])}")
        said, repaired = conversation(row[column], self.columns, self.told.get("system_prompt"))
        for message in said:
            checked(message["content"], column)
        return {"messages": said}, repaired


class _Preference(_Task):
    def __init__(self, told: Mapping[str, Any], messages: bool) -> None:
        super().__init__(told, messages)
        self.keys = ("prompt", "chosen", "rejected")
        self.required = tuple(self.name(f"field_{key}") for key in self.keys)
        self.optional = (self.name("field_system"),)
        self.forms = [self.template(f"{key}_format", f"{{{key}}}", (key,)) for key in self.keys]

    def example(self, row: Mapping[str, Any]) -> tuple[Example, bool]:
        texts: list[str] = []
        for key, column, form in zip(self.keys, self.required, self.forms, strict=True):
            plain = {**row, column: last_answer(row.get(column))} if column in row else row
            texts.append(filled(form, {key: text_of(plain, column)}))
        asked, chosen, rejected = texts
        if chosen == rejected:
            raise BadRow("chosen and rejected are alike")
        prompt = self.prompt(self.system(row), asked)
        answers = self.answer(chosen), self.answer(rejected)
        return {"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}, False


class _Prompts(_Task):
    def __init__(self, told: Mapping[str, Any], messages: bool) -> None:
        super().__init__(told, messages)
        self.asked, self.extra = self.name("field_prompt"), told.get("extra_column") or ""
        self.required = (self.asked,)
        self.optional = (self.extra,) if self.extra else ()

    def example(self, row: Mapping[str, Any]) -> tuple[Example, bool]:
        prompt = self.prompt("", text_of(row, self.asked))
        if not self.extra:
            return {"prompt": prompt}, False
        return {"prompt": prompt, "extra_data": _extra(row.get(self.extra), self.extra)}, False


def _extra(value: Any, name: str) -> str:
    if value is None or isinstance(value, str):
        return checked(value or "", name, needed=False)
    try:
        return json.dumps(value, default=str)  # ASCII: lone surrogates are escaped
    except (ValueError, RecursionError):
        raise BadRow(f"no readable value in {found(name)}") from None
