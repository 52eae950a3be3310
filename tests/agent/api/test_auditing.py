"""What doors keep of the calls that come: how those ended that ask for much, and which denials are logged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from certificates import identity
from gated import Door, Servicer, door
from integration.polling import poll_async
from structlog.testing import capture_logs

from coherd.api import auditing
from coherd.api.auditing import PERIOD_US, Records
from coherd.api.authorization import LocalGate
from coherd.api.services import ADMIN, CACHE
from coherd.audit_lines import WHO_MAX, Event, Kind
from coherd.cluster.protection import Protection
from coherd.errors import InvalidRequest, Overloaded, RpcFailed
from coherd.grants import Grant, Verb
from coherd.limits import LOG_TEXT_MAX
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


# ------------------------------------------------------------------ the agent's log


class Denials:
    """Records whose clock is put by hand, and what they log."""

    def __init__(self, logs: list[Any]) -> None:
        self.logs = logs
        self.now_us = 1_760_000_000_000_000
        self.records = Records(Protection(), lambda: self.now_us)

    def refuse(self, who: str, why: str = "no certificate was shown", rpc: str = "Join") -> int:
        """Refuse somebody; give how many lines that was."""
        before = len(self.logs)
        self.records.refused(who, rpc, why)
        return len(self.logs) - before


@pytest.fixture
def denials() -> Iterator[Denials]:
    with capture_logs() as logs:
        yield Denials(logs)


@pytest.mark.parametrize(
    "peer",
    ["local ipv4:127.0.0.1:{}", "ipv4:10.0.0.1:{}", "ipv6:%5B::1%5D:{}", "http [2001:db8::1]:{}"],
)
def test_the_connections_of_one_stranger_are_one_denial(denials: Denials, peer: str) -> None:
    assert [denials.refuse(peer.format(40_000 + n)) for n in range(3)] == [1, 0, 0]
    assert denials.refuse(peer.replace("1:", "2:").replace("1%", "2%").replace("1]", "2]")) == 1
    assert denials.refuse(peer.format(40_000), why="another") == 1
    assert denials.refuse(peer.format(40_000), rpc="Forget") == 1


def test_strangers_by_the_thousand_silence_the_log_for_a_while_alone(denials: Denials) -> None:
    count = auditing.DENIALS_LOGGED_MAX
    for n in range(2 * count):
        denials.refuse(f"ipv4:10.0.{n // 256}.{n % 256}:1")
    assert len(denials.logs) == count + 1
    assert denials.logs[-1]["event"].startswith("different denials are not logged for a while")
    denials.now_us += PERIOD_US - 1
    assert denials.refuse("ipv4:10.1.0.1:1") == 0
    denials.now_us += 1
    assert [denials.refuse("ipv4:10.1.0.1:1") for _ in range(2)] == [1, 0]


def test_a_denial_is_logged_again_after_a_while_and_when_the_clock_is_put_back(
    denials: Denials,
) -> None:
    assert [denials.refuse("unix:") for _ in range(2)] == [1, 0]
    denials.now_us += PERIOD_US
    assert [denials.refuse("unix:") for _ in range(2)] == [1, 0]
    denials.now_us -= 10 * PERIOD_US
    assert [denials.refuse("unix:") for _ in range(2)] == [1, 0]


def test_what_is_remembered_of_a_denial_is_short(denials: Denials) -> None:
    for n in range(3):
        denials.refuse("w" * 1000, "y" * 100_000 + str(n), "r" * 1000)
    assert len(denials.logs) == 1
    (kept,) = denials.records._logged
    assert sum(map(len, kept)) == WHO_MAX + 2 * LOG_TEXT_MAX


def test_two_identities_that_differ_at_the_end_are_two(denials: Denials) -> None:
    trust = f"spiffe://{'x' * 255}/cluster/prod/client"
    assert [denials.refuse(f"{trust}/{name}") for name in ("a", "b", "b")] == [1, 1, 0]
