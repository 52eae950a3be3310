"""Every holder is reached exactly once where all see the same members; where they do not, it still ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from walking import NAMESPACE, Violation, check_all_reached_once, walk

from coherd.replication import ring as rings
from coherd.replication.ring import CIRCLE, DIRECT_MAX, RINGS, Delegate, Ring, View, hash64

EVERYTHING, OURS, OTHER = ("*",), (NAMESPACE, "x"), ("y",)
HELD = st.sampled_from([EVERYTHING, OURS, OTHER])
MEMBERS = st.dictionaries(
    st.text("abcdefgh0123", min_size=1, max_size=6), HELD, min_size=1, max_size=90
)
NUMBER = st.integers(0, RINGS - 1)


def view_of(members: int, salt: object = "") -> View:
    return View({f"m{salt}-{index}": EVERYTHING for index in range(members)})


@given(MEMBERS, NUMBER, st.data())
def test_every_holder_is_reached_exactly_once(members: Any, ring: int, data: st.DataObject) -> None:
    view = View(members)
    origin = data.draw(st.sampled_from(sorted(members)))
    check_all_reached_once(view, origin, ring)


@given(MEMBERS, NUMBER, st.data())
def test_with_differing_views_it_ends_and_arcs_only_shrink(
    members: Any, ring: int, data: st.DataObject
) -> None:
    names = sorted(members)
    views = {}
    for name in names:
        unknown = data.draw(st.sets(st.sampled_from(names), max_size=8)) - {name}
        views[name] = View({n: held for n, held in members.items() if n not in unknown})
    walk(views, data.draw(st.sampled_from(names)), ring)


@given(MEMBERS, NUMBER)
def test_hops_are_bounded_by_how_near_two_members_are(members: Any, ring: int) -> None:
    """Each hop leaves an eighth of the width, and no two members are nearer than the narrowest gap."""
    view = View(members)
    places = sorted(hash64(ring, name) for name in members)
    gap = min((b - a for a, b in pairwise(places)), default=CIRCLE)
    result = check_all_reached_once(view, min(members), ring)
    assert max(result.hops.values()) <= math.ceil(math.log(CIRCLE / gap, 8)) + 1


def test_of_a_hundred_regions_nearly_all_need_at_most_twice_the_logarithm() -> None:
    """The bound holds with high probability, not always: hashes may lie close together."""
    over = 0
    for salt in range(100):
        members = 18 + salt
        result = check_all_reached_once(view_of(members, salt), f"m{salt}-0", 0)
        over += max(result.hops.values()) > 2 * math.log(members, 8) + 1
    assert over <= 5


def test_in_a_large_region_everybody_is_reached_in_few_hops_over_few_links() -> None:
    view = view_of(5_000)
    result = check_all_reached_once(view, "m-7", 1)
    assert max(result.hops.values()) <= 2 * math.log(5_000, 8) + 1
    assert len(view.rings[1].fingers_of("m-7")) < 40


@pytest.mark.parametrize(("members", "hops"), [(1, 0), (2, 1), (DIRECT_MAX, 1)])
def test_a_small_region_takes_one_hop(members: int, hops: int) -> None:
    result = check_all_reached_once(view_of(members), "m-0", 0)
    assert max(result.hops.values()) == hops
    assert len(view_of(members).rings[0].fingers_of("m-0")) == members - 1


def test_one_more_than_a_small_region_delegates() -> None:
    result = check_all_reached_once(view_of(DIRECT_MAX + 1), "m-0", 0)
    assert max(result.hops.values()) > 1


def test_those_with_most_to_reach_come_first() -> None:
    ring = view_of(300).rings[0]
    delegates = ring.delegates(hash64(0, "m-3"), 1, CIRCLE, NAMESPACE)
    assert sum(d.holders for d in delegates) == 299
    assert [d.holders for d in delegates] == sorted((d.holders for d in delegates), reverse=True)


@given(MEMBERS, NUMBER, st.data())
def test_members_that_come_and_go_leave_what_a_new_view_has(
    members: Any, ring: int, data: st.DataObject
) -> None:
    """Orders and fingers that were made before are kept up to date."""
    view = View()
    me = hash64(ring, "me")
    for name, held in members.items():
        view.add(name, held)
        view.rings[ring].delegates(me, 1, CIRCLE, NAMESPACE)
    for name in data.draw(st.sets(st.sampled_from(sorted(members)))):
        held = data.draw(st.none() | HELD)
        if held is None:
            view.remove(name)
        else:
            view.add(name, held)
    view.remove("nobody")
    afresh = View(view.members)
    assert len(view) == len(afresh) == len(view.rings[ring])
    for namespace in (NAMESPACE, "y"):
        found = view.rings[ring].delegates(me, 1, CIRCLE, namespace)
        assert found == afresh.rings[ring].delegates(me, 1, CIRCLE, namespace)


def test_the_rest_of_an_arc_is_what_a_wider_one_has_beside_it() -> None:
    """Who has handed out an arc and is given a wider one reaches all of it, and only the rest anew."""
    view = view_of(120)
    ring, me = view.rings[0], hash64(0, "m-5")
    whole = list(ring.successors("m-5", me - 1, NAMESPACE))
    assert len(whole) == 119
    for cut in (1, 30, 60, 118):
        edge = (hash64(0, whole[cut]) - me) % CIRCLE
        parts = ring.delegates(me, 1, edge, NAMESPACE), ring.delegates(me, edge, CIRCLE, NAMESPACE)
        assert [sum(d.holders for d in part) for part in parts] == [cut, 119 - cut]


def test_after_a_member_and_before_itself_there_is_nobody() -> None:
    assert list(view_of(30).rings[0].successors("m-5", hash64(0, "m-5"), NAMESPACE)) == []


def test_there_are_not_more_orders_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rings, "ORDERS_MAX", 3)
    view = View({"a": ("n1",), "b": EVERYTHING})
    for number in range(10):
        view.rings[0].delegates(0, 1, CIRCLE, f"n{number}")
    assert len(view.rings[0]._orders) <= 3


def test_an_empty_ring_has_no_delegates() -> None:
    assert View().rings[0].delegates(5, 1, CIRCLE, NAMESPACE) == []
    assert View({"a": OTHER}).rings[0].delegates(5, 1, CIRCLE, NAMESPACE) == []


# ---------------------------------------------------------------------- planted bugs

REGION = View({f"m{index}": (EVERYTHING, OTHER, OURS)[index % 3] for index in range(120)})


def an_arc_with_its_end(patch: pytest.MonkeyPatch) -> None:
    original = Ring.delegates

    def delegates(self: Ring, me: int, begin: int, end: int, namespace: str) -> list[Delegate]:
        return original(self, me, begin, min(end + 1, CIRCLE), namespace)

    patch.setattr(Ring, "delegates", delegates)


def a_delegates_arc_includes_the_next_delegate(patch: pytest.MonkeyPatch) -> None:
    original = Ring.delegates

    def delegates(self: Ring, me: int, begin: int, end: int, namespace: str) -> list[Delegate]:
        found = original(self, me, begin, end, namespace)
        return [d._replace(end=(d.end + 1) % CIRCLE) if d.end != me else d for d in found]

    patch.setattr(Ring, "delegates", delegates)


def an_arc_that_does_not_shrink(patch: pytest.MonkeyPatch) -> None:
    original = Ring.delegates

    def delegates(self: Ring, me: int, begin: int, end: int, namespace: str) -> list[Delegate]:
        found = original(self, me, begin, end, namespace)
        return [d._replace(end=(me + end) % CIRCLE) for d in found]

    patch.setattr(Ring, "delegates", delegates)


def a_finger_that_is_no_holder_cuts_off_those_behind_it(patch: pytest.MonkeyPatch) -> None:
    original = Ring.delegates

    def delegates(self: Ring, me: int, begin: int, end: int, namespace: str) -> list[Delegate]:
        places = {(me + far) % CIRCLE for far in self.fingers(me)}
        found = original(self, me, begin, end, namespace)
        return [d for d in found if hash64(self.number, d.name) in places]

    patch.setattr(Ring, "delegates", delegates)


@pytest.mark.parametrize(
    "mutant",
    [
        an_arc_with_its_end,
        a_delegates_arc_includes_the_next_delegate,
        an_arc_that_does_not_shrink,
        a_finger_that_is_no_holder_cuts_off_those_behind_it,
    ],
)
def test_the_walk_catches(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_all_reached_once(REGION, "m1", 0)
    mutant(monkeypatch)
    with pytest.raises(Violation):
        check_all_reached_once(REGION, "m1", 0)
