"""One whole agent behind real gRPC doors in this process, and what a bad input must not change in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, NamedTuple

import pytest
import trio

from coherd.api.admin_service import AdminService
from coherd.api.cache_service import CacheService
from coherd.api.peer_service import PeerService
from coherd.api.services import ADMIN, CACHE, PEER
from coherd.clock import BootClock
from coherd.cluster.agent import Agent
from coherd.config import AgentConfig
from coherd.errors import RpcFailed
from coherd.handlers.memory import MemoryHandler
from coherd.journal.memory import Disk, MemoryJournal
from coherd.limits import REQUEST_BYTES_MAX
from coherd.model import Batch, Effect, Lane, Origin, Stream
from coherd.net.bridge import Bridge, Channel, Server, methods, open_bridge
from coherd.net.peer import MemberInfo
from coherd.net.peer_client import GrpcPeer
from coherd.net.peer_codec import OriginTable, encode_member, encode_stream
from coherd.replication.intervals import Intervals
from coherd.replication.ring import hash64
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import peer_service_pb2 as pb
from coherd.wire import encode_batch
from coherd_membership import News, Status
from coherd_membership import _codec as swim_codec
from coherd_membership._messages import Kind

METHODS = methods(PEER) | methods(CACHE) | methods(ADMIN)
PATIENCE = 60.0
PEER_ME = MemberInfo("peer-1", 1_790_000_000_000, "127.0.0.1:1", "test")
"""A member that is only claimed to be there."""
STREAM = Stream("shop", Origin(PEER_ME.name, PEER_ME.epoch), Lane.NORMAL)


class Raw:
    """Bytes in the place of a message."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:
        return self._data


class State(NamedTuple):
    """What a refused input leaves as it was."""

    vector: dict[Stream, Any]
    remembered: dict[str, int]
    position: int
    stamp: int
    life: Origin
    members: list[str]
    gaps: int
    resets: Counter[str]


class Doors:
    """The agent, and how it is asked."""

    def __init__(self, agent: Agent, bridge: Bridge, local: Server, peers: Server) -> None:
        self.agent = agent
        self.bridge = bridge
        self.local_calls = local._calls
        self.local_address = f"127.0.0.1:{local.ports[0]}"
        self.peer_address = f"127.0.0.1:{peers.ports[0]}"
        self.local = bridge.channel(self.local_address)
        self.peers = bridge.channel(self.peer_address)

    @property
    def handler(self) -> MemoryHandler:
        handler = self.agent.delivery.handlers[0].handler
        assert isinstance(handler, MemoryHandler)
        return handler

    def state(self) -> State:
        agent = self.agent
        vector = agent.replica.vector
        return State(
            {s: (v.have.ranges(), v.held.ranges(), v.floor) for s, v in vector if v.have},
            {name: len(ledger) for name, ledger in agent.replica.ledgers.items()},
            agent.replica.position,
            agent.stamps.stamp,
            agent.ingest.life,
            sorted(agent.roster.members),
            agent.repair.open(),
            sum((counts.resets for counts in agent.ingest.counts.values()), Counter()),
        )

    def channel_of(self, rpc: str) -> Channel:
        return self.peers if METHODS[rpc].path.startswith("/coherd.v1.Peer") else self.local

    async def ask(self, rpc: str, request: Any, timeout: float = 10.0) -> Any:
        return await self.channel_of(rpc).unary(METHODS[rpc], request, timeout=timeout)

    async def invalidate(self, **fields: Any) -> cache.Receipt:
        request = cache.InvalidateRequest(**{"namespace": "shop", **fields})
        return (await self.ask("Invalidate", request)).receipt

    async def refused(
        self, rpc: str, request: Any, code: str = "INVALID_ARGUMENT", *, counted: bool = True
    ) -> str:
        """Ask what must be refused: nothing changes, it is counted, the door stays open. Give the text."""
        before, count = self.state(), self.agent.refused[rpc]
        with pytest.raises(RpcFailed) as caught:
            await self.ask(rpc, request)
        assert caught.value.code == code, caught.value
        assert_one_line(caught.value.details)
        assert self.state() == before
        if counted:
            assert self.agent.refused[rpc] == count + 1
        return caught.value.details

    async def join(self, member: MemberInfo = PEER_ME) -> None:
        await self.ask("Exchange", exchange(member, told(word(member))))

    @asynccontextmanager
    async def link(self, member: MemberInfo = PEER_ME) -> AsyncIterator[Any]:
        """Join, and open a link to the agent, as that member."""
        await self.join(member)
        async with self.peers.stream(METHODS["Link"]) as stream:
            opening = pb.LinkOpen(cluster="test", me=encode_member(member))
            await stream.send(pb.LinkRequest(open=opening))
            await stream.receive()
            yield stream

    async def until_calls(self, count: int) -> None:
        """Wait until so many calls of applications are under way."""
        await self.eventually(lambda: len(self.local_calls) == count)

    async def eventually(self, probe: Any) -> Any:
        with trio.fail_after(PATIENCE):
            while not (found := probe()):
                with trio.move_on_after(0.005):
                    await trio.sleep_forever()
        return found


def parcel(number: int, data: bytes, **fields: Any) -> pb.Parcel:
    """A parcel that is to go no further than to the agent."""
    arcs = [pb.Arc(ring=0, end=hash64(0, "a"))]
    return pb.Parcel(sequence=number, payload=data, arcs=arcs, **fields)


def word(member: MemberInfo = PEER_ME, **fields: Any) -> News:
    """What a member says of itself to the machine of membership."""
    said = News(member.name, member.epoch, 1, Status.ALIVE, member.address)
    return said._replace(**fields)


def told(sender: News, *news: News, kind: int = Kind.TELL, cluster: str = "test") -> bytes:
    """A message about membership, with news of others."""
    label = swim_codec.cluster_label(cluster)
    head = swim_codec.head(kind, label, 0, 0, swim_codec.encode_news(sender))
    return head + b"".join(
        swim_codec.section(swim_codec.NEWS, swim_codec.encode_news(each)) for each in news
    )


def exchange(
    sender: MemberInfo = PEER_ME, *datagrams: bytes, cluster: str = "test"
) -> pb.ExchangeRequest:
    """An Exchange as that member asks for it."""
    request = pb.ExchangeRequest(cluster=cluster, address=sender.address, datagrams=datagrams)
    request.sender.name, request.sender.epoch = sender.name, sender.epoch
    return request


def assert_one_line(text: str) -> None:
    """A client sees a sentence, and neither a traceback nor anything that moves its terminal."""
    assert text
    assert text.isprintable()
    assert "Traceback" not in text


async def failure_of(stream: Any) -> RpcFailed:
    """Receive until the call fails, and give why."""
    try:
        while await stream.receive():
            pass
    except RpcFailed as error:
        assert_one_line(error.details)
        return error
    raise AssertionError("the call succeeded")


def payload(
    first: int,
    keys: Sequence[bytes] = (b"x",),
    *,
    stream: Stream = STREAM,
    stamp: int = 0,
    effect: Effect = Effect.DROP,
) -> bytes:
    """Rows as a peer sends them."""
    numbers = ((first, first + len(keys) - 1),)
    return encode_batch(Batch(stream, numbers, [b"k" + key for key in keys], effect, None, stamp))


def streams(*shown: tuple[Stream, Intervals]) -> tuple[list[Any], list[pb.StreamNumbers]]:
    """A table of origins and the streams that point into it."""
    table = OriginTable()
    numbers = [encode_stream(table, stream, have) for stream, have in shown]
    return table.encode(), numbers


def have(*shown: tuple[Stream, Intervals], sender: MemberInfo = PEER_ME) -> pb.HaveRequest:
    """What a member says that it has."""
    origins, changes = streams(*shown)
    request = pb.HaveRequest(origins=origins, changes=changes)
    request.sender.name, request.sender.epoch = sender.name, sender.epoch
    return request


@asynccontextmanager
async def doors(
    address: str = "127.0.0.1:2", others: Any = None, **settings: Any
) -> AsyncIterator[Doors]:
    """Run the agent; give it once it has joined with nobody and is ready.

    `others.dial(address)` stands for everybody else, where somebody else is not on this host.
    """
    clock = BootClock()
    me = MemberInfo("a", clock.wall_ms(), address, "test")
    config = AgentConfig("a", cluster="test", region="test", **settings)
    with trio.fail_after(2 * PATIENCE):
        async with open_bridge() as bridge, trio.open_nursery() as nursery:
            journal = MemoryJournal(Disk(), now=clock.now)

            def dial(address: str, name: str | None) -> Any:
                if others is not None:
                    return others.dial(address)
                assert address.startswith("127.0.0.1:"), address
                return GrpcPeer(bridge, address, "test", agent.count_refused, name=name)

            agent = Agent(config, me, journal, clock, Random(7), dial, nursery)
            agent.serve([MemoryHandler("shop")])
            local = await bridge.serve(
                [(CACHE, CacheService(agent)), (ADMIN, AdminService(agent))],
                ["127.0.0.1:0"],
                message_bytes_max=REQUEST_BYTES_MAX,
                refused=agent.count_refused,
            )
            peers = await bridge.serve(
                [(PEER, PeerService(agent.endpoint))],
                ["127.0.0.1:0"],
                refused=agent.count_refused,
            )
            agent.start()
            found = Doors(agent, bridge, local, peers)
            await found.eventually(lambda: not agent.reasons())
            yield found
            assert not agent.reasons(), "it is as ready as before"
            nursery.cancel_scope.cancel()
