"""Moments as a results table may write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 253_402_300_799_999  # the last millisecond of the year 9999, the last ISO 8601 has

ALLOWED = "UTC epoch milliseconds as a whole number, or ISO 8601 with a zone"


def time_ms(value: object) -> int:
    """UTC epoch milliseconds of a number of them or of an ISO 8601 text with a zone.

    Fractions of a millisecond are cut off. Raises ``ValueError`` for anything else.

    >>> time_ms("2025-06-01T02:00:00+02:00")
    1748736000000
    """
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LATEST_MS:
        return value
    raise ValueError(f"allowed: {ALLOWED}")


def _from_text(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"allowed: {ALLOWED}")
    since = (moment - _EPOCH) // timedelta(milliseconds=1)
    if since < 0:
        raise ValueError(f"allowed: {ALLOWED}")
    return since
