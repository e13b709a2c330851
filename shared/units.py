"""Time and memory units. Time is UTC epoch milliseconds, always an int."""

MS_PER_SECOND = 1_000
MS_PER_MINUTE = 60_000
MS_PER_HOUR = 3_600_000
MS_PER_DAY = 86_400_000

GB = 10**9
"""Bytes in a gigabyte, decimal, everywhere in this project."""


def hours_to_ms(hours: float) -> int:
    """Hours as whole milliseconds, halves to even.

    >>> hours_to_ms(0.5)
    1800000
    """
    return round(hours * MS_PER_HOUR)
