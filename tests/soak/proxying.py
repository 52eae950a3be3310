"""A proxy in a process of its own, so that nothing else that a soak does holds up what it forwards.

Started as `-m soak.proxying TARGET NAME=PIDFILE …`: it prints its port, then obeys lines of JSON, and
prints a line for each when it has.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from integration.proxy import Proxy

HERE = Path(__file__).parent


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
    """A `Proxy` from outside; its verbs, too, wait until they are carried out."""

    def __init__(self, target: int, pid_files: Mapping[str, Path]) -> None:
        neighbours = [f"{name}={file}" for name, file in pid_files.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "soak.proxying", str(target), *neighbours],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=HERE.parent,
            text=True,
            bufsize=1,
        )
        self._telling = threading.Lock()

    @cached_property
    def port(self) -> int:
        """Where it listens; known once its process runs."""
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def cut(self, names: Sequence[str], *, inward: bool = True, outward: bool = True) -> None:
        self._tell("cut", names, inward=inward, outward=outward)

    def heal(self, names: Sequence[str]) -> None:
        self._tell("heal", names)

    def reset(self, names: Sequence[str]) -> None:
        self._tell("reset", names)

    def _tell(self, verb: str, names: Sequence[str], **more: Any) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._telling:
            self._process.stdin.write(json.dumps([verb, names, more]) + "\n")
            self._process.stdout.readline()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Forward until whoever started this process closes its input, or is gone."""
    target, *neighbours = sys.argv[1:]
    agents = [
        Neighbour(name, Path(file)) for name, _, file in (n.partition("=") for n in neighbours)
    ]
    proxy = Proxy(int(target), agents)
    verbs: dict[str, Callable[..., None]] = {
        "cut": proxy.cut,
        "heal": proxy.heal,
        "reset": proxy.reset,
    }
    print(proxy.port, flush=True)
    for line in sys.stdin:
        verb, names, more = json.loads(line)
        verbs[verb](names, **more)
        print("done", flush=True)


if __name__ == "__main__":
    main()
