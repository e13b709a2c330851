"""Examples as tokens and labels: the loss is on what the assistant says, and on nothing else.

Tokenised here and not by the trainer, since the memory plan needs the longest row before there is
a trainer, and since a chat template without generation markers has no assistant mask of its own.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

IGNORED = -100
"""The label that takes no part in the loss."""

Example = Mapping[str, Any]
Row = dict[str, list[int]]


class PrefixMismatch(ValueError):
    """A chat template that renders a conversation's beginning otherwise than the whole."""


def sft_row(tokenizer: Any, example: Example, max_length: int) -> Row | None:
    """``input_ids`` and ``labels`` of one example, cut to ``max_length`` tokens.

    Takes ``messages``, or ``prompt`` and ``completion`` as text or as messages. None when nothing
    of the completion is left to learn.
    """
    if "messages" in example:
        ids, labels = _chat(tokenizer, example["messages"], max_length)
    elif isinstance(example["prompt"], str):
        ids, labels = _plain(tokenizer, example["prompt"], example["completion"])
    else:
        messages = [*example["prompt"], *example["completion"]]
        ids, labels = _last_turn(tokenizer, messages)
    ids, labels = ids[:max_length], labels[:max_length]
    if all(label == IGNORED for label in labels):
        return None
    return {"input_ids": ids, "labels": labels}


def _plain(tokenizer: Any, prompt: str, completion: str) -> tuple[list[int], list[int]]:
    """Text without a template: prompt and completion are tokenised apart, so the border is sure."""
    before = _ids(tokenizer, prompt)
    after = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return before + after, [IGNORED] * len(before) + after


def _ids(tokenizer: Any, text: str) -> list[int]:
    """A text's tokens, with the beginning that the model was trained with, without an end."""
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _rendered(tokenizer: Any, messages: Sequence[Example], *, open_turn: bool) -> list[int]:
    found = tokenizer.apply_chat_template(
        list(messages), tokenize=True, add_generation_prompt=open_turn, return_dict=True
    )
    ids: list[int] = found["input_ids"]
    return ids


def _chat(
    tokenizer: Any, messages: Sequence[Example], max_length: int
) -> tuple[list[int], list[int]]:
    """A conversation: every turn of the assistant counts, where the template allows to tell it."""
    if tokenizer.chat_template is None:
        return _without_template(tokenizer, messages)
    if not tokenizer.is_fast:  # it tells no positions
        return _last_turn(tokenizer, messages)
    try:
        return _all_turns(tokenizer, messages, max_length)
    except PrefixMismatch:
        return _last_turn(tokenizer, messages)


def _all_turns(
    tokenizer: Any, messages: Sequence[Example], max_length: int
) -> tuple[list[int], list[int]]:
    """Each assistant turn lies between its prefix with the turn opened and its prefix with it.

    Prefixes are told apart as text, so that a conversation becomes tokens once however many turns
    it has; turns past ``max_length`` tokens are not looked for. Raises PrefixMismatch when the
    template renders a prefix otherwise than the whole.
    """
    whole = _text(tokenizer, messages, open_turn=False)
    told = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    ids, starts = told["input_ids"], [start for start, _ in told["offset_mapping"]]
    labels = [IGNORED] * len(ids)
    for at, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prefix = _text(tokenizer, messages[:at], open_turn=True)
        turn = _text(tokenizer, messages[: at + 1], open_turn=False)
        if not whole.startswith(prefix) or not whole.startswith(turn):
            raise PrefixMismatch
        begin, end = bisect_left(starts, len(prefix)), bisect_left(starts, len(turn))
        labels[begin:end] = ids[begin:end]
        if end >= max_length:
            break
    return ids, labels


def _text(tokenizer: Any, messages: Sequence[Example], *, open_turn: bool) -> str:
    told: str = tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=open_turn
    )
    return told


def _last_turn(tokenizer: Any, messages: Sequence[Example]) -> tuple[list[int], list[int]]:
    """Only the last turn counts: what TRL does with a prompt and a completion of messages."""
    if tokenizer.chat_template is None:
        return _without_template(tokenizer, messages)
    before = _rendered(tokenizer, messages[:-1], open_turn=True)
    whole = _rendered(tokenizer, messages, open_turn=False)
    shared = next((at for at, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b),
                  min(len(before), len(whole)))  # fmt: skip
    return whole, [IGNORED] * shared + whole[shared:]


def _without_template(tokenizer: Any, messages: Sequence[Example]) -> tuple[list[int], list[int]]:
    """A model that was never taught turns: role and content, a line each."""
    prompt = "".join(f"{each['role']}: {each['content']}\n" for each in messages[:-1])
    return _plain(tokenizer, f"{prompt}{messages[-1]['role']}:", f" {messages[-1]['content']}")


def preference_length(tokenizer: Any, example: Example) -> int:
    """Tokens of the longer of the two answers with its prompt, as the DPO trainer makes them."""
    return max(
        len(_turns(tokenizer, example["prompt"], example[side])) for side in ("chosen", "rejected")
    )


def _turns(tokenizer: Any, prompt: Any, answer: Any) -> list[int]:
    if isinstance(prompt, str):
        return _plain(tokenizer, prompt, answer)[0]
    return _last_turn(tokenizer, [*prompt, *answer])[0]


def prompt_length(tokenizer: Any, example: Example) -> int:
    """Tokens of a prompt to be answered."""
    prompt = example["prompt"]
    if isinstance(prompt, str):
        return len(_ids(tokenizer, prompt))
    return len(_rendered(tokenizer, prompt, open_turn=True))
