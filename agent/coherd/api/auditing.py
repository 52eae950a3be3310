"""What is kept of the calls that come to a door: refusals, changes of the cluster, invalidations of much."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from coherd.audit_lines import DENIED, FAILED, OK, Event, Kind
from coherd.grants import Verb

if TYPE_CHECKING:
    from collections.abc import Callable

    from coherd.cluster.protection import Protection
    from coherd.net.bridge import Call
    from coherd.net.bridge_call import OnEnd, Status

log = structlog.get_logger("coherd.authorization")

DENIALS_LOGGED_MAX = 1000
"""Different denials that are logged, each once; the audit log has them all."""


class Records:
    """Counts, logs and writes down who was refused, and who was let do much."""

    def __init__(self, protection: Protection, wall_us: Callable[[], int]) -> None:
        self._protection = protection
        self._wall_us = wall_us
        self._logged: set[tuple[str, str, str]] = set()

    def refused(self, who: str, rpc: str, why: str) -> None:
        """Note that somebody was refused; `rpc` is empty before a call was looked at."""
        self._protection.count_denied(rpc)
        self._note(Event(0, Kind.DENIED, who, rpc, outcome=DENIED, why=why))
        if (who, rpc, why) not in self._logged and len(self._logged) < DENIALS_LOGGED_MAX:
            self._logged.add((who, rpc, why))
            log.warning("denied", who=who, rpc=rpc, why=why)

    def let_through(self, who: str, verb: Verb | None, call: Call, request: Any) -> OnEnd | None:
        """Give what notes how a call ends that was let through, if it asks for much."""
        rpc = call.method.name
        if verb is Verb.ADMIN:
            return partial(self._ended, Event(0, Kind.ADMIN, who, rpc, what=_asked(request)))
        if verb is Verb.INVALIDATE:
            order = getattr(request, "invalidate", request)
            if scope := _scope(order):
                event = Event(0, Kind.WIDE, who, rpc, order.namespace, scope, why=order.reason)
                return partial(self._ended, event)
        return None

    def _ended(self, event: Event, status: Status) -> None:
        is_ok = status.code is grpc.StatusCode.OK
        self._note(replace(event, outcome=OK if is_ok else FAILED + status.code.name))

    def _note(self, event: Event) -> None:
        self._protection.audit(replace(event, at_us=self._wall_us()))


def _scope(order: Any) -> str:
    """Say how much is invalidated where it is more than keys; empty where it is keys alone."""
    scopes = ["everything"] if order.everything else []
    for name, count in (("prefixes", len(order.prefixes)), ("tags", len(order.tags))):
        if count:
            scopes.append(f"{count} {name}")
    return ", ".join(scopes)


def _asked(request: Any) -> str:
    """Say whom an order of an operator is about: names and addresses, never more."""
    return ", ".join(
        [*getattr(request, "seeds", ()), *filter(None, [getattr(request, "name", "")])]
    )
