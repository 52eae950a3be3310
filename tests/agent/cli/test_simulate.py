"""`coherd simulate`, membership and spread: its seed, its table, its JSON, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from coherd.cli import simulate
from coherd.cli.main import cli
from coherd.cli.simulate import KINDS, PROFILES, SCENARIOS
from coherd.model import Lane
from coherd.sim import scenarios, spread_run
from coherd.sim.spread_run import SpreadSetup
from coherd.sim.spread_world import Region
from coherd.sim.streams import Conditions
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


# ---------------------------------------------------------------------- coherd simulate spread

SMALL = ("--members", "30", "--count", "4", "--rate", "50")


def run_spread(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", "spread", *arguments])


def found_spread(*arguments: str) -> dict[str, Any]:
    result = run_spread(*arguments, "-o", "json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert isinstance(answer, dict)
    return answer


def test_spreading_answers_with_the_keys_that_scripts_rely_on() -> None:
    answer = found_spread(*SMALL, "--lane", "urgent", "--seed", "4", "--receipts")
    assert {
        "p50_ms",
        "p99_ms",
        "last_ms",
        "copies",
        "delivered",
        "missing",
        "repaired",
    } <= answer.keys()
    assert {"bytes_per_member_s", "repair_bytes_per_member_s", "redelegated"} <= answer.keys()
    assert (answer["seed"], answer["members"], answer["lane"]) == (4, 30, "urgent")
    assert (answer["delivered"], answer["receipts"]) == (1, 4)
    assert 0 < answer["p50_ms"] <= answer["p99_ms"] <= answer["last_ms"]


def test_spreading_has_a_table_for_people_and_a_curve(tmp_path: Path) -> None:
    curve = tmp_path / "curve.svg"
    result = run_spread(*SMALL, "--seed", "7", "--plot", str(curve))
    assert curve.read_text().startswith("<svg")
    assert result.stderr.startswith("seed 7\n")
    head, *lines = result.stdout.splitlines()
    assert head == "spread: 30 members, normal lane, 4 rows"
    assert any(line.startswith("copies a member") for line in lines)


def test_the_seed_of_a_region_gives_the_same_answer_again() -> None:
    first = found_spread(*SMALL, "--loss", "0.1")
    assert found_spread(*SMALL, "--loss", "0.1", "--seed", str(first["seed"])) == first
    assert found_spread(*SMALL, "--loss", "0.1", "--seed", str(first["seed"] + 1)) != first


def test_what_is_asked_of_a_region_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    setups = []
    monkeypatch.setattr(
        spread_run,
        "spreading",
        lambda setup, _tell: setups.append(setup) or spread_run.Spreading([], []),
    )
    monkeypatch.setattr(simulate, "speed", lambda _figures, _spent: 1.0)
    asked = (
        "--members=50 --lane=bulk --count=7 --rate=3 --size=9 --publishers=2 --receipts --seed=9 --loss=0.1 "
        "--stall=0.2 --stall-for=1s --late-replies=0.3 --crash=0.4 --interest=0.5 --differing=0.6"
    )
    assert run_spread(*asked.split()).exit_code == 0
    conditions = Conditions(loss=0.1, late_replies=0.3)
    region = Region(50, 0.5, 0.6, conditions=conditions)
    assert setups == [SpreadSetup(region, 9, Lane.BULK, 3, 7, 9, 2, 0.2, 1, 0.4, True)]


def test_lanes_are_those_of_the_model() -> None:
    assert [lane.name.lower() for lane in Lane] == list(simulate.LANES)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--members", "1"), "2<=x<=5000"),
        (("--rate", "0"), "x>0"),
        (("--interest", "0"), "0<x<=1"),
        (("--plot", "curve.png"), "only .svg can be drawn"),
    ],
)
def test_what_of_a_region_cannot_be_simulated_is_refused(
    arguments: tuple[str, ...], why: str
) -> None:
    result = run_spread(*arguments)
    assert result.exit_code == 2
    assert why in result.stderr
