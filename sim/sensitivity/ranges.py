"""What is varied and how far: the numbers of a scenario that nobody has measured for us.

Every range says why it is as wide as it is. None of them is a confidence interval: they are what
the analyst would not be surprised by. What only scales the income (emission, price) is left out.
"""

from collections.abc import Iterator

from shared.errors import InputError
from sim.arrivals.config import Mix, NetworkArrivals, PoissonArrivals
from sim.scenario import Scenario
from sim.sensitivity.parameters import Choice, Parameter, Portion, Span
from sim.service import FractionService

_FIELD, _OWN = "market.field", "market.quality"

FIELD = (
    Parameter(f"{_FIELD}.median_loss", 0.90, 1.15, "field: median loss",
              why="the shipped fields strong to weak"),
    Parameter(f"{_FIELD}.skill_sd", 0.02, 0.12, "field: spread of skill",
              why="nearly alike, to one miner in six 12% better than the median"),
    Parameter(f"{_FIELD}.failure_rate", 0.01, 0.15, "field: failure rate",
              why="the strong field's 2% halved, to the weak field's 10% and half as much again"),
    Parameter(f"{_FIELD}.acceptance_rate", 0.25, 0.90, "field: acceptance rate",
              why="assumed: one offer in four, to nearly every one"),
    Parameter(f"{_FIELD}.miners", 30, 200, "field: miners", whole=True,
              why="a subnet has 256 places, validators and idle ones included"),
    Parameter(f"{_FIELD}.noise.run", 0.01, 0.08, "field: luck of a run",
              why="assumed: a third to nearly three times the 3% of the scenarios"),
)  # fmt: skip
"""The competitors; they matter under every quality model."""

OWN = (
    Parameter(f"{_OWN}.noise.run", 0.01, 0.08, "ours: luck of a run",
              why="as the field's"),
)  # fmt: skip
"""Our runs under the models that draw this luck (calibrated has its own)."""

REFERENCE = Parameter(
    f"{_OWN}.reference.gpus", 0.5, 4.0, "reference run: GPUs",
    why="what an ordinary competitor trains on: half an H100 to four",
)  # fmt: skip

CLAIMS = (
    Span(f"{_OWN}.claims.test_lower", 0.0, 0.40, "claims: test loss lower by",
         why="nothing, to the document's upper end throughout"),
    Span(f"{_OWN}.claims.synth_lower", 0.0, 0.30, "claims: synth loss lower by",
         why="nothing, to the document's upper end throughout"),
    Parameter(f"{_OWN}.claims.success_4", 0.85, 0.99, "claims: success with 4",
              why="worse than it claims for 24, to hardly a failure"),
    Parameter(f"{_OWN}.claims.success_24", 0.80, 0.98, "claims: success with 24",
              why="twice the failures it claims, to hardly one"),
)  # fmt: skip

PHYSICAL = (
    Parameter(f"{_OWN}.physical.hfu", 0.25, 0.55, "compute: share of peak used",
              why="Llama 3 reports 38 to 43% (arXiv 2407.21783) ; small runs vary more"),
    Parameter(f"{_OWN}.physical.ddp_efficiency", 0.85, 0.99, "compute: DDP efficiency",
              why="two GPUs with NVLink and small adapters, at worst 15% lost"),
    Parameter(f"{_OWN}.physical.fsdp2_efficiency", 0.65, 0.95, "compute: FSDP2 efficiency",
              why="weights are gathered every step: a third lost, to nearly nothing"),
    Parameter(f"{_OWN}.physical.sharing_efficiency", 0.60, 1.0, "compute: GPU sharing",
              why="nobody has published it: three jobs lose 40% of the GPU, to nothing"),
    Parameter(f"{_OWN}.physical.setup_minutes", 3.0, 30.0, "compute: set-up minutes",
              why="cached small model, to a download and a compilation"),
    Parameter(f"{_OWN}.physical.grpo_train_share", 0.10, 0.60, "compute: GRPO training share",
              why="assumed: rollouts take 40 to 90% of the time, by their length"),
    Parameter(f"{_OWN}.physical.longest_row", 1024, 8192, "data: longest row", whole=True,
              why="short instructions, to the 8,192 tokens of the document"),
    Parameter(f"{_OWN}.physical.mean_row", 150, 1000, "data: mean row", whole=True,
              why="assumed: short questions and answers, to long documents"),
    Parameter(f"{_OWN}.physical.dataset_rows", 20_000, 500_000, "data: rows", whole=True,
              why="the market's own ranges of synthetic tasks"),
    Parameter(f"{_OWN}.physical.repeat_epochs", 3.0, 30.0, "law: worth of repeated data",
              why="a fifth to twice the 15.4 measured in pretraining (arXiv 2305.16264)"),
    Choice(f"{_OWN}.physical.exponents", 0, 2, "law: exponents", whole=True,
           names=("wmt19", "mlsum", "wmt14"),
           why="the three data sets of arXiv 2402.17193, by the exponent of the data"),
    Parameter(f"{_OWN}.physical.irreducible_share", 0.20, 0.80, "law: irreducible share",
              why="unknown for the market's tasks: a fifth to four fifths"),
    Parameter(f"{_OWN}.physical.critical_batch_rows", 16.0, 512.0, "law: critical batch rows",
              why="measured values span decades (arXiv 1812.06162): a quarter to eight times"),
    Parameter(f"{_OWN}.physical.oom_rate", 0.0, 0.05, "ours: out of memory",
              why="never, to one job in twenty in spite of the plan"),
    Parameter(f"{_OWN}.physical.unstable_rate", 0.0, 0.05, "ours: diverges",
              why="never, to one job in twenty"),
)  # fmt: skip

NEUTRAL = (
    Parameter(f"{_OWN}.neutral.failure_rate", 0.0, 0.10, "ours: failure rate",
              why="never, to one job in ten"),
)  # fmt: skip

OF_MODEL: dict[str, tuple[Parameter, ...]] = {
    "claims": (*OWN, REFERENCE, *CLAIMS),
    "physical": (*OWN, REFERENCE, *PHYSICAL),
    "neutral": (*OWN, *NEUTRAL),
    "calibrated": (),
}
"""The parameters of a quality model that bear on its losses and failures."""

START = (
    Parameter("start.lag_minutes", 1.0, 20.0, "start: lag in minutes",
              why="at once, to most of the 30 minutes a reservation lasts"),
    Parameter("start.never_share", 0.0, 0.10, "start: never comes",
              why="always, to one accepted offer in ten"),
)  # fmt: skip

NETWORK = (
    Parameter("arrivals.offered_share", 0.20, 1.0, "offers: share that reaches us",
              why="nobody outside the validator knows: one attempt in five, to every one"),
    Parameter("arrivals.organic.per_day", 3.0, 48.0, "offers: paid tasks a day",
              why="a quarter to four times the 12 assumed"),
    Parameter("arrivals.synthetic.below_active", 15, 40, "offers: tasks kept active", whole=True,
              why="the validator's 25, which it may change: fewer or more by about half"),
)  # fmt: skip

SERVICE = Span(
    "service", 0.60, 0.97, "service: fraction of the hours",
    why="done early and the slot free again, to so near the deadline that some are late",
)  # fmt: skip

_OTHERS = ("instruct", "chat", "dpo", "grpo")


def parameters_of(scenario: Scenario, model: str, *, recorded: bool = False) -> list[Parameter]:
    """The parameters that bear on a scenario's result under a quality model.

    recorded: the offers come from a file, so nothing about them is varied.
    Raises InputError where a range does not fit the scenario.
    """
    found = [*FIELD, *OF_MODEL[model], *START]
    if not recorded:
        found += _of_arrivals(scenario)
    if isinstance(scenario.service_of(recorded=recorded), FractionService):
        found.append(SERVICE)
    shortest = scenario.market.quality.physical.shortest_row
    return [_from_shortest(each, shortest) for each in found]


def _from_shortest(each: Parameter, shortest: int) -> Parameter:
    """The longest row's range, no lower than the scenario's shortest."""
    if each.key != f"{_OWN}.physical.longest_row" or each.low >= shortest:
        return each
    return Parameter(each.key, shortest, each.high, each.label, each.whole, each.why)


def _of_arrivals(scenario: Scenario) -> Iterator[Parameter]:
    arrivals = scenario.arrivals
    if isinstance(arrivals, NetworkArrivals):
        yield from NETWORK
    elif isinstance(arrivals, PoissonArrivals):
        rate = arrivals.offers_per_hour
        yield Parameter("arrivals.offers_per_hour", rate / 2, rate * 2, "offers: an hour",
                        why="half to twice the scenario's")  # fmt: skip
    else:
        raise InputError("arrivals.kind: found file, but no offers file was named (--offers)")
    yield from _of_mix(arrivals.mix)


def _of_mix(mix: Mix) -> Iterator[Parameter]:
    """The shares, where the mix has what they need: other types, and models of their kind."""
    kinds = {"image" if each.kind == "image" else "big" if each.is_big else "small"
             for each in mix.catalogue}  # fmt: skip
    texts = sum(getattr(mix, key) for key in _OTHERS)
    if texts > 0 and kinds >= {"image", "small"}:
        yield Portion("arrivals.mix.image", 0.15, 0.60, "offers: share of images", rest=_OTHERS,
                      why="the validator may change it: from half to twice 35%")  # fmt: skip
    if texts > 0 and kinds >= {"big", "small"}:
        yield Parameter("arrivals.mix.big_model", 0.0, 0.15, "offers: share of big models",
                        why="none, to three times the scenario's default")  # fmt: skip
