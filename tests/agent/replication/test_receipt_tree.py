"""Who has applied a payload goes up the trees as sets of names; nobody counts who has not said so."""

from __future__ import annotations

from itertools import pairwise

import pytest
from region import Region, payload

from coherd.model import Lane
from coherd.replication import receipt_tree
from coherd.replication.parcels import Applied, Arc, Parcel, Parcels, Reply
from coherd.replication.receipt_tree import ReceiptTree
from coherd.replication.spread_config import SpreadConfig

MEMBERS = 60
INTERVAL = SpreadConfig().receipts_interval


def spread(region: Region, lane: Lane = Lane.URGENT, number: int = 1) -> None:
    region.originate("m0", payload(number, lane, wants_receipt=True))
    region["m0"].applied(number, region.now)
    region.run(region.now + 1)
    region.collect("m0")


@pytest.mark.parametrize("lane", [Lane.URGENT, Lane.NORMAL])
def test_the_origin_hears_of_all_that_have_applied_it_and_of_nobody_else(lane: Lane) -> None:
    region = Region(MEMBERS)
    region.applies = {f"m{index}" for index in range(MEMBERS) if index % 4}
    spread(region, lane)
    assert set(region.receipts[1]) == region.applies | {"m0"}
    assert len(region.receipts[1]) == len(set(region.receipts[1]))
    slow = region.cores.keys() - region.applies - {"m0"}
    for name in sorted(slow):
        region[name].applied(1, region.now)
        region.flush(name)
    region.run(region.now + 1)
    region.collect("m0")
    assert set(region.receipts[1]) == region.cores.keys()


def test_one_slow_member_withholds_nobody_behind_it() -> None:
    region = Region(MEMBERS)
    ring = region["m0"]._ring
    inner = region.view.rings[ring].fingers_of("m0")[-1]
    region.applies = region.cores.keys() - {inner}
    spread(region, Lane.NORMAL)
    assert set(region.receipts[1]) == region.cores.keys() - {inner}


def test_who_is_given_a_payload_alone_because_it_is_silent_is_heard_of_too() -> None:
    region = Region(MEMBERS)
    region.applies = set(region.cores)
    ring = region["m0"]._ring
    silent = region.view.rings[ring].fingers_of("m0")[-1]
    region.deaf.add(silent)
    region.originate("m0", payload(1, wants_receipt=True))
    region.run(0.2)
    region.originate("m0", payload(2, wants_receipt=True))
    region.run(0.3)
    assert region["m0"].statistics()["bypassed"] > 0
    region.deaf.clear()
    for entry in region.kept:
        region.deliver(*entry)
    region.run(1)
    region.collect("m0")
    assert set(region.receipts[2]) == region.cores.keys() - {"m0"}


def test_a_payload_that_wants_none_has_no_receipt() -> None:
    region = Region(MEMBERS)
    region.applies = set(region.cores)
    region.originate("m0", payload())
    region.run(1)
    assert not region.receipts
    assert region.counted("receipts") == 0


def test_on_a_link_they_are_told_at_most_every_twenty_milliseconds() -> None:
    region = Region(MEMBERS)
    region.applies = set(region.cores)
    for number in range(20):
        region.originate("m0", payload(number, wants_receipt=True))
        region.run(region.now + 0.007)
    region.run(region.now + 1)
    told: dict[str, list[float]] = {}
    for at, name, message in region.replies:
        if isinstance(message, Reply) and message.applied:
            told.setdefault(name, []).append(at)
    gaps = [b - a for times in told.values() for a, b in pairwise(times)]
    assert gaps
    assert min(gaps) >= INTERVAL - 1e-9
    region.collect("m0")
    assert all(len(names) >= MEMBERS - 1 for names in region.receipts.values())


def test_who_asks_later_or_again_is_told_all_that_is_known_once() -> None:
    region = Region(MEMBERS)
    core, what = region["m0"], payload(1, wants_receipt=True)
    core.receive(Parcels(False, 1, (Parcel(what, (Arc(0, 5),)),)), "m1", 0)
    core.applied(1, 0)
    core.handle_timer(0.002)
    assert [m.applied for n, m in core.messages() if n == "m1"] == [(Applied(1, 0, ("m0",)),)]
    core.receive(Parcels(False, 1, (Parcel(what, (Arc(0, 5),)),)), "m2", 0.01)
    core.receive(Parcels(False, 2, (Parcel(what, (Arc(0, 5),)),)), "m1", 0.01)
    core.handle_timer(0.02)
    told = {n: m.applied for n, m in core.messages() if isinstance(m, Reply)}
    assert told == {"m1": (), "m2": (Applied(1, 0, ("m0",)),)}


def test_what_nobody_asked_for_is_counted_and_no_more() -> None:
    core = Region(MEMBERS)["m0"]
    core.receive(Reply(False, 0, (Applied(7, 0, ("m1",)), Applied(7, 9, ("m1",)))), "m1", 0)
    assert core.statistics()["unasked"] == 2
    assert core.events() == []


def test_of_too_many_payloads_the_oldest_receipts_are_given_up() -> None:
    region = Region(3, SpreadConfig(receipts_max=4))
    for number in range(10):
        spread(region, number=number)
    assert region["m0"].statistics()["receipts"] == 4
    assert region["m0"].statistics()["receipts_given_up"] == 6


def test_not_more_names_are_kept_than_a_region_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipt_tree, "NAMES_MAX", 3)
    tree = ReceiptTree("me", 10)
    tree.ask(1, 0, None)
    assert tree.hear(1, 0, [f"n{index}" for index in range(9)])
    assert len(tree.names(1)) == 3


# ---------------------------------------------------------------------- planted bug


def test_a_member_that_counts_what_it_only_has_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ReceiptTree.ask

    def ask(self: ReceiptTree, number: int, ring: int, asker: tuple[str, bool] | None) -> None:
        original(self, number, ring, asker)
        self.apply(number)

    monkeypatch.setattr(ReceiptTree, "ask", ask)
    with pytest.raises(AssertionError):
        test_the_origin_hears_of_all_that_have_applied_it_and_of_nobody_else(Lane.NORMAL)
