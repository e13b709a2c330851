"""The analyst's commands. Only what ``--help`` needs is imported here; a command imports its own.

Exit codes: 0 fine, 1 a check does not hold, 2 the input or the call is wrong, 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from shared.errors import InputError

FINE, DOES_NOT_HOLD, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is; exit 2."""
        self.exit(WRONG_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _number(low: float, high: float, kind: type[int] | type[float]) -> Callable[[str], float]:
    """An argparse type: a number from low to high."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                f"found {text!r}, allowed is {what} from {low:g} to {high:g}"
            )
        return value

    return convert


def _share(text: str) -> float:
    """An argparse type: a number over 0 and under 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, allowed is a number over 0 and under 1 (0.1 is 10%)"
        )
    return value


_COUNT = _number(1, 100_000, int)
_SEED = _number(0, 2**63 - 1, int)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    call = _parser().parse_args(arguments)
    try:
        code: int = call.run(call)
        sys.stdout.flush()
    except InputError as wrong:
        print(f"sim: {wrong}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("sim: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as head(1) does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m sim", description=__doc__.splitlines()[0] if __doc__ else "")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for add in (
        _compare, _sensitivity, _replay, _generate, _import_trace, _verify, _score, _calibrate,
        _schema,
    ):  # fmt: skip
        add(commands)
    return parser


def _compare(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser("compare", help="compare presets in a scenario")
    command.add_argument("scenario", type=Path, metavar="SCENARIO", help="a scenario file (YAML)")
    command.add_argument("--replications", type=_COUNT, metavar="N", help="independent runs")
    command.add_argument("--days", type=_number(0.01, 3660, float), metavar="D", help="run length")
    command.add_argument("--seed", type=_SEED, metavar="S", help="the random seed")
    command.add_argument("--offers", type=Path, metavar="FILE", help="offers file to replay")
    command.add_argument(
        "--precision",
        type=_share,
        metavar="P",
        help="replicate until the revenue difference is known to so much of itself (0.1: 10%%)",
    )
    command.add_argument(
        "--calibration", type=Path, metavar="FILE", help="calibration file: runs that model too"
    )
    command.add_argument(
        "--processes", type=_number(1, 1024, int), metavar="N", help="default: one a core"
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="write tables, plots and report")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=_run("sim.commands.compare"))


def _sensitivity(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser("sensitivity", help="what the answer depends on")
    command.add_argument("scenario", type=Path, metavar="SCENARIO", help="a scenario file (YAML)")
    command.add_argument(
        "--method",
        choices=["tornado", "morris", "sobol", "caps"],
        default="tornado",
        help="one parameter at a time (default), screening, variance shares, caps 1 to 24",
    )
    command.add_argument("--metric", metavar="NAME", help="default: revenue_per_day")
    command.add_argument(
        "--quality-model", metavar="M", help="default: the scenario's; of caps: every one"
    )
    command.add_argument("--replications", type=_COUNT, metavar="N", help="of every evaluation")
    command.add_argument(
        "--samples", type=_number(2, 2**16, int), metavar="N",
        help="of sobol (a power of 2, default 64), trajectories of morris (default 10)",
    )  # fmt: skip
    command.add_argument("--days", type=_number(0.01, 3660, float), metavar="D", help="run length")
    command.add_argument("--seed", type=_SEED, metavar="S", help="the random seed")
    command.add_argument("--offers", type=Path, metavar="FILE", help="offers file to replay")
    command.add_argument("--calibration", type=Path, metavar="FILE", help="calibration file")
    command.add_argument(
        "--processes", type=_number(1, 1024, int), metavar="N", help="default: one a core"
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="write document and pictures")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=_run("sim.commands.sensitivity"))


def _replay(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser("replay", help="run an offers file through one preset")
    command.add_argument("offers", type=Path, metavar="OFFERS", help="JSON lines, CSV or Parquet")
    command.add_argument("--preset", required=True, metavar="NAME", help="the strategy")
    command.add_argument("--cap", type=_number(1, 24, int), metavar="N", help="other slot count")
    command.add_argument(
        "--threshold", type=_number(0, 1, float), metavar="X", help="other priority threshold"
    )
    command.add_argument("--box", type=Path, metavar="FILE", help="box declaration")
    command.add_argument("--out", type=Path, metavar="FILE", help="decisions as JSON lines")
    command.add_argument("--ledger", type=Path, metavar="FILE", help="the run as a ledger")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=_run("sim.commands.replay"))


def _generate(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser("generate", help="make an offers file of a scenario")
    command.add_argument("scenario", type=Path, metavar="SCENARIO", help="a scenario file (YAML)")
    command.add_argument("--days", type=_number(0.01, 3660, float), metavar="D", required=True)
    command.add_argument("--seed", type=_SEED, metavar="S", help="default: the scenario's")
    command.add_argument("--out", type=Path, metavar="FILE", required=True)
    command.set_defaults(run=_run("sim.commands.generate"))


def _import_trace(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser("import-trace", help="make an offers file of a recorded trace")
    command.add_argument("trace", choices=["philly"], metavar="TRACE", help="philly")
    command.add_argument("file", type=Path, metavar="FILE", help="CSV, also gzipped")
    command.add_argument("--out", type=Path, metavar="FILE", required=True)
    command.add_argument("--cluster", metavar="ID", help="one cluster alone")
    command.add_argument("--limit", type=_number(1, 2**53, int), metavar="N", help="first N jobs")
    command.set_defaults(run=_run("sim.commands.import_trace"))


def _verify(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser("verify", help="decide a ledger again and compare")
    command.add_argument("ledger", type=Path, metavar="LEDGER", help="SQLite or JSON lines")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=_run("sim.commands.verify"))


def _score(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser("score", help="apply the market's rules to a table of results")
    command.add_argument("results", type=Path, metavar="RESULTS", help="JSON lines")
    command.add_argument("--now", metavar="TIME", help="end of the windows (epoch ms or ISO 8601)")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=_run("sim.commands.score"))


def _calibrate(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser(
        "calibrate", help="make a calibration file of a live ledger's jobs"
    )
    command.add_argument("ledger", type=Path, metavar="LEDGER", help="a daemon's ledger (SQLite)")
    command.add_argument("--out", type=Path, metavar="FILE", required=True)
    command.add_argument(
        "--least", type=_number(2, 10**9, int), default=20, metavar="N",
        help="outcomes of an entry, at least (default 20, what scenarios ask for)",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=_run("sim.commands.calibrate"))


def _schema(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser("schema", help="print the JSON Schema of scenario files")
    command.set_defaults(run=_run("sim.commands.schema"))


def _run(module: str) -> Callable[[argparse.Namespace], int]:
    """The ``run`` function of a command's own module, imported when it is called."""

    def run(call: argparse.Namespace) -> int:
        from importlib import import_module

        code: int = import_module(module).run(call)
        return code

    return run
