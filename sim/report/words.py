"""Numbers as the report writes them."""

from math import isfinite

from sim.measures import SHARES
from sim.output_analysis import Estimate

LOSSES = frozenset({"test_loss", "synth_loss"})
SMALL = frozenset({"mean_score", "revenue_per_day"})
FINE = frozenset({"emission_share"})
"""Shares so small that a tenth of a percent is too coarse."""
MILLION = 1_000_000
MINUS = "\N{MINUS SIGN}"
POINTS = " points"


def number(value: float, metric: str) -> str:
    """One number in the form that suits its measure; a nothing has no sign."""
    told = _number(value, metric)
    return told if any(digit in "123456789" for digit in told) else told.removeprefix("-")


def _number(value: float, metric: str) -> str:
    if metric in SHARES:
        return f"{100 * value:.2f}%" if metric in FINE else f"{100 * value:.1f}%"
    if metric in LOSSES:
        return f"{value:.3f}"
    if abs(value) >= MILLION:
        return f"{value / MILLION:,.1f}M"
    if metric in SMALL and abs(value) < 100:
        return f"{value:.2f}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"


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


def shortened(items: list[str], most: int = 5) -> str:
    """Items as a sentence lists them, the last ones only counted when there are many."""
    if len(items) <= most + 1:
        return listed(items)
    return f"{', '.join(items[:most])} and {len(items) - most} others"


def times(ratio: float) -> str:
    """A ratio in words; "not known" where there is none."""
    return f"{ratio:.3g} times" if isfinite(ratio) else "not known"


def share_of(value: float, digits: int = 1) -> str:
    """A share as a percentage, its minus a real one and a nothing without a sign."""
    told = f"{100 * value:.{digits}f}%"
    nothing = not any(digit in "123456789" for digit in told)
    return told.removeprefix("-") if nothing else told.replace("-", MINUS)


def shares_between(found: Estimate, digits: int = 1) -> str:
    """A share with its interval in brackets, where it has one."""
    told = share_of(found.mean, digits)
    if found.lo is None and found.hi is None:
        return told
    lo, hi = ("beyond" if each is None else share_of(each, digits) for each in (found.lo, found.hi))
    return f"{told} [{lo} to {hi}]"


def sentence(text: str) -> str:
    """The same with a capital first letter, unless it begins with a name of the scenario."""
    return text[:1].upper() + text[1:]
