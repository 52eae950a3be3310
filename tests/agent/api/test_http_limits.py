"""How long the HTTP server waits for a client, how long it keeps it, and how many it keeps."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from http_site import LONG, Site, all_closed, begin_long_answer, cut_off_after, read_all

from coherd.api import http_server


@pytest.fixture
async def site(nursery: trio.Nursery) -> Site:
    site = Site(nursery)
    await site.open()
    return site


async def test_a_client_that_does_not_receive_does_not_hold_up_the_stop(site: Site) -> None:
    stream = await begin_long_answer(site)
    async with stream:
        with trio.fail_after(5):
            await site.server.stop(0.1)
        assert len(await read_all(stream)) < LONG


async def test_a_client_that_does_not_receive_does_not_hold_up_a_crash() -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            site = Site(nursery)
            await site.open()
            stream = await begin_long_answer(site)
            nursery.cancel_scope.cancel()
        await stream.aclose()


async def test_a_client_that_does_not_receive_is_cut_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "SEND_MAX", 0.2)
    stream = await begin_long_answer(site)
    async with stream:
        await all_closed(site)
        assert len(await read_all(stream)) < LONG
    assert await site.ask("GET /livez") == (200, "ok\n")


async def test_a_running_answer_is_given_its_time_by_the_stop(site: Site) -> None:
    stream = await begin_long_answer(site)
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(site.server.stop, 10)
        assert len(await read_all(stream)) > LONG
    with pytest.raises(OSError, match="failed"):
        await site.connect()


async def test_an_idle_connection_does_not_hold_up_the_stop(site: Site) -> None:
    stream = await site.connect()
    async with stream:
        await stream.send_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert await stream.receive_some(1000)
        with trio.fail_after(5):
            await site.server.stop(60)


async def test_an_idle_connection_is_closed_in_time(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "IDLE_MAX", 0.1)
    site = Site(nursery)
    await site.open()
    await cut_off_after(site, b"", b"GET /livez HT")


async def test_a_connection_is_not_kept_for_ever(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "CONNECTION_AGE_MAX", 0.1)
    monkeypatch.setattr(http_server, "IDLE_MAX", 60.0)
    stream = await site.connect()
    async with stream:
        with trio.fail_after(5), suppress(trio.BrokenResourceError):
            while True:  # it is never idle for long
                await stream.send_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
                if not await stream.receive_some():
                    break
    stream = await site.connect()
    async with stream:
        await read_all(stream)


async def test_an_answer_is_finished_on_a_connection_that_is_old(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "IDLE_MAX", 60.0)
    stream = await begin_long_answer(site)
    async with stream:
        (connection,) = site.server._open
        connection._old_at = trio.current_time()
        assert (await read_all(stream)).endswith("\ntoy 1.0\n")


async def test_an_answer_without_end_is_cut_off_in_time(site: Site) -> None:
    stream = await begin_long_answer(site)
    async with stream:
        (connection,) = site.server._open
        assert connection.scope.deadline == connection._old_at + http_server.CONNECTION_GRACE
        connection.scope.deadline = trio.current_time()
        await all_closed(site)
        assert len(await read_all(stream)) < LONG


async def test_one_connection_too_many_closes_the_oldest(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS_MAX", 3)
    first = await site.connect()
    others = [await site.connect() for _ in range(2)]
    assert await site.ask("GET /livez") == (200, "ok\n")
    assert await read_all(first) in {"", "reset"}
    for stream in others:
        await stream.send_all(
            b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
        assert (await read_all(stream)).endswith("ok\n")
