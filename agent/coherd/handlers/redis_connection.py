"""One connection to one Redis or Valkey, until it fails (floor 2): the URL, TLS, and errors in one line.

coredis reads and writes the wire; its pool is not used, because a pool opens a new connection
silently: a `RedisConnection` that was lost stays lost until somebody opens it again, and so nobody
goes on with a server that was restored, replaced or failed over in between.

The tasks of coredis live in a system task of trio, not in a nursery of whoever called `open`: verbs
that leave a nursery open behind them would corrupt the caller's own cancel scopes.
"""

from __future__ import annotations

import logging
import ssl
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import trio

from coherd.errors import ConfigError, HandlerFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from coredis.connection import BaseConnection, BaseConnectionParams

Command = tuple[bytes, ...]
"""A command and its arguments."""

CONNECT_TIMEOUT = 2.0
"""Seconds for name lookup, TCP, TLS and the greeting together."""
COMMAND_TIMEOUT = 10.0
"""Seconds that one command may go unanswered."""
SCAN_COUNT = b"1000"
"""Names that the server looks at in one SCAN."""
REASON_CHARACTERS_MAX = 300
"""Longest reason that is passed on from the server."""

URL_HELP = (
    "a Redis URL is redis://, rediss:// (TLS) or unix:// and [user:password@]host[:port][/db] or "
    "[user:password@]/path/of/socket[?db=N]; write special characters of a password as %XX"
)
OPTIONS = frozenset(
    {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_cert_reqs"}
)
SWITCHES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
REMEDIES = {
    "AuthenticationFailureError": "the user name or the password is wrong",
    "AuthenticationRequiredError": "it asks for a password and the URL has none",
    "AuthorizationError": "its ACL does not let this user do that",
    "BusyLoadingError": "it is still loading its data",
    "ReadOnlyError": "it is a read-only replica; name the primary",
    "MovedError": "it is part of a Redis Cluster, which this handler does not serve",
    "ClusterCrossSlotError": "it is part of a Redis Cluster, which this handler does not serve",
    "UnknownCommandError": "it lacks a command; Redis 6 or Valkey 7 is the least",
}
"""What an error of coredis means to an operator, by the name of its class."""


class Address(NamedTuple):
    """Where a Redis is and how to get in, from a URL."""

    host: str
    """Empty for a unix socket."""
    port: int
    path: str
    """Of the unix socket; empty for TCP."""
    db: int
    username: str | None
    password: str | None
    tls: bool
    options: Mapping[str, str]

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL. Raises ConfigError, which never quotes it: it may hold a password."""
        try:
            parts = urlsplit(url)
            host, port = unquote(parts.hostname or ""), parts.port or 6379
            options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=False))
            path = unquote(parts.path)
            unix = parts.scheme == "unix"
            db = int(options.get("db") or (not unix and path.strip("/")) or 0)
        except ValueError:
            raise ConfigError(f"not a Redis URL; {URL_HELP}") from None
        if (
            parts.scheme not in {"redis", "rediss", "unix"}
            or parts.fragment
            or db < 0
            or (unix and (host or not path.startswith("/")))
            or not (unix or host)
        ):
            raise ConfigError(f"not a Redis URL; {URL_HELP}")
        if unknown := options.keys() - OPTIONS:
            raise ConfigError(
                f"the Redis URL has unknown options: {', '.join(sorted(unknown))}; "
                f"known are {', '.join(sorted(OPTIONS))}"
            )
        if options.get("ssl_check_hostname", "true") not in SWITCHES or options.get(
            "ssl_cert_reqs", "required"
        ) not in {"required", "none"}:
            raise ConfigError(
                "in the Redis URL ssl_check_hostname is true or false and ssl_cert_reqs is "
                "required or none"
            )
        return cls(
            host,
            port,
            path if unix else "",
            db,
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password else None,
            parts.scheme == "rediss",
            options,
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.path or f"{host}:{self.port}") + (f"/{self.db}" if self.db else "")

    def ssl_context(self) -> ssl.SSLContext | None:
        """Build what TLS needs; read again at every connect, so that renewed certificates count."""
        if not self.tls:
            return None
        authorities, certificate, key = map(
            self._file, ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
        )
        try:
            context = ssl.create_default_context(cafile=authorities)
            if certificate:
                context.load_cert_chain(certificate, key)
        except ssl.SSLError as error:
            files = ", ".join(file for file in (authorities, certificate, key) if file)
            raise ValueError(
                f"{files}: no certificates, or a key of another one ({error.reason})"
            ) from None
        context.check_hostname = SWITCHES[self.options.get("ssl_check_hostname", "true")]
        if self.options.get("ssl_cert_reqs") == "none":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _file(self, option: str) -> str | None:
        """Give the path of a file for TLS; a pipe there would hold up the agent for ever."""
        path = self.options.get(option)
        if not path:
            return None
        try:
            mode = Path(path).stat().st_mode
        except OSError as error:
            raise ValueError(f"{option} {path}: {error.strerror}") from None
        if not stat.S_ISREG(mode):
            raise ValueError(f"{option} {path}: is not a regular file")
        return path


class _Life:
    """One coredis connection and the task it lives in."""

    def __init__(self, connection: BaseConnection) -> None:
        self.connection = connection
        self.error: Exception | None = None
        self._scope = trio.CancelScope()
        self._settled = trio.Event()
        self._ended = trio.Event()

    def started(self, value: None = None) -> None:
        """Note that it is open: what coredis calls when the greeting is over."""
        self._settled.set()

    async def open(self) -> None:
        """Start the task and wait until the connection is open or has failed."""
        trio.lowlevel.spawn_system_task(self._run, name=f"coherd {self.connection.location!r}")
        try:
            await self._settled.wait()
        except BaseException:
            self._scope.cancel()
            raise
        if self.error is not None:
            raise self.error

    async def _run(self) -> None:
        # Whatever left this task would end the whole process.
        try:
            with self._scope:
                await self.connection.run(task_status=self)
        except Exception as error:
            self.error = error
        finally:
            self._settled.set()
            self._ended.set()

    async def aclose(self) -> None:
        self._scope.cancel()
        with trio.move_on_after(1.0, shield=True):
            await self._ended.wait()


class RedisConnection:
    """One connection; not for use by several tasks at once."""

    def __init__(
        self,
        url: str,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        command_timeout: float = COMMAND_TIMEOUT,
    ) -> None:
        self.address = Address.parse(url)
        self._connect_timeout = connect_timeout
        self._command_timeout = command_timeout
        self._life: _Life | None = None

    @property
    def label(self) -> str:
        """Where it leads to, without user and password."""
        return f"redis {self.address}"

    async def open(self) -> None:
        """Open a fresh connection, after closing the one before it."""
        await self.aclose()
        try:
            with trio.fail_after(self._connect_timeout):
                life = _Life(self._build())
                await life.open()
        except trio.TooSlowError:
            raise HandlerFailed(
                f"{self.label}: cannot connect: no answer within {self._connect_timeout:g} s"
            ) from None
        except Exception as error:
            raise self._failed(error, "cannot connect: ") from None
        self._life = life

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one go and give the answers; an error in any of them is raised.

        Raises HandlerFailed for whatever was not answered, or answered with an error, also inside
        the answer to EXEC; which of the commands were carried out is then unknown.
        """
        if self._life is None:
            raise HandlerFailed(f"{self.label}: not connected")
        create_request = self._life.connection.create_request
        try:
            requests = [
                create_request(*command, raise_exceptions=False, disconnect_on_cancellation=True)
                for command in commands
            ]
            answers: list[Any] = [await request for request in requests]
        except Exception as error:
            raise self._failed(error) from None
        for answer in answers:
            for part in answer if isinstance(answer, list) else (answer,):
                if isinstance(part, Exception):
                    raise self._failed(part)
        return answers

    async def aclose(self) -> None:
        """Close it; never raises."""
        life, self._life = self._life, None
        if life is not None:
            await life.aclose()

    def _build(self) -> BaseConnection:
        # Costs a third of a second, which only agents that serve a Redis pay.
        from coredis.connection import (
            TCPConnection,
            TCPLocation,
            UnixDomainSocketConnection,
            UnixDomainSocketLocation,
        )

        # It logs tracebacks of what is raised here as well, in one line.
        logging.getLogger("coredis").setLevel(logging.CRITICAL)
        address = self.address
        parameters: BaseConnectionParams = {
            "username": address.username,
            "password": address.password,
            "db": address.db,
            "stream_timeout": self._command_timeout,
            "connect_timeout": None,
            "ssl_context": address.ssl_context(),
        }
        if address.path:
            return UnixDomainSocketConnection(UnixDomainSocketLocation(address.path), **parameters)
        return TCPConnection(
            TCPLocation(address.host, address.port), socket_keepalive=True, **parameters
        )

    def _failed(self, error: Exception, doing: str = "") -> HandlerFailed:
        """Tell an error in one line, without the password: old servers quote the whole command."""
        text = _reason(error)
        if self.address.password:
            text = text.replace(self.address.password, "***")
        text = " ".join(text.split())[:REASON_CHARACTERS_MAX]
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
        if remedy := REMEDIES.get(type(error).__name__):
            text = f"{remedy} ({text})"
        return HandlerFailed(f"{self.label}: {doing}{text}")


@contextmanager
def understood(label: str) -> Iterator[None]:
    """Turn answers that no Redis gives to what was asked into a failure of the cache."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError):
        raise HandlerFailed(f"{label}: answers what no Redis answers to that") from None


def _reason(error: BaseException) -> str:
    """Give the innermost text of a chain of errors."""
    text, cause = type(error).__name__, error
    while True:
        told = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        text = told or text
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        elif cause.__cause__ is not None:
            cause = cause.__cause__
        else:
            return text
