"""The import packages are this repository's, and shared imports nothing that could surprise."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = sorted((ROOT / "shared").rglob("*.py"))
FORBIDDEN = {
    "time", "datetime", "random", "os", "subprocess", "socket", "threading", "asyncio",
    "logging", "pathlib",
}  # fmt: skip
"""Clocks, luck and the outside world."""
READS_THE_WIRE = ("wire", "ledger_wire")
"""Modules, by the beginning of their names, that may import pydantic."""


def imported_by(module: Path) -> set[str]:
    """Top-level names of every import anywhere in a module, under any condition."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("name", ["shared", "sim", "live"])
def test_the_imported_packages_are_this_repository_s(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__file__ is not None
    assert Path(package.__file__).resolve() == ROOT / name / "__init__.py"
    assert [Path(place).resolve() for place in package.__path__] == [ROOT / name]


def test_there_is_something_to_look_at() -> None:
    names = {module.stem for module in SHARED}
    assert {"machine", "admission", "decisions", "priority", "presets"} <= names


@pytest.mark.parametrize("module", SHARED, ids=lambda module: module.stem)
def test_shared_imports_nothing_forbidden(module: Path) -> None:
    allowed = (sys.stdlib_module_names - FORBIDDEN) | {"shared"}
    if module.stem.startswith(READS_THE_WIRE):
        allowed |= {"pydantic"}
    assert imported_by(module) <= allowed


@pytest.mark.parametrize("module", SHARED, ids=lambda module: module.stem)
def test_shared_does_no_input_or_output_by_builtins_either(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called.isdisjoint({"open", "print", "input", "exec", "eval", "__import__"})
