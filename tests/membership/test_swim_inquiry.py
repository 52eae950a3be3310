"""Names and addresses: the old address is asked before a name moves, and nobody takes a living one's name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pair import Cores, acquainted, address, changes, datagram, news, run, sent, status, swim, tell

from coherd_membership import Dropped, EpochNeeded, NameTaken, Status, SwimConfig
from coherd_membership._messages import Kind

LAN = SwimConfig()
NEW = "elsewhere:7000"


@pytest.mark.parametrize("seed", ["a", "x"])
def test_a_newcomer_with_the_name_of_a_living_member_learns_who_holds_it(seed: str) -> None:
    cores = Cores("a", "b", "x")
    cores.advance(5.0)
    cores.start("x", [address(seed)], epoch=9, address=NEW)
    cores.advance(3.0)
    (taken, *_) = cores.happened(NEW, NameTaken)
    assert taken == NameTaken(address("x"))
    assert {core.members["x"].news for core in (cores["a"], cores["b"])} == {cores["x"].me}
    assert cores.happened("x", NameTaken) == []
    assert not cores.at[NEW].has_joined
    cores.crash(NEW)
    cores.advance(20.0)
    assert cores.is_whole()
    assert cores["x"].me.epoch == 1


def test_two_fresh_ones_of_one_name_that_are_each_others_seeds_agree_on_one() -> None:
    cores = Cores()
    cores.start("x", [NEW])
    cores.start("x", [address("x")], epoch=2, address=NEW)
    cores.advance(5.0)
    assert cores.happened(NEW, NameTaken)
    assert cores.happened("x", NameTaken) == []


def test_a_member_started_at_another_address_is_followed_when_the_old_one_is_silent() -> None:
    cores = Cores("a", "b", "c", "x")
    cores.advance(5.0)
    cores.crash("x")
    cores.start("x", [address("a")], epoch=2, address=NEW)
    cores.advance(0.9)
    assert status(cores["a"], "x") is Status.ALIVE
    assert cores["a"].members["x"].news.address == address("x")
    cores.advance(6.0)
    assert cores.is_whole()
    assert {cores[name].members["x"].news.address for name in "abc"} == {NEW}
    for name in "abc":
        assert "died" not in changes(cores.events[address(name)], "x")


def test_somebody_else_at_the_old_address_is_no_answer() -> None:
    cores = Cores("a", "b", "x")
    cores.advance(5.0)
    cores.crash("x")
    cores.start("other", [address("a")], address=address("x"))
    cores.start("x", [address("a")], epoch=2, address=NEW)
    cores.advance(20.0)
    assert {cores[name].members["x"].news.address for name in "ab"} == {NEW}
    assert {status(cores[name], "other") for name in "ab"} == {Status.ALIVE}


def test_a_told_move_is_asked_about_too() -> None:
    core = acquainted("a", "x")
    tell(core, "a", news("x", epoch=2, address=NEW), now=1.0)
    ((to, ping),) = sent(core, Kind.PING)
    assert (to, ping.target) == (address("x"), "x")
    tell(core, "x", now=1.5)
    run(core, 10.0)
    assert core.members["x"].news == news("x")
    (event,) = [event for event in core.events() if isinstance(event, Dropped)]
    assert event == Dropped("names_taken", "x", "a")


def test_one_question_for_each_name_and_so_many_at_once() -> None:
    core = acquainted("a", *"wxyz", config=replace(LAN, inquiries_max=3))
    tell(core, "a", *(news(name, Status.LEFT) for name in "wxyzwxyz"))
    assert [ping.target for _, ping in sent(core, Kind.PING)] == ["w", "x", "y"]
    assert len(core._hearing._inquiries._open) == 3
    assert core.statistics()["inquiries"] == 2
    run(core, 5.0)
    assert core._hearing._inquiries._open == {}


def test_who_gives_up_its_address_to_a_later_life_is_followed_back() -> None:
    cores = Cores("a", "b", "x")
    cores.advance(5.0)
    for epoch, at in ((2, NEW), (3, address("x"))):
        old = cores.at[address("a")].members["x"].news.address
        cores.crash(old)
        cores.start("x", [address("a")], epoch=epoch, address=at)
        cores.advance(6.0)
        assert cores.is_whole()
        assert {cores[name].members["x"].news.address for name in "ab"} == {at}


def test_a_member_at_home_needs_two_to_be_told_that_its_name_is_taken() -> None:
    core = acquainted("a", "b", "c")
    tell(core, "a", kind=Kind.ENTRIES)
    for teller, count in (("a", 0), ("a", 0), ("b", 1)):
        payload = datagram(Kind.TAKEN, teller, target="me", at=NEW, root=core._roster.root)
        core.receive(payload, address(teller), 0.0)
        assert len([each for each in core.events() if isinstance(each, NameTaken)]) == count


def test_two_at_home_with_one_name_do_not_answer_each_other_for_ever() -> None:
    core = acquainted("a", "b")
    tell(core, "a", kind=Kind.ENTRIES)
    core.datagrams()
    namesake = news("me", epoch=2, address=NEW)
    core.receive(datagram(Kind.PING, namesake, target="me"), NEW, 0.0)
    ((to, message),) = sent(core)
    assert (to, message.kind, message.address) == (NEW, Kind.TAKEN, address("me"))
    core.receive(datagram(Kind.TAKEN, namesake, target="me", at=NEW), NEW, 0.0)
    assert sent(core) == []
    assert not any(isinstance(each, NameTaken) for each in core.events())


def test_nobody_can_tell_a_member_that_it_took_its_own_name() -> None:
    core = swim()
    tell(core, "a")
    for target, at in (("me", address("me")), ("other", NEW)):
        core.receive(datagram(Kind.TAKEN, "a", target=target, at=at), address("a"), 0.0)
    assert not any(isinstance(each, NameTaken) for each in core.events())


def test_the_two_halves_of_a_partition_with_one_name_each_end_with_the_first() -> None:
    """A second life began where the first was not seen; after healing it has to go, and the first is back."""
    cores = Cores("a", "b", "c", "x", "d", "e")
    cores.advance(5.0)
    cores.split(["a", "b", "c", "x"], ["d", "e"])
    cores._cut |= {(address(name), NEW) for name in "abcx"} | {
        (NEW, address(name)) for name in "abcx"
    }
    cores.advance(60.0)
    cores.start("x", [address("d")], epoch=2, address=NEW)
    cores.advance(10.0)
    assert cores["d"].members["x"].news.address == NEW
    cores.heal()
    for _ in range(1_000):
        cores.advance(0.1)
        if cores.happened(NEW, NameTaken):
            break
    assert cores.happened(NEW, NameTaken)[0] == NameTaken(address("x"))
    assert cores.happened("x", NameTaken) == []
    cores.crash(NEW)
    for _ in range(2_000):
        cores.advance(0.1)
        if needed := cores.happened("x", EpochNeeded):
            cores["x"].renew(needed[-1].epoch + 1) if cores["x"].me.epoch == 1 else None
    assert cores.is_whole()
    assert {cores[name].members["x"].news.address for name in "abcde"} == {address("x")}
