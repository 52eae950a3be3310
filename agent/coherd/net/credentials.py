"""What an agent shows and whom it believes in TLS: read from files, and again when they change.

A server asks for the current files at every new connection (gRPC's dynamic credentials). A client cannot
change those of a channel: whoever dials takes the current ones. What is under way goes on with what it
began with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import grpc
import structlog
import trio

from coherd.errors import StartRefused
from coherd.identity import Role
from coherd.net.certificates import load_bundle
from coherd.net.https import make_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from coherd.config import TlsConfig
    from coherd.identity import Identity
    from coherd.net.certificates import Bundle

Signatures: TypeAlias = tuple[tuple[int, int, int] | None, ...]

log = structlog.get_logger("coherd.tls")

LOOK_INTERVAL = 5.0
"""Seconds between two looks at whether the files have changed."""
TLS_VERSION = "TLSv1.3"
"""The only version that is spoken."""


class Credentials:
    """The current files of `[tls]`."""

    def __init__(self, tls: TlsConfig, wall: Callable[[], float]) -> None:
        """`wall()`: seconds since 1970. Raises StartRefused."""
        self._tls = tls
        self._wall = wall
        self._seen = self._look()
        self.bundle = load_bundle(tls, wall())
        self.https = make_context(self.bundle, tls)
        """The bundle, as Python's TLS takes it."""
        self.problem = ""
        """Why the files that are there now are not used; empty when they are."""
        self.on_renewed: Callable[[], None] = lambda: None
        """Called when new files are used."""

    @property
    def identity(self) -> Identity:
        """Who this agent is."""
        return self.bundle.holder.identity

    @property
    def left(self) -> float:
        """For how many seconds its certificate is still valid."""
        return self.bundle.holder.not_after - self._wall()

    @property
    def is_due(self) -> bool:
        """Whether it should have been renewed: less than a third of its time is left."""
        holder = self.bundle.holder
        return self.left < (holder.not_after - holder.not_before) / 3

    def check_agent(self, cluster: str, name: str) -> None:
        """Refuse a certificate that is not that of the agent `name` of `cluster`."""
        me = self.identity
        if (me.cluster, me.role, me.name) != (cluster, Role.AGENT, name):
            due = me._replace(cluster=cluster, role=Role.AGENT, name=name)
            raise StartRefused(
                f"{self._tls.cert} is the certificate of {me}, this agent is {due}: "
                f"issue one for it, or correct `name` or `cluster`"
            )

    def server(self) -> grpc.ServerCredentials:
        """Give what a server needs; it follows the files."""
        given = self.bundle

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if given is self.bundle:
                return None
            given = self.bundle
            return _server_configuration(given)

        return grpc.dynamic_ssl_server_credentials(
            _server_configuration(given),
            fetch,  # type: ignore[arg-type]  # None: as before
            require_client_authentication=True,
        )

    def client(self) -> grpc.ChannelCredentials:
        """Give what a channel that is made now needs."""
        roots, chain, key, _ = self.bundle
        return grpc.ssl_channel_credentials(roots, key, chain)

    def server_name(self, name: str | None) -> str:
        """Give the DNS name by which TLS finds out that the agent `name`, or with None any agent, answers."""
        if name is None:
            return self.identity.cluster_server_name
        return self.identity._replace(name=name).server_name

    async def run(self) -> None:
        """Look after the files."""
        while True:
            await trio.sleep(LOOK_INTERVAL)
            await self.look()

    async def look(self) -> None:
        """Use the files that are there now, if they have changed and can be used."""
        seen = await trio.to_thread.run_sync(self._look)
        if seen != self._seen:
            await self._reload(seen)

    async def _reload(self, seen: Signatures) -> None:
        try:
            bundle, https = await trio.to_thread.run_sync(self._load)
        except StartRefused as error:
            self._refuse(str(error))
            return  # perhaps only a part of it is written: it is looked at again
        except Exception as error:  # whatever is in the files, those of before are good
            self._refuse(f"the files of [tls] can't be used: {error!r}")
            return
        self._seen, self.bundle, self.https, self.problem = seen, bundle, https, ""
        log.info("certificate renewed", identity=str(self.identity))
        self.on_renewed()

    def _refuse(self, problem: str) -> None:
        """Go on with the files of before, and say once why."""
        if self.problem != problem:
            self.problem = problem
            log.error("the new certificate is not used", error=problem)

    def _load(self) -> tuple[Bundle, ssl.SSLContext]:
        """Read the files again; they still have to be those of this agent."""
        bundle = load_bundle(self._tls, self._wall())
        if bundle.holder.identity != self.identity:
            raise StartRefused(f"{self._tls.cert} is the certificate of {bundle.holder.identity}")
        return bundle, make_context(bundle, self._tls)

    def _look(self) -> Signatures:
        """Give what changes with the files."""
        return tuple(map(_signature, (self._tls.ca, self._tls.cert, self._tls.key)))


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _server_configuration(bundle: Bundle) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(bundle.key, bundle.chain)], root_certificates=bundle.roots
    )
