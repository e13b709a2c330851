"""The answer in two or three sentences, for whoever reads no further."""

from sim.comparison import Comparison
from sim.report.standing import FIRST_PLACE, PERCENTILE, REVENUE, Pair, leader, question
from sim.report.words import listed

UNKNOWN, NEITHER = "", "neither"


def in_short(comparison: Comparison) -> str:
    """Who earns more and who ranks higher under each model; models that agree share a sentence."""
    if len(comparison.names) == 1:
        return f"In short: there is nothing to compare {comparison.names[0]} with."
    told: dict[str, list[str]] = {}
    for model, view in comparison.by_model.items():
        told.setdefault(_words(view), []).append(model)
    parts = [f"under {_models(models)} {words}" for words, models in told.items()]
    once = ", from one replication that cannot say how sure it is" if _once(comparison) else ""
    return f"In short{once}: {'; '.join(parts)}."


def _once(comparison: Comparison) -> bool:
    return len(comparison.done) < 2


def _models(models: list[str]) -> str:
    return f"the {listed(models)} model{'s' if len(models) > 1 else ''}"


def _words(view: Comparison) -> str:
    """Income and rank in one clause."""
    pair = question(view)
    if pair and len(view.names) == 2:
        earns, ranks = _earner(view, pair), _ranker(view, pair)
        does = ("earns more", "ranks higher")
    else:
        earns, ranks = _best(view, REVENUE), _best(view, PERCENTILE)
        does = ("earns most", "ranks highest")
    if earns == ranks == NEITHER:
        return f"{NEITHER} {does[0]} or {does[1]}"
    if earns and earns == ranks:
        return f"{earns} {does[0]} and {does[1]}"
    earned = f"{earns} {does[0]}" if earns else f"which {does[0]} cannot be told"
    return f"{earned}, and " + (
        f"{ranks} {does[1]}" if ranks else f"which {does[1]} cannot be told"
    )


def _best(view: Comparison, metric: str) -> str:
    found = leader(view, metric)
    if found is None:
        return UNKNOWN
    return f"{found.name} (not surely)" if found.rivals and not _once(view) else found.name


def _earner(view: Comparison, pair: tuple[str, str]) -> str:
    return _more(Pair(view, *pair, REVENUE))


def _ranker(view: Comparison, pair: tuple[str, str]) -> str:
    """Who ranks higher, where first places and mean ranks do not disagree."""
    found = {_more(Pair(view, *pair, metric)) for metric in (FIRST_PLACE, PERCENTILE)} - {UNKNOWN}
    return found.pop() if len(found) == 1 else UNKNOWN


def _more(pair: Pair) -> str:
    """Who has more; nobody where it is not sure or both have the same."""
    pair = pair.higher_first()
    if pair.verdict == "the same":
        return NEITHER
    if pair.verdict == "cannot be told":
        return pair.a if pair.gap is not None and pair.gap.mean else UNKNOWN
    return pair.a if pair.verdict == "more" else UNKNOWN
