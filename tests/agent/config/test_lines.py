"""Settings: every key of a TOML text has its line, and any text gives settings or one kind of error."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coherd.config import (
    EXAMPLE,
    AgentConfig,
    ConfigProblems,
    NamespaceConfig,
    RedisHandlerConfig,
    load,
)
from coherd.config.lines import Key, lines_of
from coherd.errors import CoherdError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "coherd.toml"


# Whatever is written


def every_key(value: Any, key: Key = ()) -> set[Key]:
    found = {key} if key else set()
    entries = enumerate(value) if isinstance(value, list) else getattr(value, "items", list)()
    return found.union(*(every_key(inner, (*key, name)) for name, inner in entries))


TRICKY = '''# c "x" [a]
b.c = 1.5 # z
"q k".'l' = """x
"y" [k] \\" """""
d = [ # c
  1, [2,
  3.5], {x=1, y = [1,2], z={}},
  "a#b",
]
dt = 1979-05-27 07:32:00
e = []
g = {a.b = 'x', c = 1979-05-27T07:32:00Z, d = 1.5}
l = \'\'\'
\'\'\'\'\'
[t.u]
x = true
[[h]]
x = 1
[h.sub]
y = 2
[[h]]
[[h.z]]
w = [[1],[2]]
[[h.z]]
'''


def test_every_key_has_its_line() -> None:
    lines = lines_of(TRICKY)
    assert lines.keys() == every_key(tomllib.loads(TRICKY))
    assert lines["q k", "l"] == 3
    assert lines["d", 2, "y", 1] == 7
    assert lines["t", "u", "x"] == 16
    assert lines["h", 1, "z", 1] == 24


KEYS = st.sampled_from(["a", '"b c"', "'d.e'", "f-1", '"\\u0041"', '""'])
SCALARS = st.sampled_from(
    [
        "1",
        "1.5",
        "true",
        '"x,]}#="',
        "'''\n'''",
        '"""a\n"b" \\"""""',
        "1979-05-27 07:32:00",
        "''",
        "0x1f",
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda entries: "[ # c\n" + ",\n".join(entries) + "\n]"),
        st.lists(st.tuples(KEYS, inner), max_size=3, unique_by=lambda pair: pair[0]).map(
            lambda pairs: "{" + ", ".join(f"{key} = {value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=6,
)
DOTTED = st.lists(KEYS, min_size=1, max_size=3).map(" . ".join)
STATEMENTS = st.one_of(
    st.tuples(DOTTED, VALUES).map(" = ".join),
    DOTTED.map("[ {} ]".format),
    DOTTED.map("[[{}]] # c".format),
    st.just("\r\n"),
)


@given(st.lists(STATEMENTS, max_size=8).map("\n".join))
def test_lines_are_found_in_whatever_toml(text: str) -> None:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = lines_of(text)
    assert lines.keys() == every_key(data)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


NAMES = [
    f.name for table in (AgentConfig, NamespaceConfig, RedisHandlerConfig) for f in fields(table)
]
SETTING = st.one_of(
    st.tuples(st.sampled_from(NAMES), VALUES).map(" = ".join),
    st.sampled_from(
        ["[namespaces.shop]", "[namespaces.default]", "[[handlers]]", "[handlers]", "[x]"]
    ),
)
ANYTHING = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode(errors="replace")),
    st.lists(SETTING, max_size=8).map(lambda lines: "\n".join(lines).encode()),
    st.lists(st.sampled_from(EXAMPLE.splitlines()), max_size=30).map(
        lambda lines: "\n".join(lines).encode()
    ),
)


@given(
    ANYTHING,
    st.dictionaries(st.sampled_from(["COHERD_JOIN", "COHERD_HTTP", "COHERD_X"]), st.text()),
)
def test_anything_is_either_settings_or_one_kind_of_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, env: dict[str, str]
) -> None:
    file = tmp_path_factory.getbasetemp() / "anything.toml"
    file.write_bytes(content)
    try:
        found: AgentConfig | CoherdError = load(file, env, {})
    except CoherdError as error:
        found = error
    if isinstance(found, CoherdError):
        assert isinstance(found, ConfigProblems)
        assert found.problems
        assert all(problem.isprintable() for problem in found.problems)
