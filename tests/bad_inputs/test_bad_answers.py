"""A peer that answers nonsense is believed no more than one that asks it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from doors import PEER_ME, STREAM, Doors, payload, streams

from coherd.api.services import PEER
from coherd.errors import RpcFailed
from coherd.limits import AGE_MAX_MS, DATAGRAMS_MAX, EPOCH_MAX, NUMBER_AHEAD_MAX, PARCELS_MAX
from coherd.model import Origin
from coherd.net.peer_client import GrpcPeer
from coherd.net.peer_codec import encode_member, encode_origin
from coherd.replication.intervals import Intervals
from coherd.v1 import peer_service_pb2 as pb


class Liar:
    """A peer that opens its links well; `lies` are its answers to everything else."""

    def __init__(self, **lies: Any) -> None:
        self.lies = lies
        self.me = PEER_ME
        self.asked = trio.Event()

    async def Link(self, call: Any) -> None:
        """Show that the link lives."""
        opening = await call.receive()
        assert opening[0].open.cluster == "test"
        await call.send(pb.LinkResponse(me=encode_member(self.me)))
        while await call.receive():
            await call.send(self.lies.get("Link", pb.LinkResponse()))

    async def Exchange(self, _request: pb.ExchangeRequest, _call: Any) -> pb.ExchangeResponse:
        """Say who it is, and nothing else."""
        return self.lies.get("Exchange", answered(self.me.name, self.me.epoch))

    async def Have(self, _request: pb.HaveRequest, _call: Any) -> pb.HaveResponse:
        """Seem quiet and different."""
        return pb.HaveResponse(quiet=True, sum=1)

    async def Compare(self, request: pb.CompareRequest, _call: Any) -> pb.CompareResponse:
        """Differ in everything."""
        if request.wanted:
            self.asked.set()
            return self.lies.get("Streams", pb.CompareResponse())
        if request.buckets:
            return self.lies.get("Buckets", pb.CompareResponse(differing=range(64)))
        return pb.CompareResponse()

    async def Fetch(self, _request: pb.FetchRequest, call: Any) -> None:
        """Serve nothing but what is made up."""
        await call.send(self.lies.get("Fetch", pb.FetchResponse()))


def answered(name: str, epoch: int, *datagrams: bytes) -> pb.ExchangeResponse:
    return pb.ExchangeResponse(responder=encode_origin(Origin(name, epoch)), datagrams=datagrams)


def page(*ranges: tuple[int, int]) -> pb.CompareResponse:
    origins, numbers = streams((STREAM, Intervals(ranges)))
    return pb.CompareResponse(origins=origins, streams=numbers)


def answer(**fields: Any) -> pb.FetchResponse:
    origins, (numbers,) = streams((STREAM, Intervals([(1, 2)])))
    return pb.FetchResponse(origins=origins, answers=[pb.StreamAnswer(covers=numbers, **fields)])


NOWHERE = pb.CompareResponse(
    streams=[pb.StreamNumbers(namespace="shop", origin=3, lane=1, ranges=[1, 0])]
)
LIES: dict[str, dict[str, Any]] = {
    "a number that nobody can have": {"Streams": page((1, NUMBER_AHEAD_MAX + 1))},
    "streams of no origin": {"Streams": NOWHERE},
    "buckets that do not exist": {"Buckets": pb.CompareResponse(differing=[64])},
    "more receipts than parcels": {
        "Link": pb.LinkResponse(receipts=[pb.PayloadReceipt(payload=1)] * (PARCELS_MAX + 1))
    },
    "kept rows that nobody can have": {
        "Streams": page((1, 2)),
        "Fetch": answer(retained=[NUMBER_AHEAD_MAX + 1, 0]),
    },
    "numbers in disorder": {"Streams": page((1, 2)), "Fetch": answer(unknown=[0, 0])},
    "an age beyond all ages": {
        "Streams": page((1, 2)),
        "Fetch": pb.FetchResponse(blocks=[pb.Block(payload=payload(1), age_ms=AGE_MAX_MS + 1)]),
    },
    "rows that are none": {
        "Streams": page((1, 2)),
        "Fetch": pb.FetchResponse(blocks=[pb.Block(payload=b"none")]),
    },
}


@pytest.mark.bad_input(24, 25, 26, 29)
@pytest.mark.parametrize("lies", LIES.values(), ids=LIES)
async def test_what_a_peer_answers_is_checked_and_counted(agent: Doors, lies: Any) -> None:
    liar = Liar(**lies)
    server = await agent.bridge.serve([(PEER, liar)], ["127.0.0.1:0"])
    liar.me = replace(PEER_ME, address=f"127.0.0.1:{server.ports[0]}")
    before = agent.state()
    await agent.join(liar.me)
    await agent.eventually(lambda: agent.agent.refused or agent.agent.ingest.malformed)
    after = agent.state()
    assert after._replace(members=[], gaps=0) == before
    assert after.gaps == (2 if "Fetch" in lies else 0)
    await server.stop(0)
    assert (await agent.invalidate(keys=[b"a"])).complete


@pytest.mark.bad_input(34)
@pytest.mark.parametrize(
    "reply",
    [
        answered(PEER_ME.name, EPOCH_MAX + 1),
        answered("no name", 1),
        answered(PEER_ME.name, 1, *[b""] * (DATAGRAMS_MAX + 1)),
        pb.ExchangeResponse(),
    ],
    ids=["epoch", "name", "datagrams", "nobody"],
)
async def test_a_seed_that_answers_nonsense_is_none(
    agent: Doors, reply: pb.ExchangeResponse
) -> None:
    server = await agent.bridge.serve([(PEER, Liar(Exchange=reply))], ["127.0.0.1:0"])
    before = agent.state()
    address = f"127.0.0.1:{server.ports[0]}"
    peer = GrpcPeer(agent.bridge, address, "test", agent.agent.count_refused)
    with pytest.raises(RpcFailed, match="the peer's answer is malformed"):
        await peer.exchange(agent.agent.roster.me, [], 10.0)
    await peer.aclose()
    assert agent.agent.refused["Exchange"] == 1
    assert agent.state() == before
