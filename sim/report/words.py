"""Numbers as the report writes them."""

from sim.console import number
from sim.measures import SHARES
from sim.output_analysis import Estimate

MINUS = "\N{MINUS SIGN}"
POINTS = " points"


def mean_of(found: Estimate | None, metric: str) -> str:
    """The mean alone."""
    return "not known" if found is None else number(found.mean, metric).replace("-", MINUS)


def interval_of(found: Estimate | None, metric: str) -> str:
    """The interval alone, in words; nothing where there is none."""
    if found is None or found.lo is None or found.hi is None:
        return ""
    lo, hi = (number(bound, metric).replace("-", MINUS) for bound in (found.lo, found.hi))
    return f"{lo} to {hi}"


def gap_of(found: Estimate | None, metric: str) -> str:
    """A difference: signed, and in percentage points where the measure is a rate."""
    return "not known" if found is None else _signed(found.mean, metric)


def gap_interval_of(found: Estimate | None, metric: str) -> str:
    """The interval of a difference; nothing where there is none."""
    if found is None or found.lo is None or found.hi is None:
        return ""
    return f"{_signed(found.lo, metric).removesuffix(POINTS)} to {_signed(found.hi, metric)}"


def fewer_or_more(found: Estimate | None, metric: str) -> str:
    """A difference in plain words, its interval in brackets."""
    interval = gap_interval_of(found, metric)
    match verdict_of(found):
        case "more" | "less" as which if found is not None and found.lo is not None:
            bounds = sorted((abs(found.lo), abs(found.hi or 0.0)))
            low, high = (_size(bound, metric).removesuffix(POINTS) for bound in bounds)
            return f"{_size(found.mean, metric)} {which} [{low} to {high}]"
        case "the same":
            return "the same"
        case "cannot be told":
            return f"a difference of {gap_of(found, metric)}"
    return f"no sure difference [{interval}]"


def _signed(value: float, metric: str) -> str:
    size = _size(value, metric)
    nothing = not any(digit in "123456789" for digit in size)
    return size if nothing else f"{'+' if value > 0 else MINUS}{size}"


def _size(value: float, metric: str) -> str:
    size = number(abs(value), metric)
    return size.rstrip("%") + POINTS if metric in SHARES else size


def verdict_of(found: Estimate | None) -> str:
    """What the interval of a difference says: more, less, or nothing sure."""
    if found is None or found.lo is None or found.hi is None:
        return "cannot be told"
    if found.lo == found.hi == 0:
        return "the same"
    if found.lo > 0:
        return "more"
    return "less" if found.hi < 0 else "no sure difference"


def listed(items: list[str]) -> str:
    """Items as a sentence lists them."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def counted(count: int, singular: str) -> str:
    """A number of things."""
    return f"{count:,} {singular}" if count == 1 else f"{count:,} {singular}s"
