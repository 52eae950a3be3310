"""A Redis that is away, hangs, refuses, crashes halfway or comes back as an older copy."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import trio
from caches import RedisCache, at, batch, key, prefix, tag
from integration.polling import poll, poll_async
from servers import free_port, redis_server

from coherd.errors import HandlerFailed
from coherd.handlers import CursorMoved
from coherd.model import EVERYTHING


@pytest.fixture
def server(tmp_path):
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
def cache(server):
    cache = RedisCache(server)
    yield cache
    cache.client.close()


async def test_a_server_that_is_away_fails_and_works_again_when_it_is_back(cache, server) -> None:
    handler = cache.handler()
    await handler.connect()
    await handler.apply([], at(1))
    server.stop()
    with pytest.raises(HandlerFailed, match=r"redis 127\.0\.0\.1:\d+: "):
        await handler.apply([batch(key(b"1"))], at(2))
    for _ in range(3):
        with pytest.raises(HandlerFailed, match=r"cannot connect: .*refused"):
            await handler.connect()
    server.start()
    cache.put(b"1")
    assert await handler.connect() == (None, True)
    await handler.apply([batch(key(b"1"))], at(2))
    assert cache.names() == set()
    await handler.aclose()


async def test_a_connection_that_was_lost_is_not_replaced_silently(cache) -> None:
    handler = cache.handler()
    await handler.connect()
    await handler.apply([], at(1))
    cache.client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(HandlerFailed, match=r"lost|closed|not usable"):
        await handler.apply([], at(1))
    with pytest.raises(HandlerFailed, match="not connected"):
        await handler.apply([], at(1))
    assert (await handler.connect()).cursor == at(1)
    await handler.aclose()


@pytest.mark.bad_input(74)
async def test_a_server_that_hangs_fails_within_the_timeouts(cache, server) -> None:
    handler = cache.handler(connect_timeout=0.2, command_timeout=0.2)
    await handler.connect()
    await handler.apply([], at(1))
    server.freeze()
    with trio.fail_after(5):
        with pytest.raises(HandlerFailed, match=r"timed out after 0\.2 seconds"):
            await handler.apply([batch(*(key(b"%d" % n) for n in range(5_000)))], at(2))
        with pytest.raises(HandlerFailed, match=r"no answer within 0\.2 s"):
            await handler.connect()
        await handler.aclose()
    server.thaw()
    await handler.connect()
    await handler.aclose()


@pytest.mark.bad_input(74)
async def test_something_that_is_no_redis_is_told_in_one_line(cache) -> None:
    async def speak_http(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            trio.serve_tcp,
            speak_http,
            0,
        )
        port = listeners[0].socket.getsockname()[1]
        handler = cache.handler(url=f"redis://:s3cret@127.0.0.1:{port}")
        with pytest.raises(HandlerFailed, match="cannot connect: ") as failed:
            await handler.connect()
        assert "s3cret" not in str(failed.value)
        nursery.cancel_scope.cancel()


async def test_a_password_that_an_old_server_quotes_is_not_passed_on(cache) -> None:
    async def refuse_hello(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        quoted = b"with args beginning with: `3`, `AUTH`, `default`, `s3cret`,"
        await stream.send_all(b"-ERR unknown command `HELLO`, %b\r\n" % quoted)
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, refuse_hello, 0)
        port = listeners[0].socket.getsockname()[1]
        handler = cache.handler(url=f"redis://:s3cret@127.0.0.1:{port}")
        with pytest.raises(HandlerFailed, match="Redis 6 or Valkey 7 is the least") as failed:
            await handler.connect()
        assert "s3cret" not in str(failed.value)
        assert failed.value.__cause__ is None
        nursery.cancel_scope.cancel()


@pytest.mark.bad_input(74)
async def test_no_cursor_is_written_when_a_delete_was_refused(tmp_path) -> None:
    with redis_server(tmp_path, "--rename-command", "UNLINK", "") as server:
        cache = RedisCache(server)
        cache.put(b"1")
        handler = cache.handler()
        for row in (key(b"1"), prefix(b"1"), EVERYTHING, tag(b"1")):
            cache.client.sadd("tag:shop:1", "shop:1")
            await handler.connect()
            with pytest.raises(HandlerFailed, match=r"unknown command|Unknown Redis command"):
                await handler.apply([batch(row)], at(1))
            assert await handler.connect() == (None, True)
        await handler.aclose()
        cache.client.close()


async def test_memory_that_is_used_up_is_a_failure_until_there_is_some_again(cache) -> None:
    handler = cache.handler()
    await handler.connect()
    cache.put(b"1")
    cache.client.config_set("maxmemory-policy", "noeviction")
    cache.client.config_set("maxmemory", 1)
    with pytest.raises(HandlerFailed, match="OOM command not allowed"):
        await handler.apply([batch(key(b"1"))], at(1))
    assert cache.names() == set(), "deletes free memory and are let through"
    assert (await handler.connect()).cursor is None
    with pytest.raises(HandlerFailed, match="OOM"):
        await handler.apply([batch(EVERYTHING)], at(1))
    cache.client.config_set("maxmemory", 0)
    await handler.connect()
    await handler.apply([batch(key(b"1"))], at(1))
    assert (await handler.connect()).cursor == at(1)
    await handler.aclose()


async def test_a_read_only_replica_is_refused_by_name(cache, tmp_path) -> None:
    handler = cache.handler()
    await handler.connect()
    await handler.apply([], at(1))
    primary = f"127.0.0.1 {cache.server.port}"
    with redis_server(tmp_path / "replica", "--replicaof", primary) as server:
        replica = RedisCache(server)
        poll(lambda: replica.client.info()["master_link_status"] == "up", "the replica's sync")
        behind = replica.handler()
        assert await behind.connect() == (at(1), False)
        await behind.apply([], at(1))
        for rows in ([], [batch(key(b"1"))], [batch(prefix(b"1"))]):
            with pytest.raises(HandlerFailed, match="a read-only replica; name the primary"):
                await behind.apply(rows, at(2))
            assert (await behind.connect()).cursor == at(1)
        await behind.aclose()
        replica.client.close()
    await handler.aclose()


async def test_a_failover_under_the_connection_is_noticed(cache, tmp_path) -> None:
    """The server becomes a replica of one that lags, then the primary again."""
    with redis_server(tmp_path / "other") as other:
        handler = cache.handler()
        await handler.connect()
        await handler.apply([], at(1))
        cache.client.replicaof("127.0.0.1", other.port)
        poll(lambda: cache.client.info()["master_link_status"] == "up", "the replica's sync")
        cache.client.replicaof("no", "one")
        with pytest.raises(HandlerFailed):
            await handler.apply([batch(key(b"1"))], at(2))
        assert (await handler.connect()).cursor is None
        await handler.aclose()


async def test_a_server_that_is_still_loading_fails(cache) -> None:
    cache.put_many(b"%d" % n for n in range(6_000))
    cache.client.config_set("loading-process-events-interval-bytes", 1024)
    cache.client.config_set("key-load-delay", 100)
    handler = cache.handler()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, cache.client.execute_command, "DEBUG RELOAD")
        await poll_async(cache.is_loading, "the server to load")
        with pytest.raises(HandlerFailed, match="it is still loading its data"):
            await handler.connect()
    assert (await handler.connect()).warm
    await handler.aclose()


async def test_an_older_copy_at_the_start_gives_the_older_cursor(cache, server) -> None:
    handler = cache.handler()
    await handler.connect()
    cache.put(b"1")
    await handler.apply([], at(1))
    cache.client.save()
    shutil.copy(server.dump, server.folder / "older.rdb")
    await handler.apply([batch(key(b"1"))], at(2))
    cache.client.save()
    server.stop()
    shutil.copy(server.folder / "older.rdb", server.dump)
    server.start()
    with pytest.raises(HandlerFailed):
        await handler.apply([batch(key(b"2"))], at(3))
    assert await handler.connect() == (at(1), True)
    await handler.apply([batch(key(b"1"), key(b"2"))], at(3))
    assert cache.names() == set()
    await handler.aclose()


async def test_an_older_copy_under_the_open_connection_is_noticed(cache) -> None:
    handler = cache.handler()
    await handler.connect()
    await handler.apply([], at(1))
    cache.client.save()
    await handler.apply([], at(2))
    cache.client.execute_command("DEBUG", "RELOAD", "NOSAVE")
    with pytest.raises(CursorMoved, match="holds 'here/1/1' instead"):
        await handler.apply([batch(key(b"1"))], at(3))
    assert (await handler.connect()).cursor == at(1)
    await handler.aclose()


@pytest.mark.parametrize(
    "rows", [[prefix(b"1")], [tag(b"1")], [key(b"%d" % n) for n in range(10_000)]], ids=len
)
async def test_a_copy_with_the_same_cursor_but_before_the_deletes_is_noticed(cache, rows) -> None:
    handler = cache.handler()
    await handler.connect()
    await handler.apply([], at(1))
    cache.put(b"1", tags=[b"1"])
    cache.client.save()
    drop = handler._drop

    async def drop_and_reload(*args) -> None:
        await drop(*args)
        assert b"1" not in cache.names()
        cache.client.execute_command("DEBUG", "RELOAD", "NOSAVE")

    handler._drop = drop_and_reload
    with pytest.raises(CursorMoved):
        await handler.apply([batch(*rows)], at(2))
    handler._drop = drop
    assert await handler.connect() == (at(1), True)
    await handler.apply([batch(*rows)], at(2))
    assert await handler.connect() == (at(2), False)
    await handler.aclose()


@pytest.mark.bad_input(74)
async def test_a_crash_halfway_leaves_the_older_cursor(tmp_path) -> None:
    with redis_server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        cache = RedisCache(server)
        handler = cache.handler()
        await handler.connect()
        await handler.apply([], at(1))
        for start in range(0, 100_000, 10_000):
            cache.put_many(b"%d" % n for n in range(start, start + 10_000))
        full = cache.client.dbsize()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_failure, handler, [batch(EVERYTHING)])
            await poll_async(lambda: cache.client.dbsize() < full, "the first deletes")
            server.kill()
        server.start()
        left = len(cache.names())
        assert 0 < left < 100_000
        assert await handler.connect() == (at(1), True)
        await handler.apply([batch(EVERYTHING)], at(2))
        assert await handler.connect() == (at(2), False)
        await handler.aclose()
        cache.client.close()


async def expect_failure(handler, rows) -> None:
    with pytest.raises(HandlerFailed):
        await handler.apply(rows, at(2))


@pytest.fixture
def certificates(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(
        [*make, "-nodes", "-days", "2", *subject, *files], check=True, capture_output=True
    )
    return tmp_path / "cert.pem", tmp_path / "key.pem"


async def test_tls(tmp_path, certificates) -> None:
    certificate, private = map(str, certificates)
    port = free_port()
    tls = ("--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", private)
    with redis_server(tmp_path / "redis", *tls, "--tls-ca-cert-file", certificate) as server:
        cache = RedisCache(server)
        cache.put(b"1")
        mine = f"ssl_certfile={certificate}&ssl_keyfile={private}"
        handler = cache.handler(
            url=f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}&{mine}"
        )
        await handler.connect()
        await handler.apply([batch(key(b"1"), prefix(b"2"))], at(1))
        assert cache.names() == set()
        await handler.aclose()
        refused = {
            f"rediss://127.0.0.1:{port}?{mine}": "certificate verify failed",
            f"rediss://localhost:{port}?ssl_ca_certs={certificate}&{mine}": "match|mismatch",
            f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}": "cannot connect",
            f"rediss://127.0.0.1:{port}?ssl_ca_certs=/nowhere": "No such file",
            f"redis://127.0.0.1:{port}": "cannot connect",
        }
        for url, said in refused.items():
            with pytest.raises(HandlerFailed, match=said):
                await cache.handler(url=url).connect()
        handler = cache.handler(url=f"rediss://localhost:{port}?ssl_cert_reqs=none&{mine}")
        await handler.connect()
        await handler.aclose()
        cache.client.close()
