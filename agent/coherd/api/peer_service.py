"""What peers ask over gRPC: `cluster.endpoint` behind the service of proto/coherd/v1/peer_service.proto."""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import trio

from coherd.errors import RpcFailed, one_failure
from coherd.limits import APPLIED_WAIT_MAX
from coherd.net.eras_codec import decode_eras, encode_eras, encode_have_reply
from coherd.net.peer_codec import (
    OriginTable,
    decode_buckets,
    decode_datagrams,
    decode_dots,
    decode_have,
    decode_member,
    decode_origin_message,
    decode_parcels,
    decode_streams,
    encode_link_reply,
    encode_member,
    encode_origin,
    encode_part,
    encode_stream,
)
from coherd.net.trace_codec import decode_question, encode_reply
from coherd.v1 import peer_service_pb2 as pb

if TYPE_CHECKING:
    from coherd.cluster.endpoint import Endpoint
    from coherd.net.bridge import Call, StreamCall
    from coherd.net.peer import LinkReply

REPLIES_BYTES_MAX = 1024 * 1024
"""Bytes of replies that may wait for the sender of a link to read them."""


class PeerService:
    """Between protobuf and the endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._stopping = trio.Event()

    def end_links(self) -> None:
        """Take no more rows from peers, because this agent stops: they need not wait for that."""
        self._stopping.set()

    async def Exchange(  # noqa: N802
        self, request: pb.ExchangeRequest, _call: Call
    ) -> pb.ExchangeResponse:
        """Carry messages about who is in the cluster."""
        sender = decode_origin_message(request.sender)
        datagrams = decode_datagrams(request.datagrams)
        reply = self._endpoint.exchange(request.cluster, sender, request.address, datagrams)
        return pb.ExchangeResponse(
            responder=encode_origin(reply.responder),
            datagrams=reply.datagrams,
            wall_us=reply.wall_us,
        )

    async def Link(self, call: StreamCall) -> None:  # noqa: N802
        """Take the rows that a peer spreads for as long as it is there."""
        messages: list[pb.LinkRequest] = await call.receive()
        if not messages:
            return
        opening = messages[0].open
        member = decode_member(opening.me)
        self._endpoint.admit(opening.cluster, member)
        call.send_nowait(pb.LinkResponse(me=encode_member(self._endpoint.me)))
        incoming = _Incoming(self._endpoint, call, member.name, urgent=opening.urgent)
        with one_failure():
            await incoming.run(messages[1:], self._stopping)

    async def Have(self, request: pb.HaveRequest, _call: Call) -> pb.HaveResponse:  # noqa: N802
        """Take what changed at a peer."""
        return encode_have_reply(self._endpoint.have(decode_have(request)))

    async def Compare(  # noqa: N802
        self, request: pb.CompareRequest, _call: Call
    ) -> pb.CompareResponse:
        """Answer one of the three rounds."""
        sender = decode_origin_message(request.sender)
        if request.wanted:
            page = self._endpoint.compare_streams(
                sender, set(decode_buckets(request.wanted)), request.skip
            )
            table = OriginTable()
            streams = [encode_stream(table, stream, have) for stream, have in page.streams]
            return pb.CompareResponse(origins=table.encode(), streams=streams, more=page.more)
        if request.buckets:
            differing = self._endpoint.compare_buckets(sender, request.buckets)
            return pb.CompareResponse(differing=differing)
        reply = self._endpoint.compare_roots(sender, request.root, decode_eras(request.eras))
        return pb.CompareResponse(
            equal=reply.equal, catching_up=reply.catching_up, eras=encode_eras(reply.eras)
        )

    async def Fetch(self, request: pb.FetchRequest, call: StreamCall) -> None:  # noqa: N802
        """Serve missing rows."""
        decode_origin_message(request.sender)
        wanted = dict(decode_streams(request.wanted, request.origins))
        async with aclosing(self._endpoint.fetch(wanted)) as parts:
            async for part in parts:
                await call.send(encode_part(part))

    async def Applied(  # noqa: N802
        self, request: pb.AppliedRequest, _call: Call
    ) -> pb.AppliedResponse:
        """Tell whether rows are applied here."""
        wait = min(request.wait_ms / 1000, APPLIED_WAIT_MAX)
        applied = await self._endpoint.applied(decode_dots(request.dots), wait)
        return pb.AppliedResponse(applied=applied)

    async def Trace(self, request: pb.TraceRequest, _call: Call) -> pb.TraceResponse:  # noqa: N802
        """Tell when and how rows came here, and who has applied them."""
        sender = decode_origin_message(request.sender)
        return encode_reply(await self._endpoint.trace(sender, decode_question(request)))


class _Incoming:
    """One link's receiving side."""

    def __init__(self, endpoint: Endpoint, call: StreamCall, source: str, *, urgent: bool) -> None:
        self._endpoint = endpoint
        self._call = call
        self._source = source
        self._urgent = urgent
        self._taken = 0

    async def run(self, messages: list[pb.LinkRequest], stopping: trio.Event) -> None:
        self._endpoint.listen(self._source, urgent=self._urgent, say=self._say)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_end_when, stopping, nursery.cancel_scope)
                self._take_all(messages)
                await self._call.deliver_to(self._take_all)
                nursery.cancel_scope.cancel()
        finally:
            self._endpoint.ended(self._source, urgent=self._urgent, say=self._say)

    def _take_all(self, messages: list[pb.LinkRequest]) -> None:
        for message in messages:
            self._take(message)

    def _take(self, message: pb.LinkRequest) -> None:
        parcels = decode_parcels(message)
        for parcel in parcels:
            if parcel.sequence <= self._taken:
                raise RpcFailed("INVALID_ARGUMENT", "parcels are numbered in ascending order")
            self._taken = parcel.sequence
        self._endpoint.take(self._source, parcels, urgent=self._urgent)

    def _say(self, reply: LinkReply) -> None:
        """Tell the sender; one that does not listen need not hear all, the next reply says more."""
        if self._call.outbound_bytes < REPLIES_BYTES_MAX:
            with suppress(RpcFailed, trio.ClosedResourceError):
                self._call.send_nowait(encode_link_reply(reply))


async def _end_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
