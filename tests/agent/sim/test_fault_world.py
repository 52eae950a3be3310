"""Whatever befalls a simulated cluster, nothing is lost in silence; and its parts do what they say."""

from __future__ import annotations

from math import inf

import pytest
from fault_worlds import NAMESPACE, world

from coherd.model import Effect, Lane
from coherd.sim.faults.disk import Disk, Journal, Write, located, written
from coherd.sim.faults.plan import MENU, Plan, Size
from coherd.sim.faults.readers import Copy
from coherd.sim.faults.run import history, outcome
from coherd.sim.faults.truth import key_of, tag_of, touches
from coherd.sim.faults.world import FaultWorld

SMALL = Size(members=10, seconds=420.0)
SEEDS = range(1, 11)


def publish(made: FaultWorld, index: int, key: bytes = b"k1", *, receipt: bool = False) -> None:
    done = made.invalidate(
        made.members[index], NAMESPACE, Lane.NORMAL, [b"k" + key], Effect.DROP, receipt=receipt
    )
    assert done


def numbers(made: FaultWorld, index: int) -> int:
    vector = made.members[index].replica.vector
    return sum(len(state.have) for _, state in vector)


# ---------------------------------------------------------------------- histories


@pytest.mark.parametrize("seed", SEEDS)
def test_a_history_of_faults_ends_well(seed: int) -> None:
    found = outcome(SMALL, seed)
    assert not found.violations, found.first_violations
    assert found.calls > 50


@pytest.mark.parametrize("kind", MENU)
def test_each_kind_of_fault_can_befall_a_cluster(kind: str) -> None:
    plan = history(Size(6, 180.0, (3, 3), 2), 5, menu=[kind])
    assert plan.befell == {kind: 3}
    assert not plan.world.checks.violations


def test_it_is_known_whether_anything_can_be_lost() -> None:
    plan = Plan(SMALL, 3, ["halves"])
    for policy in plan.world.members[0].policies.values():
        policy.max_ttl, policy.entries_max = 60.0, inf
    assert plan.loses_nothing()
    plan.befell["lose disk"] = 1
    assert not plan.loses_nothing()


# ---------------------------------------------------------------------- the world


def test_a_row_reaches_everybody_and_a_receipt_says_so() -> None:
    made = world()
    publish(made, 0, receipt=True)
    made.run(made.now + 1)
    assert [numbers(made, index) for index in range(5)] == [1] * 5
    assert sorted(made.receipts[0]) == [member.name for member in made.members]


def test_what_is_not_committed_goes_with_a_crash_and_what_is_stays() -> None:
    made = world()
    made.members[0].commit_interval = 5.0
    ways = [(0, other) for other in range(1, 5)]
    made.cut(ways)
    publish(made, 0)
    made.crash(made.members[0], with_disk=True)
    assert not made.truth.issued[0].is_committed
    made.mend(ways)
    made.start(made.members[0])
    made.run(made.now + 10)
    assert [numbers(made, index) for index in range(5)] == [0] * 5

    publish(made, 0)
    made.run(made.now + 10)
    made.crash(made.members[0], with_disk=True)
    made.start(made.members[0])
    assert numbers(made, 0) == 1


def test_a_member_without_its_disk_is_given_everything_again_and_never_the_same_epoch() -> None:
    made = world()
    publish(made, 0)
    made.run(made.now + 2)
    epoch = made.members[0].epoch
    made.members[0].skew = -1e6
    made.crash(made.members[0], with_disk=False)
    made.start(made.members[0])
    assert numbers(made, 0) == 0
    made.run(made.now + 10)
    assert numbers(made, 0) == 1
    assert made.members[0].epoch > epoch


def test_what_is_sent_into_a_cut_comes_late_or_never() -> None:
    made = world()
    ways = [(0, 1)]
    for seconds, comes in ((1.0, True), (8.0, False)):
        before = made.members[1].spread.statistics()["received"]
        made.cut(ways)
        publish(made, 0)
        made.run(made.now + seconds)
        assert made.members[1].spread.statistics()["received"] == before
        made.mend(ways)
        made.run(made.now + 0.5)
        assert (made.members[1].spread.statistics()["received"] > before) is comes
    made.run(made.now + 20)
    assert numbers(made, 1) == 2, "what did not come by spreading is fetched"


def test_a_member_that_stands_still_is_missed_and_catches_up() -> None:
    made = world()
    made.stall(made.members[1], 30)
    publish(made, 0)
    made.run(made.now + 20)
    assert numbers(made, 1) == 0
    assert made.members[1].name not in made.members[0].peers
    made.run(made.now + 20)
    assert numbers(made, 1) == 1


def test_rows_that_the_last_holder_loses_are_known_to_be_lost() -> None:
    made = world(4)
    made.cut([(0, other) for other in range(1, 4)])
    publish(made, 0)
    made.run(made.now + 1)
    made.crash(made.members[0], with_disk=False)
    (stream,) = made.truth.streams
    assert made.truth.extinct[stream].ranges() == ((1, 1),)
    assert not made.truth.accepted(stream)


def test_copies_are_dropped_marked_or_left_alone() -> None:
    made = world()
    cache = made.members[1].cache
    for number in (1, 2, 3):
        cache.store(NAMESPACE, key_of(number), Copy(made.now, inf))
    publish(made, 0, key_of(1))
    made.invalidate(made.members[0], NAMESPACE, Lane.NORMAL, [b"k" + key_of(2)], Effect.STALE)
    made.run(made.now + 1)
    copies = cache.copies[NAMESPACE]
    assert {key: copy.is_stale for key, copy in copies.items()} == {
        key_of(2): True,
        key_of(3): False,
    }


# ---------------------------------------------------------------------- its parts


def test_a_selector_touches_what_it_names() -> None:
    key = key_of(7)
    assert touches(b"k" + key, key)
    assert touches(b"t" + tag_of(key), key)
    assert touches(b"p" + key[:2], key)
    assert touches(b"n", key)
    assert not touches(b"k" + key_of(8), key)


def test_a_cursor_of_a_life_whose_end_was_lost_is_read_as_that_end() -> None:
    lives = [(10, 1), (20, 51)]
    assert written(lives, 50) == (10, 50)
    assert written(lives, 51) == (20, 51)
    assert located(lives, (10, 70), 90) == 50
    assert located(lives, (20, 70), 90) == 70
    assert located(lives, (20, 95), 90) == 90
    assert located(lives, (5, 3), 90) == 0


def test_a_full_journal_refuses_and_an_empty_one_takes_anything() -> None:
    journal = Journal(Disk())
    journal.rows_max = 2
    assert journal.append(Write())
    assert journal.append(Write())
    assert not journal.append(Write())
    assert journal.is_full
    journal.commit(5.0)
    assert journal.is_idle
    assert journal.disk.running_time == 5.0
