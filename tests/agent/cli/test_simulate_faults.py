"""`coherd simulate faults`: one history or many, what is stored of them, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coherd.cli.main import cli
from coherd.cli.simulate_faults import LONG_MINUTES, size_of
from coherd.sim.faults.checks import Checks

SMALL = ("--members", "5", "--minutes", "3", "--seed", "4")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", "faults", *SMALL, *arguments])


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_history_is_told_to_people() -> None:
    result = run()
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("seed 4\n")
    head, *rest = result.stdout.splitlines()
    assert head == "faults: 5 members, 3 min, seed 4"
    assert rest[-1].split() == ["violations", "0"]
    assert any(line.startswith("befell: ") for line in rest)


def test_one_history_has_the_keys_that_scripts_rely_on_and_is_the_same_again() -> None:
    first, again = (json.loads(run("-o", "json").stdout) for _ in range(2))
    assert first.pop("cpu_s") > 0
    assert again.pop("cpu_s") > 0
    assert first == again
    assert {"seed", "members", "seconds", "befell", "resets", "trace", "violations"} <= first.keys()


def test_many_histories_are_stored_and_not_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    assert run("--seeds", "2", "--jobs", "2", "--resume", str(path)).exit_code == 0
    stored = {line["seed"]: line for line in lines(path)}
    assert stored.keys() == {4, 5}

    with path.open("a") as file:
        file.write('{"seed": 6, "mem')  # it ended in the middle
    result = run("--seeds", "3", "--resume", str(path), "-o", "json")
    assert f"2 of 3 are in {path}" in result.stderr
    found = {each["seed"]: each for each in json.loads(result.stdout)}
    assert found.keys() == {4, 5, 6}
    assert found[4]["trace"] == stored[4]["trace"]
    assert path.read_text().count('"seed": 6') == 2

    table = run("--seeds", "3", "--resume", str(path))
    assert "faults: 3 histories, 5 members, 3 min" in table.stdout
    assert "violated: none" in table.stdout


def test_a_violation_is_told_at_once_and_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Checks, "final", lambda self: self.violate("missing", "a row"))
    result = run()
    assert result.exit_code == 1
    assert "seed 4: missing at 180.0 s: a row" in result.stderr
    assert result.stdout.splitlines()[-1].split() == ["violations", "1"]
    result = run("--seeds", "2")
    assert result.exit_code == 1
    assert "violated: 4, 5" in result.stdout


def test_a_day_has_more_faults_than_an_hour() -> None:
    assert size_of(50, LONG_MINUTES).faults > size_of(50, LONG_MINUTES - 1).faults
