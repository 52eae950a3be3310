"""The processes of a benchmark: started with a pipe to each, waited for with a limit, ended with us."""

from __future__ import annotations

import ctypes
import multiprocessing as mp
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

SPAWN = mp.get_context("spawn")
"""For whatever uses gRPC: nothing of it may be forked."""
FORK = mp.get_context("forkserver")
"""For many small processes: the imports are made once."""


PR_SET_PDEATHSIG = 1


def belong() -> None:
    """Make the calling process end with its parent, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def server(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the `with`; Ctrl-C reaches it only through us."""
    process = subprocess.Popen(
        command,
        start_new_session=True,
        preexec_fn=belong,  # noqa: PLW1509 - nothing but one system call
        **options,
    )
    try:
        yield process
    finally:
        if process.stdin:
            process.stdin.close()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _run(body: Any, pipe: Any, *arguments: Any) -> None:
    """Run the body of a worker; Ctrl-C is for the benchmark, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    belong()
    body(pipe, *arguments)


class Worker:
    """A process that talks to us over a pipe; killed at the end of the `with`."""

    def __init__(self, body: Any, *arguments: Any, context: Any = SPAWN) -> None:
        self.pipe, self._theirs = context.Pipe()
        self.process = context.Process(
            target=_run, args=(body, self._theirs, *arguments), daemon=True
        )

    def __enter__(self) -> Self:
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
