"""The proxies of a soak, in one process of their own, so that nothing else that a soak does holds them up.

Started as `-m soak.proxying PAUSE TARGET,… NAME=PIDFILE …`: it prints a port for each target, then obeys
lines of JSON, and prints a line for each when it has. All that agents say to each other goes through it:
it gathers what comes within `PAUSE`, as a link with that delay does, and moves it at once.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from integration.forwarding import Forwarder
from integration.proxy import Proxy

HERE = Path(__file__).parent
PAUSE = 0.002
"""Seconds, on average half of which are added to each way."""
DONE = "done"
PRIORITY = -10
"""What is added to the niceness, where that is allowed: agents that are short of processors must not become
agents that are cut off."""


class Neighbour:
    """An agent that may open connections, known by the file that holds its process's id."""

    def __init__(self, name: str, pid_file: Path) -> None:
        self.name = name
        self._pid_file = pid_file

    @property
    def process(self) -> SimpleNamespace | None:
        """What a proxy asks of an agent's process: its id."""
        try:
            return SimpleNamespace(pid=int(self._pid_file.read_text()))
        except (OSError, ValueError):  # it was not started yet, or is just being started
            return None


class ProxyProcess:
    """Runs the proxies before some agents."""

    def __init__(self, targets: Sequence[int], pid_files: Mapping[str, Path]) -> None:
        """`targets`: the ports of the agents themselves. `pid_files`: by the names of the agents."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "soak.proxying",
                str(PAUSE),
                ",".join(map(str, targets)),
                *(f"{name}={file}" for name, file in pid_files.items()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=HERE.parent,
            text=True,
            bufsize=1,
        )
        self._telling = threading.Lock()
        self.proxies = [RemoteProxy(self, int(port)) for port in self._said().split()]
        """In the order of the targets."""

    def tell(self, *order: Any) -> None:
        """Have something done, and wait until it is."""
        assert self._process.stdin is not None
        with self._telling:
            self._process.stdin.write(json.dumps(order) + "\n")
            said = self._said().strip()
            assert said == DONE, said or "the proxies have died"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class RemoteProxy:
    """A `Proxy` from outside; its verbs, too, wait until they are carried out."""

    def __init__(self, process: ProxyProcess, port: int) -> None:
        self._process = process
        self.port = port
        """Where it listens."""

    def cut(self, names: Sequence[str], *, inward: bool = True, outward: bool = True) -> None:
        self._process.tell(self.port, "cut", names, {"inward": inward, "outward": outward})

    def heal(self, names: Sequence[str]) -> None:
        self._process.tell(self.port, "heal", names, {})

    def reset(self, names: Sequence[str]) -> None:
        self._process.tell(self.port, "reset", names, {})


def main() -> None:
    """Forward until whoever started this process closes its input, or is gone."""
    pause, targets, *neighbours = sys.argv[1:]
    with suppress(PermissionError):
        os.nice(PRIORITY)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    agents = [
        Neighbour(name, Path(file)) for name, _, file in (n.partition("=") for n in neighbours)
    ]
    forwarder = Forwarder(float(pause))
    proxies = [Proxy(int(target), agents, forwarder) for target in targets.split(",")]
    by_port = {proxy.port: proxy for proxy in proxies}
    print(*by_port, flush=True)
    for line in sys.stdin:
        port, verb, names, more = json.loads(line)
        proxy = by_port[port]
        try:
            {"cut": proxy.cut, "heal": proxy.heal, "reset": proxy.reset}[verb](names, **more)
            print(DONE, flush=True)
        except Exception as error:  # the others go on: that no link works is not what is looked for
            print(f"{verb} {names}: {error!r}", flush=True)


if __name__ == "__main__":
    main()
