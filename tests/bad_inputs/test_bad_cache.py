"""A Redis that answers nonsense: nothing counts as applied, and the handler works again afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from integration.polling import poll
from servers import RedisServer, redis_server

from coherd.errors import HandlerFailed
from coherd.handlers.redis import RedisHandler
from coherd.model import Batch, Lane, Origin, Position, Stream

ROWS = Batch(Stream("shop", Origin("a", 1), Lane.NORMAL), ((1, 1),), [b"k1"])
KEY, CURSOR = "shop:1", "coherd:cursor:test:a"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


class Meddler:
    """Stands between handler and Redis; answers in its place when a MULTI comes, if it is told to."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answer: bytes | None = None
        """Instead of Redis's own; a last `!` is the end of the connection."""
        self.meddled = 0

    async def serve(self, client: trio.SocketStream) -> None:
        upstream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with client, upstream, trio.open_nursery() as nursery:
            nursery.start_soon(self._answers, upstream, client, nursery.cancel_scope)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async for data in client:
                    if self.answer is None or b"MULTI" not in data:
                        await upstream.send_all(data)
                        continue
                    self.meddled += 1
                    await client.send_all(self.answer.removesuffix(b"!"))
                    if self.answer.endswith(b"!"):
                        break
            nursery.cancel_scope.cancel()

    async def _answers(
        self, upstream: trio.SocketStream, client: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in upstream:
                await client.send_all(data)
        scope.cancel()


QUEUED = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n"
ANSWERS = {
    "errors": b"-ERR 500 internal error\r\n" * 4,
    "an error in EXEC": QUEUED + b"-EXECABORT Transaction discarded\r\n",
    "nothing": b"",
    "the end": b"!",
    "half an answer": b"+OK\r\n+QUE!",
    "half an answer and silence": QUEUED + b"*2\r\n:1\r\n",
    "no RESP": b"\x00\xff\r\nHTTP/1.1 200 OK\r\n\r\n!",
    "EXEC without an answer": QUEUED + b"*-1\r\n",
    "EXEC with null": QUEUED + b"_\r\n",
    "an empty EXEC": QUEUED + b"*0\r\n",
    "too few answers in EXEC": QUEUED + b"*1\r\n:1\r\n",
    "a number for EXEC": QUEUED + b":1\r\n",
    "a text for EXEC": QUEUED + b"$2\r\nok\r\n",
    "a map for EXEC": QUEUED + b"%1\r\n:1\r\n:2\r\n",
    "a cursor that did not move": QUEUED + b"*2\r\n:1\r\n$6\r\na/1/99\r\n",
    "more than was asked for": (QUEUED + b"*2\r\n:1\r\n:0\r\n") * 3,
    "a list of a billion": QUEUED + b"*1000000000\r\n:1\r\n",
    "a text of a terabyte": QUEUED + b"$1000000000000\r\nx\r\n",
    "a negative length": QUEUED + b"*-7\r\n",
    "an endless depth": QUEUED + b"*1\r\n" * 5_000,
    "control characters": b"-ERR \x1b[31m\x00 boo\r\n" * 4,
}


@pytest.mark.bad_input(74)
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_what_is_no_answer_applies_nothing(server: RedisServer, answer: bytes) -> None:
    meddler = Meddler(server.port)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, host="127.0.0.1")
        (listener,) = await nursery.start(serve, meddler.serve, 0)
        handler = handler_of(f"redis://127.0.0.1:{listener.socket.getsockname()[1]}")
        redis_cli(server, "FLUSHALL")
        await handler.connect()
        await handler.apply([], Position("a", 1, 1))
        redis_cli(server, "SET", KEY, "value")
        meddler.answer = answer
        with trio.fail_after(20), pytest.raises(HandlerFailed) as failed:
            await handler.apply([ROWS], Position("a", 1, 2))
        assert str(failed.value).isprintable()
        assert len(str(failed.value)) < 500
        assert meddler.meddled == 1
        assert redis_cli(server, "HVALS", CURSOR) == "a/1/1", "whatever it answered"
        meddler.answer = None
        assert (await handler.connect()).cursor == Position("a", 1, 1)
        await handler.apply([ROWS], Position("a", 1, 2))
        assert redis_cli(server, "EXISTS", KEY) == "0"
        assert redis_cli(server, "HVALS", CURSOR) == "a/1/2"
        await handler.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.bad_input(74)
async def test_deleted_0_is_an_answer_like_any_other(server: RedisServer) -> None:
    """What is not there needs no deleting."""
    redis_cli(server, "FLUSHALL")
    handler = handler_of(server.url)
    await handler.connect()
    await handler.apply([ROWS], Position("a", 1, 2))
    assert redis_cli(server, "HVALS", CURSOR) == "a/1/2"
    await handler.aclose()


@pytest.mark.bad_input(67)
@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
@pytest.mark.parametrize("kind", ["missing", "empty", "garbage", "directory", "pipe"])
async def test_files_for_tls_that_are_none(tmp_path: Path, option: str, kind: str) -> None:
    wrong = tmp_path / "wrong.pem"
    match kind:
        case "empty":
            wrong.touch()
        case "garbage":
            wrong.write_bytes(b"-----BEGIN CERTIFICATE-----\n\x00\xff\n-----END CERTIFICATE-----\n")
        case "directory":
            wrong.mkdir()
        case "pipe":
            os.mkfifo(wrong)
    more = f"&ssl_certfile={made_certificate(tmp_path)}" if option == "ssl_keyfile" else ""
    handler = handler_of(f"rediss://127.0.0.1:1?{option}={wrong}{more}")
    with trio.fail_after(20), pytest.raises(HandlerFailed, match=r"wrong\.pem") as failed:
        await handler.connect()
    assert str(failed.value).isprintable()
    await handler.aclose()


@pytest.mark.bad_input(67)
async def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    one, other = made_certificate(tmp_path / "one"), made_certificate(tmp_path / "other")
    key = other.with_name("key.pem")
    handler = handler_of(f"rediss://127.0.0.1:1?ssl_certfile={one}&ssl_keyfile={key}")
    with pytest.raises(HandlerFailed, match="a key of another one"):
        await handler.connect()
    await handler.aclose()


def made_certificate(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run([*make, "-nodes", "-subj", "/CN=x", *files], check=True, capture_output=True)
    return folder / "certificate.pem"


def handler_of(url: str) -> RedisHandler:
    return RedisHandler(
        url,
        namespace="shop",
        key="shop:{key}",
        tag=None,
        cluster="test",
        agent="a",
        connect_timeout=2.0,
        command_timeout=0.5,
    )


def redis_cli(server: RedisServer, *command: str) -> str:
    """Ask the real Redis past everybody."""
    line = ["redis-cli", "-p", str(server.port), *command]
    return poll(
        lambda: subprocess.run(line, check=True, capture_output=True, text=True).stdout, "Redis"
    ).strip()
