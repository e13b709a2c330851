"""The answer in one paragraph, made from the numbers."""

from shared.units import MS_PER_DAY
from sim.output_analysis import Estimate
from sim.report.findings import Findings
from sim.report.words import (
    counted,
    fewer_or_more,
    interval_of,
    listed,
    mean_of,
)

NOT_JUDGED = (
    "Not judged yet: income and ranking. A slot with more of a GPU trains further in the same "
    "time; what that is worth against more jobs is for the market model, which these numbers "
    "do not hold."
)
"""What the numbers do not say. The market model replaces this sentence."""

BRACKETS = "Brackets hold 95% intervals."

_TOLD = {
    "acceptance_rate": "acceptance",
    "slot_utilisation": "slot time in use",
    "gpu_hours": "GPU hours held",
}
_SAID = {
    "acceptance_rate": "{first} took {a} of the offers, against {b} with {other}: {gap}.",
    "slot_utilisation": "Its slots were in use {a} of the time, against {b}: {gap}.",
    "gpu_hours": "They held {a} GPU hours, against {b}: {gap}.",
}
_NEARLY_ALL = 0.95
_MOST_TOLD = 3


def answer(findings: Findings) -> str:
    """One paragraph: what was compared, what came out, how sure it is, what is not judged."""
    told = _sweep(findings) if findings.caps else _against_each(findings)
    return " ".join([_setting(findings), *told, BRACKETS, *_in_effect(findings), NOT_JUDGED])


def _setting(findings: Findings) -> str:
    comparison = findings.comparison
    begin, end = comparison.world.window_ms
    offers = mean_of(findings.presets[findings.names[0]]["offers"], "offers")
    runs = counted(len(comparison.done), "replication")
    return f"Over {(end - begin) / MS_PER_DAY:.4g} days ({runs}, {offers} offers each on average),"


def _against_each(findings: Findings) -> list[str]:
    first, *others = findings.names
    if not others:
        return [_alone(findings, first)]
    told = [*_against(findings, others[0]), *(_gaps(findings, b) for b in others[1:_MOST_TOLD])]
    if len(others) > _MOST_TOLD:
        told.append(f"The other {len(others) - _MOST_TOLD} presets are in the table below.")
    return told


def _against(findings: Findings, other: str) -> list[str]:
    """The first preset against another, a sentence a measure."""
    first = findings.names[0]
    ours, theirs = findings.presets[first], findings.presets[other]
    gaps = _told_gaps(findings, other)
    return [
        said.format(
            first=_sized(findings, first),
            other=_sized(findings, other),
            a=mean_of(ours[metric], metric),
            b=mean_of(theirs[metric], metric),
            gap=gaps[metric],
        )
        for metric, said in _SAID.items()
    ]


def _gaps(findings: Findings, other: str) -> str:
    """The first preset against a further one: the differences alone, in one sentence."""
    gaps = _told_gaps(findings, other)
    told = listed([f"{words} {gaps[metric]}" for metric, words in _TOLD.items()])
    return f"Against {_sized(findings, other)} {findings.names[0]} has: {told}."


def _told_gaps(findings: Findings, other: str) -> dict[str, str]:
    return {
        gap.metric: fewer_or_more(gap.estimate, gap.metric)
        for gap in findings.differences
        if gap.b == other
    }


def _sized(findings: Findings, name: str) -> str:
    layout = findings.policies[name].preset.layout
    return f"{name} ({counted(len(layout.gpus), 'slot')} of {_gpus(layout.gpus_per_slot)})"


def _alone(findings: Findings, name: str) -> str:
    found = findings.presets[name]
    told = [f"{words} {_sure(found[metric], metric)}" for metric, words in _TOLD.items()]
    return f"{_sized(findings, name)} has {listed(told)}."


def _gpus(each: float) -> str:
    if each >= 1:
        return counted(round(each), "GPU")
    return f"1/{round(1 / each)} GPU"


def _sure(found: Estimate | None, metric: str) -> str:
    interval = interval_of(found, metric)
    return mean_of(found, metric) + (f" [{interval}]" if interval else "")


def _sweep(findings: Findings) -> list[str]:
    """What more slots bring, from the smallest cap to the largest."""
    by_cap = sorted(zip(findings.caps or [], findings.names, strict=True))
    (least, small), (most, large) = by_cap[0], by_cap[-1]
    ends = (f"from cap {least} to cap {most}", findings.presets[small], findings.presets[large])
    moved = [
        f"{words} goes from {_sure(ends[1][metric], metric)} to {_sure(ends[2][metric], metric)}"
        for metric, words in _TOLD.items()
    ]
    return [f"{ends[0]} {listed(moved)}.", _enough(findings, by_cap)]


def _enough(findings: Findings, by_cap: list[tuple[int, str]]) -> str:
    for cap, name in by_cap:
        found = findings.presets[name]["acceptance_rate"]
        if found is not None and found.mean >= _NEARLY_ALL:
            return (
                f"Cap {cap} is the smallest that takes at least {_NEARLY_ALL:.0%} of the offers: "
                f"{_sure(found, 'acceptance_rate')}."
            )
    return f"No cap takes {_NEARLY_ALL:.0%} of the offers."


def _in_effect(findings: Findings) -> list[str]:
    """Presets whose time and priority gates refused nothing: first come, first served."""
    plain = [name for name in findings.names if served_as_they_come(findings, name)]
    if not plain:
        return []
    who = "every preset" if len(plain) == len(findings.names) else listed(plain)
    told = f"Under {who} no offer failed the time or priority test: in effect that is first come, "
    return [told + "first served on so many slots."]


def served_as_they_come(findings: Findings, name: str) -> bool:
    """Whether a free slot was all that an offer needed."""
    gates = findings.comparison.gates[name]
    return not (gates["time"] or gates["priority"] or gates["unsupported"])
