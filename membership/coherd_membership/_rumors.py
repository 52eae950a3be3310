"""News on its way: what is still to be passed on, and what goes along with the next message.

Each piece of news is passed on a number of times that grows with the logarithm of the cluster (SWIM §4.1:
infection-style dissemination); what was passed on least goes first, so that new news overtakes old. There
is one piece for each member: later news takes the place of earlier.
"""

from __future__ import annotations

from math import ceil, log2
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from coherd_membership._config import SwimConfig


class Rumors:
    """Encoded news by the name it is about, and by how often it was sent."""

    def __init__(self, config: SwimConfig) -> None:
        self._multiplier = config.rumor_multiplier
        self._bytes_max = config.datagram_bytes_max // 2
        self._levels: dict[int, dict[str, bytes]] = {}
        """By the number of times sent; none is empty."""

    def __len__(self) -> int:
        return sum(map(len, self._levels.values()))

    def __bool__(self) -> bool:
        return bool(self._levels)

    def __contains__(self, name: str) -> bool:
        return any(name in rumors for rumors in self._levels.values())

    def add(self, name: str, encoded: bytes) -> None:
        """Pass on news of a member, in the place of what was said of it before.

        What takes over half a message is left to full exchanges: it would hold up all that comes after it.
        """
        self.discard(name)
        if len(encoded) <= self._bytes_max:
            self._levels.setdefault(0, {})[name] = encoded

    def discard(self, name: str) -> None:
        """Pass on nothing more of a member."""
        for level, rumors in self._levels.items():
            if name in rumors:
                self._remove(level, (name,))
                return

    def take(self, room: int, members: int, name: str = "", first: bytes = b"") -> list[bytes]:
        """Give what goes along in `room` bytes of a message, and count it as sent.

        `first`, about `name`, goes before all others, and beside the count: what the receiver has to know.
        """
        room -= len(first)
        chosen: list[tuple[int, dict[str, bytes]]] = []
        for level in sorted(self._levels):
            rumors = self._levels[level]
            size = sum(map(len, rumors.values()))
            chosen.append((level, rumors if size <= room else _fitting(rumors, room)))
            room -= size
            if room < 0:
                break
        limit = ceil(self._multiplier * log2(members + 1))
        for level, rumors in reversed(chosen):  # upwards: what has gone up stays where it is
            self._remove(level, rumors)
            if rumors and level + 1 < limit:
                self._levels.setdefault(level + 1, {}).update(rumors)
        return [first] * bool(first) + [
            encoded for _, rumors in chosen for other, encoded in rumors.items() if other != name
        ]

    def _remove(self, level: int, names: Collection[str]) -> None:
        rumors = self._levels[level]
        if len(names) == len(rumors):
            del self._levels[level]
        else:
            for name in names:
                del rumors[name]


def _fitting(rumors: dict[str, bytes], room: int) -> dict[str, bytes]:
    """Give the first of some news, as many as there is room for."""
    fitting = {}
    for name, encoded in rumors.items():
        room -= len(encoded)
        if room < 0:
            break
        fitting[name] = encoded
    return fitting
