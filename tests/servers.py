"""Real servers for tests: started on free ports of this machine, and stopped by the id they got."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from integration.polling import poll


def require(command: str) -> None:
    """Skip the test where a server is not installed; in CI, where all are, fail it."""
    if shutil.which(command) is None:
        reason = f"{command} is not installed (make test-servers installs it)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


PORTS = range(10_000, 32_000)
"""Below those that the system gives to outgoing connections: a server that is down keeps its port."""


def free_port() -> int:
    """Give a port that nobody listens on at the moment, and that no connection takes later."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class RedisServer:
    """A redis-server that keeps its port and folder over restarts; saves only when it is told to."""

    def __init__(self, folder: Path, arguments: tuple[str, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._arguments = arguments

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def dump(self) -> Path:
        """Where SAVE writes to, and what is loaded at the start."""
        return self.folder / "dump.rdb"

    def start(self) -> None:
        """Start it and wait until it answers; another program may have taken the port meanwhile."""
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            "unixsocket": str(self.folder / "redis.sock"),
            "logfile": str(self.folder / "redis.log"),
            "enable-debug-command": "yes",
            "repl-diskless-sync-delay": "0",
        }
        command = ["redis-server", *(word for k, v in settings.items() for word in (f"--{k}", v))]
        self.process = subprocess.Popen([*command, *self._arguments])
        poll(self._answers, f"redis-server on port {self.port}")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError((self.folder / "redis.log").read_text())
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(64)
        except OSError:
            return False
        return answer.startswith((b"+PONG", b"-NOAUTH"))

    def stop(self) -> None:
        """Stop it as an operator does; without `save` in its arguments nothing is saved."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(timeout=30)
            self.process = None

    def freeze(self) -> None:
        """Let it hang: connections are accepted by the kernel, and nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(folder: Path, *extra_args: str) -> Iterator[RedisServer]:
    """Run a redis-server that keeps its files in `folder`."""
    require("redis-server")
    server = RedisServer(folder, extra_args)
    try:
        server.start()
        yield server
    finally:
        server.kill()
