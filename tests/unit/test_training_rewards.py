"""Reward functions of strangers: honest ones score rightly, and no other gets out or holds us up.

Attempts are made twice: against the check of the source, and with that check left out, against the
process alone, with the namespaces that this system grants and without any.
"""

import errno
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from live.training import reward_child, reward_process, rewards
from live.training.reward_source import RewardSource, read_source
from live.training.rewards import (
    RewardFailed,
    RewardPool,
    RewardSettings,
    read_functions,
    text_of,
)
from live.training.scoring import giving_up
from shared.errors import FourSlotError, InputError

ON = RewardSettings(enabled=True, seconds=20.0)
ROOT = Path(__file__).resolve().parents[2]


def asked(*sources: str, weight: float = 1.0) -> list[dict[str, Any]]:
    return [{"reward_func": source, "reward_weight": weight} for source in sources]


def scores(source: str, completions: list[Any], extra: list[Any] | None = None) -> list[float]:
    with RewardPool(asked(source), ON) as pool:
        (values,) = pool.score(["p"] * len(completions), completions, extra)
        assert pool.faults == {pool.names[0]: 0}, pool.fault_lines
        return values


def body(*lines: str) -> str:
    return "\n    ".join(["def reward(completions, **kwargs):", *lines])


# --- honest functions


def test_length() -> None:
    source = "def f(completions, **kwargs):\n    return [-abs(5 - len(c)) for c in completions]"
    assert scores(source, ["", "12345", "1234567"]) == [-5.0, 0.0, -2.0]


def test_imports_helpers_and_constants() -> None:
    source = '''"""Think, then answer."""
import re
from typing import List
import collections.abc as shapes, statistics as st
FORM = re.compile(r"<think>.*?</think><answer>(.*?)</answer>", re.DOTALL)

def _found(text: str) -> float:
    match = FORM.search(text)
    return 1.0 if match and match.group(1).strip() else 0.0

def reward(completions: List[str], **kwargs) -> List[float]:
    import math
    from collections import Counter
    from datetime import datetime
    try:
        year = datetime.strptime("2024-05-06", "%Y-%m-%d").year
        print(f"seen {len(completions):>4}", "{:.2f} {name}".format(1.5, name="x"))
    except Exception as error:
        print(error)
    assert isinstance(completions, shapes.Sequence) and type(year) == int
    most = [Counter(text).most_common(1)[0][1] if text else 0 for text in completions]
    return [_found(t) + math.log2(1 + m) for t, m in zip(completions, most)]
'''
    form = "<think>b</think><answer>c</answer>"
    assert scores(source, [form, "aab", ""]) == [1 + math.log2(5), math.log2(3), 0.0]


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("completions, extra_data", [1.0, 0.0]),
        ("completions, extra_data=None, **kwargs", [1.0, 0.0]),
        ("texts, *, extra_data", [1.0, 0.0]),
        ("texts, /, extra_data", [1.0, 0.0]),
        ("*, extra_data, completions", [1.0, 0.0]),
        ("completions, **kwargs", [0.0, 0.0]),
        ("prompts, completions, extra_data", [1.0, 0.0]),
    ],
)
def test_what_a_function_is_given(header: str, values: list[float]) -> None:
    lines = [
        f"def reward({header}):",
        "    told = extra_data"
        if "extra_data" in header
        else "    told = kwargs.get('extra_data')",
        "    given = " + ("texts" if "texts" in header else "completions"),
        "    return [float(bool(told) and t['a'] == g) for t, g in zip(told or given, given)]",
    ]
    assert scores("\n".join(lines), ["yes", "no"], [{"a": "yes"}, {"a": "x"}]) == values


def test_prompts_are_given_to_a_function_that_cannot_do_without() -> None:
    needs = (
        "def f(prompts, completions): return [float(p == c) for p, c in zip(prompts, completions)]"
    )
    may = "def g(completions, prompts=None): return [float(prompts is None)] * len(completions)"
    with RewardPool(asked(needs, may), ON) as pool:
        assert pool.score(["a", "b"], ["a", "x"]) == [[1.0, 0.0], [1.0, 1.0]]


def test_the_reward_is_the_first_function_that_takes_completions() -> None:
    helper = "def helper(text): return 1.0\n"
    assert read_source(helper + "def r(completions): return []").name == "r"
    assert read_source(helper).name == "helper"
    two = "def a(completions): return []\ndef b(completions): return []"
    assert read_source(two).name == "a"


def test_conversations_and_odd_texts() -> None:
    source = "def f(completions): return [float(len(c)) for c in completions]"
    message = {"role": "assistant", "content": "four"}
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "ab"}, {"type": "image"}]}]
    odd = "\ud800\u2028\x00é"
    given = [[{"role": "user", "content": "long prompt"}, message], parts, [], "plain", odd]
    assert scores(source, given) == [4.0, 2.0, 0.0, 5.0, 4.0]
    assert text_of([{"role": "assistant", "content": None}]) == ""


def test_numbers_of_every_kind() -> None:
    source = body(
        "from fractions import Fraction", "from decimal import Decimal",
        "return (True, 2, Fraction(1, 2), Decimal('0.25'), -1e12)",
    )  # fmt: skip
    assert scores(source, ["x"] * 5) == [1.0, 2.0, 0.5, 0.25, -1e12]


def test_nothing_to_score() -> None:
    assert scores(body("return []"), []) == []


def test_a_large_batch_passes_the_pipes() -> None:
    source = "def f(completions): return [len(c) / 3 for c in completions]"
    completions = ["x" * 20_000] * 500
    assert scores(source, completions) == [20_000 / 3] * 500


def test_the_same_every_time() -> None:
    """Sets of text have the same order, and random the same numbers, in every process."""
    source = body(
        "import random", "words = list({'a', 'b', 'c', 'd', 'e', 'f'})",
        "return [float('abcdef'.index(w)) for w in words] + [random.random()]",
    )  # fmt: skip
    assert scores(source, ["x"] * 7) == scores(source, ["x"] * 7)


# --- what TRL takes


def test_as_trl() -> None:
    bad = body("raise ValueError('no')")
    twice = asked(body("return [2.0] * len(completions)"), weight=0.5)
    with RewardPool([*asked(bad), *twice, *twice], ON) as pool:
        assert pool.weights == [1.0, 0.5, 0.5]
        first, second, third = pool.as_trl()
        names = [first.__name__, second.__name__, third.__name__]
        assert names == ["reward", "reward.2", "reward.3"]
        call = {"prompts": ["p", "q"], "completions": ["a", "b"], "completion_ids": [[1], [2]]}
        assert second(**call, trainer_state=object(), log_extra=print) == [2.0, 2.0]
        assert first(**call) == [None, None]
        assert pool.score(["p"], ["a"]) == [[0.0], [2.0], [2.0]]
        assert pool.faults == {"reward": 2, "reward.2": 0, "reward.3": 0}


def test_trl_s_extra_column_reaches_the_function() -> None:
    source = "def f(completions, extra_data): return [float(e) for e in extra_data]"
    with RewardPool(asked(source), ON) as pool:
        (reward,) = pool.as_trl()
        assert reward(prompts=["p"], completions=["a"], extra_data=["3"], other=[1]) == [3.0]


# --- off, and wrong requests


def test_off_unless_turned_on() -> None:
    with pytest.raises(InputError, match="turned off"):
        RewardPool(asked(body("return []")), RewardSettings())


@pytest.mark.parametrize(
    ("functions", "said"),
    [
        (None, "reward_functions: found null"),
        ([], "reward_functions: found a list"),
        (["def f(c): pass"], r"reward_functions\.0: found"),
        ([{"reward_weight": 1.0}], r"reward_functions\.0\.reward_func: found null"),
        ([{"reward_func": "x", "reward_weight": True}], "reward_weight: found true"),
        ([{"reward_func": "x", "reward_weight": -1}], "reward_weight: found -1, allowed is 0 to"),
        ([{"reward_func": "x", "reward_weight": math.nan}], "reward_weight: found nan"),
    ],
)
def test_a_wrong_request_is_one_line(functions: object, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        read_functions(functions)
    assert "\n" not in str(refused.value)


def test_usable_functions_are_told_from_others() -> None:
    good, refused = read_functions(asked(body("return []"), body("import textstat")))
    assert [one.source.name for one in good] == ["reward"]
    assert len(refused) == 1
    assert refused[0].startswith(
        "reward_functions.1.reward_func: line 2: found import of textstat, allowed are the modules"
    )
    with RewardPool(good, ON) as pool:
        assert pool.names == ["reward"]


def test_a_pool_refuses_what_it_is_not_to_run() -> None:
    with pytest.raises(InputError, match=r"reward_functions\.0\.reward_func: line 1: .*class"):
        RewardPool(asked("class A: pass"), ON)
    with pytest.raises(InputError, match="found 17, allowed are 1 to 16"):
        RewardPool(asked(*[body("return []")] * 17), ON)


# --- the check of the source

REFUSED = {
    "open": body("return open('/etc/passwd').read()"),
    "import os": body("import os"),
    "import at top": "import subprocess\n" + body("return []"),
    "from os": body("from os import system"),
    "relative": "from . import x\n" + body("return []"),
    "star": "from os import *\n" + body("return []"),
    "star of math": "from math import *\n" + body("return []"),
    "textstat": body("import textstat"),
    "langcheck": body("import langcheck"),
    "a module through another": body("import typing", "return typing.sys"),
    "the same, imported": body("from typing import sys"),
    "the same, hidden": body("import typing", "t = typing", "return t.sys"),
    "private of a module": body("import random", "return random._os"),
    "eval": body("return eval('1')"),
    "exec": body("exec('1')"),
    "compile": body("compile('1', '', 'eval')"),
    "getattr": body("return getattr(completions, 'x')"),
    "getattr as value": body("return list(map(getattr, completions))"),
    "globals": body("return globals()"),
    "breakpoint": body("breakpoint()"),
    "input": body("input()"),
    "__import__": body("__import__('os')"),
    "__builtins__": body("return __builtins__"),
    "dunder attribute": body("return ().__class__.__bases__[0].__subclasses__()"),
    "dunder keyword": body("dict(__class__=1)"),
    "dunder parameter": "def f(completions, __x__=1): return []",
    "dunder function": "def __getattr__(name): return 1\n" + body("return []"),
    "dunder alias": body("import math as __m__"),
    "dunder except": body("try: 1", "except ValueError as __e__: 2"),
    "dunder global": body("global __name__"),
    "traceback": body("try: 1/0", "except Exception as e: return e.__traceback__.tb_frame"),
    "generator frame": body("g = (1 for _ in ())", "return g.gi_frame.f_back.f_globals"),
    "frame": body("return completions.f_globals"),
    "pattern": body("match completions:", "    case object(__class__=c): return c"),
    "format with attribute": body("return '{0.__class__}'.format(1)"),
    "format with item": body("return '{0[a]}'.format(1)"),
    "format in a specification": body("return '{0:{1.real}}'.format(1, 2)"),
    "format of a variable": body("t = '{0}'", "return t.format(1)"),
    "format as value": body("f = '{0}'.format", "return f(1)"),
    "format_map": body("return '{a}'.format_map({})"),
    "str.format": body("return str.format('{0.real}', 1)"),
    "Formatter": body("import string", "return string.Formatter().get_field('0.real', [1], {})"),
    "attrgetter": body("from operator import attrgetter"),
    "attrgetter hidden": body("import operator as o", "p = o", "return p.attrgetter('x')"),
    "get_type_hints": body("import typing", "t = typing", "return t.get_type_hints(reward)"),
    "singledispatch": body("import functools", "return functools.singledispatch(len)"),
    "class": "class A: pass\n" + body("return []"),
    "class by type": body("return type('A', (), {})"),
    "type as value": body("t = type", "return t('A', (), {})"),
    "type of many": body("return type(*['A', (), {}])"),
    "decorator": "@print\n" + body("return []"),
    "async": "async def f(completions): return []",
    "with": body("with completions: pass"),
    "lambda only": "f = lambda completions: []",
    "attribute changed": body("import math", "math.floor = 1"),
    "attribute deleted": body("import math", "del math.floor"),
    "statement at top": "while True: pass\n" + body("return []"),
    "call at top": "print(1)\n" + body("return []"),
    "unknown parameter": "def f(completions, target): return []",
    "no parameter": "def f(**kwargs): return []",
    "no function": "x = 1",
    "empty": "",
    "no Python": "def f(completions) return 1",
    "null": "def f(completions): return []\0",
    "surrogate": "def f(completions): return '\ud800'",
    "too long": "#" * 100_001,
    "too deep": body("return " + "[" * 90 + "]" * 90 + " + 1" * 150),
    "much too deep": body("return " + "-" * 90_000 + "1"),
    "deep dots": body("return a" + ".a" * 40_000),
    "deep sums": body("return 1" + "+1" * 40_000),
    "too many parts": body(*["a = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"] * 2_000),
    "huge number": body("return " + "9" * 9_000),
}


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
def test_refused_by_the_source_alone(source: str) -> None:
    with pytest.raises(InputError) as refused:
        read_source(source)
    said = str(refused.value)
    assert said.startswith(("line ", "found ")), said
    assert "found " in said
    assert "\n" not in said
    assert len(said) < 500


def test_a_refusal_names_the_line_and_what_was_found() -> None:
    with pytest.raises(InputError) as refused:
        read_source("import re\n\ndef f(completions):\n    return eval('1')\n")
    assert str(refused.value) == "line 4: found the name eval, allowed is the plain builtins"


@pytest.mark.parametrize("source", [
    "def f(completions):\n    " + "\n    el".join(
        f"if len(completions) == {n}: return [{n}.0]" for n in range(60)),
    body("word = '\\d'", "return [completions.count(word)]"),
    "import typing as t, collections.abc\ndef f(c: t.List[str]): return t.cast(list, c)",
    "from collections import abc\ndef f(c): return [isinstance(c, abc.Sized)]",
    "def f(c, /): return [type(x) is str for x in c]",
    "def f(*completions): return []",
])  # fmt: skip
def test_passed_by_the_source(source: str) -> None:
    assert read_source(source).name in ("f", "reward")


# --- the process, the check of the source left out

BARE = f"""
import sys
sys.argv = ["reward_process.py", *sys.argv[1:]]
import importlib.util
spec = importlib.util.spec_from_file_location("bare", {reward_process.__file__!r})
jail = importlib.util.module_from_spec(spec)
spec.loader.exec_module(jail)
jail._enter_spaces = list
jail.main(sys.argv[1:])
"""
"""The process without any namespace, as where the kernel grants none."""


@pytest.fixture(params=["with namespaces", "without"])
def walls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "without":
        flags = [sys.executable, "-P", "-s", "-S", "-B", "-c", BARE]
        monkeypatch.setattr(
            reward_child, "command", lambda most: [*flags, str(os.getpid()), str(most)]
        )
    return str(request.param)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    def passed(text: str) -> RewardSource:
        return RewardSource(text, "reward", ("completions",))

    monkeypatch.setattr(rewards, "read_source", passed)


def attempt(line: str, *, before: str = "pass") -> str:
    """A function that says 1.0 when the attempt came through and 0.0 when it was refused."""
    return body(
        "import errno", before, "try:", f"    {line}",
        "except OSError as no:", "    return [-float(no.errno or 0)]",
        "except ValueError:", "    return [-1.0]  # what setrlimit makes of EPERM", "return [1.0]",
    )  # fmt: skip


ESCAPES = {
    "read a file": attempt("open('/etc/passwd').read()"),
    "read by descriptor": attempt("os.open('/etc/passwd', 0)", before="import os"),
    "write a file": attempt("open('/tmp/out', 'w')"),
    "list a folder": attempt("os.listdir('/')", before="import os"),
    "stat": attempt("os.stat('/')", before="import os"),
    "delete": attempt("os.unlink('/tmp/x')", before="import os"),
    "change folder": attempt("os.chdir('/')", before="import os"),
    "environment of a process": attempt("open('/proc/self/environ')"),
    "TCP socket": attempt("socket.socket()", before="import _socket as socket"),
    "Unix socket": attempt("socket.socket(1, 1)", before="import _socket as socket"),
    "fork": attempt("os.fork()", before="import os"),
    "exec": attempt("os.execv('/bin/true', ['true'])", before="import os"),
    "spawn": attempt("os.posix_spawn('/bin/true', ['true'], {})", before="import os"),
    "kill the parent": attempt("os.kill(os.getppid() or 1, 9)", before="import os"),
    "kill all": attempt("os.kill(-1, 9)", before="import os"),
    "raise the limits": attempt(
        "r.setrlimit(r.RLIMIT_CORE, (0, 0))", before="import resource as r"
    ),
    "become root": attempt("os.setuid(0)", before="import os"),
    "pipe": attempt("os.pipe()", before="import os"),
    "duplicate": attempt("os.dup(0)", before="import os"),
    "memory file": attempt("os.memfd_create('x')", before="import os"),
    "system call": attempt(
        "c.CDLL(None, use_errno=True).syscall(2, b'/etc/passwd', 0) >= 0 or oops()",
        before="import ctypes as c\n    def oops(): raise OSError(c.get_errno(), '')",
    ),
    "executable memory": attempt("m.mmap(-1, 4096, prot=7)", before="import mmap as m"),
}
NOT_LOADED = ("_socket", "mmap")
"""Modules that the process has not loaded, and which it then cannot import either."""


@pytest.mark.parametrize("source", ESCAPES.values(), ids=ESCAPES)
def test_refused_by_the_process_alone(source: str, walls: str, unchecked: None) -> None:
    with RewardPool(asked(source), ON) as pool:
        ((value,),) = pool.score(["p"], ["c"])
        if any(f"import {name}" in source for name in NOT_LOADED) and pool.faults["reward"]:
            assert "ModuleNotFoundError" in pool.fault_lines[0]
        else:
            assert value == -errno.EPERM, (value, pool.fault_lines)
        assert "system calls" in pool.held
        assert ("no files" in pool.held) <= (walls == "with namespaces")


@pytest.mark.parametrize("source", ESCAPES.values(), ids=ESCAPES)
def test_escapes_do_not_pass_the_source_either(source: str) -> None:
    with pytest.raises(InputError):
        read_source(source)


def test_sockets_and_threads_where_the_modules_are_there(walls: str, unchecked: None) -> None:
    """Straight by number, whatever Python has loaded: socket, clone, openat, ptrace, io_uring."""
    numbers = {"x86_64": (41, 56, 57, 58, 59, 257, 101, 425, 62, 435),
               "aarch64": (198, 220, 221, 56, 117, 425, 129, 435)}[os.uname().machine]  # fmt: skip
    source = body(
        "import ctypes",
        "libc = ctypes.CDLL(None, use_errno=True)",
        "got = []",
        f"for number in {numbers}:",
        "    ctypes.set_errno(0)",
        "    got.append(float(libc.syscall(number, 2, 1, 0, 0, 0, 0)))",
        "    got.append(float(ctypes.get_errno()))",
        "return [got.count(-1.0) - len(got) / 2, got.count(1.0) - len(got) / 2]",
    )
    with RewardPool(asked(source), ON) as pool:
        assert pool.score(["p", "p"], ["c", "c"]) == [[0.0, 0.0]], pool.fault_lines


def test_no_secret_in_its_surroundings(
    walls: str, unchecked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    source = body(
        "import os, sys",
        f"try: os.read({read_end}, 1)",
        "except OSError as no: shut = no.errno",
        "here = [m for m in sys.modules if m.split('.')[0] in ('live', 'shared', 'site', 'torch')]",
        "return [float(len(os.environ)), float(len(here)), float(len(sys.path)), float(shut)]",
    )
    try:
        with RewardPool(asked(source), ON) as pool:
            child = pool._children[0]
            given = Path(f"/proc/{child.pid}/environ")
            assert b"hf_secret" not in (given.read_bytes() if os.access(given, os.R_OK) else b"")
            assert pool.score(["p"] * 4, ["c"] * 4) == [[0.0, 0.0, 0.0, float(errno.EBADF)]]
    finally:
        os.close(read_end)
        os.close(write_end)


def test_limits_are_in_force(walls: str, unchecked: None) -> None:
    source = body(
        "import resource as r, os",
        "whats = (r.RLIMIT_NOFILE, r.RLIMIT_FSIZE, r.RLIMIT_NPROC, r.RLIMIT_CORE)",
        "return [float(r.prlimit(0, w)[1]) for w in whats]",
    )
    with RewardPool(asked(source), ON) as pool:
        pool.score(["p"] * 4, ["c"] * 4)
        if pool.faults["reward"]:  # reading them is a system call too
            pid = deepest(pool._children[0].pid)
            limits = Path(f"/proc/{pid}/limits")
            if not os.access(limits, os.R_OK):
                pytest.skip("another user's process cannot be looked at")
            told = {line[:26].strip(): line[26:].split()[:2]
                    for line in limits.read_text().splitlines()}  # fmt: skip
            for name in ("open files", "file size", "processes", "core file size"):
                assert told[f"Max {name}"] == ["0", "0"]
            assert told["Max address space"] == [str(512 << 20)] * 2


def deepest(pid: int | None) -> int:
    """The last in the line of a process's only children."""
    assert pid is not None
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return deepest(int(below[0])) if below else pid


def test_the_kernel_says_so_too(walls: str) -> None:
    with RewardPool(asked(body("return [1.0]")), ON) as pool:
        pool.score(["p"], ["c"])
        pid = deepest(pool._children[0].pid)
        told = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )  # fmt: skip
    assert told["Seccomp"] == "2"
    assert told["NoNewPrivs"] == "1"
    assert int(told["CapEff"], 16) == int(told["CapPrm"], 16) == 0
    assert told["Threads"] == "1"
    if os.geteuid() == 0 and "no privileges" in pool.held and "user" not in pool.held:
        assert told["Uid"].split() == [str(reward_process.NOBODY)] * 4


# --- bad behaviour

SHORT = RewardSettings(enabled=True, seconds=20.0, memory_bytes=256 << 20, most_in_a_row=3)
HONEST = "    if completions[0] == 'well': return [7.0]"
DEEP = """import sys; sys.setrecursionlimit(10**9); x = []
    for _ in range(10**6): x = [x]
    repr(x)"""
BAD = {
    "endless": ("while True: pass", "took too long"),
    "endless match": ("import re; re.match('(a+)+$', 'a' * 60 + 'b')", "took too long"),
    "sleeps": ("import time; time.sleep(1000)", "took too long"),
    "eats memory": ("x = [bytearray(1 << 20) for _ in range(10000)]", "MemoryError"),
    "one large number": ("x = 9 ** (9 ** 9)", "MemoryError|took too long"),
    "exits": ("raise SystemExit(0)", "SystemExit"),
    "ends": ("import os; os._exit(0)", "the process ended"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "the process ended"),
    "raises": ("raise ValueError('bad\\nline ' * 500)", "ValueError: bad line"),
    "raises BaseException": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "deep recursion": ("reward(completions)", "RecursionError"),
    "too deep in C": (DEEP, "the process ended"),
    "endless recursion": (
        "import sys; sys.setrecursionlimit(10**9); reward(completions)", "MemoryError|took too long"
    ),
    "too few": ("return []", "returned list of 0"),
    "too many": ("return [1.0, 2.0]", "returned list of 2"),
    "nothing": ("return None", "returned NoneType"),
    "a number": ("return 1.0", "returned float"),
    "text": ("return ['1.0']", "returned str, not a number"),
    "None": ("return [None]", "returned NoneType, not a number"),
    "NaN": ("return [float('nan')]", "not a finite number"),
    "infinite": ("return [float('inf')]", "not a finite number"),
    "too large": ("return [1e13]", "not a finite number up to 1e.12"),
    "larger than a float": ("return [10 ** 400]", "OverflowError"),
    "complex": ("return [1j]", "TypeError"),
    "unprintable": (
        "E = type('E', (Exception,), {'__str__': lambda s: 1 / 0}); raise E",
        "an error that cannot be shown",
    ),
    "forged answer": (
        "import os; os.write(3, b'{\"call\": 99, \"values\": [5.0]}\\n'); os._exit(0)",
        "answered out of turn",
    ),
    "forged NaN": (
        "import os; os.write(3, b'{\"call\": %d, \"values\": [NaN]}\\n' % CALL); os._exit(0)",
        "answered what are no rewards",
    ),
    "forged text": (
        "import os; os.write(3, b'{\"call\": %d, \"values\": [\"x\"]}\\n' % CALL); os._exit(0)",
        "answered what are no rewards",
    ),
    "junk": ("import os; os.write(3, b'junk\\n'); os._exit(0)", "answered no JSON"),
    "junk in JSON": (
        "import os; os.write(3, b'[' * 2000 + b'\\n'); os._exit(0)", "answered no JSON"
    ),
    "no object": ("import os; os.write(3, b'7\\n'); os._exit(0)", "answered no object"),
    "two lines": ("import os; os.write(3, b'{}\\n{}\\n'); os._exit(0)", "answered no JSON"),
    "flood": (
        "import os\n    while True: os.write(3, b'x' * 65536)",
        r"answered \d{4,5} bytes or more, allowed are 4128",
    ),
    "closes": ("import os; os.close(3); os.write(3, b'x' * 9999)", "PermissionError"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "said"), BAD.values(), ids=BAD)
def test_bad_behaviour_costs_one_call(line: str, said: str, unchecked: None) -> None:
    """A fault with its reason and 0.0, and the next call is answered."""
    source = "\n".join([
        "CALL = 1", "def reward(completions, **kwargs):",
        "    global CALL", "    CALL += 1", HONEST, f"    {line}", "    return [0.0]",
    ])  # fmt: skip
    lines: list[str] = []
    with RewardPool(asked(source), SHORT, lines.append) as pool:
        (child,) = pool._children
        child.seconds = 0.3 if "took too long" in said else 20.0
        assert pool.score(["p"], ["ill"]) == [[0.0]]
        child.seconds = 20.0
        assert pool.faults == {"reward": 1}, pool.fault_lines
        assert pool.score(["p"], ["well"]) == [[7.0]], pool.fault_lines
        assert pool.faults == {"reward": 1}
        assert lines == pool.fault_lines
    assert re.search(said, lines[0]), lines
    assert "\n" not in lines[0]
    assert len(lines[0]) < 400


def test_printing_is_heard_by_nobody(capfd: pytest.CaptureFixture[str], unchecked: None) -> None:
    source = body(
        "import sys, os", "print('{\"call\": 2, \"values\": [9.0]}', flush=True)",
        "print('x' * (1 << 22))", "sys.stderr.write('y' * 100000)",
        "os.write(1, b'z')", "os.write(2, b'z')",
        "return [1.0]",
    )  # fmt: skip
    with RewardPool(asked(source), ON) as pool:
        assert pool.score(["p"], ["c"]) == [[1.0]], pool.fault_lines
    assert capfd.readouterr() == ("", "")


def test_one_bad_function_does_not_touch_the_others(unchecked: None) -> None:
    bad = body(
        "import re, json, math", "re.match = json.dumps = math.isfinite = print", "return [1]"
    )
    good = body("import re", "return [float(bool(re.match('c', completions[0])))]")
    with RewardPool(asked(bad, good), ON) as pool:
        assert pool.score(["p"], ["c"])[1] == [1.0]
        assert pool.score(["p"], ["c"])[1] == [1.0]
        assert pool.faults["reward.2"] == 0


def test_after_too_many_faults_in_a_row_the_pool_gives_up() -> None:
    source = body("return [1.0] if completions[0] == 'well' else []")
    with RewardPool(asked(source), SHORT) as pool:
        for text in ("ill", "ill", "well", "ill", "ill"):
            pool.score(["p"], [text])
        with pytest.raises(RewardFailed, match=r"the reward reward failed \(5\): .* 3 in a row"):
            pool.score(["p"], ["ill"])
    assert issubclass(RewardFailed, FourSlotError)


def test_after_too_many_faults_in_all_the_pool_gives_up() -> None:
    settings = RewardSettings(enabled=True, most_faults=2)
    source = body("return [1.0] if completions[0] == 'well' else []")
    with RewardPool(asked(source), settings) as pool:
        pool.score(["p"], ["ill"])
        pool.score(["p"], ["well"])
        with pytest.raises(RewardFailed, match="1 in a row"):
            pool.score(["p"], ["ill"])


@pytest.mark.parametrize(
    "source",
    ["x = 1 / 0\n" + body("return []"), "x = [0] * 10 ** 12\n" + body("return []"),
     "x = [0 for a in range(10 ** 9) for b in range(10 ** 9) if 0]\n" + body("return []")],
    ids=["raises", "memory", "time"],
)  # fmt: skip
def test_a_source_that_does_not_load_is_told_at_once(source: str) -> None:
    settings = RewardSettings(enabled=True, seconds=0.5)
    with pytest.raises(RewardFailed, match="the reward reward does not load"):
        RewardPool(asked(source), settings).__enter__()


def test_a_call_that_is_too_large_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_child, "MOST_LINE", 1000)
    with RewardPool(asked(body("return [1.0]")), SHORT) as pool:
        assert pool.score(["p"], ["c" * 2000]) == [[0.0]]
        assert "allowed are 1000" in pool.fault_lines[0]
        assert pool.score(["p"], ["c"]) == [[1.0]]


# --- life and death


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "XZ"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_for(condition: Any, seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_leaving_the_pool_ends_the_processes(walls: str) -> None:
    with RewardPool(asked(body("return [1.0]"), body("return [1.0]")), ON) as pool:
        first = [child.pid for child in pool._children]
        pids = [pid for pid in first if pid] + [deepest(pid) for pid in first]
        assert len(pids) == 4
        assert not any(gone(pid) for pid in pids)
    assert wait_for(lambda: all(gone(pid) for pid in pids))


def test_a_killed_trainer_takes_its_rewards_with_it(tmp_path: Path) -> None:
    """Also one in an endless call, which sees no end of its input."""
    source = body("while True: pass")
    code = (
        "from live.training.rewards import RewardPool, RewardSettings\n"
        f"pool = RewardPool([{{'reward_func': {source!r}, 'reward_weight': 1.0}}],\n"
        "    RewardSettings(enabled=True, seconds=1000.0)).__enter__()\n"
        "print(pool._children[0].pid, flush=True)\n"
        "pool.score(['p'], ['c'])\n"
    )
    trainer = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert trainer.stdout is not None
    pid = int(trainer.stdout.readline())
    inner = deepest(pid)
    try:
        assert wait_for(lambda: ticks(inner) > 5), "it does not run"
        trainer.send_signal(signal.SIGKILL)
        assert wait_for(lambda: gone(pid) and gone(inner))
    finally:
        trainer.kill()
        trainer.wait()
        trainer.stdout.close()
        with suppress(ProcessLookupError):  # where the test fails
            os.killpg(pid, signal.SIGKILL)


def ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_a_process_that_is_killed_comes_again() -> None:
    with RewardPool(asked(body("return [1.0]")), ON) as pool:
        (child,) = pool._children
        assert child.pid is not None
        os.killpg(child.pid, signal.SIGKILL)
        assert pool.score(["p"], ["c"]) == [[0.0]]
        assert "the process ended (-9)" in pool.fault_lines[0]
        assert pool.score(["p"], ["c"]) == [[1.0]]
        assert child.starts == 2


# --- the filter, and where there is none


@pytest.mark.parametrize("told", ["no filter", "filter that does nothing", "other machine"])
def test_without_a_filter_nothing_is_run(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {
        "no filter": "def no(*a): raise OSError(22, 'no seccomp here')\njail._filter_calls = no",
        "filter that does nothing": "jail.filter_program = lambda m: [(6, 0, 0, 0x7FFF0000)]",
        "other machine": "jail.MACHINES = ('s390x',)",
    }[told]
    code = BARE.replace("jail._enter_spaces = list", broken)
    flags = [sys.executable, "-P", "-s", "-S", "-B", "-c", code]
    monkeypatch.setattr(reward_child, "command", lambda most: [*flags, str(os.getpid()), str(most)])
    with pytest.raises(RewardFailed, match=r"cannot be jailed here: .*(seccomp|filter)"):
        RewardPool(asked(body("return [1.0]")), ON).__enter__()


def test_a_process_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_child, "command", lambda _: ["/bin/false"])
    with pytest.raises(RewardFailed, match="did not start: the process ended"):
        RewardPool(asked(body("return [1.0]")), ON).__enter__()
    monkeypatch.setattr(reward_child, "command", lambda _: ["/no/such/python"])
    with pytest.raises(RewardFailed, match="did not start"):
        RewardPool(asked(body("return [1.0]")), ON).__enter__()


def verdict(program: list[tuple[int, int, int, int]], arch: int, number: int, third: int) -> int:
    """What a filter answers to a call: classic BPF, the four instructions that are used."""
    data, value, at = {0: number, 4: arch, 32: third}, 0, 0
    while True:
        code, jump_true, jump_false, k = program[at]
        at += 1
        if code == 0x06:
            return k
        if code == 0x20:
            value = data[k]
        else:
            taken = value == k if code == 0x15 else bool(value & k)
            at += jump_true if taken else jump_false


ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050001
# read, write, mmap, mprotect, exit_group, futex; then what must not pass: open or openat, socket,
# connect, clone, execve, kill, ptrace, openat2, io_uring_setup, clone3, process_vm_readv, memfd
FILTERS = {
    "x86_64": (0xC000003E, (0, 1, 9, 10, 231, 202),
               (2, 257, 41, 42, 56, 57, 58, 59, 62, 101, 437, 425, 435, 310, 319, 0x40000001)),
    "aarch64": (0xC00000B7, (63, 64, 222, 226, 94, 98),
                (56, 198, 203, 220, 221, 129, 117, 437, 425, 435, 270, 279)),
}  # fmt: skip


@pytest.mark.parametrize("machine", FILTERS)
def test_the_filter_of_each_machine(machine: str) -> None:
    program = reward_process.filter_program(machine)
    arch, good, bad = FILTERS[machine]
    assert all(verdict(program, arch, number, 3) == ALLOW for number in good)
    assert all(verdict(program, arch, number, 0) == REFUSE for number in bad)
    assert [verdict(program, arch, number, 7) for number in good[2:4]] == [REFUSE, REFUSE]
    other = next(FILTERS[name][0] for name in FILTERS if name != machine)
    assert verdict(program, other, good[0], 0) == KILL
    passed = sum(verdict(program, arch, number, 0) == ALLOW for number in range(600))
    assert passed == len(reward_process.ALLOWED_CALLS) + len(reward_process.NOT_EXECUTABLE)


# In a run.


def test_a_reward_that_gives_up_ends_the_run_and_raises_nothing() -> None:
    calls, said = [], []

    def failing(prompts: list[str], completions: list[str]) -> list[float | None]:
        calls.append(len(completions))
        if len(calls) > 1:
            raise RewardFailed("the reward x failed (20): no")
        return [1.0] * len(completions)

    reward = giving_up(failing, said.append)
    assert reward(prompts=["p"], completions=["c"]) == [1.0]
    assert reward(["p"] * 3, ["c"] * 3) == [None] * 3
    assert reward(prompts=["p"], completions=["c"]) == [None]
    assert (calls, said) == ([1, 3], ["the reward x failed (20): no"])
    assert reward.__name__ == "failing"
