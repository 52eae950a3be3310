"""Who may have how many rows accepted: one budget for each client and namespace, another for its urgent rows.

Only what applications ask for is budgeted. What peers spread and what repair fetches was accepted already.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING

from coherd.errors import Overloaded
from coherd.model import EVERY_NAMESPACE, Lane
from coherd.replication.budget import Buckets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coherd.clock import Clock
    from coherd.cluster.invalidating import Order
    from coherd.config import AgentConfig

COUNTED_MAX = 2000
"""Namespaces of which refused rows are counted apart: a name costs its inventor nothing."""


class Budgeting:
    """The budgets of every client."""

    def __init__(self, config: AgentConfig, clock: Clock) -> None:
        self.refused: Counter[tuple[str, bool]] = Counter()
        """Rows beyond a budget, by namespace (EVERY_NAMESPACE: all further ones) and whether urgent."""
        self._config = config
        self._clock = clock
        self._buckets = Buckets()

    @contextmanager
    def spending(self, client: str, order: Order) -> Iterator[None]:
        """Take what an order costs; give it back where the agent turns out to have no room for it.

        Raises `Overloaded`, before anything was taken, when the client has used its budget up.
        """
        settings = self._config.namespace(order.namespace)
        urgent = order.lane is Lane.URGENT
        rate = settings.urgent_rate_max if urgent else settings.rate_max
        if rate is None:
            yield
            return
        now = self._clock.now()
        rows = len(order.selectors)
        bucket = self._buckets.find((client, order.namespace, urgent), rate, now)
        if wait := bucket.take(rows, now):
            self._count(order.namespace, urgent, rows)
            raise _refusal(client, order.namespace, rate, wait, urgent=urgent)
        try:
            yield
        except Overloaded:
            bucket.give_back(rows)
            raise

    def _count(self, namespace: str, urgent: bool, rows: int) -> None:
        key = (namespace, urgent)
        if key not in self.refused and len(self.refused) >= COUNTED_MAX:
            key = (EVERY_NAMESPACE, urgent)
        self.refused[key] += rows


def _refusal(client: str, namespace: str, rate: float, wait: float, *, urgent: bool) -> Overloaded:
    wait = ceil(wait * 1000) / 1000
    lanes = "lane urgent" if urgent else "lanes normal and bulk"
    setting = "urgent_rate_max" if urgent else "rate_max"
    return Overloaded(
        f"client {client} is over its budget of {rate:,.10g} rows a second for namespace {namespace}, "
        f"{lanes}: try again in {wait:g} s, or raise {setting} of [namespaces.{namespace}]",
        retry_after=wait,
    )
