"""The way to the agent of this host: where it is, the calls, and what to do when one fails.

A failed call is a `CallFailed`: one line that names the address and the remedy. grpc is imported when a
connection is opened, not before.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coherd.cli import certificate
from coherd.config import LOCAL_DEFAULT, Address, UnixSocket
from coherd.config.address import dialled
from coherd.config.address import local as local_address
from coherd.config.values import WrongValue
from coherd.errors import ConfigError, RpcFailed

if TYPE_CHECKING:
    import grpc

    from coherd.v1.admin_service_pb2_grpc import AdminServiceStub
    from coherd.v1.cache_service_pb2_grpc import CacheServiceStub

ADDRESS_VARIABLE = "COHERD_ADDRESS"
"""Where the agent is, unless `--local` says it."""
ANSWER_TIMEOUT = 10.0
"""Seconds an agent is given to answer, beyond what the call itself waits for."""
PROBE_TIMEOUT = 1.0
"""Seconds to find out why nobody answers."""
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
CLIENT = (("coherd-client", "coherd"),)
"""Metadata that says whose budget an invalidation is charged to: not that of the applications of this host,
one of which may run wild."""
PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""The trailing metadata that says when to try again."""
RECONNECT_MS = 250
"""Longest pause between two attempts to reach an agent that is being restarted."""

F = TypeVar("F", bound=Callable[..., Any])

_address_option: Callable[[F], F] = click.option(
    "--local",
    metavar="ADDRESS",
    help=f"The agent: unix:/PATH or HOST:PORT. Default: the variable {ADDRESS_VARIABLE}, "
    f"else {LOCAL_DEFAULT}.",
)


def local_option(command: F) -> F:
    """Let a verb be told where the agent is, and who asks it."""
    return _address_option(certificate.cert_option(command))


class CallFailed(RpcFailed):
    """A call to the agent of this host failed; the text is a line for people."""

    retry_after: float | None = None
    """Seconds after which the agent says to try again, when it does."""

    def __str__(self) -> str:
        return self.details


def find(local: str | None) -> Address | UnixSocket:
    """Say where the agent is. Raises ConfigError."""
    source, text = "--local", local
    if text is None:
        source, text = ADDRESS_VARIABLE, os.environ.get(ADDRESS_VARIABLE) or str(LOCAL_DEFAULT)
    try:
        return local_address(text) if text.startswith(("unix:", "/")) else dialled(text)
    except WrongValue as error:
        raise ConfigError(f"{source}: {error}") from None


class Connection:
    """A channel to an agent, with the stubs of what it serves to this host."""

    def __init__(self, address: Address | UnixSocket, channel: grpc.Channel) -> None:
        from coherd.v1.admin_service_pb2_grpc import AdminServiceStub
        from coherd.v1.cache_service_pb2_grpc import CacheServiceStub

        self.address = address
        self.admin: AdminServiceStub = AdminServiceStub(channel)
        self.cache: CacheServiceStub = CacheServiceStub(channel)

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Turn what grpc raises inside into a CallFailed."""
        import grpc

        try:
            yield
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call):
                raise
            failed = failure(self.address, error.code().name, error.details() or "")
            failed.retry_after = pushback(error)
            raise failed from None


@contextmanager
def connect(local: str | None) -> Iterator[Connection]:
    """Open the way to the agent; the first call finds out whether it is there.

    Raises ConfigError. Inside, calls raise CallFailed.
    """
    address = find(local)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines are none of ours
    import grpc

    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
        ("grpc.min_reconnect_backoff_ms", RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
    ]
    from coherd.cli import token

    is_tcp = isinstance(address, Address)
    in_clear = isinstance(address, Address) and not address.is_loopback
    tls = certificate.chosen() if is_tcp else None
    bundle = certificate.load(tls) if tls else None
    if bundle is None or not isinstance(address, Address):
        opened = grpc.insecure_channel(str(address), options)
    else:
        opened, in_clear = certificate.channel(address, bundle, options), False
    with opened as channel:
        if in_clear:
            token.keep_from(address)
        connection = Connection(address, token.carrying(channel) if is_tcp else channel)
        try:
            with connection.failures():
                yield connection
        except CallFailed as error:
            if error.code != "UNAVAILABLE" or not (tls and bundle and isinstance(address, Address)):
                raise
            if reason := certificate.why_refused(address, tls, bundle):
                text = f"no agent can be spoken with at {address}: {reason}"
                raise CallFailed("UNAVAILABLE", text) from None
            raise


def pushback(call: grpc.Call) -> float | None:
    """Read when the agent says to try again, in seconds; None where it does not say it."""
    for key, value in call.trailing_metadata() or ():
        text = str(value)
        if key == PUSHBACK_KEY and text.isascii() and text.isdigit():
            return int(text) / 1000
    return None


def failure(address: Address | UnixSocket, code: str, details: str) -> CallFailed:
    """Say what a failed call means and what to do about it."""
    remedies = {
        "INVALID_ARGUMENT": f"refused: {details}",
        "NOT_FOUND": f"not found: {details}",
        "FAILED_PRECONDITION": f"refused: {details}",
        "PERMISSION_DENIED": f"the agent at {address} does not allow this: {details}",
        "UNAUTHENTICATED": f"the agent at {address} does not know who asks: {details}",
        "RESOURCE_EXHAUSTED": f"the agent at {address} takes no more for now ({details}); "
        "nothing was changed: try again in a moment",
        "UNIMPLEMENTED": f"what answers at {address} does not know this call: is it an agent, "
        "and not an older one? `coherd status` tells its version",
    }
    if code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}:
        if reason := why_unreachable(address):
            return _nobody(address, reason)
        if code == "UNAVAILABLE":
            text = (
                f"the agent at {address} ended the call ({details}); it may be stopping: try again. "
                "Does it ask for a certificate? Name yours with --cert"
            )
        else:
            text = f"the agent at {address} did not answer in time; its log may say why: try again"
        return CallFailed(code, text)
    return CallFailed(
        code,
        remedies.get(
            code, f"the agent at {address} failed: {code}: {details}; its log may say more"
        ),
    )


def _nobody(address: Address | UnixSocket, reason: str) -> CallFailed:
    if reason == os.strerror(13).lower():
        text = f"{address} may not be opened ({reason}): use an account of the socket's group"
        return CallFailed("PERMISSION_DENIED", text)
    return CallFailed(
        "UNAVAILABLE",
        f"no agent answers at {address} ({reason}). Is it running? "
        "Start it with `coherd agent --config FILE`, or say where it is with --local",
    )


def why_unreachable(address: Address | UnixSocket) -> str:
    """Find out why nobody answers at an address; empty when somebody does."""
    try:
        if isinstance(address, Address):
            socket.create_connection(address, PROBE_TIMEOUT).close()
            return ""
        if not stat.S_ISSOCK(Path(address.path).stat().st_mode):
            return "it is no socket"
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PROBE_TIMEOUT)
            probe.connect(address.path)
    except FileNotFoundError:
        return "no such file"
    except TimeoutError:
        return "timed out"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""
