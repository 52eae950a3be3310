"""One peer over gRPC: the door `Peer` on a channel of the bridge."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from coherd.errors import MalformedMessage, RpcFailed
from coherd.net.bridge import Bridge, methods
from coherd.net.bridge_method import TARGET_NAME
from coherd.net.eras_codec import decode_eras, decode_have_reply, encode_eras
from coherd.net.peer import (
    ExchangeReply,
    FetchPart,
    Have,
    HaveReply,
    LinkReply,
    MemberInfo,
    Misnamed,
    OutgoingLink,
    Parcel,
    RootReply,
    StreamRange,
    StreamsPage,
)
from coherd.net.peer_codec import (
    decode_buckets,
    decode_datagrams,
    decode_link_reply,
    decode_member,
    decode_origin_message,
    decode_part,
    decode_streams,
    encode_dots,
    encode_fetch,
    encode_have,
    encode_member,
    encode_origin,
    encode_parcels,
)
from coherd.net.trace_codec import decode_reply, encode_question
from coherd.v1 import peer_service_pb2 as pb
from coherd.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from coherd.model import Origin, Stream
    from coherd.net.bridge import ClientStream
    from coherd.net.credentials import Credentials
    from coherd.net.traces import TraceQuestion, TraceReply
    from coherd.replication.intervals import Intervals

METHODS = methods(pb.DESCRIPTOR.services_by_name["PeerService"])
CALL_TIMEOUT = 2.0
"""Seconds for a call that its peer can answer at once."""
FETCH_TIMEOUT = 30.0


class GrpcPeer:
    """Asks one agent at one address; two connections, so that bulk cannot hold up what is urgent."""

    def __init__(
        self,
        bridge: Bridge,
        address: str,
        cluster: str,
        refused: Callable[[str], None] = lambda _rpc: None,
        credentials: Credentials | None = None,
        name: str | None = None,
    ) -> None:
        """`refused` is called with the name of the RPC whenever the answer was something illegal.

        With `credentials` nobody is spoken with but the agent `name`, or where that is None some agent of
        the cluster. Also without them nobody who says another name than `name` is believed.
        """
        self._cluster = cluster
        self._name = name
        self._refused = refused
        secure: dict[str, Any] = {}
        if credentials is not None:
            secure["credentials"] = credentials.client()
            secure["options"] = [(TARGET_NAME, credentials.server_name(name))]
        self._channel = bridge.channel(address, **secure)
        self._urgent = bridge.channel(address, **secure)

    async def _call(self, name: str, request: Any, timeout: float = CALL_TIMEOUT) -> Any:
        return await self._channel.unary(METHODS[name], request, timeout=timeout)

    def _check_name(self, rpc: str, name: str) -> None:
        """Refuse an answer in the name of another than who was dialled."""
        if self._name is not None and name != self._name:
            self._refused(rpc)
            raise Misnamed("INTERNAL", f"{name} has answered, not {self._name}")

    async def exchange(
        self, me: MemberInfo, datagrams: Sequence[bytes], timeout: float
    ) -> ExchangeReply:
        """Bring it messages about membership, and get what it answers within `timeout` seconds."""
        request = pb.ExchangeRequest(
            cluster=self._cluster,
            sender=types_pb2.Origin(name=me.name, epoch=me.epoch),
            address=me.address,
            datagrams=datagrams,
        )
        reply = await self._urgent.unary(METHODS["Exchange"], request, timeout=timeout)
        with _checking("Exchange", self._refused):
            responder = decode_origin_message(reply.responder)
            datagrams = decode_datagrams(reply.datagrams)
        self._check_name("Exchange", responder.name)
        return ExchangeReply(responder, datagrams, reply.wall_us)

    @asynccontextmanager
    async def link(self, me: MemberInfo, *, urgent: bool) -> AsyncIterator[OutgoingLink]:
        """Open a link to it."""
        channel = self._urgent if urgent else self._channel
        async with channel.stream(METHODS["Link"]) as stream:
            opening = pb.LinkOpen(cluster=self._cluster, me=encode_member(me), urgent=urgent)
            stream.send_nowait(pb.LinkRequest(open=opening))
            first: list[pb.LinkResponse] = await stream.receive()
            if not first:
                raise RpcFailed("UNAVAILABLE", "the peer ended the link before it opened")
            with _checking("Link", self._refused):
                peer = decode_member(first[0].me)
            self._check_name("Link", peer.name)
            yield GrpcLink(stream, peer, first[1:], self._refused)

    async def have(self, have: Have) -> HaveReply:
        """Tell it what changed."""
        reply = await self._call("Have", encode_have(have))
        with _checking("Have", self._refused):
            return decode_have_reply(reply)

    async def compare_roots(self, sender: Origin, root: int, eras: Mapping[str, int]) -> RootReply:
        """Compare the hashes over everything, and the eras that are not 0."""
        request = pb.CompareRequest(sender=encode_origin(sender), root=root, eras=encode_eras(eras))
        reply = await self._call("Compare", request)
        with _checking("Compare", self._refused):
            return RootReply(reply.equal, reply.catching_up, decode_eras(reply.eras))

    async def compare_buckets(self, sender: Origin, buckets: Sequence[int]) -> Sequence[int]:
        """Give the numbers of the buckets that differ."""
        request = pb.CompareRequest(sender=encode_origin(sender), buckets=buckets)
        reply = await self._call("Compare", request)
        with _checking("Compare", self._refused):
            return decode_buckets(reply.differing)

    async def compare_streams(
        self, sender: Origin, wanted: Sequence[int], skip: int
    ) -> StreamsPage:
        """Give the streams of some buckets."""
        request = pb.CompareRequest(sender=encode_origin(sender), wanted=wanted, skip=skip)
        reply = await self._call("Compare", request)
        with _checking("Compare", self._refused):
            return StreamsPage(decode_streams(reply.streams, reply.origins), reply.more)

    @asynccontextmanager
    async def fetch(
        self, sender: Origin, wanted: Mapping[Stream, Intervals]
    ) -> AsyncIterator[AsyncIterator[FetchPart]]:
        """Ask for missing rows."""
        request = encode_fetch(sender, wanted)
        async with self._channel.stream(METHODS["Fetch"], request, timeout=FETCH_TIMEOUT) as stream:

            async def parts() -> AsyncIterator[FetchPart]:
                while messages := await stream.receive():
                    for message in messages:
                        with _checking("Fetch", self._refused):
                            part = decode_part(message)
                        yield part

            yield parts()

    async def applied(self, sender: Origin, dots: Sequence[StreamRange], wait: float) -> bool:
        """Ask whether its host has applied rows; it may think about it for `wait` seconds."""
        request = pb.AppliedRequest(
            sender=encode_origin(sender), dots=encode_dots(dots), wait_ms=int(wait * 1000)
        )
        reply = await self._call("Applied", request, wait + CALL_TIMEOUT)
        return bool(reply.applied)

    async def trace(self, sender: Origin, question: TraceQuestion, timeout: float) -> TraceReply:
        """Ask when and how rows came to its host, and who has applied them there."""
        reply = await self._call("Trace", encode_question(sender, question), timeout)
        with _checking("Trace", self._refused):
            return decode_reply(reply, question.namespace)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._channel.aclose()
        await self._urgent.aclose()


class GrpcLink:
    """An open link."""

    def __init__(
        self,
        stream: ClientStream,
        peer: MemberInfo,
        early: Sequence[Any],
        refused: Callable[[str], None],
    ) -> None:
        self.peer = peer
        self._refused = refused
        self._stream = stream
        self._early = early

    def send_nowait(self, parcels: Sequence[Parcel]) -> None:
        """Send parcels, or with none show that the link lives."""
        self._stream.send_nowait(encode_parcels(parcels))

    async def receive(self) -> Sequence[LinkReply]:
        """Give the replies that wait, at least one; none once the peer has ended the link."""
        messages = self._early or await self._stream.receive()
        self._early = ()
        with _checking("Link", self._refused):
            return [decode_link_reply(message) for message in messages]


@contextmanager
def _checking(rpc: str, refused: Callable[[str], None]) -> Iterator[None]:
    """Turn what a peer wrote wrongly into a failed call."""
    try:
        yield
    except MalformedMessage as error:
        refused(rpc)
        raise RpcFailed("INTERNAL", f"the peer's answer is malformed: {error}") from error
