"""The questions asked of a simulated cluster; each follows from one seed, with whatever faults are wanted.

    detection   crashes far apart: when is it first declared, when does the last know; what does rest cost
    join_all    everybody starts at once and knows the seeds only: when does everybody know everybody
    heal        halves that cannot hear each other for an hour: how long until it is one cluster again
    flapping    a tenth crashes and comes back over and over: what becomes of the others
    stalling    Lifeguard's experiment (`lifeguard`), once

Members that are asked to stall do so all the time; what they see is not counted, nor are their deaths.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from statistics import quantiles
from typing import TYPE_CHECKING, NamedTuple

from coherd.sim.lifeguard import Rhythm, experiment
from coherd.sim.network import Links
from coherd.sim.world import World
from coherd_membership import Change, Status, SwimConfig

if TYPE_CHECKING:
    from coherd.sim.world import Node

Tell = Callable[[str], None]
"""Takes a line about how far a scenario is."""

SETTLING = 5.0
"""Virtual seconds before anything is counted."""
IDLE = 60
"""Virtual seconds in which the cost of rest is counted."""
CRASHES_MIN, CRASHES_MAX = 20, 200
"""In all: the fewest of which percentiles say something, and the most that are worth the wait."""
CRASHED_MEMBERS = 10_000
"""Between these as many as make so many members, over all clusters."""
CRASHED_SHARE = 1 / 50
"""Of one cluster no more crash than that: what is measured is still a cluster of that size."""
STEP = 0.1
"""Virtual seconds between two looks at a cluster that is to become whole."""
PATIENCE = 600
"""Probe intervals after which nobody waits any more, for that or for the last to know of a crash."""
FLAPPING_SHARE = 0.1
UP_MAX, DOWN_MAX = 40.0, 30.0
"""A flapping member is up, and down, for a random time up to this, in seconds."""


@dataclass(frozen=True, slots=True)
class Setup:
    """A cluster to ask, and its faults."""

    members: int
    config: SwimConfig
    seed: int
    links: Links = field(default_factory=Links)
    rhythm: Rhythm = field(default_factory=Rhythm)

    def world(self, number: int = 0) -> Cluster:
        """Give one of the clusters of this seed, not started yet."""
        random = Random(f"{self.seed} {number}")
        world = World(self.config, self.members, random.getrandbits(64), self.links)
        slow = random.sample(range(self.members), self.rhythm.members)
        return Cluster(world, random, slow, [n for n in world.nodes if n.index not in set(slow)])


class Cluster(NamedTuple):
    """A cluster and who stalls in it."""

    world: World
    random: Random
    slow: list[int]
    """Numbers of those that stall."""
    steady: list[Node]
    """The others."""

    def begin(self, rhythm: Rhythm, until: float) -> None:
        """Let it settle, and let those that stall do so from now on."""
        self.world.run(self.world.now + SETTLING)
        rhythm.begin(self.world, self.slow, until)

    def false_deaths(self) -> int:
        """Count the deaths of steady members that were up, seen at steady ones."""
        names = {node.name for node in self.steady}
        return sum(s.is_false_death and {s.name, s.observer} <= names for s in self.world.seen)

    def wait_until_whole(self, tell: Tell) -> float | None:
        """Give the virtual seconds until everybody steady sees everybody steady, and nobody who is not up;
        None if that does not come.
        """
        world = self.world
        begin = world.now
        while not (world.is_whole(self.steady) if self.slow else world.is_whole()):
            if world.now - begin > PATIENCE * world.config.probe_interval:
                return None
            world.run(world.now + STEP)
            tell(f"not whole after {world.now - begin:.1f} s")
        return world.now - begin


class Figure(NamedTuple):
    """One thing that was found out."""

    key: str
    """Its name in JSON."""
    label: str
    """Its name for people."""
    value: float | int | bool | None
    """None when there is none."""
    unit: str = ""


@dataclass(slots=True)
class Detection:
    """What `detection` found."""

    members: int
    first: list[float] = field(default_factory=list)
    """For each crash the seconds until the first member declared it."""
    last: list[float] = field(default_factory=list)
    """For each crash the seconds until all knew."""
    unknown: int = 0
    """Crashes that not everybody knew of in the end."""
    false_deaths: int = 0
    seconds: list[int] = field(default_factory=list)
    """Bytes that the cluster sent in each second of rest."""
    messages: int = 0
    """Datagrams sent meanwhile."""
    worlds: int = 0
    events: int = 0

    def figures(self) -> list[Figure]:
        """Give what is printed."""
        cost = sum(self.seconds) / len(self.seconds) / self.members
        return [
            *_percentiles("detect", "first declared dead", self.first),
            *_percentiles("known", "the last knows", self.last),
            Figure("crashes", "crashes", len(self.first)),
            Figure("clusters", "clusters they were in", self.worlds),
            Figure("not_known", "crashes not known to everybody", self.unknown),
            Figure("false_deaths", "false deaths", self.false_deaths),
            Figure("bytes_per_member_s", "sent by a member at rest", cost, "B/s"),
            Figure(
                "bytes_per_member_s_max",
                "in the largest second",
                max(self.seconds) / self.members,
                "B/s",
            ),
            Figure(
                "messages_per_member_s",
                "messages of a member at rest",
                self.messages / len(self.seconds) / self.members,
                "/s",
            ),
            Figure("events", "events simulated", self.events),
        ]


def detection(setup: Setup, tell: Tell, crashes: int | None = None) -> list[Figure]:
    """Measure the cost of rest and then how long crashes go unnoticed."""
    if crashes is None:
        crashes = min(CRASHES_MAX, max(CRASHES_MIN, CRASHED_MEMBERS // setup.members))
    found = Detection(setup.members)
    each = max(1, int(setup.members * CRASHED_SHARE))
    while len(found.first) + found.unknown < crashes:
        cluster = setup.world(found.worlds)
        world = cluster.world
        world.start_joined()
        cluster.begin(setup.rhythm, float("inf"))
        if found.worlds == 0:
            _rest(world, found, tell)
        left = crashes - len(found.first) - found.unknown
        for node in cluster.random.sample(cluster.steady, min(each, left)):
            _crash(cluster, node, found)
            tell(f"{len(found.first) + found.unknown} of {crashes} crashes")
        found.false_deaths += cluster.false_deaths()
        found.worlds += 1
        found.events += world.events
    return found.figures()


def _rest(world: World, found: Detection, tell: Tell) -> None:
    messages = world.messages
    for second in range(IDLE):
        before = world.bytes
        world.run(world.now + 1)
        found.seconds.append(world.bytes - before)
        tell(f"{second + 1} of {IDLE} seconds at rest")
    found.messages = world.messages - messages


def _crash(cluster: Cluster, node: Node, found: Detection) -> None:
    """Let a member crash, and wait until all others know."""
    world = cluster.world
    world.run(world.now + cluster.random.uniform(1, 3) * world.config.probe_interval)
    world.crash(node)
    cluster.steady.remove(node)
    begin, looked_at = world.now, len(world.seen)
    missing = cluster.steady
    while missing and world.now - begin < PATIENCE * world.config.probe_interval:
        world.run(world.now + 1)
        missing = [n for n in missing if n.swim.members[node.name].news.status < Status.DEAD]
    if missing:
        found.unknown += 1
        return
    steady = {other.name for other in cluster.steady}
    died = [
        seen.at - begin
        for seen in world.seen[looked_at:]
        if seen.name == node.name and seen.change is Change.DIED and seen.observer in steady
    ]
    found.first.append(min(died, default=0.0))  # none: all had declared it before, wrongly
    found.last.append(max(died, default=0.0))


def join_all(setup: Setup, tell: Tell) -> list[Figure]:
    """Start everybody at once; all know the seeds, and the seeds nobody else."""
    cluster = setup.world()
    world = cluster.world
    world.start_all()
    setup.rhythm.begin(world, cluster.slow, float("inf"))
    whole = cluster.wait_until_whole(tell)
    busiest = max(node.swim.statistics()["sent_bytes"] for node in world.nodes)
    return [
        Figure("whole_s", "until everybody knows everybody", whole, "s"),
        Figure("bytes_per_member", "sent by a member until then", world.bytes / setup.members, "B"),
        Figure("bytes_of_busiest", "by the busiest", busiest, "B"),
        *_costs(cluster, world.now, world.bytes),
    ]


def heal(setup: Setup, tell: Tell, duration: float) -> list[Figure]:
    """Cut a cluster in halves for `duration` virtual seconds; mend it; wait until it is one again."""
    cluster = setup.world()
    world = cluster.world
    world.start_joined()
    cluster.begin(setup.rhythm, float("inf"))
    halves = range(0, setup.members, 2), range(1, setup.members, 2)
    world.network.cut("there", *halves)
    world.network.cut("back", *reversed(halves))
    before = world.bytes
    _pass(world, duration, "cut in halves", tell)
    cut_bytes, deaths = world.bytes - before, sum(s.change is Change.DIED for s in world.seen)
    is_split = not any(node.sees > setup.members // 2 for node in cluster.steady)
    world.network.mend("there")
    world.network.mend("back")
    world.seen.clear()
    healed, before = world.now, world.bytes
    whole = cluster.wait_until_whole(tell)
    return [
        Figure("heal_s", "until it was one cluster again", whole, "s"),
        Figure("split", "each half saw itself alone before", is_split),
        Figure("split_deaths", "deaths seen while it was cut", deaths),
        Figure(
            "split_bytes_per_member_s",
            "sent by a member meanwhile",
            cut_bytes / duration / setup.members,
            "B/s",
        ),
        *_costs(cluster, world.now - healed, world.bytes - before),
    ]


def flapping(setup: Setup, tell: Tell, duration: float) -> list[Figure]:
    """Let a tenth crash and come back, with or without what it knew, for `duration` virtual seconds."""
    cluster = setup.world()
    world, random = cluster.world, cluster.random
    world.start_joined()
    flapping = random.sample(cluster.steady, max(1, int(setup.members * FLAPPING_SHARE)))
    for node in flapping:
        cluster.steady.remove(node)
    cluster.begin(setup.rhythm, float("inf"))
    end, begun, before = world.now + duration, world.now, world.bytes
    lives = 0

    def flap(node: Node) -> None:
        nonlocal lives
        if node.is_up and world.now < end:
            world.crash(node)
            world.at(world.now + random.uniform(0, DOWN_MAX), partial(flap, node))
        elif not node.is_up:
            lives += 1
            world.start(node, knows=random.random() < 0.5)
            world.at(world.now + random.uniform(0, UP_MAX), partial(flap, node))

    for node in flapping:
        world.at(world.now + random.uniform(0, UP_MAX), partial(flap, node))
    _pass(world, duration, "a tenth flapping", tell)
    is_steady = world.is_whole(cluster.steady)
    spent, size = world.now - begun, world.bytes - before
    for node in flapping:
        if not node.is_up:
            flap(node)
    return [
        Figure("restarts", "times that somebody came back", lives),
        Figure("steady_whole", "the others all saw each other at the end", is_steady),
        Figure(
            "whole_s", "until all saw all, once nobody flapped", cluster.wait_until_whole(tell), "s"
        ),
        *_costs(cluster, spent, size),
    ]


def stalling(setup: Setup, _tell: Tell, duration: float) -> list[Figure]:
    """Let members stall for `duration` virtual seconds, and one further member crash meanwhile."""
    found = experiment(
        setup.config,
        setup.members,
        setup.seed,
        setup.rhythm,
        links=setup.links,
        duration=duration,
    )
    spent = duration * setup.members
    return [
        Figure(
            "false_deaths_healthy", "false deaths, seen by the healthy", found.false_deaths_healthy
        ),
        Figure("false_deaths", "false deaths, seen by anybody", found.false_deaths),
        Figure(
            "stalled_deaths",
            "deaths of the stalled, seen by the healthy",
            found.stalled_deaths_healthy,
        ),
        Figure("detect_s", "the crash first declared", found.first_detection, "s"),
        Figure("known_s", "the last knows of it", found.full_dissemination, "s"),
        Figure("bytes_per_member_s", "sent by a member", found.bytes / spent, "B/s"),
        Figure("messages_per_member_s", "messages of a member", found.messages / spent, "/s"),
        Figure("events", "events simulated", found.events),
    ]


def _pass(world: World, seconds: float, what: str, tell: Tell) -> None:
    end = world.now + seconds
    while world.now < end:
        world.run(min(end, world.now + 1))
        tell(f"{what}: {seconds - (end - world.now):,.0f} of {seconds:,.0f} s")


def _percentiles(key: str, label: str, values: list[float]) -> list[Figure]:
    """Give the median and the 99th percentile of some seconds."""
    middle = high = None
    if values:
        cuts = quantiles(values if len(values) > 1 else 2 * values, n=100, method="inclusive")
        middle, high = cuts[49], cuts[98]
    return [
        Figure(f"{key}_p50_s", f"{label}, p50", middle, "s"),
        Figure(f"{key}_p99_s", f"{label}, p99", high, "s"),
    ]


def _costs(cluster: Cluster, seconds: float, size: int) -> list[Figure]:
    """Give what every scenario ends with."""
    world = cluster.world
    rate = size / max(seconds, STEP) / len(world.nodes)
    return [
        Figure("bytes_per_member_s", "sent by a member", rate, "B/s"),
        Figure("false_deaths", "false deaths", cluster.false_deaths()),
        Figure("events", "events simulated", world.events),
    ]


@contextmanager
def uncollected() -> Iterator[None]:
    """Leave garbage alone meanwhile: to look through the millions of objects of a cluster takes most time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
