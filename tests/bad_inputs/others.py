"""Other members of the cluster that are nowhere on the network: who is dialled is written down, no more."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

from coherd.errors import RpcFailed
from coherd.model import Origin
from coherd.net.peer import ExchangeReply, MemberInfo
from coherd_membership import News, Swim, SwimConfig


class Others:
    """Honest members by address; at every other address nobody answers."""

    def __init__(self, **addresses: str) -> None:
        self.dialled: list[str] = []
        self.cores = {
            address: Swim(
                SwimConfig(),
                name=name, epoch=1, address=address, cluster="test", random=Random(name),
            )
            for name, address in addresses.items()
        }  # fmt: skip

    def dial(self, address: str) -> Other:
        """Give the door to whoever is at an address."""
        self.dialled.append(address)
        return Other(self.cores.get(address))

    def news(self, name: str) -> News:
        """What a member says of itself."""
        (found,) = (core.me for core in self.cores.values() if core.me.name == name)
        return found


class Other:
    """A door behind which somebody answers, but takes no links; or nobody."""

    def __init__(self, core: Swim | None) -> None:
        self._core = core

    async def exchange(
        self, me: MemberInfo, datagrams: Sequence[bytes], timeout: float
    ) -> ExchangeReply:
        """Answer as the member does."""
        core = self._core
        if core is None:
            raise RpcFailed("UNAVAILABLE", "nobody is there")
        for datagram in datagrams:
            core.receive(datagram, me.address, time.monotonic())
        core.events()
        answers = [each.payload for each in core.datagrams() if each.destination == me.address]
        return ExchangeReply(Origin(core.me.name, core.me.epoch), answers, 0)

    @asynccontextmanager
    async def link(self, me: MemberInfo, *, urgent: bool) -> AsyncIterator[None]:
        """Refuse."""
        raise RpcFailed("UNAVAILABLE", "no links here")
        yield

    async def aclose(self) -> None:
        """Close nothing."""
