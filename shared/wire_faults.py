"""What pydantic found wrong, in one line that a person can act on."""

from typing import Any

from pydantic import ValidationError

FOUND_CHARS = 40


def one_line(wrong: ValidationError, content: object) -> str:
    """The first error: key, what was found, what is allowed.

    content: what was validated; the key's path is the one that stands in it.
    """
    errors = wrong.errors(include_url=False)
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    key = _path(first["loc"], content)
    match first["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key"
        case "missing":
            missing = ".".join(filter(None, (key, str(first["loc"][-1]))))
            return f"{missing}: found nothing, it is required"
        case "union_tag_invalid":
            allowed = first["ctx"]["expected_tags"]
            return f"{key}.kind: found {first['ctx']['tag']!r}, allowed is one of {allowed}"
        case "union_tag_not_found":
            return f"{key}.kind: found nothing, it is required"
        case "value_error":
            return ": ".join(filter(None, (key, _allowed(first))))
    return f"{key}: found {_shown(first['input'])}, {_allowed(first)}"


def _path(loc: tuple[int | str, ...], content: Any) -> str:
    """The key as it stands in the file: tags that pydantic adds for unions are left out."""
    parts: list[str] = []
    for part in loc:
        try:
            content = content[part]
        except (LookupError, TypeError):
            continue
        parts.append(str(part))
    return ".".join(parts)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= FOUND_CHARS else f"{text[:FOUND_CHARS]}..."


def _allowed(error: Any) -> str:
    """Pydantic's own words, with the subject they begin with left out."""
    message = str(error["msg"])
    for prefix in ("Value error, ", "Input "):
        message = message.removeprefix(prefix)
    return f"it {message}" if message.startswith("should") else message
