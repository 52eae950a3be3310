"""A hole counts as below the floor once its origin and three holders, or all there are, were asked in vain:
who has told of it first, then whoever holds the namespace. Each rule, switched off, is caught."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from math import inf
from random import Random
from typing import Any

import pytest

from coherd.model import Cause, Lane, Origin, Stream
from coherd.replication import repair
from coherd.replication.answers import NOTHING, Answer
from coherd.replication.gap import Gap
from coherd.replication.intervals import Intervals
from coherd.replication.repair import BELOW_FLOOR_AFTER, REFUSALS_MAX, Ask, Repair
from coherd.replication.vector import Vector

STREAM = Stream("shop", Origin("origin", 7), Lane.NORMAL)
HOLE = Intervals([(4, 4)])
ANSWER_AFTER, SILENT_FOR = 0.02, 2.0
GIVEN_UP_WITHIN = 40.0
SEEDS = range(300)

HAS, BLANK, UNKNOWN, SILENT, ELSEWHERE = "has", "blank", "unknown", "silent", "elsewhere"
ANSWERS = {
    BLANK: replace(NOTHING, blank=HOLE, blank_age=1.0),
    UNKNOWN: replace(NOTHING, unknown=HOLE),
    ELSEWHERE: replace(NOTHING, unknown=HOLE),
}


class Asker:
    """A member that lacks one number, and what the others do when they are asked for it."""

    def __init__(
        self, fates: dict[str, str], told: list[str], busy: Collection[str] = (), seed: int = 1
    ) -> None:
        """`fates`: who can be reached, and what is there; `busy`: who answers only the second time."""
        self.fates, self.told, self.busy = fates, told, set(busy)
        self.now = 0.0
        self.vector = Vector()
        self.vector.take_rows(STREAM, [(1, 3), (5, 5)])
        self.repair = Repair(self.vector, Random(seed), lambda *_: 100.0, reset_jitter=0.0)
        self.repair.holds = self.holds
        self.repair.touch(STREAM)
        for name in told:
            self.repair.claim(name, [(STREAM, Intervals([(1, 5)]))])
        self.asked: list[tuple[float, str, frozenset[str]]] = []
        """When, whom, and who had refused by then."""
        self.refused: frozenset[str] = frozenset()
        self.resets: list[tuple[str, Cause]] = []
        self._due: list[tuple[float, Ask]] = []

    def holds(self, name: str, namespace: str) -> bool:
        return namespace == STREAM.namespace and self.fates[name] != ELSEWHERE

    @property
    def is_whole(self) -> bool:
        return 4 in self.vector.state(STREAM).have

    def run(self, until: float = GIVEN_UP_WITHIN) -> Asker:
        """Let time go by until the hole is closed or given up."""
        while not self.is_whole and not self.resets and self.now < until:
            for ask in self.repair.plan(self.now, self.fates):
                self.asked.append((self.now, ask.member, self.refused))
                silent = self.fates[ask.member] == SILENT
                self._due.append((self.now + (SILENT_FOR if silent else ANSWER_AFTER), ask))
            self.resets = self.repair.resets(self.now, self.fates)
            self.now += 0.05
            due = [ask for at, ask in self._due if at <= self.now]
            self._due = [(at, ask) for at, ask in self._due if at > self.now]
            for ask in due:
                self._answer(ask)
        return self

    def _answer(self, ask: Ask) -> None:
        fate = self.fates[ask.member]
        if fate == SILENT or ask.member in self.busy:
            self.busy.discard(ask.member)
            self.repair.failed(ask, self.now, 1.5)
            return
        reply: Answer = ANSWERS.get(fate, NOTHING)
        if fate == HAS:
            self.vector.take_rows(STREAM, HOLE.ranges())
        else:
            self.refused |= {ask.member}
        self.repair.answered(ask, {STREAM: reply}, self.now)

    def check(self) -> None:
        """Look whether it was asked for, and given up, as it should."""
        fates, refused = self.fates, self.refused
        others = {name for name in fates if name != "origin" and fates[name] != ELSEWHERE}
        first = {*self.told, "origin"} & fates.keys()
        for now, name, before in self.asked:
            assert name in others | {"origin"}, "who holds nothing is asked"
            if name not in first:
                assert first <= before, "somebody may have it who has told so"
                assert now >= BELOW_FLOOR_AFTER, "it may tell within this time"
        assert self.is_whole or self.resets, "neither repaired nor given up"
        if self.resets:
            assert "origin" not in fates or "origin" in refused
            assert self.resets[0][1] is Cause.BELOW_FLOOR or SILENT in fates.values()
            if len(refused - {"origin"}) < REFUSALS_MAX:
                asked_for_nothing = refused | {n for n in others if fates[n] == SILENT}
                assert others <= asked_for_nothing, "somebody else could be asked"


def drawn(seed: int) -> Asker:
    """Draw members, what they have, and who has told of the hole."""
    random = Random(seed)
    likely = random.choice([[HAS], [BLANK, UNKNOWN], [HAS, SILENT], [BLANK, UNKNOWN, SILENT]])
    fates = {}
    for number in range(random.randrange(9)):
        fates[f"m{number}"] = random.choice([*likely, ELSEWHERE, BLANK])
    told = [name for name, fate in fates.items() if fate not in {SILENT, ELSEWHERE}]
    told = random.sample(told, min(len(told), random.choice([1, 1, 2, 4])))
    if not told or random.random() < 0.7:
        fates["origin"] = random.choice([HAS, BLANK, UNKNOWN, UNKNOWN])
    busy = [name for name in fates if random.random() < 0.3]
    return Asker(fates, told or ["origin"], busy, seed)


def test_a_hole_is_given_up_only_when_enough_were_asked_in_vain() -> None:
    found = [drawn(seed).run() for seed in SEEDS]
    for asker in found:
        asker.check()
    for cause in (Cause.BELOW_FLOOR, Cause.UNCLAIMED):
        assert sum(asker.resets == [("shop", cause)] for asker in found) > 10
    saved = [a for a in found if a.is_whole and not {*a.told, "origin"} & {a.asked[-1][1]}]
    assert len(saved) > 10, "brought by one that had not told of it"


def test_who_has_not_told_of_it_is_asked_when_the_origin_and_all_who_told_refuse() -> None:
    lost = {"origin": UNKNOWN, "teller": UNKNOWN}
    asker = Asker({**lost, "quiet": HAS}, ["teller"]).run()
    assert asker.is_whole
    assert not asker.resets
    assert [name for _, name, _ in asker.asked[2:]] == ["quiet"]
    assert asker.asked[2][0] >= 1.0, "it is given time to tell"


def test_what_three_beside_the_origin_refuse_is_lost_and_no_more_are_asked() -> None:
    fates = {"origin": BLANK, "teller": BLANK, **{f"m{n}": BLANK for n in range(20)}}
    asker = Asker(fates, ["teller"]).run()
    assert asker.resets == [("shop", Cause.BELOW_FLOOR)]
    assert len(asker.asked) == 1 + REFUSALS_MAX
    assert asker.now < 2.0


def test_who_holds_other_namespaces_only_is_not_waited_for() -> None:
    fates = {"teller": BLANK, **{f"m{n}": ELSEWHERE for n in range(20)}}
    asker = Asker(fates, ["teller"]).run()
    assert asker.resets == [("shop", Cause.BELOW_FLOOR)]
    assert asker.now < 2.0


def test_who_never_answers_is_not_waited_for_for_ever() -> None:
    asker = Asker({"teller": BLANK, "silent": SILENT}, ["teller"]).run()
    assert asker.resets == [("shop", Cause.UNCLAIMED)]
    assert 30.0 < asker.now < 32.0


def test_who_tells_of_it_after_it_did_not_know_it_is_asked_again() -> None:
    fates = {"teller": UNKNOWN, "late": UNKNOWN, "silent": SILENT}
    asker = Asker(fates, ["teller"]).run(until=10.0)
    assert asker.refused == {"teller", "late"}
    fates["late"] = HAS
    asker.repair.claim("late", [(STREAM, Intervals([(1, 5)]))])
    assert asker.run().is_whole


# ---------------------------------------------------------------------- planted bugs


def only_who_told_is_asked(plant: pytest.MonkeyPatch) -> None:
    candidates, below = Repair._candidates, Gap.below_floor
    plant.setattr(
        Repair,
        "_candidates",
        lambda self, stream, gap, room, **_: candidates(self, stream, gap, room, anybody=False),
    )
    plant.setattr(
        Gap,
        "below_floor",
        lambda self, origin, members, _, refusals: below(self, origin, members, (), refusals),
    )


def nobody_is_given_time_to_tell(plant: pytest.MonkeyPatch) -> None:
    plant.setattr(repair, "BELOW_FLOOR_AFTER", 0.0)


def the_first_who_refuses_is_enough(plant: pytest.MonkeyPatch) -> None:
    original = Gap.in_vain

    def in_vain(self: Gap, *arguments: Any) -> tuple[Intervals, Intervals]:
        often, _ = original(self, *arguments)
        return often, (self.holes() if self.unknown or self.denied else Intervals()) - often

    plant.setattr(Gap, "in_vain", in_vain)


def everybody_counts_as_a_holder(plant: pytest.MonkeyPatch) -> None:
    plant.setattr(Asker, "holds", lambda *_: True)


def the_origin_is_one_of_three(plant: pytest.MonkeyPatch) -> None:
    original = Gap._refusals
    plant.setattr(Gap, "_refusals", lambda self, _origin, count: original(self, "", count))


def the_origin_need_not_be_asked(plant: pytest.MonkeyPatch) -> None:
    original = Gap.in_vain
    plant.setattr(
        Gap,
        "in_vain",
        lambda self, origin, members, count: original(self, origin, members - {origin}, count),
    )


def the_silent_are_waited_for(plant: pytest.MonkeyPatch) -> None:
    plant.setattr(repair, "UNCLAIMED_AFTER", inf)


MUTANTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    only_who_told_is_asked,
    nobody_is_given_time_to_tell,
    the_first_who_refuses_is_enough,
    everybody_counts_as_a_holder,
    the_origin_is_one_of_three,
    the_origin_need_not_be_asked,
    the_silent_are_waited_for,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_rule_that_is_switched_off_is_caught(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    for seed in SEEDS:
        try:
            drawn(seed).run().check()
        except AssertionError:
            return
    pytest.fail("nothing was noticed")
