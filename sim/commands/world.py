"""The world that a call names and the folder of its results, for compare and sensitivity."""

import argparse
from pathlib import Path

from shared.errors import InputError
from sim.experiment import World
from sim.quality import Calibration
from sim.scenario import Scenario, read_scenario
from sim.season import calibration_of
from sim.service import FractionService


def world_of(
    call: argparse.Namespace, *, replications: int | None, precision: float | None = None
) -> World:
    """The world that a call names: scenario, seed, days, offers, calibration. Raises InputError."""
    scenario, box = read_scenario(call.scenario)
    if call.calibration is not None:  # a path of the caller's, not one beside the scenario
        scenario = scenario.calibrated_by(str(call.calibration.absolute()))
    scenario = scenario.changed(
        replications=replications, seed=call.seed, days=call.days, precision=precision
    )
    calibration = calibration_of(scenario.market, call.scenario.parent)
    path = call.offers or _named_offers(scenario, call.scenario)
    if path is None:
        return World(_with_measured_service(scenario, calibration), box, calibration=calibration)
    if call.days is not None:
        raise InputError("--days: not with an offers file, which is replayed whole")
    from sim.offers_file import read_offers

    return World(scenario, box, read_offers(path), calibration)


def _with_measured_service(scenario: Scenario, calibration: Calibration | None) -> Scenario:
    """The scenario with a calibration's service times, where it has no service part of its own."""
    if scenario.service is not None or calibration is None or calibration.service is None:
        return scenario
    measured = FractionService(low=calibration.service.low, high=calibration.service.high)
    return scenario.model_copy(update={"service": measured})


def _named_offers(scenario: Scenario, scenario_path: Path) -> Path | None:
    """The offers file that the scenario itself names, beside it."""
    named = getattr(scenario.arrivals, "path", None)
    return None if named is None else scenario_path.parent / str(named)


def prepare(out: Path) -> None:
    """Make the folder of results. Raises InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as why:
        reason = (why.strerror or str(why)).lower()
        raise InputError(f"--out: {out}: cannot be made: {reason}") from None
