"""What is kept of the calls that come to a door: refusals, changes of the cluster, invalidations of much."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from coherd.audit_lines import DENIED, FAILED, OK, WHO_MAX, Event, Kind
from coherd.grants import Verb
from coherd.limits import LOG_TEXT_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from coherd.cluster.protection import Protection
    from coherd.net.bridge import Call
    from coherd.net.bridge_call import OnEnd, Status

log = structlog.get_logger("coherd.authorization")

DENIALS_LOGGED_MAX = 1000
"""Different denials that a door logs in one period, each once."""
PERIOD_US = 600 * 1_000_000
"""Microseconds after which what was logged is forgotten, and logged again."""
_PORT = re.compile(r":\d+\Z")
"""Behind an address; each connection of one stranger has another."""


class Records:
    """Counts, logs and writes down who was refused, and who was let do much."""

    def __init__(self, protection: Protection, wall_us: Callable[[], int]) -> None:
        self._protection = protection
        self._wall_us = wall_us
        self._lock = Lock()
        """Over what follows: doors refuse in more than one thread."""
        self._logged: set[tuple[str, str, str]] = set()
        self._period_us = 0
        """When the period began."""

    def refused(self, who: str, rpc: str, why: str) -> None:
        """Note that somebody was refused; `rpc` is empty before a call was looked at."""
        self._protection.count_denied(rpc)
        self._note(Event(0, Kind.DENIED, who, rpc, outcome=DENIED, why=why))
        with self._lock:
            is_new = self._is_new(who, rpc, why)
            is_last = is_new and len(self._logged) == DENIALS_LOGGED_MAX
        if is_new:
            log.warning("denied", who=who, rpc=rpc, why=why)
        if is_last:
            log.warning(
                "different denials are not logged for a while: there are too many",
                seconds=PERIOD_US // 1_000_000,
                remedy="`coherd audit-log` shows them",
            )

    def _is_new(self, who: str, rpc: str, why: str) -> bool:
        """Tell whether a denial is to be logged, and take it for logged then."""
        now_us = self._wall_us()
        if not 0 <= now_us - self._period_us < PERIOD_US:  # a clock that was put back ends it too
            self._logged.clear()
            self._period_us = now_us
        denial = (_PORT.sub("", who)[:WHO_MAX], rpc[:LOG_TEXT_MAX], why[:LOG_TEXT_MAX])
        if denial in self._logged or len(self._logged) >= DENIALS_LOGGED_MAX:
            return False
        self._logged.add(denial)
        return True

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
