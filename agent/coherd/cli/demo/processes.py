"""The processes of `coherd demo`: started on free ports, watched, ended by their ids on every way out."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import click
import trio

from coherd.cli.output import escaped
from coherd.errors import CoherdError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

LOOPBACK = "127.0.0.1"
POLL_INTERVAL = 0.02
"""Seconds between two looks at whether something answers."""
START_TIMEOUT = 15.0
"""Seconds that a process is given until it answers."""
DEATH_NOTICED_WITHIN = 1.0
"""Seconds."""
LOG_LINES = 8
"""Lines of a log that are shown when its process died."""
LOG_LINE_MAX = 200
"""Characters of each of them."""


class DemoFailed(CoherdError):
    """The demo cannot go on; the text is one line for people."""


class ChildDied(DemoFailed):
    """A process of the demo ended by itself."""


class Child:
    """A process that may be started again under the same name, with one log over all its lives."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._process: trio.Process | None = None

    async def start(self, nursery: trio.Nursery) -> None:
        """Start it; should it end by itself, ChildDied is raised in the nursery."""
        # A process group of its own: Ctrl-C on the terminal is for the demo, which ends the others.
        # What COHERD_* says is meant for another agent.
        with self.log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                list(self._command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={k: v for k, v in os.environ.items() if not k.startswith("COHERD_")},
                process_group=0,
            )
        nursery.start_soon(self._watch, self._process)

    async def kill(self) -> None:
        """End it at once, as a crash does, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            await process.wait()

    async def _watch(self, process: trio.Process) -> None:
        code = await process.wait()
        if process is self._process:
            self._process = None
            click.echo(f"the last lines of the log of {self.name}:", err=True)
            for line in self.log.read_text(errors="backslashreplace").splitlines()[-LOG_LINES:]:
                click.echo(f"  {escaped(line[:LOG_LINE_MAX])}", err=True)
            raise ChildDied(f"{self.name} {_ended(code)}: its log, above, says why; then try again")


def _ended(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


@asynccontextmanager
async def ended(children: Sequence[Child]) -> AsyncIterator[None]:
    """End the children at the end, whatever it comes from."""
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for child in children:
                    nursery.start_soon(child.kill)


async def let_a_death_explain() -> None:
    """Give a process that ended the time to be noticed: it says more than whoever was cut off by it."""
    with trio.move_on_after(DEATH_NOTICED_WITHIN):
        await trio.sleep_forever()


def free_ports(count: int) -> list[int]:
    """Give so many different ports that nobody listens on at the moment."""
    with ExitStack() as stack:
        ports = []
        for _ in range(count):
            probe = stack.enter_context(socket.socket())
            probe.bind((LOOPBACK, 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


def find_redis_server() -> str:
    """Give the path of redis-server. Raises DemoFailed where none is installed."""
    path = shutil.which("redis-server") or shutil.which("valkey-server")
    if path is None:
        raise DemoFailed(
            "redis-server is not installed: install it (`apt-get install redis-server`), "
            "or run the demo without --redis"
        )
    return path
