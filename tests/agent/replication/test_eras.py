"""Streams of lives that are over go, three steps in three eras; what somebody still shows does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from coherd.model import Lane, Origin, Stream
from coherd.replication import eras as module
from coherd.replication.eras import ERA_LASTS_MIN, Era, Eras, Turn
from coherd.replication.intervals import Intervals
from coherd.replication.repair import Repair
from coherd.replication.vector import Vector

SHOP = "shop"
OLD = [Stream(SHOP, Origin("x", epoch), Lane.NORMAL) for epoch in range(1, 6)]
NEW = Stream(SHOP, Origin("x", 9), Lane.NORMAL)
DAY = ERA_LASTS_MIN


@pytest.fixture(autouse=True)
def few_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STREAMS_MAX", 3)


def everything(_namespace: str) -> bool:
    return True


@dataclass
class Agent:
    known: dict[str, Era] = field(default_factory=dict)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.vector = Vector()
        for stream in (*OLD, NEW):
            self.vector.take_rows(stream, [(1, 5)])
        self.begin()

    def begin(self) -> None:
        self.repair = Repair(self.vector, Random(1), lambda *_: 100.0)
        self.eras = Eras(self.vector, self.repair.is_open, lambda o: o != NEW.origin, self.known)

    def forget(self, *streams: Stream) -> None:
        for stream in streams:
            self.vector.forget(stream, [(1, 5)], 0.0)

    def turn(self) -> Turn:
        """A day later somebody begins an era."""
        self.now += DAY
        self.eras.begin_due(self.now)
        (turn,) = self.eras.take_over(everything, self.now)
        return turn

    @property
    def streams(self) -> set[Stream]:
        return set(self.vector.streams(SHOP))

    @property
    def retired(self) -> set[Stream]:
        return {s for s, state in self.vector.streams(SHOP).items() if state.is_retired}


def test_an_era_begins_only_where_there_are_many_streams_and_at_most_once_a_day() -> None:
    agent = Agent()
    agent.vector.state(Stream("few", NEW.origin, Lane.NORMAL))
    assert agent.eras.begin_due(0.0) == [SHOP]
    assert agent.eras.begin_due(0.0) == [], "it waits for a sync"
    assert agent.eras.numbers([SHOP]) == {}
    (turn,) = agent.eras.take_over(everything, 10.0)
    assert (turn.namespace, turn.era.number, turn.dropped) == (SHOP, 1, frozenset())
    assert agent.eras.begin_due(9.0 + DAY) == []
    assert agent.eras.begin_due(10.0 + DAY) == [SHOP]


def test_a_quiet_stream_is_marked_then_retired_then_dropped() -> None:
    agent = Agent()
    agent.forget(*OLD)
    assert agent.turn().era.marked == {*OLD}
    assert not agent.retired
    assert agent.turn().era.retired == agent.retired == {*OLD}
    assert agent.turn().dropped == {*OLD}
    assert agent.streams == {NEW}


@pytest.mark.parametrize("when", [1, 2, 3])
def test_only_what_was_quiet_all_the_time_goes(when: int) -> None:
    agent = Agent()
    agent.forget(*OLD)
    loud = OLD[0]
    for era in (1, 2, 3):
        if era == when:
            agent.vector.take_rows(loud, [(6, 6)])
        agent.turn()
    assert agent.streams == {NEW, loud}
    assert not agent.retired


def test_rows_that_are_held_and_numbers_that_are_missing_keep_a_stream() -> None:
    agent = Agent()
    agent.forget(*OLD[1:])
    agent.repair.claim("b", [(OLD[1], Intervals([(1, 7)]))])
    for _ in range(3):
        agent.turn()
    assert agent.streams == {NEW, *OLD[:2]}


def test_who_took_an_era_over_late_lets_nothing_go_before_it_was_shown_for_a_while() -> None:
    agent = Agent()
    agent.forget(*OLD)
    agent.turn()
    agent.eras.hear({SHOP: 2})
    agent.eras.take_over(everything, agent.now + 1.0)
    assert not agent.retired


def test_eras_survive_a_restart_and_new_rows_of_a_retired_stream_show_it() -> None:
    agent = Agent()
    agent.forget(*OLD)
    agent.turn()
    agent.known = {SHOP: agent.turn().era}
    total = agent.vector.sum([SHOP])
    agent.vector.take_rows(OLD[0], [(6, 6)])
    for stream in OLD:
        agent.vector.state(stream).is_retired = False
    agent.begin()
    assert agent.retired == {*OLD[1:]}
    assert agent.vector.sum([SHOP]) != total


def test_sums_tell_eras_apart_and_agree_where_the_same_is_retired() -> None:
    one, two = Agent(), Agent()
    for each in (one, two):
        each.forget(*OLD)
        each.turn()
    assert one.vector.sum([SHOP]) == two.vector.sum([SHOP])
    one.turn()
    assert one.vector.sum([SHOP]) != two.vector.sum([SHOP])
    assert one.eras.shown_whole({SHOP: 1}, [SHOP, "other"]) == {SHOP}
    assert two.eras.shown_whole({SHOP: 2}, [SHOP, "other"]) == frozenset()
    assert one.vector.bucket_sums([SHOP], [SHOP]) == two.vector.bucket_sums([SHOP], [SHOP])
    two.turn()
    assert one.vector.sum([SHOP]) == two.vector.sum([SHOP])
    assert one.vector.bucket_sums([SHOP]) == two.vector.bucket_sums([SHOP])


def test_what_somebody_in_the_same_era_shows_is_shown_again() -> None:
    agent = Agent()
    agent.forget(*OLD)
    agent.turn()
    agent.turn()
    shown = [(OLD[0], Intervals([(1, 5)]))]
    assert agent.eras.believed({SHOP: 1}, shown) == shown
    assert OLD[0] in agent.retired, "whoever is behind shows everything"
    assert agent.eras.believed({SHOP: 2}, shown) == shown
    assert OLD[0] not in agent.retired
    (turn,) = agent.eras.take_over(everything, agent.now)
    assert turn.era.retired == {*OLD[1:]}, "and that is stored"
    assert agent.turn().dropped == {*OLD[1:]}


def test_whoever_is_an_era_ahead_shows_what_is_retired_there_too() -> None:
    agent = Agent()
    agent.forget(*OLD)
    agent.turn()
    agent.turn()
    agent.eras.believed({SHOP: 3}, [(stream, Intervals([(1, 5)])) for stream in OLD])
    assert agent.retired == {*OLD}
    assert agent.turn().dropped == {*OLD}


def test_what_was_retired_too_early_goes_together_with_that_of_who_marked_it_later() -> None:
    early, late = Agent(), Agent()
    early.forget(*OLD)
    early.turn()
    late.turn()
    late.forget(*OLD)  # an instant after it took the era over
    early.turn()
    late.turn()
    for _ in range(2):
        shown = [(s, Intervals([(1, 5)])) for s in sorted(late.streams - late.retired)]
        early.eras.believed({SHOP: late.eras.number(SHOP)}, shown)
        shown = [(s, Intervals([(1, 5)])) for s in sorted(early.streams - early.retired)]
        late.eras.believed({SHOP: early.eras.number(SHOP)}, shown)
        early.turn()
        late.turn()
        assert early.streams == late.streams
        assert early.retired == late.retired
    assert early.streams == {NEW}


def test_who_publishes_only_is_believed_whatever_era_it_is() -> None:
    agent = Agent()
    agent.forget(*OLD)
    for _ in range(3):
        agent.turn()
    offered = [(OLD[0], Intervals([(1, 9)]))]
    assert agent.eras.believed({}, offered, "y") == []
    assert agent.eras.believed({}, offered, OLD[0].origin.name) == offered


def test_an_entry_without_numbers_is_no_knowledge_of_a_stream() -> None:
    agent = Agent()
    agent.forget(*OLD)
    for _ in range(3):
        agent.turn()
    agent.vector.state(OLD[0])
    assert agent.eras.believed({SHOP: 1}, [(OLD[0], Intervals([(1, 9)]))]) == []


def test_of_who_is_two_eras_behind_only_streams_that_are_known_are_believed() -> None:
    agent = Agent()
    agent.forget(*OLD)
    for _ in range(3):
        agent.turn()
    gone, new = (OLD[0], Intervals([(1, 9)])), (NEW, Intervals([(1, 9)]))
    assert agent.eras.believed({SHOP: 1}, [gone, new]) == [new]
    assert agent.eras.believed({}, [gone, new]) == [new]
    assert agent.eras.believed({SHOP: 2}, [gone, new]) == [gone, new]


def test_who_is_two_eras_behind_drops_what_is_not_known_and_retires_what_is_quiet() -> None:
    agent = Agent()
    agent.forget(OLD[0], OLD[1])
    assert agent.eras.left_behind({SHOP: 1, "other": 1}) == []
    agent.eras.hear({SHOP: 2})
    assert agent.eras.left_behind({SHOP: 2}) == [SHOP]
    assert agent.eras.take_over(everything, 0.0) == [], "it needs a reset"
    turn = agent.eras.catch_up(SHOP, 2, [OLD[0], OLD[2]], 5.0)
    assert turn.dropped == {OLD[0], OLD[2]}
    assert turn.era == (2, 5.0, frozenset(), frozenset([OLD[1]]))
    assert agent.streams == {NEW, OLD[1], OLD[3], OLD[4]}
    assert agent.eras.left_behind({SHOP: 3}) == []


def test_a_dropped_stream_is_not_made_known_by_forgetting_its_rows() -> None:
    agent = Agent()
    agent.vector.drop(OLD[0])
    agent.forget(OLD[0])
    assert agent.vector.floors(OLD[:2]) == {OLD[1]: agent.vector.state(OLD[1]).floor}
    assert OLD[0] not in agent.streams
