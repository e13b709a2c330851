"""Conversations in a row, put in the order that a chat template takes: user, assistant, in turn."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatbot": "assistant",
}
"""What roles are called, where the request's own names do not say so."""
MOST_MESSAGES = 4096
BETWEEN = "\n\n"
"""What stands between messages of one role that become one."""

Message = dict[str, str]


class BadRow(Exception):
    """A row that cannot be used; its text is the reason, the same for rows of the same fault."""


@dataclass(frozen=True, slots=True)
class ChatColumns:
    """Where a conversation stands, and what its parts are called. "" means the usual names."""

    column: str = ""
    role: str = ""
    content: str = ""
    user: str = ""
    assistant: str = ""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """From a request's data set type."""
        keys = ("column", "role_field", "content_field", "user_reference", "assistant_reference")
        return cls(*(told.get(f"chat_{key}") or "" for key in keys))

    def role_of(self, name: str) -> str:
        """The role that a name stands for. Raises BadRow."""
        own = {self.user: "user", self.assistant: "assistant"} if name else {}
        role = own.get(name) or ROLES.get(name.strip().lower())
        if role is None:
            raise BadRow("a role that is not known")
        return role


def conversation(
    value: Any, columns: ChatColumns, system: str | None
) -> tuple[list[Message], bool]:
    """The messages of a row, and whether they had to be repaired. system: where the row has none.

    Repaired are: messages of one role in a row, which become one; an answer before the first
    question and questions after the last answer, which are left out. Raises BadRow.
    """
    said = [_message(each, columns) for each in _listed(value)]
    merged = _merged(said)
    first = [merged.pop(0)] if merged and merged[0]["role"] == "system" else []
    if any(message["role"] == "system" for message in merged):
        raise BadRow("a system message in the middle")
    while merged and merged[0]["role"] != "user":
        merged.pop(0)
    while merged and merged[-1]["role"] != "assistant":
        merged.pop()
    if not merged:
        raise BadRow("no question with an answer")
    repaired = len(first) + len(merged) != len(said)
    if not first and system and system.strip():
        first = [{"role": "system", "content": system}]
    return first + merged, repaired


def last_answer(value: Any) -> Any:
    """Of a list of messages (some preference data has them) the last one's text; else as it is."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        return value[-1].get("content", value[-1].get("value"))
    return value


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):  # in CSV a conversation is JSON text
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRow("no list of messages") from None
    if value is None or value == []:
        raise BadRow("no messages")
    if not isinstance(value, list):
        raise BadRow("no list of messages")
    if len(value) > MOST_MESSAGES:
        raise BadRow(f"over {MOST_MESSAGES} messages")
    return value


def _message(value: Any, columns: ChatColumns) -> Message:
    if not isinstance(value, dict):
        raise BadRow("a message that is no object")
    role = _part(value, columns.role, ("from", "role"))
    content = _part(value, columns.content, ("value", "content"))
    if not isinstance(role, str) or not isinstance(content, str):
        raise BadRow("a message without role or content")
    if not content.strip():
        raise BadRow("an empty message")
    return {"role": columns.role_of(role), "content": content}


def _part(message: Mapping[str, Any], named: str, usual: tuple[str, ...]) -> Any:
    names = (named, *usual) if named else usual
    return next((message[name] for name in names if message.get(name) is not None), None)


def _merged(said: list[Message]) -> list[Message]:
    merged: list[Message] = []
    for message in said:
        if merged and merged[-1]["role"] == message["role"]:
            before = merged[-1]["content"]
            merged[-1] = {**message, "content": before + BETWEEN + message["content"]}
        else:
            merged.append(message)
    return merged
