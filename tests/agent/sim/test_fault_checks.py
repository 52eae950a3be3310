"""What the checks of the simulation of faults take for harmless: no more than what the rules bring about."""

from __future__ import annotations

import pytest
from fault_worlds import NAMESPACE, world

from coherd.model import Cause, Effect, Lane, Stream
from coherd.replication.eras import Era, Turn
from coherd.replication.intervals import Intervals
from coherd.sim.faults.member import Member
from coherd.sim.faults.world import FaultWorld

ONE = Intervals([(1, 1)])


def publish(made: FaultWorld) -> Stream:
    """Let the first member publish a row."""
    assert made.invalidate(made.members[0], NAMESPACE, Lane.NORMAL, [b"kk1"], Effect.DROP)
    return made.truth.issued[-1].batch.stream


def found(made: FaultWorld) -> list[str]:
    """Give what was found by now, and forget it."""
    violations = [violation.what for violation in made.checks.violations]
    made.checks.violations.clear()
    return violations


# ---------------------------------------------------------------------- resets


HERE, THERE = (3, 4), (0, 1, 2)
WAYS = [way for here in HERE for there in THERE for way in ((here, there), (there, here))]


def cut_off() -> tuple[FaultWorld, Stream]:
    """Cut two members off, one of which has heard of a row that neither has."""
    made = world(5)
    made.checks.loses_nothing = True
    made.cut(WAYS)
    stream = publish(made)
    heard = made.members[3]
    heard.mending.repair.claim("member-0", [(stream, ONE)])
    heard.mending.look()
    made.settle(heard)
    return made, stream


def test_who_is_cut_off_together_resets_when_one_gives_up_what_it_heard_of() -> None:
    made, _ = cut_off()
    made.run(made.now + 50)
    resets = [(reset.member, reset.cause) for reset in made.checks.resets_made]
    assert resets == [("member-3", Cause.UNCLAIMED), ("member-4", Cause.BELOW_FLOOR)]
    made.mend(WAYS)
    made.run(made.now + 60)
    made.checks.final()
    assert not found(made)


def test_a_reset_for_what_nobody_has_given_up_is_found() -> None:
    made, stream = cut_off()
    made.run(made.now + 20)
    made.checks.resets(made.members[4], NAMESPACE, Cause.BELOW_FLOOR, {stream: ONE})
    assert ["nothing was lost" in what for what in found(made)] == [True]


def test_a_reset_for_what_is_held_in_reach_is_found() -> None:
    made, stream = cut_off()
    made.run(made.now + 50)
    made.mend(WAYS)
    made.run(made.now + 20)
    made.checks.resets(made.members[4], NAMESPACE, Cause.BELOW_FLOOR, {stream: ONE})
    assert any("nothing was lost" in what for what in found(made))


# ---------------------------------------------------------------------- what comes again


def forget(made: FaultWorld, member: Member, stream: Stream) -> None:
    """Let a member forget a stream, as in an era."""
    member.mending.repair.drop(stream)
    member.replica.vector.drop(stream)
    member.mending.forget_sums()
    turn = Turn(NAMESPACE, Era(1, 0.0, frozenset(), frozenset()), frozenset({stream}))
    made.checks.turned(member, turn)


@pytest.mark.parametrize("times", [1, 2])
def test_a_stream_that_was_forgotten_is_shown_again_whenever_a_reader_comes_to_it(
    times: int,
) -> None:
    made = world(3)
    member = made.members[1]
    member.close_reader(member.cache)
    stream = publish(made)
    made.run(made.now + 1)
    for _ in range(times):
        forget(made, member, stream)
        made.run(made.now + 30)
    assert member.replica.position == 1 + times
    assert member.watcher.position == member.replica.position
    assert member.cache.position < 1
    member.open_reader(member.cache)
    made.run(made.now + 1)
    assert member.cache.position == member.replica.position
    assert member.watcher.repeated == member.cache.repeated == 0


def test_a_row_that_comes_more_often_than_its_stream_was_forgotten_is_found() -> None:
    made = world(3)
    member = made.members[1]
    member.close_reader(member.cache)
    stream = publish(made)
    made.run(made.now + 1)
    forget(made, member, stream)
    made.run(made.now + 30)
    member.replica.vector.drop(stream)
    member.mending.forget_sums()
    made.run(made.now + 30)
    assert member.replica.position == 3
    member.open_reader(member.cache)
    made.run(made.now + 1)
    assert member.watcher.repeated == member.cache.repeated == 1


# ---------------------------------------------------------------------- eras


def be_in_era(member: Member, number: int) -> None:
    """Put a member into an era of its own accord."""
    eras = member.mending.retiring.eras
    eras._eras[NAMESPACE] = Era(number, 0.0, frozenset(), frozenset())


def test_who_was_away_may_know_what_is_gone_until_it_finds_out() -> None:
    made = world(3)
    stream = publish(made)
    made.run(made.now + 1)
    made.checks.gone[stream] = 5
    for member in made.members:
        be_in_era(member, 3)
    made.checks.memory()
    assert not found(made)
    be_in_era(made.members[1], 4)
    made.checks.memory()
    assert ["again" in what for what in found(made)] == [True]


def test_who_never_finds_out_that_it_was_left_behind_is_found() -> None:
    made = world(3)
    be_in_era(made.members[2], 2)
    made.checks.final()
    assert found(made) == [f"member-{n} is left behind in {NAMESPACE}" for n in (0, 1)]
