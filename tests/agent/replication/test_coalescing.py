"""Coalescing: what leaves says all that was asked for, and every row is told what stands for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coherd.limits import BATCH_ROWS_MAX
from coherd.model import Effect
from coherd.replication.coalescing import Place, Rows, Window
from coherd.replication.ledger import supersedes

DROP, STALE = Effect.DROP, Effect.STALE
Row = tuple[bytes, Effect, int]
"""Selector, effect, version."""

SELECTORS = st.sampled_from([b"ka", b"kb", b"ta", b"pa", b"n"])
REQUESTS = st.builds(
    lambda rows, effect, is_versioned, reason: Rows(
        [selector for selector, _ in rows],
        effect,
        [version for _, version in rows] if is_versioned else None,
        reason,
    ),
    st.lists(st.tuples(SELECTORS, st.integers(0, 4)), min_size=1, max_size=6),
    st.sampled_from(Effect),
    st.booleans(),
    st.sampled_from(["", "deploy"]),
)


def coalesced(*requests: Rows) -> tuple[list[Rows], list[list[Place]]]:
    """Put requests into one window; give what leaves, and the places of the rows of each."""
    window = Window()
    ranges = [window.add(rows) for rows in requests]
    batches, places = window.coalesce()
    assert window.standing == sum(len(batch.selectors) for batch in batches)
    return batches, [places[own.start : own.stop] for own in ranges]


def rows_of(*batches: Rows) -> list[Row]:
    """Give single rows."""
    return [
        (selector, batch.effect, batch.versions[n] if batch.versions else 0)
        for batch in batches
        for n, selector in enumerate(batch.selectors)
    ]


def said(rows: list[Row]) -> dict[bytes, tuple[Effect, int]]:
    """Give the strongest effect and the highest version of every selector."""
    result: dict[bytes, tuple[Effect, int]] = {}
    for selector, effect, version in rows:
        before = result.get(selector, (STALE, 0))
        result[selector] = (max(before[0], effect), max(before[1], version))
    return result


@given(st.lists(REQUESTS, min_size=1, max_size=12))
def test_nothing_that_was_said_is_lost(requests: list[Rows]) -> None:
    batches, _ = coalesced(*requests)
    assert said(rows_of(*batches)) == said(rows_of(*requests))


@given(st.lists(REQUESTS, min_size=1, max_size=12))
def test_only_a_row_as_strong_and_as_new_stands_for_an_earlier_one(requests: list[Rows]) -> None:
    batches, places = coalesced(*requests)
    for rows, own in zip(requests, places, strict=True):
        for row, (batch, offset) in zip(rows_of(rows), own, strict=True):
            heir = rows_of(batches[batch])[offset]
            assert heir[0] == row[0]
            assert supersedes(heir[1:], row[1:])


@given(st.lists(REQUESTS, min_size=1, max_size=12))
def test_what_leaves_is_what_no_later_row_makes_needless(requests: list[Rows]) -> None:
    rows = rows_of(*requests)
    needed = [
        row
        for n, row in enumerate(rows)
        if not any(row[0] == other[0] and supersedes(other[1:], row[1:]) for other in rows[n + 1 :])
    ]
    batches, _ = coalesced(*requests)
    assert sorted(rows_of(*batches)) == sorted(needed)
    assert len({(batch.effect, batch.reason) for batch in batches}) == len(batches)


def test_a_weaker_or_older_row_stands_beside_the_earlier_one() -> None:
    batches, _ = coalesced(Rows([b"ka"], DROP, [3], ""), Rows([b"ka"], STALE, [4], ""))
    assert rows_of(*batches) == [(b"ka", DROP, 3), (b"ka", STALE, 4)]
    batches, _ = coalesced(Rows([b"ka"], DROP, [3], ""), Rows([b"ka"], DROP, None, ""))
    assert rows_of(*batches) == [(b"ka", DROP, 3), (b"ka", DROP, 0)]


def test_a_stronger_and_newer_row_stands_for_all_before_it_whatever_their_reason() -> None:
    batches, places = coalesced(
        Rows([b"ka", b"kb"], STALE, [1, 1], "one"),
        Rows([b"ka", b"ka"], DROP, [3, 2], "two"),
        Rows([b"ka"], DROP, [3], "three"),
    )
    assert batches == [Rows([b"kb"], STALE, [1], "one"), Rows([b"ka"], DROP, [3], "three")]
    assert places == [[(1, 0), (0, 0)], [(1, 0), (1, 0)], [(1, 0)]]


def test_batches_of_one_kind_are_one_and_without_versions_there_are_none() -> None:
    batches, places = coalesced(
        Rows([b"ka"], DROP, None, "x"),
        Rows([b"kb"], STALE, None, "x"),
        Rows([b"kc"], DROP, None, "x"),
    )
    assert batches == [Rows([b"ka", b"kc"], DROP, None, "x"), Rows([b"kb"], STALE, None, "x")]
    assert places == [[(0, 0)], [(1, 0)], [(0, 1)]]


def test_a_window_has_room_for_one_batch_of_rows_that_stand() -> None:
    window = Window()
    keys = [b"k%d" % n for n in range(BATCH_ROWS_MAX - 1)]
    window.add(Rows(keys, DROP, None, ""))
    window.add(Rows([keys[0]], DROP, None, ""))
    assert (len(window), window.standing, window.is_full) == (BATCH_ROWS_MAX, len(keys), False)
    assert window.has_room(Rows([b"kz"], DROP, None, ""))
    assert not window.has_room(Rows([b"ky", b"kz"], DROP, None, ""))
    window.add(Rows([b"kz"], DROP, None, ""))
    assert window.is_full


def test_many_versions_of_one_key_cost_one_look_each() -> None:
    """Falling versions all stand; one higher than all takes the place of all of them."""
    window = Window()
    falling = list(range(900, 0, -1))
    window.add(Rows([b"ka"] * len(falling), DROP, falling, ""))
    assert window.standing == len(falling)
    window.add(Rows([b"ka"], DROP, [900], ""))
    assert window.standing == 1
    _, places = window.coalesce()
    assert set(places) == {Place(0, 0)}
