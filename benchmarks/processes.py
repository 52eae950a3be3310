"""The processes of a benchmark: started with a pipe to each, ended with the benchmark, waited for with a limit."""

from __future__ import annotations

import multiprocessing as mp
import socket
import time
from typing import Any

SPAWN = mp.get_context("spawn")
"""For whatever uses gRPC: nothing of it may be forked."""
FORK = mp.get_context("forkserver")
"""For many small processes: the imports are made once."""


class Worker:
    """A process that talks to us over a pipe; killed at the end of the `with`."""

    def __init__(self, body: Any, *arguments: Any, context: Any = SPAWN) -> None:
        self.pipe, self._theirs = context.Pipe()
        self.process = context.Process(target=body, args=(self._theirs, *arguments), daemon=True)

    def __enter__(self) -> Worker:
        self.process.start()
        self._theirs.close()  # so that the end of the process is the end of the pipe
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join(10)
        self.pipe.close()

    def send(self, question: Any) -> None:
        self.pipe.send(question)

    def receive(self, timeout: float = 120.0) -> Any:
        """Give the next answer; ends the benchmark when none comes in so many seconds."""
        if not self.pipe.poll(timeout):
            raise SystemExit(f"{self.process.name} did not answer within {timeout:.0f} s")
        return self.pipe.recv()


def free_port() -> int:
    """Give a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(probe: Any, timeout: float, interval: float = 0.01) -> None:
    """Look again and again until `probe` gives something true."""
    deadline = time.monotonic() + timeout
    while not probe():
        if time.monotonic() > deadline:
            raise SystemExit(f"not reached within {timeout:.0f} s")
        time.sleep(interval)
