"""The operator's commands. Without one, the daemon itself runs in the foreground.

Exit codes: 0 fine, 1 a check does not hold, 2 the input or the call is wrong, 75 not now (a full
disk), 130 interrupted.
"""

import argparse
import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from live.passing import PassingError
from shared.errors import FourSlotError

FINE, DOES_NOT_HOLD, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h."""
PASSING = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM,
})  # fmt: skip
"""What ends by itself, or by somebody making room."""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is; exit 2."""
        self.exit(WRONG_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon or one command; returns the exit code."""
    call = _parser().parse_args(arguments)
    try:
        code: int = call.run(call)
        sys.stdout.flush()
    except PassingError as why:
        print(f"live: {why}", file=sys.stderr)
        return TRY_AGAIN
    except FourSlotError as wrong:
        print(f"live: {wrong}", file=sys.stderr)
        return WRONG_INPUT
    except OSError as why:
        where = f"{why.filename}: " if why.filename else ""
        print(f"live: {where}{(why.strerror or str(why)).lower()}", file=sys.stderr)
        return TRY_AGAIN if why.errno in PASSING else WRONG_INPUT
    except KeyboardInterrupt:
        print("live: interrupted", file=sys.stderr)
        return INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m live",
        description="The daemon, in the foreground; or one of the operator's commands.",
    )
    _configured(parser, default=None)
    parser.set_defaults(run=_run("live.commands.run"))
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)
    for add in (_status, _drain, _gpu_ok, _doctor, _plan, _rehearse, _export, _backup):
        add(commands)
    return parser


def _configured(command: argparse.ArgumentParser, default: object = argparse.SUPPRESS) -> None:
    """Take --config, before a command as well as after it.

    A command without one of its own must leave what stood before it: its default would overwrite
    that, and the command would act on another daemon.
    """
    command.add_argument(
        "--config", type=Path, metavar="FILE", default=default, help="configuration (TOML)"
    )


def _status(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser("status", help="slots, jobs, deadlines, GPU health")
    _configured(command)
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=_run("live.commands.status"))


def _drain(commands: "argparse._SubParsersAction[_Parser]") -> None:
    for name, what in (
        ("drain", "stop accepting; running jobs go on"),
        ("resume", "start accepting again"),
    ):
        command = commands.add_parser(name, help=what)
        _configured(command)
        command.set_defaults(run=_run("live.commands.operate"), ask=name)
    command = commands.add_parser("cancel", help="have one job save and stop")
    command.add_argument("task_id", metavar="TASK")
    _configured(command)
    command.set_defaults(run=_run("live.commands.operate"), ask="cancel")


def _gpu_ok(commands: "argparse._SubParsersAction[_Parser]") -> None:
    what = "call a GPU well again: forget the Xid or ECC error that took it out"
    command = commands.add_parser("gpu-ok", help=what)
    command.add_argument("gpu", type=int, metavar="GPU", help="its number, as status shows it")
    _configured(command)
    command.set_defaults(run=_run("live.commands.gpu_ok"))


def _doctor(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser("doctor", help="everything that must hold before production")
    _configured(command)
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=_run("live.commands.doctor"))


def _plan(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser("plan", help="how a model would be trained in a slot")
    command.add_argument("--model", required=True, metavar="ID_OR_CONFIG", help="id or config.json")
    command.add_argument("--preset", required=True, metavar="NAME", help="the strategy")
    command.add_argument("--max-length", type=int, metavar="N", help="longest row in tokens")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=_run("live.commands.plan"))


def _rehearse(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser("rehearse", help="run the daemon on an offers file, sped up")
    command.add_argument("offers", type=Path, metavar="OFFERS", help="JSON lines")
    command.add_argument("--speed", type=float, default=60.0, metavar="X", help="default: 60")
    command.add_argument("--worker", choices=["train", "stub"], default="stub", help="what jobs do")
    command.add_argument("--ledger", type=Path, required=True, metavar="FILE", help="written there")
    command.add_argument("--events", type=Path, metavar="FILE", help="drains, failures, changes")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    _configured(command)
    command.set_defaults(run=_run("live.commands.rehearse"))


def _export(commands: "argparse._SubParsersAction[_Parser]") -> None:
    for name, what in (
        ("export", "write a ledger as JSON lines"),
        ("export-offers", "write a ledger's first offers as an offers file"),
        ("export-training", "write what each job's training came to as JSON lines"),
    ):
        command = commands.add_parser(name, help=what)
        _from_to(command)
        command.set_defaults(run=_run("live.commands.transfer"), what=name)


def _backup(commands: "argparse._SubParsersAction[_Parser]") -> None:
    command = commands.add_parser("backup", help="write a consistent copy of a ledger")
    _from_to(command)
    command.set_defaults(run=_run("live.commands.transfer"), what="backup")


def _from_to(command: argparse.ArgumentParser) -> None:
    command.add_argument("ledger", type=Path, metavar="LEDGER", help="the ledger's file")
    command.add_argument("--out", type=Path, required=True, metavar="FILE")


def _run(module: str) -> Callable[[argparse.Namespace], int]:
    """The ``run`` function of a command's own module, imported when it is called."""

    def run(call: argparse.Namespace) -> int:
        from importlib import import_module

        code: int = import_module(module).run(call)
        return code

    return run
