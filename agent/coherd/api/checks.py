"""What applications may ask for: the checks that keep the limits of `coherd.limits`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from coherd.config.address import seed
from coherd.config.values import WrongValue
from coherd.errors import InvalidRequest
from coherd.limits import (
    BATCH_ROWS_MAX,
    JOIN_SEEDS_MAX,
    NAME_MAX,
    NUMBER_MAX,
    SELECTOR_BYTES_MAX,
    TIMEOUT_MAX,
)
from coherd.model import EVERYTHING, NAME_PATTERN, NAMESPACE_PATTERN, Selector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.duration_pb2 import Duration

    from coherd.net.bridge import Call
    from coherd.v1 import cache_service_pb2 as pb
    from coherd.v1.admin_service_pb2 import JoinRequest, TraceKeyRequest

CLIENT_KEY = "coherd-client"
"""The metadata by which a client names itself."""
LOCAL = "local"
"""Whoever comes over the unix socket without a name."""


def check_namespace(name: str) -> None:
    """Refuse a name that no namespace can have."""
    if not NAMESPACE_PATTERN.fullmatch(name):
        raise InvalidRequest(
            f"illegal namespace {name[:80]!r}: 1 to 64 of the characters a-z 0-9 . _ - are due"
        )


def selectors_of(request: pb.InvalidateRequest) -> list[Selector]:
    """Give the rows of a request in their defined order: keys, tags, prefixes, everything."""
    count = len(request.keys) + len(request.tags) + len(request.prefixes) + request.everything
    if not 1 <= count <= BATCH_ROWS_MAX:
        raise InvalidRequest(f"{count} rows: 1 to {BATCH_ROWS_MAX} are due in one request")
    selectors = named_in(request)
    if request.everything:
        selectors.append(EVERYTHING)
    return selectors


def named_in(request: pb.InvalidateRequest | TraceKeyRequest) -> list[Selector]:
    """Give the keys, tags and prefixes of a request, in this order."""
    for kind, texts in (
        ("key", request.keys),
        ("tag", request.tags),
        ("prefix", request.prefixes),
    ):
        if not texts:
            continue
        lengths = [len(text) for text in texts]
        if min(lengths) == 0:
            can_say_so = kind == "prefix" and "everything" in request.DESCRIPTOR.fields_by_name
            hint = "; to invalidate everything say so" if can_say_so else ""
            raise InvalidRequest(f"an empty {kind}{hint}")
        if max(lengths) > SELECTOR_BYTES_MAX:
            raise InvalidRequest(
                f"a {kind} of {max(lengths)} bytes: at most {SELECTOR_BYTES_MAX} are allowed"
            )
    selectors = [b"k" + key for key in request.keys]
    selectors += [b"t" + tag for tag in request.tags]
    selectors += [b"p" + prefix for prefix in request.prefixes]
    return selectors


def versions_of(request: pb.InvalidateRequest, rows: int) -> Sequence[int] | None:
    """Give the source versions of a request, None when it names none."""
    if not request.versions:
        return None
    if len(request.versions) != rows:
        raise InvalidRequest(f"{len(request.versions)} versions for {rows} rows: as many are due")
    if max(request.versions) > NUMBER_MAX:
        raise InvalidRequest(f"a version beyond {NUMBER_MAX}")
    return list(request.versions)


def client_of(call: Call) -> str:
    """Say whose budget a call is charged to: who the certificate says it is.

    Where nobody is asked, the name that it gives itself is believed, else it is the host it comes from.
    """
    if issuer := issuer_of(call):
        return issuer
    for key, value in call.metadata:
        if key == CLIENT_KEY:
            if not isinstance(value, str) or not NAME_PATTERN.fullmatch(value):
                raise InvalidRequest(
                    f"illegal {CLIENT_KEY}: 1 to {NAME_MAX} letters, digits, '.', '_' or '-' are due, "
                    "the first a letter or digit"
                )
            return value
    kind, _, address = call.peer.partition(":")  # as in ipv4:127.0.0.1:54321, or unix:
    return LOCAL if kind.startswith("unix") else unquote(address.rpartition(":")[0]) or kind


def issuer_of(call: Call) -> str:
    """Say who asks for rows, as a certificate has it; empty where nobody was asked for one."""
    return "" if call.holder is None else call.holder.identity.label


def seeds_of(request: JoinRequest) -> list[str]:
    """Give the addresses that a request names, each with a port."""
    if not 1 <= len(request.seeds) <= JOIN_SEEDS_MAX:
        raise InvalidRequest(
            f"{len(request.seeds)} seeds: 1 to {JOIN_SEEDS_MAX} are due in one request"
        )
    try:
        return [str(seed(text)) for text in request.seeds]
    except WrongValue as error:
        raise InvalidRequest(str(error)) from None


def timeout_of(duration: Duration | None, default: float) -> float:
    """Give a timeout in seconds."""
    if duration is None:
        return default
    seconds = duration.seconds + duration.nanos / 1e9
    if not 0.0 <= seconds <= TIMEOUT_MAX:
        raise InvalidRequest(f"a timeout of {seconds:g} s: 0 to {TIMEOUT_MAX:g} are allowed")
    return seconds
