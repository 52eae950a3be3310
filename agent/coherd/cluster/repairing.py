"""Finding and fetching what is missing: the tasks that drive the core `replication.repair`.

*Have* tells two random members what changed, or that nothing does; *Compare* finds the streams in which
two vectors differ; *Fetch* brings the rows. A hole that nobody can fill becomes a reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from coherd.errors import MalformedMessage, RpcFailed
from coherd.model import EVERY_NAMESPACE, Cause
from coherd.net.peer import Have
from coherd.replication.ahead import check_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from random import Random

    from coherd.clock import Clock
    from coherd.cluster.ingest import Ingest
    from coherd.cluster.linking import Linking
    from coherd.cluster.roster import Roster
    from coherd.model import Stream
    from coherd.net.peer import Peer
    from coherd.replication.freshness import Freshness
    from coherd.replication.intervals import Intervals
    from coherd.replication.repair import Ask, Repair

log = structlog.get_logger("coherd.repair")

HAVE_INTERVAL_BUSY = 0.25
HAVE_INTERVAL_QUIET = 1.0
"""Seconds between two Haves while the own vector changes, and else."""
HAVE_MEMBERS = 2
HAVE_REPEATS = 3
"""Successive Haves that carry a change: told once to two, one in eight would never hear of it."""
HAVE_STREAMS_MAX = 1_000
COMPARE_INTERVAL = 10.0
COMPARE_STREAMS_MAX = 1_000_000
LOOK_MAX = 0.02
REST = 10
REST_MAX = 5.0
"""A look at the open holes that takes longer than LOOK_MAX seconds, because a peer claims very many ranges,
is followed by REST times as long without one: it must not starve everything else."""
RETRY_AFTER = 0.5
"""Seconds for which a member that failed to answer a fetch is left alone."""


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
    ) -> None:
        self._ingest = ingest
        self._repair = repair
        self._freshness = freshness
        self._roster = roster
        self._linking = linking
        self._clock = clock
        self._random = random
        self._nursery = nursery
        self._told: dict[Stream, int] = {}
        """Streams that changed, with how many Haves have carried the change."""
        self._comparing: set[str] = set()
        self._look = trio.Event()
        self.synced_at: dict[str, float] = {}
        """Per member when both last had the same, in running time."""
        self.is_alone: Callable[[], bool] = lambda: False
        """Tells whether this agent may be fresh without having met anybody."""
        self.on_synced: Callable[[], None] = lambda: None
        """Called when a sync completed, and now and then."""

    def start(self) -> None:
        """Start the tasks."""
        self._linking.on_linked = self.compare_soon
        self._ingest.on_gap = self.look
        self._nursery.start_soon(self._tell)
        self._nursery.start_soon(self._compare_now_and_then)
        self._nursery.start_soon(self._fetch_what_is_missing)

    @property
    def is_quiet(self) -> bool:
        """Whether the own vector does not change at the moment."""
        return not self._told and not self._ingest.changed

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

    def look(self) -> None:
        """Have the open holes looked at now."""
        self._look.set()

    # ------------------------------------------------------------------ Have

    async def _tell(self) -> None:
        while True:
            changed = self._ingest.changed
            self._told.update(dict.fromkeys(changed, 0))
            changed.clear()
            members = sorted(self._linking.peers)
            streams = list(self._told)[:HAVE_STREAMS_MAX]
            for name in self._random.sample(members, min(HAVE_MEMBERS, len(members))):
                self._nursery.start_soon(self._tell_one, name, self._have(name, streams))
            for stream in streams:
                self._told[stream] += 1
                if self._told[stream] >= HAVE_REPEATS:
                    del self._told[stream]
            self._freshness.check(
                self._linking.peers,
                len(self._roster.members),
                alone=self.is_alone(),
                now=self._clock.now(),
            )
            self.on_synced()
            await trio.sleep(HAVE_INTERVAL_BUSY if streams else HAVE_INTERVAL_QUIET)

    def _have(self, name: str, streams: Collection[Stream]) -> Have:
        vector = self._ingest.replica.vector
        shared = set(self.shared(name))
        changes = [(s, vector.state(s).have) for s in streams if s.namespace in shared]
        return Have(self._ingest.life, changes, vector.sum(shared), self._freshness.is_catching_up)

    async def _tell_one(self, name: str, have: Have) -> None:
        peer = self._linking.peers.get(name)
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
        now = self.synced_at[name] = self._clock.now()
        self._freshness.completed(name, catching_up=catching_up, now=now)
        if was and not self._freshness.is_catching_up:
            log.info("caught up", member=name)
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
            if self._linking.peers:
                self.compare_soon(self._random.choice(sorted(self._linking.peers)))

    async def _compare(self, name: str) -> None:
        try:
            peer = self._linking.peers.get(name)
            if peer is not None:
                await self._compare_with(name, peer)
        except RpcFailed as error:
            log.debug("compare failed", member=name, error=str(error))
        finally:
            self._comparing.discard(name)

    async def _compare_with(self, name: str, peer: Peer) -> None:
        me, vector = self._ingest.life, self._ingest.replica.vector
        shared = self.shared(name)
        root = await peer.compare_roots(me, vector.sum(shared))
        if not root.equal:
            differing = await peer.compare_buckets(me, vector.bucket_sums(shared))
            skip, more = 0, bool(differing)
            while more and skip < COMPARE_STREAMS_MAX:
                page = await peer.compare_streams(me, differing, skip)
                self._check(page.streams)
                self._repair.claim(name, page.streams)
                skip += len(page.streams)
                more = page.more and bool(page.streams)
            self.look()
            while not self._repair.is_closed(name):
                if name not in self._linking.peers:
                    return
                await trio.sleep(HAVE_INTERVAL_BUSY)
        self._synced(name, root.catching_up)

    def _check(self, shown: Iterable[tuple[Stream, Intervals]]) -> None:
        """Check the numbers that a member shows. Raises RpcFailed for some that nobody can have."""
        try:
            for stream, numbers in shown:
                check_ahead(self._ingest.replica.vector, stream, numbers.last)
        except MalformedMessage as error:
            self._ingest.malformed += 1
            raise RpcFailed("INTERNAL", f"the peer's answer is malformed: {error}") from None

    # ------------------------------------------------------------------ Fetch and reset

    async def _fetch_what_is_missing(self) -> None:
        while True:
            now = self._clock.now()
            reachable = list(self._linking.peers)
            for ask in self._repair.plan(now, reachable):
                self._nursery.start_soon(self._fetch, ask)
            for namespace, cause in self._repair.resets(now, reachable):
                self._ingest.reset([namespace], cause)
            spent = self._clock.now() - now
            if spent > LOOK_MAX:
                await trio.sleep(min(REST * spent, REST_MAX))
            due = self._repair.next_timer(now)
            if due is None:
                await self._look.wait()
            else:
                with trio.move_on_after(max(0.0, due - self._clock.now())):
                    await self._look.wait()
            self._look = trio.Event()

    async def _fetch(self, ask: Ask) -> None:
        peer = self._linking.peers.get(ask.member)
        retry_after = RETRY_AFTER
        try:
            if peer is not None:
                async with peer.fetch(self._ingest.life, ask.wanted) as parts:
                    async for part in parts:
                        if part.retry_after:
                            retry_after = part.retry_after
                            break
                        self._ingest.receive(part.blocks, Cause.REPAIR)
                        if part.answers:
                            self._check((s, each.retained) for s, each in part.answers.items())
                            now = self._clock.now()
                            self._ingest.adopt(self._repair.answered(ask, part.answers, now))
                            self.look()
                            return
        except RpcFailed as error:
            log.debug("fetch failed", member=ask.member, error=str(error))
        self._repair.failed(ask, self._clock.now(), retry_after)
