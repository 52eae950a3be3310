"""A simulated region does what the protocol says, and its figures show the bugs that are planted in it."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest

from coherd.model import Lane
from coherd.replication.parcels import ReceiptGrew
from coherd.replication.receipt_tree import ReceiptTree
from coherd.replication.ring import Ring
from coherd.replication.spread import Spread
from coherd.replication.spread_config import SpreadConfig
from coherd.sim.curve import svg
from coherd.sim.mender import Mender
from coherd.sim.spread_run import SpreadSetup, spreading
from coherd.sim.spread_world import Node, Region, SpreadWorld
from coherd.sim.streams import Conditions, Streams

MEMBERS = 120
LATE = Conditions(late_replies=0.5)
CALM = Region(MEMBERS)


def figures(lane: Lane = Lane.URGENT, region: Region = CALM, **more: Any) -> dict[str, Any]:
    setup = SpreadSetup(region, 3, lane, **({"count": 10} | more))
    return {figure.key: figure.value for figure in spreading(setup, lambda _line: None).figures}


def check_receipts(world: SpreadWorld) -> None:
    """Let a receipt that names a member which has not applied the payload raise."""

    def check(payload: int, _node: Node, event: ReceiptGrew) -> None:
        wrong = [name for name in event.names if payload not in by_name[name].applied]
        assert not wrong, f"not applied at {wrong}"

    by_name = {node.name: node for node in world.nodes}
    world.on_receipt = check


def with_receipts(region: Region) -> SpreadWorld:
    world = SpreadWorld(region, 1)
    check_receipts(world)
    world.run(1)
    for index in world.holders[:5]:
        world.invalidate(world.nodes[index], Lane.URGENT, 50, receipt=True)
        world.run(world.now + 0.1)
    world.run(world.now + 3)
    return world


# ---------------------------------------------------------------------- what it should give


@pytest.mark.parametrize(("lane", "copies"), [(Lane.URGENT, 2), (Lane.NORMAL, 1), (Lane.BULK, 1)])
def test_without_faults_everybody_has_it_soon_and_in_as_many_copies_as_rings(
    lane: Lane, copies: int
) -> None:
    found = figures(lane)
    assert copies - 0.05 < found["copies"] <= copies
    assert found["delivered"] == 1
    assert (found["repaired"], found["redelegated"], found["dropped"]) == (0, 0, 0)
    assert 1.5 < found["p50_ms"] < found["p99_ms"] <= found["last_ms"] < 25


def test_with_loss_and_stalls_everybody_has_it_in_the_end() -> None:
    found = figures(
        region=Region(MEMBERS, conditions=Conditions(loss=0.05)), stalled=0.05, stall=0.5, count=30
    )
    assert (found["missing"], found["delivered"]) == (0, 1)
    assert found["redelegated"] > 0
    assert found["stood_still"] > 0
    assert found["copies"] < 3


def test_whatever_some_know_hold_or_suffer_everybody_else_has_it() -> None:
    region = Region(MEMBERS, interest=0.4, differing=0.3, lacking=0.1)
    found = figures(Lane.NORMAL, region, crashed=0.1, count=20)
    assert found["missing"] == 0
    assert 0 < found["repaired"] < 0.2, "whom nobody knew, and whom the crashed should have reached"


def test_late_acknowledgements_cost_less_than_another_copy() -> None:
    assert figures(region=Region(MEMBERS, conditions=LATE))["copies"] <= 3


def test_what_is_published_by_one_that_then_crashes_is_no_loss() -> None:
    world = SpreadWorld(Region(MEMBERS), 5)
    world.run(1)
    world.invalidate(world.nodes[0], Lane.NORMAL, 50)
    world.run(world.now + 0.001)
    world.crash(world.nodes[0])
    world.run(world.now + 6)
    assert world.missing() == 0
    assert world.nodes[0].name not in world.nodes[1].view


def test_receipts_become_complete_and_name_only_those_that_have_applied() -> None:
    world = with_receipts(Region(MEMBERS, interest=0.5, conditions=Conditions(loss=0.05)))
    assert len(world.receipts) == 5
    found = figures(wants_receipts=True, count=5)
    assert found["receipts"] == 5
    assert found["receipt_p50_ms"] > found["last_ms"]


def test_a_stalled_member_has_it_when_it_goes_on_and_is_not_counted_in_the_latencies() -> None:
    world = SpreadWorld(Region(MEMBERS), 1)
    world.run(1)
    world.stall(world.nodes[7], 0.8)
    world.invalidate(world.nodes[0], Lane.NORMAL, 50)
    world.run(1.7)
    assert world.missing() == 1
    world.run(1.9)
    assert world.missing() == 0
    assert world.sent[0].stalled == {7}
    assert world.sent[0].arrived[7] == pytest.approx(1.8)


# ---------------------------------------------------------------------- its parts


def test_a_connection_keeps_the_order_and_pays_for_what_is_lost() -> None:
    streams = Streams(Conditions(loss=0.1), Random(1))
    arrivals = [streams.arrival("a-b", sent / 1000) for sent in range(1_000)]
    assert arrivals == sorted(arrivals)
    assert max(at - sent / 1000 for sent, at in enumerate(arrivals)) > 0.2
    calm = Streams(Conditions(), Random(1))
    hops = sorted(calm.arrival(number, 0) for number in range(1_001))
    assert hops[500] == pytest.approx(0.0015, rel=0.1)
    late = Streams(LATE, Random(1))
    replies = [late.arrival(number, 0, is_reply=True) for number in range(1_000)]
    assert 400 < sum(at > 0.2 for at in replies) < 600


def test_the_curve_is_a_picture_that_rises_to_all() -> None:
    root = ElementTree.fromstring(svg([0.0, 0.001, 0.01, 0.2], "a < b"))
    line = next(node for node in root.iter() if node.tag.endswith("polyline"))
    heights = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] > heights[-1]
    assert any(node.text == "a < b" for node in root.iter())


# ---------------------------------------------------------------------- planted bugs


def nothing(*_args: object, **_more: object) -> None:
    """Take the place of a part of the core."""


def test_copies_show_a_bucket_without_bottom() -> None:
    right = figures(region=Region(200, conditions=LATE), count=20)["copies"]
    config = SpreadConfig(redelegated_burst=inf)
    wrong = figures(region=Region(200, conditions=LATE, config=config), count=20)["copies"]
    assert right <= 3 < wrong


def test_copies_show_that_nothing_is_remembered() -> None:
    found = []
    for remembered_for in (2.0, 0.0):
        config = SpreadConfig(redelegated_burst=inf, remembered_for=remembered_for)
        found.append(
            figures(region=Region(200, conditions=LATE, config=config), count=20)["copies"]
        )
    assert found[1] > 1.15 * found[0]


def test_receipts_show_a_member_that_counts_without_having_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = ReceiptTree.ask

    def ask(self: ReceiptTree, payload: int, ring: int, asker: tuple[str, bool] | None) -> None:
        original(self, payload, ring, asker)
        self.apply(payload)

    monkeypatch.setattr(ReceiptTree, "ask", ask)
    with pytest.raises(AssertionError, match="not applied"):
        with_receipts(Region(MEMBERS))


def test_the_share_of_repair_shows_a_delegation_that_cuts_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = Ring.delegates

    def delegates(self: Ring, *arguments: Any) -> Any:
        return original(self, *arguments)[:-1]

    monkeypatch.setattr(Ring, "delegates", delegates)
    found = figures(Lane.NORMAL)
    assert found["repaired"] > 0.1
    assert found["missing"] == 0


def test_what_is_missing_shows_a_repair_that_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spread, "_forward", nothing)
    by_repair = figures(Lane.NORMAL, count=2)
    assert (by_repair["missing"], by_repair["copies"], by_repair["repaired"]) == (0, 0, 1)
    monkeypatch.setattr(Mender, "_look", nothing)
    assert figures(Lane.NORMAL, Region(20), count=2)["delivered"] < 0.2


@pytest.mark.parametrize("part", [Spread._redelegate, Spread._heir])
def test_the_last_show_a_member_that_gives_nobody_elses_arc_away(
    part: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask: dict[str, Any] = {"stalled": 0.1, "stall": 1.0, "count": 40}
    right = figures(Lane.NORMAL, **ask)
    answer = (lambda *_: ([], None)) if part is Spread._heir else nothing
    monkeypatch.setattr(Spread, part.__name__, answer)
    wrong = figures(Lane.NORMAL, **ask)
    assert wrong["repaired"] > right["repaired"]
