"""`coherd simulate membership`: its seed, its table, its JSON, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from coherd.cli import simulate
from coherd.cli.main import cli
from coherd.cli.simulate import KINDS, PROFILES, SCENARIOS
from coherd.sim import scenarios
from coherd.sim.world import Stall
from coherd_membership import SwimConfig

ALWAYS = {"scenario", "seed", "members", "profile", "plain", "bytes_per_member_s", "false_deaths"}
SHORT = ("--members", "10", "--crashes", "2", "--lasts", "20s")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", "membership", *arguments])


def found(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "-o", "json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert isinstance(answer, dict)
    return answer


def test_the_answer_has_the_keys_that_scripts_rely_on() -> None:
    answer = found("--members", "10", "--profile", "fast", "--crashes", "2", "--seed", "4")
    assert {"detect_p50_s", "detect_p99_s", "events", *ALWAYS} <= answer.keys()
    assert answer["events_per_s"] > 0
    assert (answer["seed"], answer["members"], answer["profile"]) == (4, 10, "fast")
    assert 0 < answer["detect_p50_s"] <= answer["detect_p99_s"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_answers_in_json_and_for_people(scenario: str) -> None:
    asked = ("--scenario", scenario, "--seed", "7", *SHORT)
    assert found(*asked).keys() >= ALWAYS
    result = run(*asked)
    assert result.stderr.startswith("seed 7\n")
    head, *lines = result.stdout.splitlines()
    assert head == f"{scenario}: 10 members, profile lan, SWIM with Lifeguard"
    assert any(line.startswith("false deaths") for line in lines)
    assert getattr(scenarios, SCENARIOS[scenario].function)


def test_the_printed_seed_gives_the_same_answer_again() -> None:
    first = found(*SHORT)
    again, other = (found(*SHORT, "--seed", str(first["seed"] + more)) for more in (0, 1))
    for answer in (first, again, other):
        del answer["events_per_s"]  # of this machine, at this moment
    assert again == first
    assert other != first


def test_faults_and_the_plain_variant_reach_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    setups = []
    monkeypatch.setattr(
        scenarios, "stalling", lambda setup, _tell, duration: setups.append((setup, duration)) or []
    )
    monkeypatch.setattr(simulate, "speed", lambda _figures, _spent: 0.0)
    faults = (
        "--loss=0.1 --duplication=0.2 --delay=10ms --stalled=3 --stall=2s --between=500ms "
        "--stall-kind=frozen --plain --lasts=30s --seed=9"
    )
    assert run("--scenario=lifeguard", *faults.split()).exit_code == 0
    ((setup, duration),) = setups
    links, rhythm = setup.links, setup.rhythm
    assert (links.delay_min, links.delay_max) == pytest.approx((0.005, 0.015))
    assert (links.loss, links.duplication) == (0.1, 0.2)
    assert rhythm == scenarios.Rhythm(3, 2.0, 0.5, Stall.FROZEN)
    assert setup.config == SwimConfig.profile("lan").plain()
    assert (setup.seed, duration) == (9, 30)


def test_choices_are_those_of_the_library_and_the_simulator() -> None:
    assert set(PROFILES) == SwimConfig.PROFILES.keys()
    assert [kind.value for kind in Stall] == list(KINDS)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--members", "10", "--stalled", "6"), "at most half of the 10 members"),
        (("--stalled", "1", "--stall", "0s", "--between", "0s"), "make one of them longer"),
        (("--members", "2"), "3<=x<=5000"),
        (("--loss", "1"), "0<=x<1"),
        (("--scenario", "detektion"), "detection"),
    ],
)
def test_what_cannot_be_simulated_is_refused(arguments: tuple[str, ...], why: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert why in result.stderr
