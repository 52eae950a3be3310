"""What a member believes: of those who speak for themselves, who restart, leave, are forgotten and return."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pair import Cores, acquainted, address, changes, datagram, news, run, sent, status, swim, tell

from coherd_membership import (
    Change,
    Dropped,
    EpochNeeded,
    MemberChanged,
    NotPossible,
    Status,
    Swim,
    SwimConfig,
)
from coherd_membership._messages import Kind

LAN = SwimConfig()


def dropped(core: Swim) -> list[Dropped]:
    return [event for event in core.events() if isinstance(event, Dropped)]


# ---------------------------------------------------------------------- firsthand and told


def test_who_speaks_is_known_and_alive() -> None:
    core = swim()
    tell(core, "a")
    assert core.events() == [MemberChanged(Change.JOINED, None, news("a"))]
    assert core.members["a"].heard
    tell(core, "b", news("c"))
    assert status(core, "c") is Status.ALIVE
    assert not core.members["c"].heard


@pytest.mark.parametrize("word", [Status.SUSPECT, Status.DEAD])
def test_nobody_says_of_itself_that_it_is_suspect_or_dead(word: Status) -> None:
    core = acquainted("a", "b")
    tell(core, news("a", word, 5), news("c"))
    assert status(core, "a") is Status.ALIVE
    assert status(core, "c") is None, "nothing else of such a message counts"


def test_older_news_changes_nothing_and_the_teller_is_told_only_of_itself() -> None:
    core = acquainted("a", "b")
    tell(core, news("b", incarnation=5))
    core.events()
    tell(core, "a", news("b", Status.DEAD, 4, accusers=("a", "b")))
    assert core.members["b"].news == news("b", incarnation=5)
    assert core.events() == []


def test_the_dead_stay_dead_until_they_speak_and_are_told_what_is_said() -> None:
    core = acquainted("a", "b", "x")
    tell(core, "a", news("x", Status.DEAD, accusers=("a", "b")))
    core.datagrams()
    tell(core, "x")
    assert status(core, "x") is Status.DEAD
    ((to, message),) = sent(core)
    assert (to, message.news[0].status) == (address("x"), Status.DEAD)
    tell(core, news("x", incarnation=2))
    assert changes(core.events(), "x")[-1] == Change.RETURNED


# ---------------------------------------------------------------------- restarting


def test_a_restart_is_announced_and_the_next_life_is_back_without_any_death() -> None:
    cores = Cores("a", "b", "c", "d")
    cores.advance(5.0)
    cores["b"].restart()
    cores.advance(0.1)
    assert cores.seen("b") == {Status.RESTARTING}
    cores.crash("b")
    cores.advance(6.0)
    cores.start("b", [address("a")], epoch=2)
    cores.advance(6.0)
    assert cores.is_whole()
    for name in "acd":
        assert changes(cores.events[address(name)], "b") == ["joined", "restarting", "returned"]


def test_who_does_not_come_back_from_a_restart_is_down_after_ten_seconds_on_everybody() -> None:
    cores = Cores("a", "b", "c", "d")
    cores.advance(5.0)
    cores["b"].restart()
    cores.advance(0.1)
    cores.crash("b")
    cores.advance(9.8)
    assert cores.seen("b") == {Status.RESTARTING}
    cores.advance(0.3)
    assert cores.seen("b") == {Status.DEAD}


def test_while_it_restarts_a_death_that_others_tell_does_not_count() -> None:
    core = acquainted("a", "b", "x")
    tell(core, news("x", Status.RESTARTING, 1))
    tell(core, "a", news("x", Status.DEAD, 1, accusers=("a", "b")))
    assert status(core, "x") is Status.RESTARTING


def test_a_restarting_member_only_answers() -> None:
    core = acquainted("a", "b")
    core.start(["seed:1"], 0.0)
    core.restart()
    told = sent(core, Kind.TELL)
    assert {to for to, _ in told} == {address("a"), address("b")}
    assert {message.sender.status for _, message in told} == {Status.RESTARTING}
    run(core, 1_000.0)
    assert sent(core) == []
    core.receive(datagram(Kind.PING, "a", sequence=1, target="me"), address("a"), 1.0)
    assert len(sent(core, Kind.ACK)) == 1


# ---------------------------------------------------------------------- leaving


def test_a_leave_is_believed_firsthand_and_the_member_is_silent_from_then_on() -> None:
    cores = Cores("a", "b", "c")
    cores.advance(5.0)
    cores["b"].leave()
    cores.advance(0.5)
    assert cores.seen("b") == {Status.LEFT}
    before = len(cores.traffic)
    cores.advance(30.0)
    assert address("b") not in {source for _, source, _ in cores.traffic[before:]}
    assert cores.seen("b") == {Status.LEFT}
    for name in "ac":
        assert "died" not in changes(cores.events[address(name)], "b")


def test_who_has_left_owes_nobody_anything() -> None:
    core = acquainted("a", "b", "c")
    core.start(["seed:1"], 0.0)
    tell(core, "a", news("c", Status.SUSPECT, accusers=("a", "b")), news("b", Status.LEFT))
    helped = datagram(Kind.PING_REQUEST, "a", sequence=1, target="b", at=address("b"))
    core.receive(helped, address("a"), 0.0)
    core.leave()
    core.datagrams()
    assert core.next_timer() is None
    core.receive(datagram(Kind.PING, "a", sequence=1, target="me"), address("a"), 1.0)
    core.failed_to_send(address("a"), 1.0)
    core.join(["seed:2"], 1.0)
    core.restart()
    core.leave()
    assert core.datagrams() == []
    assert core.me.status is Status.LEFT


def test_a_told_leave_of_somebody_alive_is_refuted_counted_and_dropped() -> None:
    cores = Cores("a", "b", "c", "d")
    cores.advance(5.0)
    lie = cores["b"].me._replace(status=Status.LEFT, incarnation=9)
    word = cores["c"].me
    cores.inject(datagram(Kind.TELL, word, told=[lie]), address("c"), "a")
    cores.advance(5.0)
    assert cores.is_whole()
    assert cores.at[address("a")].statistics()["forged_leaves"] == 1
    (event,) = cores.happened("a", Dropped)
    assert event == Dropped("forged_leaves", "b", "c")


def test_a_told_leave_of_somebody_silent_is_believed_after_a_second() -> None:
    core = acquainted("a", "b")
    tell(core, "a", news("b", Status.LEFT), now=1.0)
    ((to, ping),) = sent(core, Kind.PING)
    assert (to, ping.target) == (address("b"), "b")
    run(core, 1.9)
    assert status(core, "b") is Status.ALIVE
    run(core, 2.1)
    assert status(core, "b") is Status.LEFT


def test_a_member_that_missed_the_leave_hears_of_it() -> None:
    cores = Cores("a", "b", "c", "d")
    cores.advance(5.0)
    cores.cut("b", "d")
    cores["b"].leave()
    cores.advance(5.0)
    assert cores.seen("b") == {Status.LEFT}


def test_who_has_left_and_was_never_known_is_not_taken_in() -> None:
    core = acquainted("a")
    tell(core, news("x", Status.LEFT))
    assert status(core, "x") is None


# ---------------------------------------------------------------------- forgetting


def test_only_the_dead_can_be_forgotten() -> None:
    core = acquainted("a", "b")
    with pytest.raises(NotPossible, match="no member 'x'"):
        core.forget("x", 0.0)
    with pytest.raises(NotPossible, match="a is alive"):
        core.forget("a", 0.0)
    core._hearing.apply(news("a", Status.DEAD), 0.0)
    assert core.forget("a", 0.0) == news("a", Status.LEFT)
    with pytest.raises(NotPossible, match="no member 'a'"):
        core.forget("a", 0.0)


def test_a_forgotten_life_that_returns_asks_for_a_new_epoch_when_two_say_so_and_is_back_with_it() -> (
    None
):
    cores = Cores("a", "b", "c", "d", "x")
    cores.advance(5.0)
    cores.stall("x")
    cores.advance(40.0)
    assert cores.seen("x") == {Status.DEAD}
    cores["a"].forget("x", cores.now)
    cores.advance(5.0)
    assert cores.seen("x") == {Status.LEFT}
    cores.resume("x")
    for _ in range(100):
        cores.advance(0.1)
        if needed := cores.happened("x", EpochNeeded):
            break
    assert needed[0].epoch == 1
    assert cores.seen("x") == {Status.LEFT}
    cores["x"].renew(2)
    cores.advance(5.0)
    assert cores.is_whole()
    assert cores["x"].me.epoch == 2


def test_one_teller_does_not_end_a_life_once_it_has_joined_but_does_while_joining() -> None:
    for joined in (False, True):
        core = swim()
        if joined:
            tell(core, "a", kind=Kind.ENTRIES)
            tell(core, "b", kind=Kind.ENTRIES)
            tell(core, "c", kind=Kind.ENTRIES)
        core.events()
        assert core.has_joined == joined
        tell(core, "a", news("me", Status.LEFT))
        tell(core, "a", news("me", Status.LEFT))
        needed = [event for event in core.events() if isinstance(event, EpochNeeded)]
        assert bool(needed) != joined
        tell(core, "b", news("me", Status.LEFT))
        assert any(isinstance(event, EpochNeeded) for event in core.events())


def test_the_same_teller_counts_again_after_a_while() -> None:
    """Else one that alone was told to forget a member would never see it again."""
    core = acquainted("a", "b", "c")
    tell(core, "a", kind=Kind.ENTRIES)
    core.events()
    for now, is_over in ((0.0, False), (0.9, False), (1.0, True)):
        tell(core, "a", news("me", Status.LEFT), now=now)
        assert any(isinstance(event, EpochNeeded) for event in core.events()) == is_over


def test_a_later_life_of_a_member_that_left_joins() -> None:
    core = acquainted("a", "x")
    tell(core, news("x", Status.LEFT, 1))
    tell(core, "x")
    assert status(core, "x") is Status.LEFT
    tell(core, news("x", epoch=2))
    assert changes(core.events(), "x") == ["left", "joined"]


# ---------------------------------------------------------------------- a new epoch


def test_a_life_with_an_older_epoch_than_is_known_asks_for_a_later_one() -> None:
    cores = Cores("a", "b")
    cores.start("x", [address("a")], epoch=10)
    cores.advance(5.0)
    cores.crash("x")
    cores.start("x", [address("a")], epoch=3)
    cores.advance(2.0)
    needed = cores.happened("x", EpochNeeded)
    assert needed[0].epoch == 10
    cores["x"].renew(needed[0].epoch + 1)
    cores.advance(5.0)
    assert cores.is_whole()


def test_a_refutation_beyond_the_last_incarnation_asks_for_a_new_epoch() -> None:
    config = replace(LAN, incarnation_ahead_max=4)
    core = acquainted("a", config=config)
    tell(core, "a", news("me", Status.SUSPECT, 3, accusers=("a",)))
    assert core.me.incarnation == 4
    tell(core, "a", news("me", Status.SUSPECT, 4, accusers=("a",)))
    (needed,) = [event for event in core.events() if isinstance(event, EpochNeeded)]
    assert needed.epoch == 1
    assert core.me.incarnation == 4
    core.renew(2)
    assert core.me == news("me", epoch=2)


def test_publishing_beyond_the_last_incarnation_asks_for_a_new_epoch() -> None:
    """Newcomers would take so high an incarnation for poison."""
    core = acquainted("a", config=replace(LAN, incarnation_ahead_max=4))
    for number in range(3):
        core.publish(b"%d" % number)
    assert core.events() == []
    core.publish(b"one too many")
    (needed,) = core.events()
    assert isinstance(needed, EpochNeeded)
    assert needed.epoch == 1


def test_a_new_epoch_has_to_be_later_and_one_that_is_believed() -> None:
    core = swim(epoch=5, config=replace(LAN, epoch_max=9))
    for epoch in (4, 5, 10):
        with pytest.raises(ValueError, match=f"epoch {epoch}"):
            core.renew(epoch)
    core.renew(9)
    with pytest.raises(ValueError, match="epoch 10"):
        swim(epoch=10, config=replace(LAN, epoch_max=9))


# ---------------------------------------------------------------------- what an earlier life knew


def test_whom_an_earlier_life_knew_is_down_until_it_answers() -> None:
    core = swim(known=[news("a"), news("b", Status.LEFT), news("c", Status.SUSPECT), news("me")])
    core.start((), 100.0)
    assert [status(core, name) for name in "abc"] == [Status.DEAD, Status.LEFT, Status.DEAD]
    assert core.members["a"].since == 100.0
    assert "me" not in core.members
    tell(core, "a", now=101.0)
    assert changes(core.events(), "a")[-1] == Change.RETURNED


def test_a_member_that_restarts_with_what_it_knew_makes_nobody_suspect_anybody() -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    cores = Cores(*names)
    cores.advance(10.0)
    known = [member.news for member in cores["f"].members.values()]
    cores["f"].restart()
    cores.advance(0.1)
    cores.start("f", [address("a")], epoch=2, known=known)
    cores.advance(20.0)
    assert cores.is_whole()
    for name in names:
        for other in names:
            assert "suspected" not in changes(cores.events[address(name)], other)
    assert {core.me.incarnation for core in cores.at.values()} == {1}, "nobody had to refute"
