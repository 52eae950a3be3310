"""The doors of an agent: at which of them everybody shows a certificate, and what happens when one expires.

At a unix socket or a loopback address nobody is asked, unless other agents are met there and `[tls]` is set.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import trio

from coherd.api.auditing import Records
from coherd.api.authorization import CertificateGate, Certified, LocalGate
from coherd.clock import BootClock
from coherd.config import Address
from coherd.net.credentials import Credentials
from coherd.net.obstacles import why_refused, why_unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from google.protobuf.descriptor import ServiceDescriptor

    from coherd.api.token import Token
    from coherd.cluster.agent import Agent
    from coherd.config import AgentConfig, GrantConfig, TlsConfig, UnixSocket
    from coherd.net.bridge import Bridge
    from coherd.net.bridge_server import Server
    from coherd.net.obstacles import Obstacle

CONNECTION_AGE_MS = 600_000
"""Milliseconds after which a connection is replaced by a new one, for which certificates are shown anew."""
LINK_AGE = 480.0
"""Seconds after which an agent opens its links anew by itself, lest they be cut while rows are under way."""
CONNECTION_GRACE_MS = 10_000
"""Milliseconds that calls on the old one are given."""
HANDSHAKE_TIMEOUT_MS = 10_000
"""Milliseconds in which somebody shows a certificate."""
EXPIRY_INTERVAL = 20.0
"""Seconds between two looks at whose certificate has expired."""


TLS_OPTIONS = (
    ("grpc.max_connection_age_ms", CONNECTION_AGE_MS),
    ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_MS),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
)


class Serve(Protocol):
    """Opens a door: answers calls of services at addresses."""

    async def __call__(
        self,
        agent: Agent,
        bridge: Bridge,
        services: Sequence[tuple[ServiceDescriptor, object]],
        addresses: Sequence[str],
        **options: Any,
    ) -> Server:
        """See `Bridge.serve`, which takes the options, too; `agent` counts what is refused."""


def is_asked(address: Address | UnixSocket) -> bool:
    """Tell whether those who come to a local address are asked for a certificate."""
    return isinstance(address, Address) and not address.is_loopback


async def open_door(
    token: Token | None,
    agent: Agent,
    bridge: Bridge,
    services: Sequence[tuple[ServiceDescriptor, object]],
    addresses: Sequence[str],
    **options: Any,
) -> Server:
    """Open a door at which nobody is asked for more than the token, if there is one."""
    gate = LocalGate(token, _records(agent))
    return await bridge.serve(
        services, addresses, gate=gate, refused=agent.count_refused, **options
    )


def _records(agent: Agent) -> Records:
    return Records(agent.protection, agent.clock.wall_us)


class Security:
    """What an agent with `[tls]` has at its doors."""

    def __init__(self, config: AgentConfig, tls: TlsConfig) -> None:
        """Raises StartRefused."""
        clock = BootClock()
        self._wall: Callable[[], float] = lambda: clock.wall_ms() / 1000
        self._doors: list[tuple[Server, CertificateGate]] = []
        self.grant(config.grants)
        self.credentials = Credentials(tls, self._wall)
        self.credentials.check_agent(config.cluster, config.name)
        self.certified = Certified(
            lambda: self.credentials.identity, lambda: self._grants, self._wall
        )
        self._tls = tls

    def grant(self, grants: Sequence[GrantConfig]) -> None:
        """Let clients do what these say, and nothing else, from now on; what they are at is ended, too."""
        self._grants = [each.grant for each in grants]
        for server, gate in self._doors:
            server.end_denied(gate.why_not)

    async def explain(self, address: Address, name: str | None) -> Obstacle | None:
        """Find out why an agent cannot be spoken with: see `Explain`."""
        return await why_unreachable(address) or await self.why_refused(address, name)

    async def why_refused(self, address: Address, name: str | None = None) -> Obstacle | None:
        """Find out why no handshake with an agent comes about, where it can be connected with."""
        return await why_refused(address, self._tls, self.credentials.identity, name)

    async def door(
        self,
        agent: Agent,
        bridge: Bridge,
        services: Sequence[tuple[ServiceDescriptor, object]],
        addresses: Sequence[str],
        **options: Any,
    ) -> Server:
        """Open a door at which everybody shows a certificate."""
        gate = CertificateGate(self.certified, _records(agent))
        server = await bridge.serve(
            services,
            addresses,
            credentials=self.credentials.server(),
            gate=gate,
            refused=agent.count_refused,
            options=TLS_OPTIONS,
            **options,
        )
        self._doors.append((server, gate))
        return server

    async def run(self, renew_links: Callable[[], Awaitable[None]]) -> None:
        """Take in new certificates, and end the calls of those whose certificate has expired.

        `renew_links` is called for new ones, and before connections get old.
        """
        async with trio.open_nursery() as nursery:
            self.credentials.on_renewed = partial(nursery.start_soon, renew_links)
            nursery.start_soon(self.credentials.run)
            nursery.start_soon(_now_and_then, renew_links)
            while True:
                await trio.sleep(EXPIRY_INTERVAL)
                for server, _ in self._doors:
                    server.end_expired(self._wall())


async def _now_and_then(renew_links: Callable[[], Awaitable[None]]) -> None:
    while True:
        await trio.sleep(LINK_AGE)
        await renew_links()
