"""kinship's broadcast (SWIM in Rust for Python): N members, a process each, LAN profile.

The sender is one of the N, so N - 1 receive.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import networks
from processes import free_port, wait_until

LABEL = "kinship broadcast"
SHARE = 0.0
IS_BROKER = False


def missing() -> str:
    """Tell what is missing; empty when nothing is."""
    return "" if find_spec("kinship") else "no kinship (make bench-servers)"


@contextmanager
def running(count: int, _place: networks.Host | None = None) -> Iterator[list[int]]:
    """Give the ports of the members: the last is the sender's."""
    yield [free_port() for _ in range(count)]


def _member(ports: list[int], number: int) -> Any:
    import kinship
    from kinship import blocking

    logging.getLogger("kinship").setLevel(logging.ERROR)
    kinship.log_to_python()
    config = kinship.Config.lan(
        name=f"bench-{number}",
        bind=f"127.0.0.1:{ports[number]}",
        seeds=[f"127.0.0.1:{ports[0]}"] if number else [],
        insecure_plaintext=True,
    )
    return blocking.Cluster(config).start()


def listen(
    ports: list[int], number: int, note: Callable[[bytes], None], ready: Callable[[], None]
) -> None:
    """The body of one member; the one whose number is the sender's only says that it is there."""
    if number == len(ports) - 1:
        ready()
        return
    cluster = _member(ports, number)
    events = cluster.events()
    wait_until(lambda: len(cluster.members()) >= len(ports) - 1, 60, 0.1)
    ready()
    for event in events:
        if type(event).__name__ == "UserMessage":
            note(event.data)


class Sender:
    """The member that broadcasts."""

    def __init__(self, ports: list[int]) -> None:
        self._cluster = _member(ports, len(ports) - 1)
        wait_until(lambda: len(self._cluster.members()) >= len(ports), 60, 0.1)

    def send(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._cluster.broadcast(key)

    def drain(self) -> None:
        """A broadcast is on its way once the call is back."""
