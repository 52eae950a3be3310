"""Bugs to plant in the cores, or in what the simulator puts around them: each breaks one rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

import pytest

import coherd.replication.repair
from coherd.model import Cause, Range, Stream
from coherd.replication.eras import Eras, Turn
from coherd.replication.gap import Gap
from coherd.replication.intervals import Intervals
from coherd.replication.outlink import OutLink
from coherd.replication.receipt_tree import ReceiptTree
from coherd.replication.repair import Repair
from coherd.replication.retention import Floor
from coherd.replication.vector import Vector
from coherd.sim.faults import compaction, member, readers
from coherd.sim.faults.member import Member
from coherd.sim.faults.mending import Mending
from coherd.sim.faults.offering import Offering
from coherd.sim.faults.readers import Cache
from coherd.sim.faults.retiring import Retiring

Plant = Callable[[pytest.MonkeyPatch], None]


def covers_do_not_wait(plant: pytest.MonkeyPatch) -> None:
    """A cover counts at once, whatever its holder retains."""
    original = Repair._take_covers

    def take(self: Repair, gap: Any, name: str, covers: Intervals, _lacking: Intervals) -> None:
        original(self, gap, name, covers, Intervals())

    plant.setattr(Repair, "_take_covers", take)


def any_age_is_old(plant: pytest.MonkeyPatch) -> None:
    """What a peer has forgotten counts as expired, however young it is."""
    original = Repair.answered

    def answered(self: Repair, *arguments: Any) -> Any:
        horizon, self._horizon = self._horizon, lambda _namespace, _now: 0.0
        try:
            return original(self, *arguments)
        finally:
            self._horizon = horizon

    plant.setattr(Repair, "answered", answered)


def only_the_present_counts(plant: pytest.MonkeyPatch) -> None:
    """A `max_ttl` that was lowered has no past."""
    plant.setattr(member.Host, "horizon", lambda self, name, _now: self.policies[name].max_ttl + 60)


def adoption_raises_no_floor(plant: pytest.MonkeyPatch) -> None:
    """Numbers without a row are claimed as if later rows covered them."""
    original = Vector.adopt

    def adopt(self: Vector, stream: Stream, numbers: Intervals, _floor: Floor | None) -> None:
        original(self, stream, numbers, None)

    plant.setattr(Vector, "adopt", adopt)


def claims_are_believed(plant: pytest.MonkeyPatch) -> None:
    """What others have enters the vector before its rows come."""
    original = Repair.claim

    def claim(self: Repair, name: str, claims: Iterable[tuple[Stream, Intervals]]) -> None:
        claims = list(claims)
        original(self, name, claims)
        for stream, numbers in claims:
            self._vector.state(stream).have.update(numbers)

    plant.setattr(Repair, "claim", claim)


def reset_has_no_row(plant: pytest.MonkeyPatch) -> None:
    """A namespace that is reset adopts what was missing, and tells no reader."""

    def reset(self: Member, namespace: str, _cause: object) -> None:
        for stream, numbers in self.mending.repair.reset(namespace).items():
            self.replica.vector.adopt(stream, numbers, Floor(numbers.last, self.now))
            self.mending.note_changed(stream)

    plant.setattr(Member, "reset", reset)


def vector_is_stored_early(plant: pytest.MonkeyPatch) -> None:
    """The stored vector names rows that are not committed."""
    original = Member.enter

    def enter(self: Member, arrival: Any) -> None:
        original(self, arrival)
        for low, high in arrival.batch.numbers:
            self.disk.have.setdefault(arrival.batch.stream, Intervals()).add(low, high)

    plant.setattr(Member, "enter", enter)


def weaker_rows_supersede(plant: pytest.MonkeyPatch) -> None:
    """A later row stands for an earlier one whatever its effect and version."""
    plant.setattr(compaction, "supersedes", lambda _newer, _older: True)


def nothing_is_given_up(plant: pytest.MonkeyPatch) -> None:
    """A hole that nobody can fill stays open for ever."""
    plant.setattr(coherd.replication.repair, "UNCLAIMED_AFTER", inf)
    plant.setattr(Gap, "below_floor", lambda *_arguments: Intervals())


def sums_are_not_compared(plant: pytest.MonkeyPatch) -> None:
    """Vectors that differ are never compared."""
    plant.setattr(Mending, "compare", lambda _self, _name: None)


def nothing_is_offered(plant: pytest.MonkeyPatch) -> None:
    """A publisher that holds nothing offers its rows to nobody."""
    plant.setattr(Offering, "pending", lambda _self: {})


def having_is_applying(plant: pytest.MonkeyPatch) -> None:
    """A member says "applied" before its cache has."""

    def ask(self: Member, payload: int) -> None:
        self.spread.applied(payload, self.now)

    plant.setattr(Member, "ask", ask)


def being_asked_is_applying(plant: pytest.MonkeyPatch) -> None:
    """A member counts in a receipt as soon as it is asked for it."""
    original = ReceiptTree.ask

    def ask(self: ReceiptTree, payload: int, ring: int, asker: Any) -> None:
        original(self, payload, ring, asker)
        self.apply(payload)

    plant.setattr(ReceiptTree, "ask", ask)


def readers_skip_to_the_floor(plant: pytest.MonkeyPatch) -> None:
    """A reader below a young floor goes on there without a reset."""
    plant.setattr(readers, "resume", lambda position, floor, _horizon, _now: max(position, floor.n))


def cursors_have_no_epoch(plant: pytest.MonkeyPatch) -> None:
    """A cursor is a bare number."""
    plant.setattr(readers, "located", lambda _lives, position, end: min(position[1], end))


def rows_are_taken_twice(plant: pytest.MonkeyPatch) -> None:
    """A row that is there already counts as new."""
    original = Vector.take_rows

    def take(self: Vector, stream: Stream, ranges: Sequence[Range]) -> tuple[Range, ...]:
        original(self, stream, ranges)
        return tuple(ranges)

    plant.setattr(Vector, "take_rows", take)


def entries_do_not_outlive_rows(plant: pytest.MonkeyPatch) -> None:
    """What is forgotten is also forgotten to have been here, so it comes back."""
    original = Vector.forget

    def forget(self: Vector, stream: Stream, ranges: Sequence[Range], accepted_at: float) -> None:
        original(self, stream, ranges, accepted_at)
        state = self.state(stream)
        for low, high in ranges:
            state.have.discard(low, high)
        state.changed()

    plant.setattr(Vector, "forget", forget)


def first_blank_resets(plant: pytest.MonkeyPatch) -> None:
    """A namespace is reset as soon as one member has forgotten a row."""

    def below(self: Gap, *_arguments: object) -> Intervals:
        result = Intervals()
        for numbers in self.denied.values():
            result.update(numbers)
        return self.holes() & result

    plant.setattr(Gap, "below_floor", below)
    plant.setattr(coherd.replication.repair, "BELOW_FLOOR_AFTER", 0.0)


def whoever_was_away_resets(plant: pytest.MonkeyPatch) -> None:
    """A member that is linked again declares everything doubtful, whatever the others still hold."""
    original = Mending.linked

    def linked(self: Mending, name: str) -> None:
        original(self, name)
        if self._member.now > 20:
            self._member.reset(self._member.holds[0], Cause.UNCLAIMED)

    plant.setattr(Mending, "linked", linked)


def eras_are_not_compared(plant: pytest.MonkeyPatch) -> None:
    """Whoever comes back after long is believed whatever it shows, and never finds out that it was."""
    plant.setattr(Eras, "believed", lambda _self, _theirs, shown, _publisher="": list(shown))
    plant.setattr(Eras, "left_behind", lambda *_arguments: [])


def streams_go_at_once(plant: pytest.MonkeyPatch) -> None:
    """A stream is forgotten in the era that follows its end, before all have heard of it."""

    def turn(self: Eras, namespace: str, number: int, now: float) -> Turn:
        dead = {s for s in self._vector.streams(namespace) if self._is_dead(s.origin)}
        for stream in dead:
            self._vector.drop(stream)
        return self._set(namespace, number, now, set(), set(), dead)

    plant.setattr(Eras, "_turn", turn)


def who_was_left_behind_issues_nothing(plant: pytest.MonkeyPatch) -> None:
    """Rows that nobody has heard of go with their stream."""
    original = Retiring.look

    def look(self: Retiring) -> None:
        for behind in self._behind.values():
            behind.calls.clear()
        original(self)

    plant.setattr(Retiring, "look", look)


def links_release_nothing(plant: pytest.MonkeyPatch) -> None:
    """What was acknowledged goes on to count as queued."""
    plant.setattr(OutLink, "acknowledge", lambda _self, _number, _now: None)


def gaps_are_kept(plant: pytest.MonkeyPatch) -> None:
    """Everything that was once missing waits as a cover for ever."""
    original = Repair.answered

    def answered(self: Repair, ask: Any, answers: Any, now: float) -> Any:
        result = original(self, ask, answers, now)
        for stream, numbers in ask.wanted.items():
            self._gap(stream).wait(numbers, Intervals([(10**9, 10**9)]))
        return result

    plant.setattr(Repair, "answered", answered)


def tags_are_not_applied(plant: pytest.MonkeyPatch) -> None:
    """A cache does nothing about rows that name a tag."""
    original = readers.touches
    plant.setattr(readers, "touches", lambda row, key: row[:1] != b"t" and original(row, key))


def caches_lag_by_a_row(plant: pytest.MonkeyPatch) -> None:
    """A cache applies what came before the newest arrival only."""
    original = Cache._apply
    lagging: dict[Cache, Any] = {}

    def apply(self: Cache, arrival: Any) -> None:
        last, lagging[self] = lagging.get(self), arrival
        if last is not None:
            original(self, last)

    plant.setattr(Cache, "_apply", apply)
