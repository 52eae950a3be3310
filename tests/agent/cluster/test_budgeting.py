"""Budgets as an agent keeps them: who pays for what, what a refusal says, and what is counted."""

from __future__ import annotations

import pytest

from coherd.api.cache_service import order_of
from coherd.cluster.budgeting import COUNTED_MAX, Budgeting
from coherd.cluster.invalidating import Order
from coherd.config import AgentConfig, NamespaceConfig
from coherd.errors import Overloaded
from coherd.model import EVERY_NAMESPACE
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import types_pb2 as types

NORMAL, URGENT, BULK = types.LANE_NORMAL, types.LANE_URGENT, types.LANE_BULK


class Budgets:
    """The budgets of an agent at a time that a test sets."""

    def __init__(self, **namespaces: NamespaceConfig) -> None:
        self.time = 100.0
        self.budgeting = Budgeting(AgentConfig("a", namespaces=namespaces), self)

    def now(self) -> float:
        return self.time

    def wall_ms(self) -> int:
        return 0

    def wall_us(self) -> int:
        return 0

    def spend(self, rows: int, client: str = "app", namespace: str = "shop", lane: int = 0) -> None:
        with self.budgeting.spending(client, order(rows, namespace, lane)):
            pass

    def refused(self, *arguments: object, **more: object) -> Overloaded:
        with pytest.raises(Overloaded) as caught:
            self.spend(*arguments, **more)  # type: ignore[arg-type]
        return caught.value


def order(rows: int, namespace: str = "shop", lane: int = 0) -> Order:
    keys = [b"%d" % n for n in range(rows)]
    request = cache.InvalidateRequest(namespace=namespace, keys=keys, lane=lane)  # type: ignore[arg-type]
    return order_of(request)


def test_normal_and_bulk_share_a_budget_and_urgent_has_its_own() -> None:
    budgets = Budgets(shop=NamespaceConfig(rate_max=100, urgent_rate_max=500))
    budgets.spend(600, lane=NORMAL)
    budgets.spend(400, lane=BULK)
    budgets.refused(1, lane=NORMAL)
    budgets.refused(1, lane=BULK)
    budgets.spend(1000, lane=URGENT)
    assert budgets.refused(500, lane=URGENT).retry_after == 1.0
    budgets.time += 1.0
    budgets.spend(100, lane=NORMAL)
    budgets.spend(500, lane=URGENT)
    budgets.refused(1, lane=URGENT)


def test_clients_and_namespaces_do_not_pay_for_each_other() -> None:
    budgets = Budgets(default=NamespaceConfig(rate_max=1))
    for client in ("app", "other"):
        for namespace in ("shop", "web"):
            budgets.spend(1000, client, namespace)
            budgets.refused(1, client, namespace)


def test_without_a_limit_there_is_none_and_urgent_has_one_unless_told_otherwise() -> None:
    budgets = Budgets(web=NamespaceConfig(urgent_rate_max=None))
    for _ in range(11):
        budgets.spend(1000)
        budgets.spend(1000, namespace="web", lane=URGENT)
    for _ in range(10):
        budgets.spend(1000, lane=URGENT)
    budgets.refused(1, lane=URGENT)


def test_a_refusal_says_who_what_when_and_which_setting() -> None:
    budgets = Budgets(default=NamespaceConfig(rate_max=1500, urgent_rate_max=2.5))
    budgets.spend(1000)
    error = budgets.refused(1000)
    assert str(error) == (
        "client app is over its budget of 1,500 rows a second for namespace shop, lanes normal and "
        "bulk: try again in 0.334 s, or raise rate_max of [namespaces.shop]"
    )
    assert error.retry_after == 0.334
    budgets.spend(1000, lane=URGENT)
    error = budgets.refused(1000, lane=URGENT)
    assert "of 2.5 rows a second for namespace shop, lane urgent: try again in 400 s" in str(error)
    assert str(error).endswith("or raise urgent_rate_max of [namespaces.shop]")


def test_what_the_agent_had_no_room_for_costs_nothing() -> None:
    budgets = Budgets(shop=NamespaceConfig(rate_max=1))
    for _ in range(3):
        with (
            pytest.raises(Overloaded, match="full"),
            budgets.budgeting.spending("app", order(1000)),
        ):
            raise Overloaded("full")
    assert not budgets.budgeting.refused
    budgets.spend(1000)
    budgets.refused(1)


def test_refused_rows_are_counted_for_so_many_namespaces() -> None:
    budgets = Budgets(default=NamespaceConfig(rate_max=1))
    for n in range(COUNTED_MAX + 3):
        budgets.spend(1000, namespace=f"n{n}")
        budgets.refused(2, namespace=f"n{n}")
    budgets.refused(5, namespace="n0")
    counted = budgets.budgeting.refused
    assert counted["n0", False] == 7
    assert counted[EVERY_NAMESPACE, False] == 6
    assert len(counted) == COUNTED_MAX + 1
