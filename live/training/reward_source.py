"""What the source of a reward function may say: an allow-list over its syntax tree.

The first of two walls, and the one that gives clear answers; the second is the process that runs it
(``reward_process``). Nothing is executed here. What is not known to be needed is refused: classes,
decorators, other modules, private and dunder names, ways to reach an attribute by its name in text.
"""

import ast
import builtins
import importlib
import re
import string
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from live.training.reward_process import MODULES
from shared.errors import InputError

MOST_SOURCE = 100_000
"""Characters of a source."""
MOST_NODES = 20_000
"""Nodes of its syntax tree."""
MOST_DEPTH = 200
"""Levels of its syntax tree."""
COMPLETIONS, EXTRA, PROMPTS = "completions", "extra_data", "prompts"
"""Parameters that are filled. Any other needs a default."""

_NODES = (
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Delete, ast.Assign,
    ast.AugAssign, ast.AnnAssign, ast.For, ast.While, ast.If, ast.Raise, ast.Try, ast.Assert,
    ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.Expr, ast.Pass, ast.Break,
    ast.Continue, ast.BoolOp, ast.NamedExpr, ast.BinOp, ast.UnaryOp, ast.Lambda, ast.IfExp,
    ast.Dict, ast.Set, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Yield,
    ast.YieldFrom, ast.Compare, ast.Call, ast.FormattedValue, ast.JoinedStr, ast.Constant,
    ast.Attribute, ast.Subscript, ast.Starred, ast.Name, ast.List, ast.Tuple, ast.Slice,
    ast.ExceptHandler, ast.alias, ast.keyword, ast.comprehension, ast.expr_context, ast.boolop,
    ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
_TOP = (ast.FunctionDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
_SAID = {
    ast.ClassDef: "a class",
    ast.AsyncFunctionDef: "an async function",
    ast.Await: "await",
    ast.AsyncFor: "async for",
    ast.AsyncWith: "async with",
    ast.With: "with",
    ast.Match: "match",
}
_BUILTINS = frozenset({
    "abs", "all", "any", "ascii", "bin", "bool", "bytearray", "bytes", "callable", "chr", "complex",
    "dict", "divmod", "enumerate", "filter", "float", "format", "frozenset", "hasattr", "hash",
    "hex", "id", "int", "isinstance", "issubclass", "iter", "len", "list", "map", "max", "min",
    "next", "object", "oct", "ord", "pow", "print", "range", "repr", "reversed", "round", "set",
    "slice", "sorted", "str", "sum", "tuple", "zip", "Ellipsis", "NotImplemented",
    "_", "copyright", "credits", "license",  # of an interactive Python, not of the process
}) | {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}  # fmt: skip
_SINGLE = "type"
"""A builtin that may only be called, with one argument: with three it makes classes."""
_BY_TEXT = frozenset({
    "attrgetter", "methodcaller", "Formatter", "formatter", "get_type_hints", "ForwardRef",
    "update_wrapper", "wraps", "singledispatch", "singledispatchmethod", "total_ordering",
    "format_map", "mro", "NamedTuple", "TypedDict",
})  # fmt: skip
"""What reaches an attribute, or runs code, whose name stands in a text."""
_INSIDE = re.compile(r"_|(gi|cr|ag|tb|f|co|func)_")
"""How attributes begin that lead out of a function into the interpreter."""
_OTHER_MODULES = sys.stdlib_module_names - {name.partition(".")[0] for name in MODULES}
_ALLOWED = f"allowed are the modules {', '.join(MODULES)}"


@dataclass(frozen=True, slots=True)
class RewardSource:
    """A source that passed. name: the function that is the reward; takes: what it is given by
    name, of ``completions``, ``extra_data`` and ``prompts`` (without ``completions`` it gets them
    as its first argument).
    """

    text: str
    name: str
    takes: tuple[str, ...]


def read_source(text: str) -> RewardSource:
    """Check a source and find its reward: the first function that takes ``completions``, or else
    the first of all.

    Raises InputError of one line: the line number, what was found, what is allowed.
    """
    tree = _parsed(text)
    _check_size(tree)
    _Check(tree).all()
    reward = _reward(tree)
    return RewardSource(text, reward.name, _takes(reward))


def _parsed(text: str) -> ast.Module:
    if len(text) > MOST_SOURCE:
        raise InputError(f"found {len(text)} characters, allowed are {MOST_SOURCE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as wrong:
        raise _refused(wrong.lineno, f"no valid Python ({wrong.msg})", "Python") from None
    except (ValueError, RecursionError, MemoryError) as wrong:
        raise InputError(f"found what Python cannot parse ({type(wrong).__name__})") from None


def _refused(line: int | None, what: str, allowed: str) -> InputError:
    told = allowed if allowed.startswith("allowed") else f"allowed is {allowed}"
    return InputError(" ".join(f"line {line or 1}: found {what}, {told}".split()))


def _check_size(tree: ast.Module) -> None:
    level: list[ast.AST] = [tree]
    count = depth = 0
    while level:
        count, depth = count + len(level), depth + 1
        if count > MOST_NODES or depth > MOST_DEPTH:
            allowed = f"allowed are {MOST_NODES} parts, {MOST_DEPTH} deep"
            raise _refused(_line(level[0]), "too large an expression or source", allowed)
        level = [child for node in level for child in ast.iter_child_nodes(node)]


def _line(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 1))


def _reward(tree: ast.Module) -> ast.FunctionDef:
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    if not functions:
        raise _refused(1, "no function", "one that takes completions and returns their rewards")
    named = (one for one in functions if COMPLETIONS in _named(one))
    return next(named, functions[0])


def _named(function: ast.FunctionDef) -> list[str]:
    """The parameters that can be given by name."""
    return [arg.arg for arg in (*function.args.args, *function.args.kwonlyargs)]


def _without_default(function: ast.FunctionDef) -> list[str]:
    args = function.args
    plain = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    plain = plain[: len(plain) - len(args.defaults)]
    pairs = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    return plain + [arg.arg for arg, default in pairs if default is None]


def _takes(reward: ast.FunctionDef) -> tuple[str, ...]:
    named, needed = _named(reward), _without_default(reward)
    plain = [arg.arg for arg in (*reward.args.posonlyargs, *reward.args.args)]
    takes = [name for name in (COMPLETIONS, EXTRA) if name in named]
    takes += [PROMPTS] if PROMPTS in needed and PROMPTS in named else []
    first = [] if COMPLETIONS in named else plain[:1]
    if COMPLETIONS not in named and not plain and reward.args.vararg is None:
        raise _refused(reward.lineno, "no parameter for the completions", COMPLETIONS)
    for name in needed:
        if name not in takes and name not in first:
            allowed = f"allowed are {COMPLETIONS}, {EXTRA}, {PROMPTS} and parameters with a default"
            raise _refused(reward.lineno, f"the parameter {name} without a default", allowed)
    return tuple(name for name in takes if name not in first)


class _Check:
    """Every node of a tree against the lists above."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        nodes = list(ast.walk(tree))
        self.called = {id(node.func): node for node in nodes if isinstance(node, ast.Call)}
        self.modules = dict(_imported(nodes))

    def all(self) -> None:
        for node in self.tree.body:
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node, _NODES) and not text and not isinstance(node, _TOP):
                raise _refused(node.lineno, "a statement outside of functions",
                               "allowed are functions, imports and assignments")  # fmt: skip
        for inner in ast.walk(self.tree):
            self._node(inner)

    def _node(self, node: ast.AST) -> None:
        if not isinstance(node, _NODES):
            what = _SAID.get(type(node), type(node).__name__)
            raise _refused(_line(node), what, "plain functions")
        for name in _names(node):
            self._name(node, name)
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            raise _refused(node.lineno, "a decorator", "plain functions")
        if isinstance(node, ast.Import | ast.ImportFrom):
            _imports(node)
        if isinstance(node, ast.Name):
            self._builtin(node)
        if isinstance(node, ast.Attribute):
            self._attribute(node)

    def _name(self, node: ast.AST, name: str) -> None:
        if name.startswith("__") or name.endswith("__"):
            raise _refused(_line(node), f"the name {name[:40]}", "names without double underscores")

    def _builtin(self, node: ast.Name) -> None:
        call = self.called.get(id(node))
        if node.id == _SINGLE and call is not None and _one_argument(call):
            return
        if hasattr(builtins, node.id) and node.id not in _BUILTINS:
            raise _refused(node.lineno, f"the name {node.id}", "the plain builtins")

    def _attribute(self, node: ast.Attribute) -> None:
        name = node.attr
        if not isinstance(node.ctx, ast.Load):
            raise _refused(node.lineno, f"a change of the attribute {name[:40]}", "reading it")
        if name in _BY_TEXT or name in _OTHER_MODULES or _INSIDE.match(name):
            raise _refused(node.lineno, f"the attribute {name[:40]}", "public attributes of values")
        if name == "format":
            self._format(node)
        if isinstance(node.value, ast.Name) and node.value.id in self.modules:
            module = self.modules[node.value.id]
            if name not in _public(module) and f"{module}.{name}" not in MODULES:
                raise _refused(node.lineno, f"{module}.{name[:40]}", f"what {module} makes public")

    def _format(self, node: ast.Attribute) -> None:
        """``format`` of a literal text whose fields are plain, and of nothing else."""
        text = node.value.value if isinstance(node.value, ast.Constant) else None
        if id(node) not in self.called or not isinstance(text, str) or not _plain_fields(text):
            allowed = "an f-string, or format of a literal text without attributes or items"
            raise _refused(node.lineno, "format", allowed)


def _one_argument(call: ast.Call) -> bool:
    return len(call.args) == 1 and not call.keywords and not isinstance(call.args[0], ast.Starred)


def _plain_fields(text: str) -> bool:
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError:
        return False
    return all(
        not re.search(r"[.\[]", field or "") and (not spec or _plain_fields(spec))
        for _, field, spec, _ in fields
    )


def _names(node: ast.AST) -> Iterator[str]:
    """Every name that a node itself says, of whatever kind."""
    for field in ("id", "attr", "arg", "name", "asname", "module"):
        value = getattr(node, field, None)
        if isinstance(value, str):
            yield from value.split(".")
    if isinstance(node, ast.Global | ast.Nonlocal):
        yield from node.names


def _imported(nodes: list[ast.AST]) -> Iterator[tuple[str, str]]:
    """The names that a source gives to modules, and the modules."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in MODULES:
                    bound = alias.name if alias.asname else alias.name.partition(".")[0]
                    yield alias.asname or bound, bound
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if f"{node.module}.{alias.name}" in MODULES:
                    yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _imports(node: ast.Import | ast.ImportFrom) -> None:
    asked = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
    for module in asked:
        relative = isinstance(node, ast.ImportFrom) and node.level
        if module not in MODULES or relative:
            raise _refused(node.lineno, f"import of {str(module)[:40]}", _ALLOWED)
    if isinstance(node, ast.ImportFrom):
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            if alias.name not in _public(str(node.module)) and full not in MODULES:
                raise _refused(
                    node.lineno, f"import of {full[:60]}", f"what {node.module} makes public"
                )


def _public(name: str) -> frozenset[str]:
    """The names that a module shows, less modules and what reaches attributes by text."""
    module = importlib.import_module(name)
    shown = getattr(module, "__all__", None) or [one for one in vars(module) if one[0] != "_"]
    plain = {one for one in shown if not isinstance(getattr(module, one), ModuleType)}
    return frozenset(plain - _BY_TEXT)
