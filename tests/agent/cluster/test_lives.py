"""Where a cursor stands in a journal that may have been copied, or lost with its disk."""

from __future__ import annotations

from coherd.cluster.lives import Lives
from coherd.model import Origin, Position


def lives(*stored: tuple[int, int]) -> Lives:
    return Lives("a", [(Origin("a", epoch), first) for epoch, first in stored])


def at(epoch: int, n: int) -> Position:
    return Position("a", epoch, n)


def test_after_a_normal_restart_cursors_of_both_lives_are_where_they_were() -> None:
    made = lives((10, 1), (10, 3), (20, 6))
    assert [made.locate(at(10, n), 9) for n in (0, 4, 5, 8)] == [0, 4, 5, 5]
    assert made.locate(at(20, 7), 9) == 7
    assert [made.locate(made.write_out(n), 9) for n in range(10)] == list(range(10))


def test_a_restored_journal_goes_on_from_its_end_for_cursors_of_the_lives_it_lacks() -> None:
    made = lives((10, 1), (10, 3), (30, 6))
    assert made.locate(at(20, 9), 9) == 5


def test_what_a_restored_journal_has_of_a_life_that_met_nobody_is_read_again() -> None:
    made = lives((5, 1), (5, 2), (10, 4), (30, 6))
    assert made.locate(at(20, 9), 9) == 3


def test_while_a_clock_is_behind_cursors_of_before_are_not_ahead_of_its_rows() -> None:
    assert lives((10, 1)).locate(at(20, 4), 9) == 0, "its disk was lost"
    assert lives((10, 1), (10, 1)).locate(at(20, 4), 9) == 0
    assert lives((5, 1), (5, 2), (10, 4)).locate(at(20, 8), 9) == 3, "an older copy"


def test_rows_accepted_with_a_clock_behind_are_read_again_after_the_epoch_was_renewed() -> None:
    assert lives((10, 1), (30, 6)).locate(at(20, 9), 9) == 0
    assert lives((10, 1), (15, 3), (30, 6)).locate(at(20, 9), 9) == 0
    assert lives((10, 1), (10, 1), (10, 5), (30, 6)).locate(at(20, 9), 9) == 0, (
        "confirmed too early"
    )


def test_a_life_counts_as_confirmed_when_it_is_stored_twice() -> None:
    made = lives((10, 1))
    assert not made.is_confirmed
    made.begin(Origin("a", 10), 4)
    assert made.is_confirmed
    made.begin(Origin("a", 20), 6)
    assert not made.is_confirmed
