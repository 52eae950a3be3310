"""How much of a server each has who is known by a certificate: calls, and connections with calls."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coherd.errors import Overloaded
from coherd.limits import IDENTITY_CALLS_MAX, IDENTITY_CONNECTIONS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from coherd.identity import Identity

RETRY_AFTER = 1.0
"""Seconds after which one that has too much under way may try again."""


class Shares:
    """What is under way of everybody."""

    def __init__(self) -> None:
        self._calls: dict[Identity, Counter[str]] = {}
        """Per identity and connection."""

    def take(self, identity: Identity, connection: str) -> AbstractContextManager[None]:
        """Note that a call begins, which ends with what this gives. Raises Overloaded for one too many."""
        calls = self._calls.get(identity, Counter())
        if calls.total() >= IDENTITY_CALLS_MAX:
            raise Overloaded(
                f"{identity.label} has {IDENTITY_CALLS_MAX} calls under way: end some first",
                RETRY_AFTER,
            )
        if connection not in calls and len(calls) >= IDENTITY_CONNECTIONS_MAX:
            raise Overloaded(
                f"{identity.label} has calls on {IDENTITY_CONNECTIONS_MAX} connections: "
                "have its processes share them, or give each a name of its own",
                RETRY_AFTER,
            )
        calls[connection] += 1
        self._calls[identity] = calls
        return self._taken(identity, connection)

    @contextmanager
    def _taken(self, identity: Identity, connection: str) -> Iterator[None]:
        try:
            yield
        finally:
            self._give_back(identity, connection)

    def _give_back(self, identity: Identity, connection: str) -> None:
        calls = self._calls[identity]
        calls[connection] -= 1
        if not calls[connection]:
            del calls[connection]
        if not calls:
            del self._calls[identity]
