"""Lifeguard's experiment: members that stop and go, and who is declared dead for it.

Of 128 members some are slow in a rhythm: for D seconds they neither send nor receive, for I seconds they
do, over and over for two minutes (Dadgar, Phillips, Currey 2017, §V; how far this repeats them is said in
docs/benchmarks.md). One further member crashes. A death is *false* when it is declared of a member that is
well: one that is stalled for long enough can't be told from a crashed one, so deaths of stalled members are
counted apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from zlib import crc32

from coherd.sim.network import Links
from coherd.sim.world import Stall, World
from coherd_membership import Change, Status, SwimConfig

MEMBERS = 128
SETTLING = 10.0
"""Virtual seconds before the first stall."""
DURATION = 120.0
"""Virtual seconds of stalls."""
CRASH_AFTER = 1 / 6
"""The crash comes after this share of the stalls."""

_FULL = SwimConfig.profile("lan")
_PLAIN = _FULL.plain()
VARIANTS: dict[str, SwimConfig] = {
    "plain": _PLAIN,
    "probe": replace(_PLAIN, health_max=_FULL.health_max, nack_after=_FULL.nack_after),
    "suspicion": replace(
        _PLAIN,
        suspicion_max_factor=_FULL.suspicion_max_factor,
        confirmations=_FULL.confirmations,
    ),
    "buddy": replace(_PLAIN, tells_suspects=True),
    "full": _FULL,
}
"""SWIM, each part of Lifeguard alone, and everything with the multiplier of the profile `lan`."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How some members stall, over and over."""

    members: int = 0
    """So many of them."""
    stall: float = 4.0
    """Seconds of each stall."""
    between: float = 1.0
    """Seconds from the end of one stall to the next."""
    kind: Stall = Stall.BLOCKED

    def begin(self, world: World, chosen: list[int], until: float) -> None:
        """Let members stall from now on, until a virtual time."""
        for index in chosen:
            world.stall_often(world.nodes[index], self.stall, self.between, until, self.kind)


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the grid."""

    variant: str
    rhythm: Rhythm
    repeat: int

    @property
    def seed(self) -> int:
        """The seed; the same for every variant."""
        rhythm = self.rhythm
        return crc32(f"{rhythm.members} {rhythm.stall} {rhythm.between} {self.repeat}".encode())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened in one run."""

    false_deaths: int
    """Deaths seen of members that were well, at anybody."""
    false_deaths_healthy: int
    """Of these, seen at members that were well."""
    stalled_deaths_healthy: int
    """Deaths of stalled members, seen at members that were well."""
    first_detection: float | None
    """Seconds from the crash until the first member that is well declared or heard it; None if nobody did."""
    full_dissemination: float | None
    """Seconds until the last of them had heard; None if some had not at the end."""
    messages: int
    """Datagrams that all members sent while members stalled."""
    bytes: int
    events: int


def run(cell: Cell) -> Outcome:
    """Run one cell; the same cell always ends the same."""
    return experiment(VARIANTS[cell.variant], MEMBERS, cell.seed, cell.rhythm)


def experiment(
    config: SwimConfig,
    members: int,
    seed: int,
    rhythm: Rhythm,
    *,
    links: Links = Links(),  # noqa: B008 # never changed
    duration: float = DURATION,
) -> Outcome:
    """Let some members stall for `duration` virtual seconds, and one other crash after a sixth of them."""
    world = World(config, members, seed, links)
    *stalled, crashed = Random(seed).sample(range(members), rhythm.members + 1)
    world.start_joined()
    world.run(SETTLING)
    messages, size = world.messages, world.bytes
    end, crash_at = SETTLING + duration, SETTLING + duration * CRASH_AFTER
    rhythm.begin(world, stalled, end)
    gone = world.nodes[crashed]
    world.at(crash_at, lambda: world.crash(gone))
    world.run(end)
    slow = {world.nodes[index].name for index in stalled}
    died = [seen for seen in world.seen if seen.change is Change.DIED]
    false = [seen for seen in died if seen.is_false_death and seen.name not in slow]
    well = [node for node in world.nodes if node.is_up and node.name not in slow]
    names = {node.name for node in well}
    found = [s.at - crash_at for s in died if s.name == gone.name and s.observer in names]
    after = [at for at in found if at >= 0]  # before its crash it was declared dead wrongly
    is_known = all(node.swim.members[gone.name].news.status is Status.DEAD for node in well)
    return Outcome(
        len(false),
        sum(seen.observer in names for seen in false),
        sum(seen.name in slow and seen.observer in names for seen in died),
        min(after, default=None),
        max(after, default=0.0) if is_known else None,
        world.messages - messages,
        world.bytes - size,
        world.events,
    )
