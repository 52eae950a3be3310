"""What peers ask over gRPC: `cluster.endpoint` behind the service of proto/coherd/v1/peer_service.proto."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import trio

from coherd.errors import RpcFailed, one_failure
from coherd.limits import APPLIED_WAIT_MAX
from coherd.net.eras_codec import decode_eras, encode_eras, encode_have_reply
from coherd.net.peer import LinkReply
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
from coherd.v1 import peer_service_pb2 as pb

if TYPE_CHECKING:
    from coherd.cluster.endpoint import Endpoint
    from coherd.net.bridge import Call, StreamCall

ACKNOWLEDGE_AFTER = 0.0015
"""Seconds in which acknowledgements are gathered."""


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
        self._endpoint.admit(opening.cluster, decode_member(opening.me))
        call.send_nowait(pb.LinkResponse(me=encode_member(self._endpoint.me)))
        await _Incoming(self._endpoint, call, self._stopping).run(messages[1:])

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


class _Incoming:
    """One link's receiving side: takes parcels, gathers what is to be said back."""

    def __init__(self, endpoint: Endpoint, call: StreamCall, stopping: trio.Event) -> None:
        self._endpoint = endpoint
        self._call = call
        self._stopping = stopping
        self._acknowledged = 0
        self._applied: list[int] = []
        self._due = trio.Event()

    async def run(self, messages: list[pb.LinkRequest]) -> None:
        with one_failure():
            await self._run(messages)

    async def _run(self, messages: list[pb.LinkRequest]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reply)
            nursery.start_soon(self._end_when_stopping, nursery.cancel_scope)
            while messages or (messages := await self._call.receive()):
                for message in messages:
                    self._take(message)
                messages = []
                self._due.set()
            nursery.cancel_scope.cancel()

    async def _end_when_stopping(self, scope: trio.CancelScope) -> None:
        await self._stopping.wait()
        scope.cancel()

    def _take(self, message: pb.LinkRequest) -> None:
        parcels = decode_parcels(message)
        if not parcels:
            return
        self._endpoint.take(parcels, self._has_applied)
        if parcels[-1].sequence <= self._acknowledged:
            raise RpcFailed("INVALID_ARGUMENT", "parcels are numbered in ascending order")
        self._acknowledged = parcels[-1].sequence

    def _has_applied(self, sequences: list[int]) -> None:
        self._applied += sequences
        self._due.set()

    async def _reply(self) -> None:
        name = (self._endpoint.me.name,)
        while True:
            await self._due.wait()
            if not self._applied:
                with trio.move_on_after(ACKNOWLEDGE_AFTER):
                    await trio.sleep_forever()
            self._due = trio.Event()
            receipts = [(sequence, name) for sequence in self._applied]
            self._applied = []
            await self._call.send(encode_link_reply(LinkReply(self._acknowledged, receipts)))
