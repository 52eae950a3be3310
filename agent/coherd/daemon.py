"""The agent as a process (floor 5): opens everything in order in one nursery, closes it in reverse."""

from __future__ import annotations

import os
import resource
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING

import structlog
import trio

from coherd import __version__
from coherd.api.admin_service import AdminService
from coherd.api.cache_service import CacheService
from coherd.api.doors import Security, is_asked, open_door
from coherd.api.health_service import DESCRIPTOR as HEALTH
from coherd.api.health_service import HealthService
from coherd.api.peer_service import PeerService
from coherd.api.services import ADMIN, CACHE, PEER
from coherd.api.token import Token
from coherd.audit import AuditLogs
from coherd.clock import BootClock
from coherd.cluster.agent import Agent, draw_epoch
from coherd.cluster.lateness import Lateness
from coherd.config import UnixSocket
from coherd.config.conflicts import exposed
from coherd.data_dir import AUDIT_NAME, JOURNAL_NAME, locked
from coherd.errors import ConfigError, StartRefused
from coherd.handlers.redis import RedisHandler
from coherd.journal import Durability
from coherd.journal.sqlite import open_journal, read_boot_id
from coherd.limits import REQUEST_BYTES_MAX
from coherd.local_socket import Owner, make_room, private_mode
from coherd.net.bridge import open_bridge
from coherd.net.peer import MemberInfo
from coherd.net.peer_client import GrpcPeer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from coherd.api.doors import Serve
    from coherd.api.http_server import HttpServer
    from coherd.config import AgentConfig
    from coherd.handlers import Handler
    from coherd.journal import Journal
    from coherd.net.bridge import Bridge, Server

log = structlog.get_logger("coherd.daemon")

STOP_TIMEOUT = 4.5
"""Seconds after which a stop that hangs is ended by force."""
FILES_MIN = 256
"""Open files that an agent must be allowed."""
STOP_GRACE = 1.5
"""Seconds that running calls are given."""


async def run(
    config: AgentConfig,
    *,
    handlers: Sequence[Handler] = (),
    started: Callable[[Agent], None] = lambda _agent: None,
    read: Callable[[], AgentConfig] | None = None,
) -> None:
    """Run an agent until SIGTERM or SIGINT; a second signal stops at once.

    `handlers` are applied beside those of the configuration. `started` is called once it answers. `read`
    gives the configuration as it is now: SIGHUP has the grants taken from it. Raises StartRefused.
    """
    _check_open_files()
    security = None if config.tls is None else Security(config, config.tls)
    token = None if config.token_file is None else Token(config.token_file)
    with _stop_signals() as stop, locked(config.data_dir, config.name):
        journal = open_journal(
            config.data_dir / JOURNAL_NAME,
            cluster=config.cluster,
            name=config.name,
            durability=Durability(config.durability),
            now=BootClock().now,
            boot_id=read_boot_id(),
        )
        try:
            async with open_bridge() as bridge, trio.open_nursery() as nursery:
                agent = _build(config, journal, bridge, nursery, security)
                audit = AuditLogs(config.data_dir / AUDIT_NAME)
                agent.protection.audit = lambda event: audit.note(event, agent.clock.now())
                nursery.start_soon(audit.run)
                agent.serve([*_handlers(config), *handlers])
                peers = PeerService(agent.endpoint)
                servers: list[Server | HttpServer] = [
                    *await _serve_http(agent, nursery, security, token),
                    await _serve_peers(agent, peers, bridge, security),
                    *await _serve_local(agent, bridge, security, token),
                ]
                if security is not None:
                    _protect(agent, security, nursery)
                if read is not None:
                    nursery.start_soon(_obey_hangups, read, security)
                agent.start()
                _log_start(agent)
                agent.operators.on_left = lambda: signal.raise_signal(signal.SIGTERM)
                started(agent)
                await stop.wait()
                log.info("stopping")
                agent.invalidating.batching.close()
                if config.on_stop == "leave":
                    agent.operators.on_left = lambda: None  # it is stopping already
                    await agent.operators.leave()
                else:
                    await agent.operators.tell_stop()
                peers.end_links()
                async with trio.open_nursery() as stopping:
                    for server in servers:
                        stopping.start_soon(server.stop, STOP_GRACE)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await journal.aclose()
    log.info("stopped")


def _check_open_files() -> None:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < FILES_MIN:
        raise StartRefused(
            f"only {allowed} open files are allowed: allow {FILES_MIN} or more with `ulimit -n`, or "
            "with LimitNOFILE of the service"
        )


@contextmanager
def _stop_signals() -> Iterator[trio.Event]:
    """Give an event that the first signal sets; the second ends the process."""
    stop = trio.Event()
    token = trio.lowlevel.current_trio_token()
    received_before = False

    def received(number: int, _frame: object) -> None:
        nonlocal received_before
        if received_before:  # `stop` is set a moment later: two signals may come before that
            os._exit(128 + number)
        received_before = True
        token.run_sync_soon(stop.set, idempotent=True)
        last_resort.start()

    def end_by_force() -> None:
        log.error("did not stop in time", seconds=STOP_TIMEOUT)
        os._exit(1)

    last_resort = threading.Timer(STOP_TIMEOUT, end_by_force)
    last_resort.daemon = True
    before = {number: signal.signal(number, received) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        last_resort.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _log_start(agent: Agent) -> None:
    for setting, address in exposed(agent.config).items():
        log.warning(
            "nothing is encrypted, and nobody is asked who they are",
            setting=setting,
            address=str(address),
            remedy="set [tls], or a loopback address",
        )
    if agent.config.tls is None and (agent.config.token_file or agent.config.local_owner):
        log.warning(
            "nobody is asked who they are at `listen`, where agents meet",
            address=agent.roster.me.address,
            remedy="set [tls]: token_file and local_owner keep nobody of this host from there",
        )
    log.info(
        "started",
        agent=agent.config.name,
        cluster=agent.config.cluster,
        address=agent.roster.me.address,
        local=[str(address) for address in agent.config.local],
        version=__version__,
    )


def _protect(agent: Agent, security: Security, nursery: trio.Nursery) -> None:
    """Have the agent known by its certificate, and looked after as long as it runs."""
    agent.protection.credentials = security.credentials
    agent.protection.explain = security.explain
    agent.exchanging.why_refused = security.why_refused
    nursery.start_soon(security.run, agent.linking.renew)


async def _obey_hangups(read: Callable[[], AgentConfig], security: Security | None) -> None:
    """Take the grants of the file that is there now, whenever SIGHUP comes."""
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        async for _ in hangups:
            try:
                config = await trio.to_thread.run_sync(read)
            except ConfigError as error:
                log.error("the settings are not used", error=str(error))
                continue
            if security is not None:
                security.grant(config.grants)
            log.info("settings read again", grants=len(config.grants))


def _build(
    config: AgentConfig,
    journal: Journal,
    bridge: Bridge,
    nursery: trio.Nursery,
    security: Security | None,
) -> Agent:
    clock = BootClock(journal.running_time())
    lives = [life.epoch for life, _ in journal.contents.lives]
    try:
        epoch = draw_epoch(clock.wall_ms(), lives, 0)
    except ValueError as error:
        raise StartRefused(str(error)) from None
    me = MemberInfo(
        config.name,
        epoch,
        str(config.advertise or config.listen),
        config.region,
        config.interest,
        version=__version__,
    )

    credentials = None if security is None else security.credentials

    def dial(address: str, name: str | None) -> GrpcPeer:
        return GrpcPeer(
            bridge, address, config.cluster, agent.count_refused, credentials=credentials, name=name
        )

    agent = Agent(config, me, journal, clock, SystemRandom(), dial, nursery)
    return agent


async def _serve_peers(
    agent: Agent, peers: PeerService, bridge: Bridge, security: Security | None
) -> Server:
    config = agent.config
    serve = partial(open_door, None) if security is None else security.door
    try:
        server = await serve(agent, bridge, [(PEER, peers)], [str(config.listen)])
    except OSError as error:
        raise StartRefused(f"{error.strerror} Set `listen` to an address that is free") from None
    if not config.listen.port and config.advertise is None:
        address = str(config.listen._replace(port=server.ports[0]))
        agent.roster.me = replace(agent.roster.me, address=address)
    return server


async def _serve_local(
    agent: Agent, bridge: Bridge, security: Security | None, token: Token | None
) -> list[Server]:
    names = [CACHE.full_name, ADMIN.full_name]
    services = [
        (CACHE, CacheService(agent)),
        (ADMIN, AdminService(agent)),
        (HEALTH, HealthService(names, lambda: not agent.reasons())),
    ]
    doors: list[tuple[Serve, list[str]]] = [
        (
            partial(open_door, token),
            [str(address) for address in agent.config.local if not is_asked(address)],
        )
    ]
    if security is not None:
        asked = [str(address) for address in agent.config.local if is_asked(address)]
        doors.append((security.door, asked))
    owner = Owner.parse(agent.config.local_owner)
    sockets = [Path(a.path) for a in agent.config.local if isinstance(a, UnixSocket)]
    for path in sockets:
        make_room(path, owner)
    try:
        with private_mode():
            servers = [
                await serve(
                    agent,
                    bridge,
                    services,
                    addresses,
                    message_bytes_max=REQUEST_BYTES_MAX,
                )
                for serve, addresses in doors
                if addresses
            ]
        for path in sockets:
            owner.take(path)
    except OSError as error:
        raise StartRefused(f"{error.strerror} Set `local` to an address that is free") from None
    return servers


async def _serve_http(
    agent: Agent, nursery: trio.Nursery, security: Security | None, token: Token | None
) -> list[HttpServer]:
    if agent.config.http is None:
        return []
    from coherd.api.http_app import http_app
    from coherd.api.http_server import HttpServer, listen
    from coherd.api.metrics import Exporter

    lateness = Lateness()
    exporter = Exporter(agent, lateness)
    listeners, address = await listen(agent.config.http)
    certified, credentials = None, None
    if security is not None and is_asked(address):
        certified, credentials = security.certified, security.credentials
    app = http_app(agent, exporter.read, address, token=token, certified=certified)
    server = HttpServer(app, listeners, credentials)
    nursery.start_soon(lateness.run)
    nursery.start_soon(server.run)
    log.info("http", address=str(address), tls=credentials is not None)
    return [server]


def _handlers(config: AgentConfig) -> list[Handler]:
    return [
        RedisHandler(
            handler.url,
            namespace=namespace,
            key=handler.key,
            tag=handler.tag,
            cluster=config.cluster,
            agent=config.name,
        )
        for handler in config.handlers
        for namespace in handler.namespaces
    ]
