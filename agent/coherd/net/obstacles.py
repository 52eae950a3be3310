"""Why another agent cannot be spoken with, in words: gRPC says no more than that a connection is not there.

So the way is tried once more by hand: the name, the connection, and with `[tls]` the handshake, which tells
what either side has against the certificate of the other.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import trio

from coherd.config.values import printable
from coherd.errors import CertificateRefused, StartRefused
from coherd.identity import Role
from coherd.net.certificates import holder_of, load_bundle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from coherd.config import Address, TlsConfig
    from coherd.identity import Identity

PROBE_TIMEOUT = 2.0
"""Seconds to find out."""
ANSWER_TIMEOUT = 1.0
"""Seconds in which a server ends a connection because of our certificate: in TLS 1.3 it does so after the
handshake, and gRPC's does not say why."""

_VERIFY = {
    9: ("is not valid yet", "set the clocks of both hosts"),
    10: ("has expired", "renew it there: `coherd pki renew`, and see why that was not done"),
    26: (
        "is not for servers: that of a client was used for an agent",
        "issue one for the agent: `coherd pki issue DIR agent/NAME`",
    ),
}
"""What OpenSSL's codes mean: what is the matter with the certificate, and the remedy."""
_UNKNOWN = (
    "is not from an authority that is believed here",
    "have both agents use certificates of one authority: compare `tls.ca` of both",
)


class Obstacle(NamedTuple):
    """What is in the way, and what to do about it."""

    text: str
    remedy: str


_REFUSES = Obstacle(
    "it refuses the own certificate: its authority is not believed there, or the clock there is wrong",
    "compare `tls.ca` and the clocks of both hosts",
)


Explain: TypeAlias = "Callable[[Address, str | None], Awaitable[Obstacle | None]]"
"""Finds out why the agent of a name (None: of any name) at an address cannot be spoken with."""


async def why_unreachable(address: Address) -> Obstacle | None:
    """Find out what keeps this host from connecting to an address; None when nothing does."""
    try:
        with trio.fail_after(PROBE_TIMEOUT):
            stream = await trio.open_tcp_stream(*address)
        await stream.aclose()
    except trio.TooSlowError:
        remedy = f"see whether the host is up, and whether a firewall drops port {address.port}"
        return Obstacle(f"no answer within {PROBE_TIMEOUT:.0f} s", remedy)
    except socket.gaierror as error:
        text = f"the name cannot be resolved ({error.strerror})"
        return Obstacle(text, "correct it in `join`, or in the DNS")
    except OSError as error:
        cause: BaseException | None = error.__cause__  # trio's own text says less
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        number = cause.errno if isinstance(cause, OSError) else error.errno
        reason = os.strerror(number).lower() if number else printable(str(error))
        return Obstacle(reason, "start the agent there, or correct the address in `join`")
    return None


async def why_refused(
    address: Address, tls: TlsConfig, me: Identity, name: str | None = None
) -> Obstacle | None:
    """Find out why no handshake with the agent at an address comes about; None when one does.

    None, too, where nobody can be connected with at all. `name`: who should be there; with None any agent
    of the cluster.
    """
    try:
        load_bundle(tls, time.time())
        context = _context(tls)
    except (StartRefused, OSError) as error:
        return Obstacle(f"the own certificate can't be used: {error}", "see `coherd pki show`")
    with trio.move_on_after(PROBE_TIMEOUT):
        try:
            tcp = await trio.open_tcp_stream(*address)
        except OSError:
            return None
        async with tcp:
            return await _shake_hands(trio.SSLStream(tcp, context), me, name)
    return Obstacle(
        f"no handshake within {PROBE_TIMEOUT:.0f} s",
        "see whether it is an agent that answers there, and whether it is overloaded",
    )


def _context(tls: TlsConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # who is there the URI says, and that is looked at below
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cafile=tls.ca)
    context.load_cert_chain(tls.cert, tls.key)
    return context


async def _shake_hands(
    stream: trio.SSLStream[trio.SocketStream], me: Identity, name: str | None
) -> Obstacle | None:
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        return _of_handshake(error.__cause__)
    if wrong := _who_is_wrong(stream.getpeercert(binary_form=True), me, name):
        return wrong
    with trio.move_on_after(ANSWER_TIMEOUT):
        try:
            if await stream.receive_some(1):
                return None
        except trio.BrokenResourceError:
            pass
        return _REFUSES
    return None


def _of_handshake(error: BaseException | None) -> Obstacle:
    """Say what went wrong in a handshake, or just after it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text, remedy = _VERIFY.get(error.verify_code, _UNKNOWN)
        return Obstacle(f"its certificate {text}", remedy)
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    if reason in {"WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL", "RECORD_LAYER_FAILURE"}:
        return Obstacle("it does not speak TLS 1.3", "set [tls] there, as here")
    return Obstacle(
        f"it ends the handshake ({reason.lower().replace('_', ' ') or error})",
        "see the log there; is [tls] set there, as here?",
    )


def _who_is_wrong(der: bytes | None, me: Identity, name: str | None) -> Obstacle | None:
    """Say why whoever showed a certificate is not the agent that should answer; None when it is."""
    try:
        found = holder_of(ssl.DER_cert_to_PEM_cert(der or b"").encode()).identity
    except CertificateRefused as error:
        text, _, remedy = str(error).rpartition(": ")
        return Obstacle(text, remedy)
    due = me._replace(role=Role.AGENT, name=name or found.name)
    if found == due:
        return None
    if (found.trust, found.cluster) != (me.trust, me.cluster):
        text = f"{found} answers, of another cluster than this agent, {me}"
    elif found.role is not Role.AGENT:
        text = f"{found} answers, which is no agent"
    else:
        text = f"{found.name} answers there, not {name}"
    return Obstacle(text, "correct the address in `join`, or the certificate there")
