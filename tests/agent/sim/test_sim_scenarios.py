"""Each scenario gives what the formulas say, and its figures show a bug that is planted in the core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from coherd.sim.lifeguard import Cell, Rhythm, run
from coherd.sim.network import Links
from coherd.sim.scenarios import (
    Figure,
    Setup,
    detection,
    flapping,
    heal,
    join_all,
    stalling,
)
from coherd.sim.world import Stall
from coherd_membership import SwimConfig, _suspicion
from coherd_membership._exchange import Exchanger
from coherd_membership._outbox import Outbox
from coherd_membership._standing import Standing

LAN = SwimConfig.profile("lan")
SMALL = Setup(20, LAN, 3)
STALLING = replace(SMALL, rhythm=Rhythm(4, 9.0, 1.0))
Figures = dict[str, Any]


def figures(scenario: Callable[..., list[Figure]], setup: Setup = SMALL, **more: float) -> Figures:
    return {figure.key: figure.value for figure in scenario(setup, lambda _line: None, **more)}


def nothing(*_args: object, **_more: object) -> None:
    """Take the place of a part of the core."""


# ---------------------------------------------------------------------- what they should give


@pytest.mark.parametrize("profile", ["lan", "fast", "local"])
def test_crashes_are_declared_within_the_bounds_of_the_formulas(profile: str) -> None:
    config = SwimConfig.profile(profile)
    setup = Setup(10, config, 1)
    found = figures(detection, setup, crashes=10)
    soonest = _suspicion.minimum(config, setup.members) + config.probe_timeout
    latest = 2 * setup.members * config.probe_interval + _suspicion.maximum(config, setup.members)
    assert soonest <= found["detect_p50_s"] <= found["detect_p99_s"] <= latest
    assert found["detect_p50_s"] <= soonest + 3 * config.probe_interval
    assert found["detect_p50_s"] <= found["known_p50_s"]
    assert (found["crashes"], found["clusters"]) == (10, 10)
    assert (found["false_deaths"], found["not_known"]) == (0, 0)
    # a question and its answer each interval, beside what is exchanged now and then
    assert 2 <= found["messages_per_member_s"] * config.probe_interval < 2.5
    assert found["bytes_per_member_s"] <= found["bytes_per_member_s_max"]


def test_of_a_large_cluster_several_crash() -> None:
    found = figures(detection, Setup(100, LAN, 1), crashes=3)
    assert (found["crashes"], found["clusters"]) == (3, 2)


def test_all_faults_at_once_are_survived() -> None:
    links = Links(0.001, 0.1, loss=0.05, duplication=0.1)
    setup = replace(SMALL, links=links, rhythm=Rhythm(2, 0.5, 5.0, Stall.FROZEN))
    assert figures(detection, setup, crashes=2)["not_known"] == 0
    assert figures(join_all, setup)["whole_s"] < 20
    assert figures(heal, setup, duration=60)["heal_s"] < 120
    assert figures(flapping, setup, duration=60)["steady_whole"]


def test_all_join_at_once() -> None:
    found = figures(join_all)
    assert 0 < found["whole_s"] < 5
    assert found["bytes_of_busiest"] >= found["bytes_per_member"] > 0
    assert found["false_deaths"] == 0


def test_halves_become_one_cluster_again() -> None:
    found = figures(heal, duration=120)
    assert found["split"]
    assert found["split_deaths"] == 2 * 10 * 10
    assert 0 < found["heal_s"] < 60


def test_a_partition_too_short_to_be_seen_splits_nothing() -> None:
    found = figures(heal, duration=1)
    assert not found["split"]
    assert found["split_deaths"] == 0


def test_those_that_do_not_flap_stay_together() -> None:
    found = figures(flapping, duration=120)
    assert found["restarts"] > 2
    assert found["steady_whole"]
    assert found["false_deaths"] == 0
    assert found["whole_s"] < 60


def test_stalls_kill_healthy_members_in_plain_swim_and_not_with_lifeguard() -> None:
    plain = figures(stalling, replace(STALLING, config=LAN.plain()), duration=120)
    full = figures(stalling, STALLING, duration=120)
    assert plain["false_deaths_healthy"] > 0
    assert full["false_deaths_healthy"] == 0
    assert full["detect_s"] <= full["known_s"]


def test_a_cell_of_the_grid_ends_the_same_each_time_and_its_variants_share_a_seed() -> None:
    cell = Cell("full", Rhythm(1, 0.5, 16.0), 0)
    assert cell.seed == replace(cell, variant="plain").seed
    assert cell.seed != replace(cell, repeat=1).seed
    first = run(cell)
    assert run(cell) == first
    assert first.first_detection is not None
    assert first.full_dissemination is not None


# ---------------------------------------------------------------------- planted bugs


def test_detection_shows_a_core_that_passes_no_news_on(monkeypatch: pytest.MonkeyPatch) -> None:
    right = figures(detection, crashes=2)
    monkeypatch.setattr(Outbox, "pass_on", nothing)
    wrong = figures(detection, crashes=2)
    assert wrong["not_known"] > 0 or wrong["known_p50_s"] > 1.5 * right["known_p50_s"]


def test_join_shows_a_core_that_answers_no_full_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    right = figures(join_all)
    monkeypatch.setattr(Exchanger, "answer", nothing)  # what is left is gossip
    assert figures(join_all)["whole_s"] > 5 * right["whole_s"]


def test_heal_shows_a_core_that_asks_neither_seeds_nor_the_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Exchanger, "ask_down", nothing)
    monkeypatch.setattr(Exchanger, "ask_seeds", nothing)
    assert figures(heal, duration=60)["heal_s"] is None


def test_flapping_shows_a_core_that_never_refutes(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = partial(figures, flapping, STALLING, duration=60)
    assert ask()["false_deaths"] == 0
    monkeypatch.setattr(Standing, "_refute", nothing)
    wrong = ask()
    assert wrong["false_deaths"] > 0
    assert not wrong["steady_whole"]


def test_stalls_show_a_core_that_never_refutes(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = partial(figures, stalling, STALLING, duration=60)
    assert ask()["false_deaths_healthy"] == 0
    monkeypatch.setattr(Standing, "_refute", nothing)
    wrong = ask()
    assert wrong["false_deaths_healthy"] > 0
    assert wrong["messages_per_member_s"] < 10, "two that cannot refute keep telling each other so"
