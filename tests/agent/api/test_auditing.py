"""What doors keep of the calls that come: how those ended that ask for much."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from certificates import identity
from gated import Door, Servicer, door
from integration.polling import poll_async

from coherd.api.auditing import Records
from coherd.api.authorization import LocalGate
from coherd.api.services import ADMIN, CACHE
from coherd.audit_lines import Event, Kind
from coherd.errors import InvalidRequest, Overloaded, RpcFailed
from coherd.grants import Grant, Verb
from coherd.net.bridge import Call, methods
from coherd.v1 import admin_service_pb2 as admin
from coherd.v1 import cache_service_pb2 as cache

OPS = "operator/ann"
EVERYTHING = cache.InvalidateRequest(namespace="shop", everything=True, reason="new prices")
GRANTS = [Grant(["client/*"], [Verb.INVALIDATE, Verb.WATCH], ["*"])]


class Refusing(Servicer):
    """Refuses as the real services do, once a call was let through."""

    def __init__(self) -> None:
        self.goes_on = trio.Event()

    async def Forget(self, request: admin.ForgetRequest, _call: Call) -> admin.ForgetResponse:
        if request.name == "alive":
            raise RpcFailed("FAILED_PRECONDITION", "alive is alive")
        return admin.ForgetResponse()

    async def Invalidate(
        self, request: cache.InvalidateRequest, _call: Call
    ) -> cache.InvalidateResponse:
        if request.namespace == "over":
            raise Overloaded("it is over its budget")
        if request.namespace == "":
            raise InvalidRequest("no namespace")
        return cache.InvalidateResponse()

    async def InvalidateProgress(self, _request: Any, call: Any) -> None:
        await call.send(cache.InvalidateProgressResponse())
        await self.goes_on.wait()


@asynccontextmanager
async def opened_door(
    tmp_path: Path, servicer: Refusing, *, asks: bool
) -> AsyncIterator[tuple[Door, Callable[..., Any]]]:
    """Open a door, and give it with a channel of somebody who may do everything there."""
    async with door(tmp_path, GRANTS, servicer=servicer) as opened:
        if asks:

            def channel(label: str) -> Any:
                return opened._channel(opened.authority.issue(identity(label)))

            yield opened, channel
        else:
            gate = LocalGate(None, Records(opened.protection, lambda: 7))
            services = [(CACHE, servicer), (ADMIN, servicer)]
            server = await opened.bridge.serve(services, ["127.0.0.1:0"], gate=gate)
            address = f"127.0.0.1:{server.ports[0]}"
            yield opened, lambda _label: opened.bridge.channel(address)


ORDERS = [
    (ADMIN, "Forget", admin.ForgetRequest(name="dead"), "ok"),
    (ADMIN, "Forget", admin.ForgetRequest(name="alive"), "failed: FAILED_PRECONDITION"),
    (CACHE, "Invalidate", EVERYTHING, "ok"),
    (
        CACHE,
        "Invalidate",
        cache.InvalidateRequest(namespace="over", everything=True),
        "failed: RESOURCE_EXHAUSTED",
    ),
    (CACHE, "Invalidate", cache.InvalidateRequest(tags=[b"t"]), "failed: INVALID_ARGUMENT"),
]


@pytest.mark.parametrize("asks", [True, False])
async def test_what_was_let_through_is_noted_with_how_it_ended(
    tmp_path: Path, *, asks: bool
) -> None:
    async with opened_door(tmp_path, Refusing(), asks=asks) as (opened, channel_of):
        for service, name, request, outcome in ORDERS:
            opened.events.clear()
            channel = channel_of(OPS if service is ADMIN else "client/shop-1")
            call = channel.unary(methods(service)[name], request, timeout=10)
            if outcome == "ok":
                await call
            else:
                with pytest.raises(RpcFailed):
                    await call
            assert [(event.rpc, event.outcome) for event in opened.events] == [(name, outcome)]


@pytest.mark.parametrize("asks", [True, False])
async def test_a_call_that_goes_on_is_noted_when_it_ends(tmp_path: Path, *, asks: bool) -> None:
    servicer = Refusing()
    progress = methods(CACHE)["InvalidateProgress"]
    request = cache.InvalidateProgressRequest(invalidate=EVERYTHING)
    async with opened_door(tmp_path, servicer, asks=asks) as (opened, channel_of):
        events, channel = opened.events, channel_of("client/shop-1")
        async with channel.stream(progress, request) as stream:
            await stream.receive()
            assert events == []
        await poll_async(lambda: events, "the end of a call that the client has cut")
        assert [event.outcome for event in events] == ["failed: CANCELLED"]
        events.clear()
        async with channel.stream(progress, request, timeout=0.5) as stream:
            await stream.receive()
            with pytest.raises(RpcFailed):
                await stream.receive()
        await poll_async(lambda: events, "the end of a call whose time is over")
        assert events[0].outcome in ("failed: DEADLINE_EXCEEDED", "failed: CANCELLED")
        events.clear()
        async with channel.stream(progress, request) as stream:
            await stream.receive()
            servicer.goes_on.set()
            assert await stream.receive() == []
        who = events[0].who
        assert events == [
            Event(
                *(7, Kind.WIDE, who, "InvalidateProgress", "shop", "everything", "ok"),
                why="new prices",
            )
        ]


async def test_who_watches_is_not_noted(tmp_path: Path) -> None:
    async with door(tmp_path) as opened:
        files = opened.authority.issue(identity("client/shop-1"))
        async with opened.watch(files, "shop") as stream:
            await stream.receive()
        (server,) = opened.bridge._servers
        await poll_async(lambda: not server._calls, "the end of the call")
        assert opened.events == []
