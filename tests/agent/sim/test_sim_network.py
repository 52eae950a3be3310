"""What becomes of messages: delays, loss, duplicates, cuts, each in the directions that were asked for."""

from __future__ import annotations

from random import Random

import pytest

from coherd.sim.network import Links, Network
from coherd.sim.scheduler import Scheduler

MESSAGES = 10_000


def arrived(network: Network, source: int = 0, target: int = 1) -> int:
    return sum(len(network.delays(source, target)) for _ in range(MESSAGES))


def test_delays_lie_within_their_bounds_and_differ() -> None:
    network = Network(Links(0.1, 0.3), Random(1))
    delays = [network.delays(0, 1)[0] for _ in range(MESSAGES)]
    assert 0.1 <= min(delays) < 0.11
    assert 0.29 < max(delays) <= 0.3
    assert sum(delays) / MESSAGES == pytest.approx(0.2, abs=0.005)


def test_loss_and_duplication_have_the_shares_asked_for() -> None:
    assert arrived(Network(Links(), Random(1))) == MESSAGES
    lossy = Network(Links(loss=0.2), Random(1))
    assert arrived(lossy) == MESSAGES - lossy.lost
    assert lossy.lost == pytest.approx(0.2 * MESSAGES, rel=0.1)
    assert arrived(Network(Links(duplication=0.2), Random(1))) == pytest.approx(
        1.2 * MESSAGES, rel=0.02
    )


def test_one_link_may_lose_messages_one_way() -> None:
    network = Network(Links(), Random(1))
    network.lose(0, 1, 0.5)
    assert arrived(network, 0, 1) == pytest.approx(MESSAGES / 2, rel=0.05)
    assert arrived(network, 1, 0) == arrived(network, 0, 2) == MESSAGES


def test_a_cut_swallows_one_direction_until_it_is_mended() -> None:
    network = Network(Links(), Random(1))
    network.cut("a", {0, 1}, {2})
    network.cut("b", {1}, {2})
    assert arrived(network, 0, 2) == arrived(network, 1, 2) == 0
    assert arrived(network, 2, 0) == arrived(network, 0, 1) == MESSAGES
    network.mend("a")
    assert arrived(network, 0, 2) == MESSAGES
    assert arrived(network, 1, 2) == 0
    network.mend("b")
    assert arrived(network, 1, 2) == MESSAGES


def test_events_come_by_time_and_simultaneous_ones_in_the_order_of_their_scheduling() -> None:
    scheduler: Scheduler[str] = Scheduler()
    for at, event in ((2.0, "late"), (1.0, "a"), (1.0, "b"), (-1.0, "passed"), (9.0, "beyond")):
        scheduler.add(at, event)
    happened = [(scheduler.now, event) for event in scheduler.pass_to(5.0)]
    assert happened == [(0.0, "passed"), (1.0, "a"), (1.0, "b"), (2.0, "late")]
    assert scheduler.now == 5.0
