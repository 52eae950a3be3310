"""The agent's figures for Prometheus, read from its plain counts when they are asked for.

Nothing is counted here: prometheus_client's own counters cost too much for every row. docs/metrics.md
explains each name; a test holds both together.
"""

from __future__ import annotations

import platform
from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.registry import Collector

from coherd import __version__
from coherd.api.metrics_families import counter, gauge, histogram, one
from coherd.api.metrics_namespaces import NamespaceFigures
from coherd.cluster.roster import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.metrics_core import Metric

    from coherd.api.metrics_families import Family, Sample
    from coherd.cluster.agent import Agent
    from coherd.cluster.delivery import HandlerState
    from coherd.cluster.lateness import Lateness
    from coherd.cluster.link import Link

HANDLER_LABELS = ("handler", "namespace")
SPREAD_EVENTS = (
    "originated", "received", "duplicates", "sent", "dropped", "redelegated", "bypassed", "unpaid",
    "forgotten_early",
)  # fmt: skip
LINK_LABELS = ("member", "lanes")


class Exporter:
    """Reads the figures of one agent."""

    def __init__(self, agent: Agent, lateness: Lateness) -> None:
        """The handlers must be known already. How long rows take is measured from here on."""
        self._agent = agent
        self._lateness = lateness
        self._namespaces = NamespaceFigures(agent)
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    def read(self) -> Snapshot:
        """Read everything, on the event loop: nothing changes meanwhile."""
        return Snapshot(list(self._families()), self._process)

    def _families(self) -> Iterator[Family]:
        yield from self._itself()
        yield from self._security()
        yield from self._loop()
        yield from self._namespaces.read()
        yield from self._members()
        yield from self._links()
        yield from self._handlers()
        yield from self._watchers()
        yield from self._journal()

    def _itself(self) -> Iterator[Family]:
        agent = self._agent
        now = agent.clock.now()
        me = agent.roster.me
        yield gauge(
            "coherd_build_info",
            "Always 1: which software this is.",
            ("version", "python"),
            [((__version__, platform.python_version()), 1)],
        )
        yield gauge(
            "coherd_agent_info",
            "Always 1: who this agent is.",
            ("agent", "cluster", "region"),
            [((me.name, agent.config.cluster, me.region), 1)],
        )
        yield gauge(
            "coherd_ready",
            "1 while the agent vouches for the caches of its host; /readyz says why not.",
            (),
            one(not agent.reasons()),
        )
        yield gauge(
            "coherd_uptime_seconds", "Time since the start.", (), one(now - agent.started_at)
        )
        synced_at = agent.freshness.synced_at
        yield gauge(
            "coherd_sync_age_seconds",
            "Time since a sync completed; absent while catching up.",
            (),
            one(None if synced_at is None else now - synced_at),
        )
        yield counter(
            "coherd_rollbacks_total",
            "Times that this agent was found rolled back while it ran.",
            (),
            one(agent.rollback.count),
        )
        yield counter(
            "coherd_malformed_payloads_total",
            "Payloads of peers that were dropped because they can't be read.",
            (),
            one(agent.ingest.malformed),
        )
        yield counter(
            "coherd_refused_total",
            "Calls to this agent, and answers to its own, that said something illegal.",
            ("rpc",),
            (((rpc,), number) for rpc, number in agent.refused.items()),
        )
        yield counter(
            "coherd_invalidations_total",
            "Invalidations answered, by what they waited for and whether that was reached.",
            ("wait", "outcome"),
            (
                ((wait.name.lower(), "complete" if is_complete else "partial"), number)
                for (wait, is_complete), number in agent.invalidating.outcomes.items()
            ),
        )

    def _security(self) -> Iterator[Family]:
        agent = self._agent
        yield counter(
            "coherd_denied_total",
            "Calls that were refused because of who called.",
            ("rpc",),
            (((rpc,), number) for rpc, number in agent.protection.denied.items()),
        )
        yield counter(
            "coherd_foreign_rows_total",
            "Rows of issuers that are no owners of the namespace.",
            ("namespace",),
            (((name,), number) for name, number in agent.ingest.foreign.rows.items()),
        )
        credentials = agent.protection.credentials
        yield gauge(
            "coherd_certificate_expiry_timestamp_seconds",
            "When the own certificate expires, in seconds since 1970; absent without one.",
            (),
            one(credentials.bundle.holder.not_after if credentials else None),
        )

    def _loop(self) -> Iterator[Family]:
        lateness = self._lateness
        yield histogram(
            "coherd_loop_lateness_seconds",
            "How late a timer of the event loop fired.",
            (),
            [((), lateness.histogram)],
        )
        yield gauge("coherd_loop_lateness_last_seconds", "The last of it.", (), one(lateness.last))
        yield gauge(
            "coherd_loop_lateness_peak_seconds",
            "The most of it during the last minute.",
            (),
            one(lateness.peak),
        )

    def _members(self) -> Iterator[Family]:
        agent = self._agent
        now = agent.clock.now()
        members = agent.roster.members
        states = Counter(dict.fromkeys(State, 0))
        states.update(member.state for member in members.values())
        states[State.ALIVE] += 1  # this agent itself
        yield gauge(
            "coherd_members",
            "Agents known, this one included, by how they are seen from here.",
            ("state",),
            (((state.value,), number) for state, number in states.items()),
        )
        yield gauge(
            "coherd_member_sync_age_seconds",
            "Time since this agent and another one last had the same; absent until they had.",
            ("member",),
            (
                ((name,), now - at)
                for name, at in sorted(agent.repairing.synced_at.items())
                if name in members
            ),
        )

        offsets = {n: o for n, o in sorted(agent.exchanging.offsets.items()) if n in members}
        yield gauge(
            "coherd_member_clock_offset_seconds",
            "How far the member's wall clock is ahead of this host's, at least and at most.",
            ("member", "bound"),
            [
                ((name, bound), microseconds / 1e6)
                for name, offset in offsets.items()
                for bound, microseconds in (("least", offset.least), ("most", offset.most))
            ],
        )
        yield from self._membership()

    def _membership(self) -> Iterator[Family]:
        membership = self._agent.membership
        swim = membership.swim
        statistics = swim.statistics() if swim is not None else {}
        yield gauge(
            "coherd_membership_health",
            "Local health of the agent as an observer: 0 is well, 8 is slow and trusted by itself least.",
            (),
            one(None if swim is None else swim.health),
        )
        for what in ("sent", "received", "sent_bytes"):
            noun = "Bytes" if what.endswith("bytes") else "Messages"
            way = "received" if what == "received" else "sent"
            yield counter(
                f"coherd_membership_{what}_total",
                f"{noun} about membership {way}.",
                (),
                one(statistics.get(what, 0)),
            )
        yield counter(
            "coherd_membership_dropped_total",
            "News about members that was not believed, and messages that could not be read, by reason.",
            ("reason",),
            (((reason,), number) for reason, number in membership.dropped.items()),
        )

    def _links(self) -> Iterator[Family]:
        agent = self._agent
        now = agent.clock.now()
        statistics = agent.spreading.statistics
        yield counter(
            "coherd_spread_total",
            "What happened to payloads on their way over this agent, and to the arcs that went with them.",
            ("event",),
            (((event,), statistics[event]) for event in SPREAD_EVENTS),
        )
        links = [
            ((name, "urgent" if link.urgent else "rest"), link)
            for name, pair in sorted(agent.spreading.links.items())
            if name in agent.roster.members
            for link in pair
        ]

        def read(figure: Callable[[Link], float]) -> Iterator[Sample]:
            return ((labels, figure(link)) for labels, link in links)

        yield gauge(
            "coherd_link_open",
            "1 while a connection to the member carries the link.",
            LINK_LABELS,
            read(lambda link: link.is_open),
        )
        yield gauge(
            "coherd_link_queued_bytes",
            "Payload that waits for the member or that it has not acknowledged.",
            LINK_LABELS,
            read(lambda link: link.queued_bytes),
        )
        yield gauge(
            "coherd_link_unacknowledged_age_seconds",
            "How long ago the oldest of it was sent; 0 when there is none.",
            LINK_LABELS,
            read(lambda link: link.unacknowledged_age(now)),
        )
        yield gauge(
            "coherd_link_round_trip_seconds",
            "Smoothed time from sending to the acknowledgement; 0 before the first.",
            LINK_LABELS,
            read(lambda link: link.round_trip),
        )
        yield counter(
            "coherd_link_sent_parcels_total",
            "Parcels sent to the member.",
            LINK_LABELS,
            read(lambda link: link.sent),
        )
        yield counter(
            "coherd_link_dropped_parcels_total",
            "Parcels that the link did not take or lost; the member fetches them.",
            LINK_LABELS,
            read(lambda link: link.dropped),
        )

    def _handlers(self) -> Iterator[Family]:
        head = self._agent.feed.position
        seen: Counter[tuple[str, str]] = Counter()
        handlers = []
        for state in self._agent.delivery.handlers:
            label, namespace = state.handler.label, state.handler.namespace
            seen[label, namespace] += 1
            again = seen[label, namespace]
            handlers.append(((f"{label} #{again}" if again > 1 else label, namespace), state))

        def read(figure: Callable[[HandlerState], float]) -> Iterator[Sample]:
            return ((labels, figure(state)) for labels, state in handlers)

        yield gauge(
            "coherd_handler_connected",
            "1 while the cache answers.",
            HANDLER_LABELS,
            read(lambda state: state.connected),
        )
        yield gauge(
            "coherd_handler_lag_rows",
            "Rows that have arrived here and that the cache is not known to have applied.",
            HANDLER_LABELS,
            read(lambda state: head - max(0, state.follower.position)),
        )
        yield counter(
            "coherd_handler_applied_rows_total",
            "Rows that the cache was told and confirmed.",
            HANDLER_LABELS,
            read(lambda state: state.applied),
        )
        yield counter(
            "coherd_handler_failures_total",
            "Times that the cache did not confirm, or could not be reached.",
            HANDLER_LABELS,
            read(lambda state: state.failures),
        )
        yield counter(
            "coherd_handler_resets_total",
            "Times that the namespace was dropped in this cache because its cursor was too old.",
            HANDLER_LABELS,
            read(lambda state: state.resets),
        )

    def _watchers(self) -> Iterator[Family]:
        head = self._agent.feed.position
        watchers = self._agent.delivery.watchers
        acknowledging = sum(watcher.acknowledges for watcher in watchers)
        yield gauge(
            "coherd_watchers",
            "Watchers connected, by whether they acknowledge what they apply.",
            ("acknowledges",),
            [(("true",), acknowledging), (("false",), len(watchers) - acknowledging)],
        )
        yield gauge(
            "coherd_watcher_lag_rows",
            "How many rows the slowest watcher is behind.",
            (),
            one(max((head - max(0, watcher.position) for watcher in watchers), default=0)),
        )

    def _journal(self) -> Iterator[Family]:
        agent = self._agent
        statistics = agent.journal.statistics()
        yield gauge(
            "coherd_journal_closed",
            "1 after the disk failed: nothing more is stored, /readyz says why.",
            (),
            one(bool(statistics.error)),
        )
        yield gauge(
            "coherd_journal_damages",
            "What was found damaged since the start; coherd status names it.",
            (),
            one(len(agent.damages)),
        )
        yield gauge(
            "coherd_journal_healing",
            "1 while what a loss of power or damage may have taken is not made good.",
            (),
            one(agent.healing),
        )
        yield counter(
            "coherd_journal_commits_total",
            "Transactions committed.",
            (),
            one(statistics.commits),
        )
        yield gauge(
            "coherd_journal_queued_bytes",
            "What waits for the disk.",
            (),
            one(statistics.queued_bytes),
        )
        yield gauge(
            "coherd_journal_size_bytes", "What the journal takes.", (), one(statistics.size_bytes)
        )


class Snapshot(Collector):
    """What was read once; it may be written out in another thread, which takes longer than reading it."""

    def __init__(self, families: Iterable[Family], process: Collector) -> None:
        self._families = families
        self._process = process

    def collect(self) -> Iterator[Metric]:
        """Give the figures of the agent, and those of its process as they are now."""
        for family in self._families:
            yield family.metric()
        yield from self._process.collect()
