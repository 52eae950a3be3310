"""Finding and fetching what is missing: the tasks that drive the core `replication.repair`.

*Have* tells two random members what changed, or that nothing does; *Compare* finds the streams in which
two vectors differ; *Fetch* brings the rows. A hole that nobody can fill becomes a reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from coherd.alarm import Alarm
from coherd.cluster.fetching import Fetching, check_shown
from coherd.errors import RpcFailed
from coherd.limits import BUCKETS
from coherd.model import EVERY_NAMESPACE
from coherd.net.peer import Have
from coherd.replication.freshness import domains

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from random import Random

    from coherd.clock import Clock
    from coherd.cluster.ingest import Ingest
    from coherd.cluster.linking import Linking
    from coherd.cluster.retiring import Retiring
    from coherd.cluster.roster import Roster
    from coherd.model import Stream
    from coherd.net.peer import Peer
    from coherd.replication.freshness import Freshness
    from coherd.replication.intervals import Intervals
    from coherd.replication.repair import Repair

log = structlog.get_logger("coherd.repair")

HAVE_INTERVAL_BUSY = 0.25
HAVE_INTERVAL_QUIET = 1.0
"""Seconds between two Haves while the own vector changes, and else."""
HAVE_MEMBERS = 2
HAVE_REPEATS = 3
"""Successive Haves that carry a change: told once to two, one in eight would never hear of it."""
HAVE_STREAMS_MAX = 1_000
HAVE_RANGES_MAX = 10_000
"""Ranges of numbers of one Have: a stream that has more is left to Compare."""
HEARD_LASTS = 30.0
"""Seconds for which a member that has spoken to this agent counts as one that can be asked."""
COMPARES_MAX = 3
"""Members that show their streams at once: after a start all of them have the same to show."""
MEETINGS_MAX = 5
"""Members with which vectors are compared at once to end catching up. Where a cluster restarts as a whole
each agent has to meet all the others; most are no fingers, so that links are made for it."""
COMPARE_INTERVAL = 10.0
COMPARE_STREAMS_MAX = 1_000_000


class Repairing:
    """The tasks of repair."""

    def __init__(
        self,
        ingest: Ingest,
        repair: Repair,
        freshness: Freshness,
        roster: Roster,
        linking: Linking,
        clock: Clock,
        random: Random,
        nursery: trio.Nursery,
        retiring: Retiring,
        quiet_interval: float = HAVE_INTERVAL_QUIET,
    ) -> None:
        """`quiet_interval`: seconds between two Haves while nothing changes here."""
        self._ingest = ingest
        self._repair = repair
        self._freshness = freshness
        self._roster = roster
        self._linking = linking
        self._clock = clock
        self._random = random
        self._nursery = nursery
        self._have_due = Alarm()
        self._rests = False
        """Whether the next Have is due only because nothing has changed for a while."""
        self._told: dict[Stream, int] = {}
        """Streams that changed, with how many Haves have carried the change."""
        self._retiring = retiring
        self._quiet_interval = min(quiet_interval, HAVE_INTERVAL_QUIET)
        self._heard: dict[str, float] = {}
        """When members that may have no open link spoke to this agent."""
        self._showing = trio.CapacityLimiter(COMPARES_MAX)
        self._comparing: set[str] = set()
        self._fetching = Fetching(
            ingest, repair, clock, nursery, self.peer, self.reachable, self._unreached
        )
        self.look = self._fetching.look
        """Have the open holes looked at now."""
        self.synced_at: dict[str, float] = {}
        """Per member when both last had the same, in running time."""
        self.synced_upto: dict[str, int] = {}
        """The position that this agent had then."""
        self.on_shown: Callable[[str, Sequence[tuple[Stream, Intervals]]], None] = lambda *_: None
        """Called with a member and what it says it has, before that is believed."""
        self.is_alone: Callable[[], bool] = lambda: False
        """Tells whether this agent may be fresh without having met anybody."""
        self.on_synced: Callable[[], None] = lambda: None
        """Called when a sync completed, and now and then."""

    def start(self) -> None:
        """Start the tasks."""
        self.look_at_holders()
        self._linking.on_linked = self._linked
        self._ingest.on_gap = self.look
        self._ingest.changes.on_first = self._tell_soon
        self._nursery.start_soon(self._tell)
        self._nursery.start_soon(self._compare_now_and_then)
        self._nursery.start_soon(self._meet_all)
        self._nursery.start_soon(self._fetching.run)

    # ------------------------------------------------------------------ who can be reached

    async def peer(self, name: str) -> Peer | None:
        """Give the door to a member, None where it cannot be reached: the one place that knows how."""
        return self._linking.peers.get(name) or await self._linking.reach(name)

    def reachable(self) -> list[str]:
        """Give the members that can be asked: those that links open to, and whoever has spoken lately."""
        least = self._clock.now() - HEARD_LASTS
        self._heard = {
            name: at
            for name, at in self._heard.items()
            if at >= least and name in self._roster.members
        }
        return list({**dict.fromkeys(self._linking.reachable), **self._heard})

    def _unreached(self, name: str) -> None:
        self._heard.pop(name, None)

    def heard(self, name: str) -> None:
        """A member that may have no open link has spoken: it is there."""
        self._heard[name] = self._clock.now()

    def _linked(self, name: str) -> None:
        self._fetching.linked(name)
        self.compare_soon(name)

    def look_at_holders(self) -> None:
        """Find out with whom this agent has to be in sync."""
        others = {name: member.info.namespaces for name, member in self._roster.members.items()}
        self._freshness.holders(domains(self._roster.me.namespaces, others))

    @property
    def is_quiet(self) -> bool:
        """Whether the own vector does not change at the moment."""
        return not self._told and not self._ingest.changes

    def shared(self, member: str) -> list[str]:
        """Give the namespaces of our vector that both of us hold."""
        known = self._roster.members.get(member)
        if known is None:  # it was forgotten while it was asked
            return []
        mine, theirs = self._roster.me, known.info
        names = self._ingest.replica.vector.namespaces()
        if mine.namespaces == theirs.namespaces == (EVERY_NAMESPACE,):
            return list(names)
        return [name for name in names if mine.holds(name) and theirs.holds(name)]

    def sum(self, member: str) -> int:
        """Give the sum of our vector over the namespaces that both of us hold."""
        return self._ingest.replica.vector.sum(self.shared(member))

    # ------------------------------------------------------------------ Have

    async def _tell(self) -> None:
        while True:
            self._told.update(dict.fromkeys(self._ingest.changes.take(), 0))
            members = sorted(self._linking.peers)
            streams = self._some_changes()
            for name in self._random.sample(members, min(HAVE_MEMBERS, len(members))):
                self._nursery.start_soon(self._tell_one, name, self._have(name, streams))
            for stream in streams:
                times = self._told.pop(stream) + 1
                if times < HAVE_REPEATS:
                    self._told[stream] = times  # behind those that were not told yet
            self.look_at_holders()
            self._freshness.check(self.reachable(), alone=self.is_alone(), now=self._clock.now())
            self.on_synced()
            self._rests = not streams and not self._ingest.changes
            wait = self._quiet_interval if self._rests else HAVE_INTERVAL_BUSY
            self._have_due.ring_within(wait)
            await self._have_due.wait()

    def _tell_soon(self) -> None:
        """Something has changed after a while: tell it soon, but not all members at the same moment."""
        if self._rests:
            self._have_due.ring_within(self._random.uniform(0.0, HAVE_INTERVAL_BUSY))

    def _some_changes(self) -> list[Stream]:
        """Give the streams whose change is told next; those with very many ranges are left to Compare."""
        vector, room = self._ingest.replica.vector, HAVE_RANGES_MAX
        result: list[Stream] = []
        for stream in list(self._told):
            state = vector.get(stream)
            ranges = state.have.range_count if state is not None else HAVE_RANGES_MAX + 1
            if ranges > HAVE_RANGES_MAX:
                del self._told[stream]
            elif ranges > room or len(result) >= HAVE_STREAMS_MAX:
                break
            else:
                room -= ranges
                result.append(stream)
        return result

    def _have(self, name: str, streams: Collection[Stream]) -> Have:
        vector = self._ingest.replica.vector
        shared, known = self.shared(name), self._roster.members.get(name)
        changes = [
            (stream, vector.state(stream).have)
            for stream in streams
            if known is not None
            and known.info.holds(stream.namespace)
            and self._ingest.keeps(stream)
        ]
        return Have(self._ingest.life, changes, vector.sum(shared), self._freshness.is_catching_up)

    async def _tell_one(self, name: str, have: Have) -> None:
        peer = await self.peer(name)
        if peer is None:
            return
        try:
            reply = await peer.have(have)
        except RpcFailed as error:
            log.debug("have failed", member=name, error=str(error))
            return
        self.heard_sum(name, reply.sum, catching_up=reply.catching_up)
        if not have.changes and reply.quiet and self.is_quiet and reply.sum != self.sum(name):
            self.compare_soon(name)

    def heard_sum(self, name: str, theirs: int, *, catching_up: bool) -> None:
        """Compare a member's sum with ours: when equal, that is a completed sync."""
        if name in self._roster.members and theirs == self.sum(name):
            self._synced(name, catching_up)

    def _synced(self, name: str, catching_up: bool) -> None:
        was = self._freshness.is_catching_up
        if was:
            self.look_at_holders()
        now = self.synced_at[name] = self._clock.now()
        self.synced_upto[name] = self._ingest.replica.position
        self._freshness.completed(name, catching_up=catching_up, now=now)
        if was and not self._freshness.is_catching_up:
            log.info("caught up", member=name)
        self._retiring.synced()
        self.on_synced()

    # ------------------------------------------------------------------ Compare

    def compare_soon(self, name: str) -> None:
        """Compare vectors with a member, unless that is under way."""
        if name not in self._comparing:
            self._comparing.add(name)
            self._nursery.start_soon(self._compare, name)

    async def _compare_now_and_then(self) -> None:
        while True:
            await trio.sleep(COMPARE_INTERVAL * self._random.uniform(0.8, 1.2))
            if not self._freshness.is_catching_up:
                self._retiring.begin_due()
            if members := sorted(filter(self._shares, self._linking.peers)):
                self.compare_soon(self._random.choice(members))

    async def _meet_all(self) -> None:
        """While this agent is catching up, compare with every reachable holder, a few at once."""
        while True:
            behind = self._freshness.is_catching_up
            await trio.sleep(HAVE_INTERVAL_BUSY if behind else self._quiet_interval)
            room = MEETINGS_MAX - len(self._comparing)
            unmet = sorted(self._freshness.unmet(self.reachable()) - self._comparing)
            for name in self._random.sample(unmet, max(0, min(room, len(unmet)))):
                self.compare_soon(name)

    def _shares(self, name: str) -> bool:
        """Tell whether a member holds something that is held here, too."""
        known, mine = self._roster.members.get(name), self._roster.me.namespaces
        if known is None:
            return False
        theirs = known.info.namespaces
        anything = EVERY_NAMESPACE in mine or EVERY_NAMESPACE in theirs
        return bool(mine and theirs and (anything or not set(mine).isdisjoint(theirs)))

    async def _compare(self, name: str) -> None:
        try:
            peer = await self.peer(name)
            if peer is not None and self._shares(name):
                while True:
                    if await self._compare_with(name, peer):
                        break
                    await trio.sleep(HAVE_INTERVAL_BUSY)
        except RpcFailed as error:
            log.debug("compare failed", member=name, error=str(error))
        finally:
            self._comparing.discard(name)

    async def _compare_with(self, name: str, peer: Peer) -> bool:
        """Compare once, and close what differs. False where it has to be compared again."""
        me, vector, eras = self._ingest.life, self._ingest.replica.vector, self._retiring.eras
        shared = self.shared(name)
        root = await peer.compare_roots(me, vector.sum(shared), eras.numbers(shared))
        theirs = {n: era for n, era in root.eras.items() if self._ingest.is_held(n)}
        self._retiring.heard(name, theirs)
        behind = eras.left_behind(theirs)
        is_whole = True
        if behind or not root.equal:
            async with self._showing:
                if behind:
                    differing: Sequence[int] = range(BUCKETS)
                else:
                    sums = vector.bucket_sums(shared, eras.shown_whole(theirs, shared))
                    differing = await peer.compare_buckets(me, sums)
                shown, is_whole = await self._show(name, peer, differing)
            for namespace in behind:
                await self._retiring.catch_up(namespace, theirs[namespace], shown)
            self.look()
            while not self._repair.is_closed(name):
                if name not in self.reachable():
                    return True
                await trio.sleep(HAVE_INTERVAL_BUSY)
        if is_whole:
            self._synced(name, root.catching_up)
        return is_whole

    async def _show(
        self, name: str, peer: Peer, differing: Sequence[int]
    ) -> tuple[set[Stream], bool]:
        """Have a member show its streams; gives them, and whether it showed each of them whole.

        One with very many ranges comes in several parts, between which it may change.
        """
        seen: set[Stream] = set()
        is_whole, skip, more = True, 0, bool(differing)
        while more and skip < COMPARE_STREAMS_MAX:
            page = await peer.compare_streams(self._ingest.life, differing, skip)
            check_shown(self._ingest, page.streams)
            shown = [each for each in page.streams if self._ingest.is_held(each[0].namespace)]
            believed = self._retiring.eras.believed(self._retiring.theirs(name), shown)
            self.on_shown(name, believed)
            here: set[Stream] = set()
            for stream, numbers in believed:
                is_first = stream not in seen and stream not in here
                claim = self._repair.claim if is_first else self._repair.claim_more
                claim(name, [(stream, numbers)])
                here.add(stream)
            is_whole = is_whole and seen.isdisjoint(here)
            seen.update(stream for stream, _ in page.streams)
            skip += len(page.streams)
            more = page.more and bool(page.streams)
        if more:
            raise RpcFailed("RESOURCE_EXHAUSTED", f"more than {COMPARE_STREAMS_MAX} streams")
        return seen, is_whole
