"""What operators ask: proto/coherd/v1/admin_service.proto."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, cast

from coherd.api.checks import seeds_of
from coherd.api.receipts import DURABILITIES, encode_seen
from coherd.api.traces import encode_host, question_of, trace_timeout
from coherd.cluster.counts import NamespaceCounts
from coherd.cluster.diagnosis import Diagnosis
from coherd.cluster.roster import State
from coherd.config.conflicts import exposed
from coherd.errors import RpcFailed
from coherd.v1 import admin_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coherd.cluster.agent import Agent
    from coherd.cluster.counts import LastReset
    from coherd.cluster.findings import Finding
    from coherd.net.bridge import Call
    from coherd.v1 import types_pb2


class AdminService:
    """Between protobuf and the agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def ListMembers(  # noqa: N802
        self, _request: pb.ListMembersRequest, _call: Call
    ) -> pb.ListMembersResponse:
        """List the agents that this one knows, itself first."""
        return pb.ListMembersResponse(members=self._members())

    async def GetStatus(  # noqa: N802
        self, _request: pb.GetStatusRequest, _call: Call
    ) -> pb.GetStatusResponse:
        """Tell how this agent is."""
        agent = self._agent
        now = agent.clock.now()
        members = list(agent.roster.members.values())
        reasons = agent.reasons()
        return pb.GetStatusResponse(
            me=encode_seen(agent.roster.me, None, now),
            cluster=agent.config.cluster,
            ready=not reasons,
            reasons=reasons,
            uptime_s=now - agent.started_at,
            namespaces=self._namespaces(now),
            handlers=self._handlers(),
            watchers=self._watchers(),
            links=self._links(),
            journal=self._journal(),
            members_alive=1 + sum(member.state is State.ALIVE for member in members),
            members_known=1 + len(members),
            cursor=str(agent.ingest.write_out(agent.feed.position)),
            security=self._security(),
        )

    async def Diagnose(  # noqa: N802
        self, _request: pb.DiagnoseRequest, _call: Call
    ) -> pb.DiagnoseResponse:
        """Look at everything that this agent needs."""
        findings = await Diagnosis(self._agent).run()
        return pb.DiagnoseResponse(findings=map(encode_finding, findings))

    async def Join(self, request: pb.JoinRequest, _call: Call) -> pb.JoinResponse:  # noqa: N802
        """Ask further agents who is in the cluster."""
        seeds = seeds_of(request)
        answers = await self._agent.operators.join(seeds)
        return pb.JoinResponse(
            seeds=[
                pb.JoinedSeed(seed=seed, error=answer.details or answer.code)
                if isinstance(answer, RpcFailed)
                else pb.JoinedSeed(seed=seed, name=answer)
                for seed, answer in zip(seeds, answers, strict=True)
            ],
            members_known=1 + len(self._agent.roster.members),
        )

    async def Forget(self, request: pb.ForgetRequest, _call: Call) -> pb.ForgetResponse:  # noqa: N802
        """Strike an agent that will not come back from every roster."""
        agent = self._agent
        member = agent.operators.forget(request.name)
        return pb.ForgetResponse(member=encode_seen(member.info, member, agent.clock.now()))

    async def Leave(self, _request: pb.LeaveRequest, _call: Call) -> pb.LeaveResponse:  # noqa: N802
        """Take this agent out of the cluster for good, and stop it."""
        told, missed = await self._agent.operators.leave()
        return pb.LeaveResponse(told=told, missed=missed)

    async def TraceKey(  # noqa: N802
        self, request: pb.TraceKeyRequest, _call: Call
    ) -> pb.TraceKeyResponse:
        """Ask every host when and how rows came there, and who has applied them."""
        agent = self._agent
        hosts = await agent.tracing.everywhere(question_of(request), trace_timeout(request))
        now, offsets = agent.clock.now(), agent.exchanging.offsets
        return pb.TraceKeyResponse(
            hosts=[encode_host(host, now, offsets.get(host.name)) for host in hosts]
        )

    def _security(self) -> pb.SecurityStatus:
        credentials = self._agent.protection.credentials
        status = pb.SecurityStatus(exposed=map(str, exposed(self._agent.config).values()))
        if credentials is not None:
            status.identity, status.problem = str(credentials.identity), credentials.problem
            status.certificate_left_s = credentials.left
        return status

    def _members(self) -> Iterator[types_pb2.Member]:
        agent = self._agent
        now = agent.clock.now()
        yield encode_seen(agent.roster.me, None, now)
        for name, member in sorted(agent.roster.members.items()):
            seen = encode_seen(member.info, member, now)
            seen.round_trip_us = int(self._round_trip(name) * 1e6)
            if offset := agent.exchanging.offsets.get(name):
                seen.clock_offset_min_us, seen.clock_offset_max_us = offset.least, offset.most
            yield seen

    def _round_trip(self, name: str) -> float:
        """Give the smoothed seconds of the link to a member, else of the last probe; 0 while unknown."""
        agent = self._agent
        if (links := agent.spreading.links.get(name)) and links[1].round_trip:
            return links[1].round_trip
        probed = agent.membership.swim.members.get(name) if agent.membership.swim else None
        return (probed.round_trip or 0.0) if probed else 0.0

    def _namespaces(self, now: float) -> Iterator[pb.NamespaceStatus]:
        agent = self._agent
        names = {*agent.ingest.counts, *agent.replica.vector.namespaces(), *agent.replica.ledgers}
        for name in sorted(names):
            counts = agent.ingest.counts.get(name, NamespaceCounts())
            ledger = agent.replica.ledgers.get(name)
            floor_age = agent.replica.floor(name).age(now)
            yield pb.NamespaceStatus(
                namespace=name,
                accepted=counts.accepted,
                received=counts.received,
                repaired=counts.repaired,
                gaps_open=agent.repair.open(name),
                gap_age_s=agent.repair.oldest(name, now),
                resets=counts.resets,
                streams=len(agent.replica.vector.streams(name)),
                remembered=len(ledger) if ledger else 0,
                forgotten=counts.forgotten,
                floor_age_s=floor_age if isfinite(floor_age) else None,
                last_reset=encode_reset(counts.last_reset, now) if counts.last_reset else None,
            )

    def _handlers(self) -> Iterator[pb.HandlerStatus]:
        head = self._agent.feed.position
        for state in self._agent.delivery.handlers:
            yield pb.HandlerStatus(
                label=state.handler.label,
                namespace=state.handler.namespace,
                connected=state.connected,
                error=state.error,
                lag=head - max(0, state.follower.position),
                applied=state.applied,
                failures=state.failures,
                resets=state.resets,
            )

    def _watchers(self) -> Iterator[pb.WatcherStatus]:
        head = self._agent.feed.position
        for watcher in sorted(self._agent.delivery.watchers, key=lambda w: w.name):
            yield pb.WatcherStatus(
                name=watcher.name,
                namespaces=sorted(watcher.namespaces),
                acknowledges=watcher.acknowledges,
                lag=head - max(0, watcher.position),
            )

    def _links(self) -> Iterator[pb.LinkStatus]:
        for name, links in sorted(self._agent.spreading.links.items()):
            for link in links:
                yield pb.LinkStatus(
                    name=name,
                    lanes="urgent" if link.urgent else "rest",
                    open=link.is_open,
                    queued_bytes=link.queued_bytes,
                    sent=link.sent,
                    dropped=link.dropped,
                )

    def _journal(self) -> pb.JournalStatus:
        statistics = self._agent.journal.statistics()
        return pb.JournalStatus(
            durability=DURABILITIES[self._agent.journal.durability],
            commits=statistics.commits,
            queued_bytes=statistics.queued_bytes,
            error=statistics.error,
            size_bytes=statistics.size_bytes,
            damages=self._agent.damages,
            healing=self._agent.healing,
        )


def encode_reset(reset: LastReset, now: float) -> pb.LastReset:
    """Say why and when a namespace was reset last."""
    return pb.LastReset(cause=reset.cause.value, age_s=now - reset.at, missing=reset.missing)


def encode_finding(finding: Finding) -> pb.Finding:
    """Write what was found."""
    return pb.Finding(
        subject=finding.subject,
        name=finding.name,
        severity=cast("pb.Severity.ValueType", int(finding.severity)),
        text=finding.text,
        remedy=finding.remedy,
    )
