"""What is said of a member itself: refuted, or by enough others the end of its life."""

from __future__ import annotations

import pytest
from pair import Cores, acquainted, address, datagram, news, swim, tell

from coherd_membership import EpochNeeded, NameTaken, Status, SwimConfig
from coherd_membership._messages import Kind

LAN = SwimConfig()


def epochs_needed(core: object) -> list[int]:
    return [each.epoch for each in core.events() if isinstance(each, EpochNeeded)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [Status.SUSPECT, Status.DEAD, Status.RESTARTING])
def test_what_can_be_refuted_is_refuted_by_one_incarnation_more(status: Status) -> None:
    core = acquainted("a")
    tell(core, "a", news("me", status, 7, accusers=("a",)))
    assert (core.me.incarnation, core.me.status) == (8, Status.ALIVE)
    assert core.statistics()["refuted"] == 1


def test_a_struck_life_is_believed_of_the_same_one_only_after_a_while() -> None:
    core = acquainted("a", "b", "c")
    tell(core, "a", kind=Kind.ENTRIES)
    struck = news("me", Status.LEFT)
    for now in (0.0, 0.1, LAN.inquiry_timeout - 0.01):
        tell(core, "a", struck, now=now)
        assert epochs_needed(core) == []
    tell(core, "a", struck, now=LAN.inquiry_timeout)
    assert epochs_needed(core) == [1]
    core.renew(2)
    tell(core, "a", struck, now=9.0)
    assert epochs_needed(core) == [], "that was the life before"


def test_a_struck_life_is_believed_of_two_at_once_and_of_anybody_while_joining() -> None:
    core = acquainted("a", "b", "c")
    tell(core, "a", kind=Kind.ENTRIES)
    tell(core, "a", news("me", Status.LEFT))
    tell(core, "b", news("me", Status.LEFT))
    assert epochs_needed(core) == [1]
    fresh = swim()
    tell(fresh, "a", news("me", Status.LEFT, epoch=9))
    assert epochs_needed(fresh) == [9]


def test_who_is_at_home_does_not_stop_because_one_other_says_so_again_and_again() -> None:
    core = acquainted("a", "b", "c")
    tell(core, "a", kind=Kind.ENTRIES)
    taken = datagram(Kind.TAKEN, "a", target="me", at="elsewhere:1", root=core._roster.root)
    for now in range(100):
        core.receive(taken, address("a"), float(now))
    assert not [each for each in core.events() if isinstance(each, NameTaken)]


def test_two_that_hold_each_other_for_gone_do_not_tell_each_other_so_for_ever() -> None:
    cores = Cores("a", "b")
    cores.advance(3.0)
    for one, other in ("ab", "ba"):
        cores[one]._hearing.apply(news(other, Status.LEFT), cores.now)
    before = len(cores.traffic)
    cores.inject(datagram(Kind.TELL, cores["b"].me), address("b"), "a")
    cores.advance(0.5)
    assert 0 < len(cores.traffic) - before < 20
