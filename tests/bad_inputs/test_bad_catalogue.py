"""docs/bad-inputs.md names every input of the list, and exactly the tests that carry its id."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "bad-inputs.md"
IDS = {*range(1, 32), *range(34, 47), 55, 59, *range(61, 77)}
"""What must stand there; others may."""


def marked() -> Iterator[tuple[int, str]]:
    """Give each test with each id that it is marked with."""
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{path.relative_to(TESTS)}::{node.name}"
                assert node.name.startswith("test_") or not list(ids_of(node)), name
                yield from ((number, name) for number in ids_of(node))


def ids_of(test: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[int]:
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(".bad_input"):
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def rows() -> dict[int, list[str]]:
    """Give the cells of the page's table of inputs, by id."""
    lines = re.findall(r"^\| (\d+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert len({number for number, _ in lines}) == len(lines), "an id twice"
    return {int(number): cells.split(" | ") for number, cells in lines}


def test_every_input_is_there_with_what_happens() -> None:
    found = rows()
    assert found.keys() >= IDS
    assert list(found) == sorted(found)
    for number, cells in found.items():
        assert len(cells) == 3, number
        assert all(cells), number


def test_the_page_names_the_tests_that_carry_the_id_and_no_others() -> None:
    named = {
        (number, name)
        for number, (_, _, tests) in rows().items()
        for name in re.findall(r"`([\w/]+\.py::\w+)`", tests)
    }
    assert named == set(marked())


def test_a_test_that_is_not_named_is_noticed() -> None:
    assert (2, "bad_inputs/test_bad_keys.py::test_the_longest_name_and_one_that_is_longer") in set(
        marked()
    )
