"""The local health: every plus and minus, its bounds, and the sick observer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pair import Cores, acquainted, address, datagram, news, sent, status, swim, tell

from coherd_membership import Status, Swim, SwimConfig
from coherd_membership import _suspicion as suspicion
from coherd_membership._health import Health
from coherd_membership._messages import Kind

LAN = SwimConfig()


def test_the_score_stays_between_nothing_and_its_maximum() -> None:
    health = Health(LAN)
    health.add(-1)
    assert (health.score, health.stretch) == (0, 1)
    for _ in range(20):
        health.add(1)
    assert (health.score, health.stretch) == (8, 9)
    health.add(-3)
    assert health.score == 5


def test_of_a_maximum_of_zero_it_never_stretches() -> None:
    health = Health(LAN.plain())
    health.add(5)
    assert health.stretch == 1


def outcomes(health: Health, text: str, now: float = 0.0, silence: float = 24.0) -> list[bool]:
    """Note outcomes: `-` failed, `+` answered; gives where the observer turned sick."""
    return [health.probed(failed=each == "-", now=now, silence=silence) for each in text]


def test_over_half_of_the_last_ten_makes_a_sick_observer_once() -> None:
    health = Health(LAN)
    assert outcomes(health, "-----") == [False] * 5
    assert not health.is_sick(0.0)
    assert outcomes(health, "-") == [True]
    assert health.is_sick(0.0)
    assert outcomes(health, "----") == [False] * 4


def test_it_is_sick_for_at_most_the_given_time() -> None:
    health = Health(LAN)
    outcomes(health, "------", now=100.0, silence=24.0)
    assert health.is_sick(123.9)
    assert not health.is_sick(124.0)
    outcomes(health, "----", now=130.0)
    assert not health.is_sick(130.0), "still bad: it had its time, and may be right"


def test_it_is_sick_again_only_after_it_was_better() -> None:
    health = Health(LAN)
    outcomes(health, "------")
    outcomes(health, "++++++")
    assert not health.is_sick(0.0)
    turned = outcomes(health, "------", now=50.0)
    assert turned.count(True) == 1
    assert health.is_sick(50.0)


def test_old_outcomes_do_not_count() -> None:
    health = Health(LAN)
    outcomes(health, "-----" + "+" * 10 + "-----")
    assert not health.is_sick(0.0)


def test_zero_outcomes_switch_it_off() -> None:
    health = Health(replace(LAN, outcomes=0))
    assert outcomes(health, "-" * 30) == [False] * 30


# ---------------------------------------------------------------------- in a member


def started(*names: str) -> Swim:
    core = acquainted(*names)
    core.start((), 0.0)
    core.datagrams()
    return core


def test_a_failed_probe_and_every_missed_nack_count_and_a_good_probe_counts_back() -> None:
    core = started("a", "b", "c", "d")
    core._prober.begin(0.0)
    ((to, ping),) = sent(core, Kind.PING)
    core._prober.ask_helpers(0.5)
    helpers = [to for to, _ in sent(core, Kind.PING_REQUEST)]
    assert len(helpers) == 3
    tell_nack(core, helpers[0], ping.sequence, ping.target)
    core._prober.begin(1.0)
    assert core.health == 1 + 2
    ((to, ping),) = sent(core, Kind.PING)
    acknowledge(core, to, ping.sequence)
    assert core.health == 2


def tell_nack(core: Swim, source: str, sequence: int, target: str) -> None:
    name = source.partition(":")[0]
    core.receive(datagram(Kind.NACK, name, sequence=sequence, target=target), source, 0.6)


def acknowledge(core: Swim, source: str, sequence: int) -> None:
    core.receive(datagram(Kind.ACK, source.partition(":")[0], sequence=sequence), source, 1.1)


def test_the_own_health_stretches_interval_and_timeout() -> None:
    core = started("a", "b")
    core._health.add(3)
    core._prober.begin(10.0)
    assert core._timers.at(("period", None)) == 10.0 + 4 * LAN.probe_interval
    assert core._timers.at(("probe", None)) == 10.0 + 4 * LAN.probe_timeout


def test_a_late_timer_counts_and_one_in_time_does_not() -> None:
    core = started("a", "b")
    due = core.next_timer()
    assert due is not None
    core.handle_timer(due + LAN.late_after)
    assert (core.health, core.statistics().get("late")) == (0, None)
    due = core.next_timer()
    assert due is not None
    core.handle_timer(due + LAN.late_after + 0.01)
    assert core.health >= 1
    assert core.statistics()["late"] == 1


def test_a_verdict_waits_once_however_often_the_loop_is_late() -> None:
    core = started("b")
    core._hearing.accuse("b", 1.0)
    key = ("suspicion", "b")
    due = core._timers.at(key)
    assert due is not None
    core.note_late(due + 0.05)
    assert core._timers.at(key) == due + 0.05 + LAN.probe_timeout
    core.note_late(due + 0.3)  # late again, and the verdict is not due yet
    core.note_late(due + 0.6)
    core.handle_timer(due + 0.6)
    assert status(core, "b") is Status.DEAD
    assert key not in core._graced


def test_a_member_cut_off_accuses_nobody_for_one_maximal_suspicion_and_asks_its_seeds() -> None:
    names = [f"m{number}" for number in range(6)]
    cores = Cores(*names)
    cores.advance(20.0)
    cores.split(["m5"], names[:5])
    turned = None
    asked_before = 0
    for _ in range(4_000):
        asked_before = asked(cores, "m5")
        cores.advance(0.1)
        if cores["m5"].statistics().get("sick"):
            turned = cores.now
            break
    assert turned is not None
    assert asked(cores, "m5") > asked_before
    withheld = cores["m5"].statistics()["withheld"]
    cores.advance(suspicion.maximum(LAN, 6) - 1.0)
    statistics = cores["m5"].statistics()
    assert statistics["sick"] == 1
    assert statistics["withheld"] > withheld or cores["m5"].health == LAN.health_max


def asked(cores: Cores, name: str) -> int:
    """How often it has asked the seed."""
    return sum(
        each.destination == address("m0") and source == address(name)
        for _, source, each in cores.traffic
    )


def test_a_sick_observer_withholds_its_accusation() -> None:
    core = started("a", "b", "c")
    outcomes(core._health, "------", now=0.0, silence=24.0)
    core.probe_ended("a", 1.0, failed=True)
    assert status(core, "a") is Status.ALIVE
    assert core.statistics()["withheld"] == 1
    core.probe_ended("a", 25.0, failed=True)
    assert status(core, "a") is Status.SUSPECT


@pytest.mark.parametrize("count", [1, 3])
def test_every_own_refutation_counts(count: int) -> None:
    core = swim()
    tell(core, "a")
    for incarnation in range(1, count + 1):
        tell(core, "a", news("me", Status.SUSPECT, incarnation, accusers=("a",)))
    assert core.health == count
