"""`coherd config`: what it prints, its exit codes, and that it shows no password."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coherd.cli.main import cli
from coherd.config import EXAMPLE, AgentConfig, NamespaceConfig, RedisHandlerConfig, load

FILE = """\
name = "cache-1"
join = ["b"]
[namespaces.default]
max_ttl = "90s"
[namespaces.shop]
entries_max = 2000
[[handlers]]
kind = "redis"
url = "redis://u:SECRET@h:6379/0"
namespaces = ["shop"]
key = "shop:{key}"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "coherd.toml"
    path.write_text(FILE)
    return path


def run(*arguments: object, **env: str) -> Result:
    result = CliRunner().invoke(cli, ["config", *map(str, arguments)], env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "SECRET" not in result.output
    return result


def test_the_example_is_printed_as_it_is_and_is_right(tmp_path: Path) -> None:
    result = run("example")
    assert (result.exit_code, result.stdout, result.stderr) == (0, EXAMPLE, "")
    file = tmp_path / "example.toml"
    file.write_text(result.stdout)
    assert run("check", file).exit_code == 0


def test_a_right_file_is_one_line_and_exit_code_0(file: Path) -> None:
    result = run("check", file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"{file}: ok, agent cache-1 of cluster default, listens on 127.0.0.1:4373, 1 seed, 1 handler\n"
    )
    result = run("check", file, "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"ok": True, "problems": []})


def test_a_wrong_file_is_a_line_for_each_problem_and_exit_code_2(file: Path) -> None:
    file.write_text('jion = []\n[namespaces.shop]\nmax_ttl = "1e9s"\n')
    expected = [
        f"{file}:1: unknown setting 'jion'; did you mean 'join'?",
        f"{file}:3: namespaces.shop.max_ttl: "  # noqa: ISC004
        'expected a duration such as "500ms", "90s", "5m", "1h" or "2d", got \'1e9s\'',
    ]
    result = run("check", file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == expected
    result = run("check", file, "-o", "json")
    assert (result.exit_code, result.stderr) == (2, "")
    assert json.loads(result.stdout) == {"ok": False, "problems": expected}


def test_a_missing_file_says_where_to_get_one(tmp_path: Path) -> None:
    result = run("check", tmp_path / "none")
    assert result.exit_code == 2
    assert result.stderr == (
        f"{tmp_path}/none: no such file; `coherd config example` prints one to start from\n"
    )


def test_what_a_file_name_holds_does_not_reach_the_terminal(tmp_path: Path) -> None:
    result = run("check", tmp_path / "a\x1b[31m\nb")
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr


def test_only_the_file_is_checked(file: Path) -> None:
    assert run("check", file, COHERD_LISTEN="nonsense", COHERD_JION="x").exit_code == 0


def test_every_value_is_shown_with_its_source(file: Path) -> None:
    result = run("show", file, "-o", "json", COHERD_JOIN="x,y:1", COHERD_HTTP="")
    assert result.exit_code == 0
    shown = {s["name"]: (s["value"], s["source"]) for s in json.loads(result.stdout)["settings"]}
    assert shown["name"] == ("cache-1", f"{file}:1")
    assert shown["join"] == (["x:4373", "y:1"], "COHERD_JOIN")
    assert shown["http"] == (None, "COHERD_HTTP")
    assert shown["insecure"] == (False, "default")
    assert shown["local"] == (["unix:/run/coherd/coherd.sock"], "default")
    assert shown["namespaces.shop.max_ttl"] == ("90s", f"{file}:4")
    assert shown["namespaces.shop.entries_max"] == (2000, f"{file}:6")
    assert shown["namespaces.shop.staleness_bound"] == ("30s", "default")
    assert shown["namespaces.shop.rate_max"] == (None, "default")
    assert shown["namespaces.shop.urgent_rate_max"] == (10_000.0, "default")
    assert shown["namespaces.shop.batch_window"] == ("50ms", "default")
    assert shown["handlers[0].url"] == ("redis://u:***@h:6379/0", f"{file}:9")
    assert shown["handlers[0].tag"] == (None, "default")
    names = {name.rpartition(".")[2] for name in shown}
    for table in (AgentConfig, NamespaceConfig, RedisHandlerConfig):
        assert names >= {f.name for f in fields(table)} - {"namespaces", "handlers"}


def test_what_is_shown_for_people_has_a_line_for_each_setting(file: Path) -> None:
    lines = run("show", file).stdout.splitlines()
    assert lines[0].split() == ["name", '"cache-1"', f"{file}:1"]
    assert len({line.rindex("default") for line in lines if line.endswith("default")}) == 1


def test_without_a_file_the_variables_and_defaults_are_shown() -> None:
    result = run("show", COHERD_NAME="a")
    assert result.stdout.splitlines()[0].split() == ["name", '"a"', "COHERD_NAME"]


def test_wrong_variables_are_told_as_wrong_files_are(file: Path) -> None:
    result = run("show", file, COHERD_LISTEN="0.0.0.0:1", COHERD_ADVERTISE="a:1")
    assert result.exit_code == 2
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == [
        "COHERD_LISTEN",
        "COHERD_ADVERTISE",
    ]


def test_showing_reads_what_the_agent_would_read(file: Path) -> None:
    assert load(file, {}, {}).namespace("shop").max_ttl == 90
