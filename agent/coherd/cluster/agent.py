"""One agent: the cores and the tasks that drive them, put together behind doors.

Given a journal, a clock, a source of randomness and a way to dial peers, it neither knows gRPC nor
signals nor files, so that a whole agent can also run in a simulation.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

import structlog
import trio

from coherd.cluster.budgeting import Budgeting
from coherd.cluster.delivery import Delivery, Follower
from coherd.cluster.endpoint import Endpoint
from coherd.cluster.exchanging import Exchanging
from coherd.cluster.feed import Feed, arrival_of
from coherd.cluster.healing import Healing
from coherd.cluster.ingest import Ingest
from coherd.cluster.invalidating import Invalidating
from coherd.cluster.linking import Linking
from coherd.cluster.membership import Membership
from coherd.cluster.offering import Offering
from coherd.cluster.operators import Operators
from coherd.cluster.protection import Protection
from coherd.cluster.repairing import Repairing
from coherd.cluster.retaining import Retaining
from coherd.cluster.retiring import Retiring
from coherd.cluster.rollback import Rollback
from coherd.cluster.roster import Roster
from coherd.cluster.spreading import Spreading
from coherd.cluster.tracing import Tracing
from coherd.config import DEFAULTS
from coherd.errors import NotDurable, Overloaded
from coherd.journal import Write
from coherd.limits import EPOCH_MAX
from coherd.model import EVERY_NAMESPACE
from coherd.replication.clock import HybridClock
from coherd.replication.freshness import Freshness
from coherd.replication.repair import Repair
from coherd.replication.replica import Replica

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from coherd.clock import Clock
    from coherd.config import AgentConfig
    from coherd.handlers import Handler
    from coherd.journal import Journal
    from coherd.net.peer import Dial, MemberInfo

log = structlog.get_logger("coherd.agent")

STALENESS_BOUND = 30.0
"""Seconds for which a watcher that went away counts as missing where a namespace has no bound."""
HANDLERS_PUBLISHED_MAX = 32
"""Handlers that other agents are told of: what an agent publishes is at most 4 KiB."""
RUNNING_TIME_INTERVAL = 10.0
"""Seconds between two notes of the running time."""


class Agent:
    """The parts of one agent."""

    def __init__(
        self,
        config: AgentConfig,
        me: MemberInfo,
        journal: Journal,
        clock: Clock,
        random: Random,
        dial: Dial,
        nursery: trio.Nursery,
    ) -> None:
        self.config = config
        self.journal = journal
        self.clock = clock
        self.started_at = clock.now()
        self.stamps = HybridClock()
        self.refused: Counter[str] = Counter()
        """Calls and answers that said something illegal, by RPC."""
        self.protection = Protection()
        self._nursery = nursery
        self.retaining = Retaining(config, journal, clock)
        horizon = self.retaining.horizon
        self.replica = Replica(self.retaining.keep)
        self._restore()
        self.repair = Repair(
            self.replica.vector, random, horizon, config.reset_jitter, config.replay_max
        )
        for stream, _ in list(self.replica.vector):
            self.repair.touch(stream)
        self.freshness = Freshness()
        self.feed = Feed(self.replica, journal, clock, horizon)
        self.ingest = Ingest(
            self.replica, self.repair, journal, self.feed, clock, self.stamps, me.name,
            config.journal_bytes_max,
        )  # fmt: skip
        self.feed.on_damage = self.ingest.damaged
        self.roster = Roster(me, journal.contents.members, clock.now, self._store_member)
        self.ingest.is_held = self._holds
        self.ingest.foreign.owners = lambda namespace: config.namespace(namespace).owners
        self.repair.holds = self.roster.holds
        self._healing = Healing(
            self.ingest,
            self.freshness,
            self.roster,
            self._namespaces,
            needed=not journal.contents.clean,
        )
        self._meet_others(dial, random)
        self.delivery = Delivery(
            self.feed,
            self.ingest.locate,
            self.ingest.write_out,
            random,
            nursery,
            lambda namespace: config.namespace(namespace).staleness_bound or STALENESS_BOUND,
            self.ingest.remember_watcher,
        )
        self.delivery.now = clock.now
        self.tracing = Tracing(
            self.ingest, self.feed, journal, self.delivery, self.roster, self.linking, dial, clock,
            self.started_at,
        )  # fmt: skip
        self._stay_in_sync(random)
        self._take_orders(random)
        self.endpoint = Endpoint(
            config.cluster, self.ingest, self.repair, self.repairing, self.freshness, self.roster,
            self.membership, self.spreading, self.feed, journal, self.delivery, clock, self.tracing,
            self.retiring,
        )  # fmt: skip
        self.ingest.begin_life(me.epoch)
        self._admit_damages()

    def _meet_others(self, dial: Dial, random: Random) -> None:
        """Make what finds the other agents and stays linked with them."""
        roster, clock, nursery = self.roster, self.clock, self._nursery
        self.spreading = Spreading(self.config.cluster, roster.me, clock)
        self.linking = Linking(roster, self.spreading, dial, clock, random, nursery)
        self.exchanging = Exchanging(roster, self.linking, dial, clock, nursery)
        self.membership = Membership(
            self.config, roster, self.linking, self.exchanging, clock, random, nursery
        )
        self.spreading.on_silent = self.membership.doubt
        self.membership.on_epoch = self._begin_life
        self.membership.is_ready = lambda: not self.reasons()
        self.operators = Operators(roster, self.linking, self.exchanging, self.membership, clock)

    def _stay_in_sync(self, random: Random) -> None:
        """Make what finds out what is missing here, or at the others, and fetches or offers it."""
        ingest, roster, clock = self.ingest, self.roster, self.clock
        self.retiring = Retiring(ingest, self.repair, roster, self.feed, self.journal, clock)
        self.repairing = Repairing(
            ingest, self.repair, self.freshness, roster, self.linking, clock, random, self._nursery,
            self.retiring, self._least_bound() / 4,
        )  # fmt: skip
        self.repairing.is_alone = lambda: self.config.join_alone or not self.membership.has_seeds
        self.repairing.on_synced = self._synced
        self.offering = Offering(ingest, self.repairing, roster, random)

    def _take_orders(self, random: Random) -> None:
        """Make what applications ask for invalidations, and what issues some of them again."""
        config = self.config
        self.budgeting = Budgeting(config, self.clock)
        self.invalidating = Invalidating(
            self.ingest,
            self.journal,
            self.spreading,
            self.delivery,
            self.roster,
            self.linking,
            lambda namespace: config.namespace(namespace).batch_window,
            self._nursery,
        )
        self.rollback = Rollback(
            self.ingest, self.feed, self.repairing, self.roster, self.clock, random, self._nursery,
            self.membership.renew, self.invalidating.again,
        )  # fmt: skip
        self.repairing.on_shown = self.rollback.shown

    def serve(self, handlers: Sequence[Handler]) -> None:
        """Begin to bring rows to caches; before peers can ask whether they are applied here."""
        for handler in handlers:
            self.delivery.start(handler)
        infos = tuple(handler.info for handler in handlers[:HANDLERS_PUBLISHED_MAX])
        self.roster.me = replace(self.roster.me, handlers=infos)
        for key, position in self.ingest.watchers().items():
            self.delivery.went_away(Follower(key.rpartition(" ")[0], watched(key), position))

    def count_refused(self, rpc: str) -> None:
        """Note that a call, or the answer to one of ours, said something illegal."""
        self.refused[rpc] += 1

    def start(self) -> None:
        """Start every other task."""
        self.repairing.start()
        self._nursery.start_soon(self.offering.run)
        self.membership.start()
        self.linking.start()
        self._nursery.start_soon(self.spreading.run)
        self._nursery.start_soon(self.spreading.look_after_links)
        self._nursery.start_soon(self.retaining.run, self.ingest)
        self._nursery.start_soon(self._note_running_time)

    def _begin_life(self, known: int) -> int | None:
        """Begin a life later than `known`, because this one counts no more; None where it can't be now."""
        try:
            epoch = draw_epoch(self.clock.wall_ms(), [self.roster.me.epoch], known)
            self.ingest.confirm_life(confirmed=False)
            self.ingest.begin_life(epoch)
        except (ValueError, Overloaded, NotDurable) as error:
            log.error("no new epoch can be taken", known=known, error=str(error))
            return None
        self.roster.me = replace(self.roster.me, epoch=epoch)
        return epoch

    def _synced(self) -> None:
        """Note that this agent may have all that others have."""
        self.rollback.look_at_clock()
        self._healing.look()
        if self.freshness.has_met_others and not self.freshness.is_catching_up:
            self.ingest.confirm_life()

    @property
    def damages(self) -> list[str]:
        """What was found damaged in the journal when it was opened, a line each."""
        return [damage.what for damage in self.journal.damages]

    @property
    def healing(self) -> bool:
        """Whether what a loss of power, or damage, may have taken is not made good yet."""
        return self._healing.is_needed

    def reasons(self) -> list[str]:
        """Say, a sentence each, why this agent cannot vouch for the caches of its host."""
        reasons = []
        if error := self.journal.error:
            reasons.append(f"the journal is closed: {error}")
        if self.freshness.is_catching_up:
            if self.membership.has_seeds and not self.membership.has_joined:
                reasons.append(
                    "no seed answers: check `join`, or set `join_alone = true` for a first agent"
                )
            else:
                reasons.append("catching up with the other agents")
        if self._is_cut_off():
            reasons.append(
                f"none of the {len(self.roster.members)} other agents known is reachable: check the "
                "network, or `coherd forget` those that are gone for good"
            )
        reasons += [
            f"handler {state.handler.label} does not answer: {state.error or 'connecting'}"
            for state in self.delivery.handlers
            if not state.connected
        ]
        return reasons

    def _is_cut_off(self) -> bool:
        """Tell whether nobody is reachable where a bound needs others: half of all, this agent included."""
        names = {DEFAULTS, *self.config.namespaces}
        is_bound = any(self.config.namespace(name).staleness_bound is not None for name in names)
        now = self.clock.now()
        away = [member.is_away(now) for member in self.roster.members.values()]
        return is_bound and len(away) > 1 and all(away)

    def _restore(self) -> None:
        """Take in what the journal remembers."""
        contents = self.journal.contents
        vector = self.replica.vector
        for stream, ranges in contents.vector.items():
            for low, high in ranges:
                vector.state(stream).have.add(low, high)
        for stream, floor in contents.stream_floors.items():
            vector.state(stream).floor = floor
        self.replica.floors.update(contents.namespace_floors)
        rows = 0
        for block in self.journal.blocks():
            arrival = arrival_of(block)
            self.replica.restore(arrival)
            rows += len(arrival.batch)
        self.replica.position = max(self.replica.position, contents.position)
        if rows:
            log.info("journal read", rows=rows, position=self.replica.position)

    def _admit_damages(self) -> None:
        """Say what the journal found damaged, and give up what is lost of single namespaces."""
        for damage in self.journal.damages:
            lost = 0
            if damage.namespace is not None:
                lost = self.ingest.lose(damage.namespace, damage.position)
            log.error("journal damaged", what=damage.what, rows_lost=lost)

    def _namespaces(self) -> set[str]:
        """Give every namespace that anything is known of."""
        names = {*self.replica.vector.namespaces(), *self.replica.ledgers, *self.replica.floors}
        names.update(self.config.namespaces)
        names.update(state.handler.namespace for state in self.delivery.handlers)
        names.update(name for key in self.ingest.watchers() for name in watched(key))
        return set(filter(self._holds, names - {EVERY_NAMESPACE, DEFAULTS}))

    def _holds(self, namespace: str) -> bool:
        return self.roster.me.holds(namespace)

    def _least_bound(self) -> float:
        """Give the shortest of the bounds of all namespaces, in seconds."""
        names = {DEFAULTS, *self.config.namespaces}
        bounds = (self.config.namespace(name).staleness_bound for name in names)
        return min((bound for bound in bounds if bound is not None), default=inf)

    def _store_member(self, name: str, data: bytes | None) -> bool:
        if self.healing and name in self.roster.members:
            return False  # the next start, too, has to tell who went on from who started since
        try:
            self.journal.append_nowait(Write(members={name: data}))
        except (Overloaded, NotDurable) as error:
            log.debug("roster not stored", member=name, error=str(error))
            return False
        return True

    async def _note_running_time(self) -> None:
        while True:
            await trio.sleep(RUNNING_TIME_INTERVAL)
            with suppress(
                Overloaded, NotDurable
            ):  # then it is stored with the next write, or never
                self.journal.note_running_time()


def watched(key: str) -> list[str]:
    """Give the namespaces of a stored watcher."""
    return key.rpartition(" ")[2].split(",")


def draw_epoch(wall_ms: int, lives: list[int], known: int) -> int:
    """Draw the epoch of a new life: later than any that this journal or a peer knows.

    Raises ValueError when it would lie beyond the year 2100.
    """
    epoch = max(wall_ms, known + 1, *(epoch + 1 for epoch in lives))
    if epoch > EPOCH_MAX:
        raise ValueError(f"an epoch beyond the year 2100: {epoch}; is the clock right?")
    return epoch
