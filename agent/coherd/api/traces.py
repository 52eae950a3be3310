"""Traces as protobuf: what `coherd trace` asks, and what each host says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd.api.checks import check_namespace, named_in, timeout_of
from coherd.api.receipts import STATES
from coherd.errors import InvalidRequest
from coherd.limits import TRACE_ROWS_MAX, TRACE_SELECTORS_MAX
from coherd.model import EVERYTHING
from coherd.net.trace_codec import encode_row
from coherd.net.traces import TraceQuestion
from coherd.v1 import admin_service_pb2 as pb
from coherd.v1 import types_pb2

if TYPE_CHECKING:
    from coherd.cluster.exchanging import ClockOffset
    from coherd.cluster.tracing import HostTrace

ROWS = 5
"""Rows, where the caller says nothing."""
TIMEOUT = 2.0
"""Seconds, where the caller says nothing."""


def question_of(request: pb.TraceKeyRequest) -> TraceQuestion:
    """Check a request. Raises InvalidRequest."""
    check_namespace(request.namespace)
    selectors = named_in(request) or [EVERYTHING]
    if len(selectors) > TRACE_SELECTORS_MAX:
        raise InvalidRequest(
            f"{len(selectors)} keys, tags and prefixes: at most {TRACE_SELECTORS_MAX} are traced at once"
        )
    if request.rows > TRACE_ROWS_MAX:
        raise InvalidRequest(f"{request.rows} rows: at most {TRACE_ROWS_MAX} are traced at once")
    return TraceQuestion(request.namespace, selectors, request.rows or ROWS)


def trace_timeout(request: pb.TraceKeyRequest) -> float:
    """Give how many seconds the other hosts may take. Raises InvalidRequest."""
    return timeout_of(request.timeout if request.HasField("timeout") else None, TIMEOUT)


def encode_host(host: HostTrace, now: float, offset: ClockOffset | None) -> pb.HostTrace:
    """Write what one host says."""
    member = host.member
    return pb.HostTrace(
        name=host.name,
        holds=host.holds,
        state=STATES[member.state] if member else types_pb2.MEMBER_STATE_ALIVE,
        state_age_ms=int((now - member.since) * 1000) if member else 0,
        error=host.error,
        started_us=host.started_us,
        since_us=host.since_us,
        rows=map(encode_row, host.rows),
        clock_offset_min_us=offset.least if offset else None,
        clock_offset_max_us=offset.most if offset else None,
    )
