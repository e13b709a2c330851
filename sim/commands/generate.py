"""``sim generate``: an offers file made as a scenario makes its offers."""

import argparse

from shared.errors import InputError
from sim.arrivals import generate
from sim.files import check_outputs
from sim.offers_file import write_offers
from sim.scenario import read_scenario
from sim.service import with_service


def run(call: argparse.Namespace) -> int:
    """Generate the offers of replication 0 and write them."""
    check_outputs([call.out], [call.scenario])
    scenario, _ = read_scenario(call.scenario)
    if scenario.reads_file:
        raise InputError(f"{call.scenario}: arrivals.kind: found file, nothing is generated")
    seed = scenario.seed if call.seed is None else call.seed
    stream = generate(
        scenario.arrivals, start_ms=scenario.start_ms, days=call.days, seed=seed, replication=0
    ).stream
    if not len(stream):
        raise InputError(f"--days: found {call.days:g}, in which no offer comes")
    write_offers(with_service(stream, scenario.service_of(recorded=False), seed=seed), call.out)
    print(f"{call.out}: {len(stream)} offers of {call.days:g} days")
    return 0
