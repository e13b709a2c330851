"""Ledger lines read and compared without JSON or pydantic, for the replay at every start.

Only the kinds that fill a ledger, only byte for byte as this release writes them. Whatever else
there is comes back as None and is read strictly instead, or refused there.
"""

import re
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring
from typing import NamedTuple, get_args

from shared.inputs import Input, JobEnded, OfferArrived, Outcome, StartRequested, TimerFired
from shared.jobs import Answer, Effect
from shared.offers import Offer
from shared.wire import MAX_MS


class QuickLine(NamedTuple):
    """A line as far as its replay needs it. written: its input, as it stands there."""

    at_ms: int
    entry: Input
    written: str


def quickly_read(line: str) -> QuickLine | None:
    """A ledger line, or None when it has to be read strictly.

    What comes back was written as it is found: of all the ways to write a text or a number, the
    patterns take the one that the ledger's encoder uses.
    """
    found = _LINE.match(line)
    if found is None:
        return None
    at_ms, kind = int(found[1]), found[2]
    pattern, made = _READ[kind]
    fields = pattern.match(line, found.end())
    if fields is None or at_ms > MAX_MS:
        return None
    entry = made(*fields.groups())
    return None if entry is None else QuickLine(at_ms, entry, line[found.end() : fields.end()])


def same_line(line: str, quick: QuickLine, seq: int, answers: Sequence[Answer]) -> bool:
    """Whether the line's input, answered so, is written as the line is, byte for byte.

    ``seq`` is the place that its replay gives it.
    """
    decided = ",".join([_answer(answer) for answer in answers])
    return line == (
        f'{{"seq":{seq},"at_ms":{quick.at_ms},"kind":"{quick.entry.kind}",'
        f'"input":{quick.written},"decisions":[{decided}]}}'
    )


def _answer(answer: Answer) -> str:
    """An answer as the ledger has it: ``dumps(answer_json(answer))``, spelt out."""
    text = encode_basestring
    if isinstance(answer, Effect):
        return _effect(answer)
    return (
        f'{{"at_ms":{answer.at_ms},"task_id":{text(answer.task_id)},'
        f'"accepted":{_TRUTH[answer.accepted]},"gate":{text(answer.gate)},'
        f'"reason":{text(answer.reason)},"priority":{answer.priority!r},'
        f'"slot":{"null" if answer.slot is None else answer.slot},'
        f'"repeat":{_TRUTH[answer.repeat]}}}'
    )


def _effect(effect: Effect) -> str:
    text, told = encode_basestring, ""
    if effect.task_id is not None:
        told = f',"task_id":{text(effect.task_id)}'
    for name, number in (
        ("slot", effect.slot),
        ("gpu", effect.gpu),
        ("deadline_ms", effect.deadline_ms),
    ):
        if number is not None:
            told += f',"{name}":{number}'
    if effect.reason is not None:
        told += f',"reason":{text(effect.reason)}'
    head = f'{{"at_ms":{effect.at_ms},"effect":"{effect.effect}","in_use":{effect.in_use}'
    return head + told + "}"


_TRUTH = {True: "true", False: "false"}
_TEXT = r'"([^"\\\x00-\x1f]*)"'
"""Text that the encoder writes as it is."""
_WHOLE = r"(?:0|[1-9][0-9]{0,15})"
_LINE = re.compile(
    rf'\{{"seq":{_WHOLE},"at_ms":({_WHOLE}),"kind":"(offer|start|ended|timer)","input":'
)
_OFFER = re.compile(
    rf'\{{"offer":\{{"task_id":{_TEXT},"model":{_TEXT},"task_type":{_TEXT},'
    rf'"hours_to_complete":([0-9]+\.[0-9]+),"ds_size":(null|{_WHOLE}),'
    rf'"model_params_count":(null|{_WHOLE})\}},"source":{_TEXT}\}}'
)
_START = re.compile(rf'\{{"task_id":{_TEXT},"source":{_TEXT}\}}')
_ENDED = re.compile(
    rf'\{{"task_id":{_TEXT},"outcome":"({"|".join(get_args(Outcome))})",'
    r'"phase":"(stopping|gone)"\}'
)
_TIMER = re.compile(r"\{\}")


def _offer(
    task_id: str, model: str, kind: str, told_hours: str, rows: str, params: str, source: str
) -> Input | None:
    hours = float(told_hours)
    if repr(hours) != told_hours:
        return None
    offer = Offer(task_id, model, kind, hours, _count(rows), _count(params))
    return OfferArrived(offer, source)


def _count(text: str) -> int | None:
    return None if text == "null" else int(text)


_READ: dict[str, tuple[re.Pattern[str], Callable[..., Input | None]]] = {
    "offer": (_OFFER, _offer),
    "start": (_START, StartRequested),
    "ended": (_ENDED, JobEnded),
    "timer": (_TIMER, TimerFired),
}
