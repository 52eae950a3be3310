"""Whoever answers speaks in its own name alone: what it says is compared with who was dialled, over TLS."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from certificates import Authority, identity

from coherd.api.services import PEER
from coherd.clock import BootClock
from coherd.cluster.exchanging import Exchanging
from coherd.cluster.roster import Roster
from coherd.errors import RpcFailed
from coherd.model import Origin
from coherd.net.bridge import Bridge, open_bridge
from coherd.net.credentials import Credentials
from coherd.net.peer import MemberInfo, Misnamed
from coherd.net.peer_client import GrpcPeer
from coherd.net.peer_codec import encode_member, encode_origin
from coherd.v1 import peer_service_pb2 as pb
from coherd_membership import News, Status

ME = MemberInfo("a", 1, "127.0.0.1:1", "test")


class Claiming:
    """Says that it is whoever it is told to be."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[Sequence[bytes]] = []

    async def Exchange(self, request: pb.ExchangeRequest, _call: Any) -> pb.ExchangeResponse:
        """Note what comes, and answer."""
        self.asked.append(list(request.datagrams))
        return pb.ExchangeResponse(responder=encode_origin(Origin(self.name, 7)), datagrams=[b"!"])

    async def Link(self, call: Any) -> None:
        """Answer a link's opening."""
        await call.receive()
        me = MemberInfo(self.name, 7, "127.0.0.1:2", "test")
        await call.send(pb.LinkResponse(me=encode_member(me)))


class Scene:
    """The agent `a`, which dials an agent that has the certificate of `x`, or without TLS none."""

    def __init__(
        self, bridge: Bridge, claiming: Claiming, port: int, credentials: Credentials | None
    ) -> None:
        self.claiming = claiming
        self.address = f"127.0.0.1:{port}"
        self.refused: Counter[str] = Counter()
        self._bridge = bridge
        self._credentials = credentials
        self._clock = BootClock()
        self.roster = Roster(ME, {}, self._clock.now, lambda _name, _data: True)

    def dial(self, address: str, name: str | None) -> GrpcPeer:
        def refused(rpc: str) -> None:
            self.refused[rpc] += 1

        return GrpcPeer(
            self._bridge, address, "test", refused, credentials=self._credentials, name=name
        )

    def at(self, _address: str) -> None:
        """No link is open."""

    async def ask(self) -> str:
        """Exchange with whoever is there; give who has answered."""
        async with trio.open_nursery() as nursery:
            exchanging = Exchanging(self.roster, self, self.dial, self._clock, nursery)  # type: ignore[arg-type]
            try:
                return (await exchanging.ask(self.address, [b"?"], 10.0)).responder.name
            except RpcFailed as error:
                return error.code


@asynccontextmanager
async def scene(folder: Path, name: str, *, tls: bool = True) -> AsyncIterator[Scene]:
    """Let the agent with the certificate of `x` call itself `name`."""
    authority, claiming = Authority(folder), Claiming(name)
    ours, theirs = (
        Credentials(authority.issue(identity(f"agent/{who}")).tls, time.time) for who in "ax"
    )
    async with open_bridge() as bridge:
        server = await bridge.serve(
            [(PEER, claiming)],
            ["127.0.0.1:0"],
            **({"credentials": theirs.server()} if tls else {}),
        )
        yield Scene(bridge, claiming, server.ports[0], ours if tls else None)


@pytest.mark.bad_input(46)
@pytest.mark.parametrize("tls", [True, False])
async def test_an_answer_in_the_name_of_another_is_refused_and_counted(
    tmp_path: Path, *, tls: bool
) -> None:
    async with scene(tmp_path, "b", tls=tls) as at:
        peer = at.dial(at.address, "x")
        with pytest.raises(Misnamed, match="b has answered, not x"):
            await peer.exchange(ME, [b"?"], 10.0)
        with pytest.raises(Misnamed, match="b has answered, not x"):
            async with peer.link(ME, urgent=False):
                pass
        await peer.aclose()
        assert at.refused == {"Exchange": 1, "Link": 1}
        at.claiming.name = "x"
        peer = at.dial(at.address, "x")
        assert (await peer.exchange(ME, [b"?"], 10.0)).responder.name == "x"
        async with peer.link(ME, urgent=False) as link:
            assert link.peer.name == "x"
        await peer.aclose()


@pytest.mark.parametrize("known", ["nobody", "x", "b"])
async def test_who_has_the_certificate_of_another_is_never_believed(
    tmp_path: Path, known: str
) -> None:
    async with scene(tmp_path, "b") as at:
        if known != "nobody":
            at.roster.take(News(known, 7, 1, Status.ALIVE, at.address))
        assert await at.ask() == "UNAVAILABLE"
        told = [asked for asked in at.claiming.asked if asked]
        assert len(told) == (known == "x"), "who dials by a name that is not shown tells nothing"
        at.claiming.name = "x"
        assert await at.ask() == "x"


@pytest.mark.parametrize("tls", [True, False])
async def test_an_agent_that_took_over_an_address_is_found(tmp_path: Path, *, tls: bool) -> None:
    async with scene(tmp_path, "x", tls=tls) as at:
        at.roster.take(News("b", 7, 1, Status.DEAD, at.address))
        assert await at.ask() == "x"
