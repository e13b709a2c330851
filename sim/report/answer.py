"""The answer in one paragraph, made from the numbers."""

from shared.units import MS_PER_DAY
from sim.comparison import Difference
from sim.output_analysis import Estimate
from sim.report.findings import Findings
from sim.report.words import (
    counted,
    gap_interval_of,
    gap_of,
    interval_of,
    listed,
    mean_of,
    verdict_of,
)

NOT_JUDGED = (
    "Not judged yet: income and ranking. A slot with more of a GPU trains further in the same "
    "time; what that is worth against more jobs is for the market model, which these numbers "
    "do not hold."
)
"""What the numbers do not say. The market model replaces this sentence."""

_TOLD = {
    "acceptance_rate": "acceptance",
    "slot_utilisation": "slot time in use",
    "gpu_hours": "GPU hours held",
}
_NEARLY_ALL = 0.95
_MOST_TOLD = 3


def answer(findings: Findings) -> str:
    """One paragraph: what was compared, what came out, how sure it is, what is not judged."""
    told = _sweep(findings) if findings.caps else _against_each(findings)
    return " ".join([_setting(findings), *told, *_in_effect(findings), NOT_JUDGED])


def _setting(findings: Findings) -> str:
    comparison = findings.comparison
    begin, end = comparison.world.window_ms
    offers = mean_of(findings.presets[findings.names[0]]["offers"], "offers")
    runs = counted(len(comparison.done), "replication")
    return f"Over {(end - begin) / MS_PER_DAY:g} counted days ({runs}, about {offers} offers each):"


def _against_each(findings: Findings) -> list[str]:
    first, *others = findings.names
    sentences = [f"{_of(findings, first)}."]
    for other in others[:_MOST_TOLD]:
        gaps = {gap.metric: gap for gap in findings.differences if gap.b == other}
        told = [_gap(gaps[metric], words) for metric, words in _TOLD.items()]
        sentences.append(f"{_of(findings, other)}; {first} less {other}: {listed(told)}.")
        sentences += _chance(first, other, [gaps[metric] for metric in _TOLD])
    if len(others) > _MOST_TOLD:
        sentences.append(f"The other {len(others) - _MOST_TOLD} presets are in the table below.")
    return sentences


def _of(findings: Findings, name: str) -> str:
    """What one preset did, in one clause."""
    found, layout = findings.presets[name], findings.policies[name].preset.layout
    slots = counted(len(layout.gpus), "slot")
    return (
        f"{name} ({slots} of {_gpus(layout.gpus_per_slot)}) took "
        f"{_sure(found['acceptance_rate'], 'acceptance_rate')} of the offers, kept "
        f"{_sure(found['slot_utilisation'], 'slot_utilisation')} of its slot time in use and held "
        f"{_sure(found['gpu_hours'], 'gpu_hours')} GPU hours"
    )


def _gpus(each: float) -> str:
    if each >= 1:
        return counted(round(each), "GPU")
    return f"1/{round(1 / each)} GPU"


def _sure(found: Estimate | None, metric: str) -> str:
    interval = interval_of(found, metric)
    return mean_of(found, metric) + (f" [{interval}]" if interval else "")


def _gap(gap: Difference, words: str) -> str:
    interval = gap_interval_of(gap.estimate, gap.metric)
    return f"{words} {gap_of(gap.estimate, gap.metric)}" + (f" [{interval}]" if interval else "")


def _chance(first: str, other: str, gaps: list[Difference]) -> list[str]:
    """Which of the differences chance alone could have made."""
    unsure = [_TOLD[gap.metric] for gap in gaps if verdict_of(gap.estimate) == "no sure difference"]
    if not unsure:
        return []
    return [f"In {listed(unsure)} chance alone could part {first} from {other}."]


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
    told = f"No offer failed the time or priority test of {who}: in effect that is first come, "
    return [told + "first served on so many slots."]


def served_as_they_come(findings: Findings, name: str) -> bool:
    """Whether a free slot was all that an offer needed."""
    gates = findings.comparison.gates[name]
    return not (gates["time"] or gates["priority"] or gates["unsupported"])
