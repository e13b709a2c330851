"""``sim schema``: the JSON Schema of scenario files."""

import argparse
import json

from sim.scenario import json_schema


def run(_: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(json_schema(), indent=2))
    return 0
