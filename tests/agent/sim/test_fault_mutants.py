"""Each check finds the bugs that it is there for: planted ones, in histories where they do harm."""

from __future__ import annotations

from typing import Any

import fault_mutants as mutants
import pytest
from fault_mutants import Plant

from coherd.model import Cause, Effect, Lane
from coherd.sim.faults import checks
from coherd.sim.faults.host import Policy
from coherd.sim.faults.plan import Size
from coherd.sim.faults.run import history
from coherd.sim.faults.world import FaultWorld
from coherd.sim.streams import Conditions

SHORT = Size(8, 240.0, (4, 8), 5)
SEEDS_MAX = 40
"""A core that changes draws other numbers: then another seed may be the one that shows a bug."""
LONG = Size(6, 900.0, (12, 16), 8)
CASES: list[tuple[Plant, str, Size, tuple[str, ...], int]] = [
    (mutants.covers_do_not_wait, "vector", SHORT, ("halves", "cut off", "stall"), 21),
    (mutants.any_age_is_old, "vector", SHORT, ("contract", "cut off", "lose disk"), 1),
    (mutants.only_the_present_counts, "vector", LONG, ("contract", "cut off"), 6),
    (mutants.adoption_raises_no_floor, "vector", SHORT, ("lose disk", "cut off"), 7),
    (mutants.claims_are_believed, "vector", SHORT, ("stall",), 1),
    (mutants.reset_has_no_row, "vector", SHORT, ("lose disk", "cut off"), 2),
    (mutants.vector_is_stored_early, "vector", SHORT, ("slow disk", "crash"), 1),
    (mutants.weaker_rows_supersede, "vector", SHORT, ("cut off", "halves"), 4),
    (mutants.nothing_is_given_up, "memory", SHORT, ("large", "lose disk"), 2),
    (mutants.sums_are_not_compared, "missing", SHORT, ("cut off", "halves"), 1),
    (mutants.nothing_is_offered, "missing", SHORT, ("cut off", "flap"), 13),
    (mutants.having_is_applying, "receipt", SHORT, ("cache away",), 1),
    (mutants.being_asked_is_applying, "receipt", SHORT, ("stall",), 1),
    (mutants.readers_skip_to_the_floor, "reader", SHORT, ("cache away", "watcher away"), 2),
    (mutants.cursors_have_no_epoch, "reader", SHORT, ("flap", "crash", "slow disk"), 1),
    (mutants.rows_are_taken_twice, "reader", SHORT, ("stall",), 2),
    (mutants.entries_do_not_outlive_rows, "reader", SHORT, ("contract", "lose disk"), 1),
    (mutants.whoever_was_away_resets, "reset", SHORT, ("halves", "stall"), 2),
    (mutants.eras_are_not_compared, "era", LONG, ("away", "flap"), 2),
    (mutants.streams_go_at_once, "era", LONG, ("flap", "away"), 9),
    (mutants.who_was_left_behind_issues_nothing, "missing", LONG, ("away",), 3),
    (mutants.links_release_nothing, "memory", SHORT, ("stall",), 1),
    (mutants.gaps_are_kept, "memory", SHORT, ("cut off",), 1),
    (mutants.tags_are_not_applied, "stale", SHORT, ("stall",), 3),
    (mutants.caches_lag_by_a_row, "stale", SHORT, ("stall",), 1),
]


@pytest.mark.parametrize(
    ("mutant", "kind", "size", "menu", "seed"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_a_planted_bug_is_found(
    monkeypatch: pytest.MonkeyPatch,
    mutant: Plant,
    kind: str,
    size: Size,
    menu: tuple[str, ...],
    seed: int,
) -> None:
    mutant(monkeypatch)
    for tried in (seed, *range(1, SEEDS_MAX)):
        try:
            found = history(size, tried, menu=menu).world.checks.violations
        except (AssertionError, IndexError):
            continue  # a core stumbles over what the bug left
        if kind in {violation.kind for violation in found}:
            return
    pytest.fail("not found")


def test_without_them_nothing_is_found() -> None:
    for _, _, size, menu, seed in CASES[:4]:
        assert not history(size, seed, menu=menu).world.checks.violations


def told_late(seed: int) -> FaultWorld:
    """Let a member hear of rows from others only, two of whom have forgotten them."""
    world = FaultWorld([["catalog"]] * 6, ["catalog"], Conditions(), seed)
    for member in world.members:
        member.policies["catalog"] = Policy(600.0, 600.0, 600.0)
        member.set_ttl("catalog", 600.0)
        member.reset_jitter = 0.0
        world.start(member)
    world.run(20.0)
    first, *others, last = world.members
    for member in (first, *others):
        member.view.remove(last.name)
    for number in range(8):
        world.invalidate(first, "catalog", Lane.NORMAL, [b"k%d" % number], Effect.DROP)
        world.run(world.now + 0.1)
        for member in others[:2]:
            member.replica.forget(member.log.pop())
        world.run(world.now + 3.0)
    return world


def test_a_reset_without_need_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "FOUND_WITHIN", 0.1)
    world = told_late(1)
    assert not world.checks.resets_made
    assert not world.checks.violations
    mutants.first_blank_resets(monkeypatch)
    found: list[Any] = told_late(1).checks.violations
    assert {violation.kind for violation in found} == {"reset"}


def test_more_resets_than_are_explained_are_found() -> None:
    world = told_late(1)
    world.checks.resets_max, world.checks.loses_nothing = 0, True
    world.members[0].reset("catalog", Cause.BELOW_FLOOR)
    world.checks.final()
    found = [violation.what for violation in world.checks.violations]
    assert any("nothing was lost" in what for what in found)
    assert "1 resets, 0 explained" in found[-1]
