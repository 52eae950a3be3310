"""The question asked of a region that spreads: who has a row when, and what did that cost.

A few publishers invalidate at a steady rate, while some members stand still, some crash in the middle, and
whatever else the region's conditions say. Latencies are those of members that did not stand still between
the call and the arrival: one that stands still has nothing sooner than it goes on. Delivered must be all, to
all that live.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor, inf
from typing import TYPE_CHECKING

from coherd.model import Lane
from coherd.sim.scenarios import Figure
from coherd.sim.spread_world import Region, SpreadWorld

if TYPE_CHECKING:
    from coherd.sim.scenarios import Tell
    from coherd.sim.spread_world import Node

SETTLING = 1.0
"""Virtual seconds before the first row: by then the members tell in no common rhythm."""
STEP = 0.25
"""Virtual seconds between two looks whether everything has arrived."""
PATIENCE = 30.0
"""Virtual seconds after the last row, and the last stall, in which that must have happened."""


@dataclass(frozen=True, slots=True)
class SpreadSetup:
    """A region, its load, and its faults."""

    region: Region = field(default_factory=Region)
    seed: int = 1
    lane: Lane = Lane.URGENT
    rate: float = 20.0
    """Rows a second, all publishers together."""
    count: int = 100
    """Rows in all."""
    size_bytes: int = 100
    """Of a payload."""
    publishers: int = 16
    stalled: float = 0.0
    """Share of members that stand still while rows are published, others every time; never all publishers."""
    stall: float = 2.0
    """Seconds for which they do."""
    crashed: float = 0.0
    """Share of members that crash in the middle; no publishers."""
    wants_receipts: bool = False
    """Whether it is waited until everybody has said that it has applied a row."""


@dataclass(frozen=True, slots=True)
class Spreading:
    """What was found."""

    figures: list[Figure]
    latencies: list[float]
    """Seconds from the call until a member had it, of all that did not stand still, ascending."""


def spreading(setup: SpreadSetup, tell: Tell) -> Spreading:
    """Publish, wait until everything has arrived everywhere, and give what was found."""
    world = SpreadWorld(setup.region, setup.seed)
    world.run(SETTLING)
    publish(world, setup, tell)
    deadline = world.now + setup.stall + PATIENCE
    waiting = True
    while waiting and world.now < deadline:
        world.run(world.now + STEP)
        missing = world.missing()
        waiting = bool(missing) or (setup.wants_receipts and len(world.receipts) < setup.count)
        tell(f"{missing:,} missing after {world.now:.1f} s")
    return found(world, setup)


def publish(world: SpreadWorld, setup: SpreadSetup, tell: Tell) -> None:
    """Let publishers invalidate, and faults happen."""
    random, begin = world.random, world.now
    end = begin + setup.count / setup.rate
    number = min(setup.publishers, len(world.holders))
    publishers = [world.nodes[index] for index in random.sample(world.holders, number)]
    if stalled := round(setup.region.members * setup.stalled):
        _stall(world, setup, publishers, stalled, end)
    if crashed := round(setup.region.members * setup.crashed):
        others = [node for node in world.nodes if node not in publishers]
        for node in random.sample(others, min(crashed, len(others))):
            world.at((begin + end) / 2, lambda node=node: world.crash(node))  # type: ignore[misc]
    for index in range(setup.count):
        world.run(begin + index / setup.rate)
        ready = [node for node in publishers if node.stalled_until <= world.now]
        world.invalidate(
            random.choice(ready), setup.lane, setup.size_bytes, receipt=setup.wants_receipts
        )
        tell(f"{index + 1:,} of {setup.count:,} rows")
    world.run(end)


def _stall(
    world: SpreadWorld, setup: SpreadSetup, publishers: list[Node], stalled: int, until: float
) -> None:
    """Let as many members stand still as are asked for, and when they go on, others."""
    chosen = world.random.sample(world.nodes, stalled)
    spared = publishers[0]
    for node in chosen:
        if node is not spared:
            world.stall(node, setup.stall)
    again = world.now + setup.stall
    if again < until:
        world.at(again, lambda: _stall(world, setup, publishers, stalled, until))


def found(world: SpreadWorld, setup: SpreadSetup) -> Spreading:
    """Give the figures of a world in which everything has happened."""
    latencies: list[float] = []
    stalled = 0
    for sent in world.sent:
        for index in world.holders:
            if index in sent.stalled:
                stalled += 1
            elif (at := sent.arrived[index]) < inf:
                latencies.append(at - sent.at)
    latencies.sort()
    members, count = setup.region.members, len(world.sent)
    alive = sum(world.nodes[index].is_up for index in world.holders)
    wanted = count * alive
    missing = world.missing()
    others = count * (len(world.holders) - 1)
    spent = members * world.now
    figures = [
        Figure("p50_ms", "half of the members have it", _at(latencies, 0.5), "ms"),
        Figure("p99_ms", "99 % have it", _at(latencies, 0.99), "ms"),
        Figure("last_ms", "the last has it, worst of all rows", _at(latencies, 1.0), "ms"),
        Figure("copies", "copies a member", world.copies / others),
        Figure("delivered", "share delivered", floor(1e6 * (1 - missing / wanted)) / 1e6),
        Figure("missing", "not delivered", missing),
        Figure("stood_still", "rows at members that stood still", stalled),
        Figure("repaired", "share that came by repair", world.mended / others),
        Figure(
            "redelegated", "arcs given to the next holder, overdue", world.counted("redelegated")
        ),
        Figure("bypassed", "and at once, the delegate being silent", world.counted("bypassed")),
        Figure("unpaid", "overdue while none was left to spend", world.counted("unpaid")),
        Figure("dropped", "found no room on a link", world.counted("dropped")),
        Figure("bytes_per_member_s", "sent by a member, rows", world.bytes_spread / spent, "B/s"),
        Figure("repair_bytes_per_member_s", "and repair", world.bytes_repair / spent, "B/s"),
    ]
    if setup.wants_receipts:
        waited = sorted(at - world.sent[payload].at for payload, at in world.receipts.items())
        figures += [
            Figure("receipts", "rows of which all is known", len(waited)),
            Figure("receipt_p50_ms", "known to be applied everywhere, p50", _at(waited, 0.5), "ms"),
            Figure("receipt_p99_ms", "p99", _at(waited, 0.99), "ms"),
        ]
    figures.append(Figure("events", "events simulated", world.events))
    return Spreading(figures, latencies)


def _at(values: list[float], share: float) -> float | None:
    """Give in milliseconds the smallest of ascending seconds that so large a share does not exceed."""
    return values[max(0, -floor(-share * len(values)) - 1)] * 1_000 if values else None
