"""House rules that a machine can keep: short modules, short functions, every module says what it is for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path
    for folder in ("agent", "membership", "tests", "benchmarks", "proto")
    for path in (ROOT / folder).rglob("*.py")
    if "_pb2" not in path.name
)
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_is_short_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= MODULE_LINES_MAX
    if path.name != "__init__.py" or text.strip():
        assert ast.get_docstring(tree), "the first line says what the module is for"
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not long


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 10


def test_no_test_waits_by_sleeping() -> None:
    """A fixed sleep is either too short or too long: wait for what is meant, with a deadline."""
    found = [
        f"{name(path)}:{node.lineno}"
        for path in MODULES
        if "tests" in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "sleep"
        and not (path.parent.name == "integration" and path.name == "polling.py")
    ]
    assert not found


def test_no_two_files_of_tests_have_one_name() -> None:
    """To pytest they are one module: the second would not be run."""
    names = [path.name for path in MODULES if path.name.startswith("test_")]
    assert sorted(set(names)) == sorted(names)
