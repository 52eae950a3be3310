"""Watch: rows in order, once, from a cursor on; acknowledgements; slow watchers and wrong ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import redis
from integration.agents import AgentProcess, lone
from integration.load import Account, Client
from integration.polling import poll
from integration.watching import Watcher, dots_of
from servers import redis_server

from coherd.model import Position
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import types_pb2 as types

MEGABYTE = [b"%03d" % n + b"-" * 1020 for n in range(1000)]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with lone(tmp_path_factory.mktemp("watch")) as agent:
        agent.start()
        yield agent
        assert agent.stop() == 0
        assert "exception" not in agent.log


def test_a_watcher_is_told_what_was_asked_for_and_nothing_else(agent: AgentProcess) -> None:
    with Watcher(agent, "shop", "news") as watcher:
        assert not watcher.changes
        agent.invalidate("shop", keys=[b"key"], tags=[b"tag"], prefixes=[b"pre"], reason="why")
        agent.invalidate("other", keys=[b"key"])
        agent.invalidate("news", everything=True, effect=types.EFFECT_STALE)
        last = agent.invalidate("shop", keys=[b"\xff\x00"], lane=types.LANE_URGENT)
        poll(lambda: watcher.cursor == last.cursor, "everything to be told")
        first, second, third = watcher.changes
    assert (list(first.keys), list(first.tags), list(first.prefixes)) == (
        [b"key"],
        [b"tag"],
        [b"pre"],
    )
    assert (first.namespace, first.reason, first.cause) == ("shop", "why", "local")
    assert first.effect == types.EFFECT_DROP
    assert first.stamp < second.stamp < third.stamp
    assert (second.namespace, second.everything, second.effect) == (
        "news",
        True,
        types.EFFECT_STALE,
    )
    assert list(third.keys) == [b"\xff\x00"]
    assert third.dots[0].lane == types.LANE_URGENT


def test_a_watch_can_begin_at_any_cursor_it_was_ever_told(agent: AgentProcess) -> None:
    before = agent.status().cursor
    receipts = [agent.invalidate(keys=[b"%d" % n, b"more"]) for n in range(20)]
    dots = [dot for receipt in receipts for dot in dots_of(receipt.dots)]
    for at, cursor in enumerate([before, *(receipt.cursor for receipt in receipts)]):
        with Watcher(agent, cursor=cursor) as watcher:
            poll(lambda w=watcher: w.cursor == receipts[-1].cursor, "the rest to be told")
            assert watcher.dots == dots[2 * at :]


@pytest.mark.bad_input(59)
def test_a_cursor_of_another_agent_means_that_everything_is_doubtful(agent: AgentProcess) -> None:
    agent.invalidate(keys=[b"earlier"])
    with Watcher(agent, "news", "shop", cursor="stranger/1/1") as watcher:
        first = watcher.responses[0]
        assert first.cursor == agent.status().cursor
        assert [(c.namespace, c.everything, c.cause) for c in first.changes] == [
            ("news", True, "cursor"),
            ("shop", True, "cursor"),
        ]
        dots = dots_of(agent.invalidate(keys=[b"later"]).dots)
        poll(lambda: watcher.dots == dots, "what comes later to be told")


@pytest.mark.bad_input(59)
def test_a_cursor_of_the_future_goes_on_at_the_head(agent: AgentProcess) -> None:
    mine = Position.parse(agent.invalidate(keys=[b"a"]).cursor)
    for cursor in (mine._replace(n=mine.n + 1000), mine._replace(epoch=mine.epoch + 10**9)):
        with Watcher(agent, cursor=str(cursor)) as watcher:
            assert watcher.cursor == agent.status().cursor
            dots = dots_of(agent.invalidate(keys=[b"later"]).dots)
            poll(lambda w=watcher, d=dots: w.dots[-1:] == d, "what comes later to be told")


@pytest.mark.bad_input(59)
@pytest.mark.parametrize(
    "cursor",
    ["x", "a/1", "a/1/1/1", "a/-1/1", "a/1/-1", "a//1", "a/1/", "/1/1", "a/²/1", "a/1/1\n", "a/1/ 1",
     "a/99999999999999999999/1", "a/1/99999999999999999999", "x" * 100_000, "\x1b[31m/1/1"],
)  # fmt: skip
def test_what_is_no_cursor_is_refused(agent: AgentProcess, cursor: str) -> None:
    with Watcher(agent, cursor=cursor) as watcher:
        assert watcher.error is not None
        assert watcher.error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "is no cursor" in (watcher.error.details() or "")
    with Watcher(agent, cursor=agent.status().cursor, acknowledges=True) as watcher:
        watcher.acknowledge(cursor)
        poll(lambda: watcher.error, "the acknowledgement to be refused")
        assert watcher.error is not None
        assert watcher.error.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_cursor_of_another_agent_cannot_be_acknowledged(agent: AgentProcess) -> None:
    mine = Position.parse(agent.status().cursor)
    with Watcher(agent, acknowledges=True) as watcher:
        watcher.acknowledge(str(mine._replace(name="stranger")))
        poll(lambda: watcher.error, "the acknowledgement to be refused")


@pytest.mark.parametrize(
    "opening",
    [
        cache.WatchOpen(),
        cache.WatchOpen(namespaces=["Shop"]),
        cache.WatchOpen(namespaces=["shop", ""]),
        cache.WatchOpen(namespaces=[f"n{n}" for n in range(1001)]),
        cache.WatchOpen(namespaces=["shop"], name="x" * 129),
    ],
    ids=["no namespace", "wrong namespace", "empty namespace", "too many", "long name"],
)
def test_what_is_no_watch_is_refused(agent: AgentProcess, opening: cache.WatchOpen) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(agent.watch(iter([cache.WatchRequest(open=opening)])))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert not agent.status().watchers


def test_a_watch_that_says_nothing_or_ends_leaves_nothing_behind(agent: AgentProcess) -> None:
    assert not list(agent.watch(iter([])))
    opening = cache.WatchRequest(open=cache.WatchOpen(namespaces=["shop"]))
    call = agent.watch(iter([opening]))
    assert next(call).cursor
    poll(lambda: not agent.status().watchers, "the watch to be over")
    assert not list(call)


def test_local_receipts_wait_for_acknowledgements(agent: AgentProcess) -> None:
    with (
        Watcher(agent, "local", acknowledges=True, name="app") as watcher,
        Watcher(agent, "local", name="idle") as idle,
    ):
        receipt = agent.invalidate("local", keys=[b"a"], wait=cache.WAIT_LOCAL, timeout=0.3)
        assert not receipt.complete
        assert [(m.name, m.state) for m in receipt.missing] == [
            ("a", types.MEMBER_STATE_ALIVE),
        ]
        poll(lambda: idle.dots, "the other one to be told")
        assert [(w.name, w.acknowledges, w.lag) for w in agent.status().watchers] == [
            ("app", True, 1),
            ("idle", False, 0),
        ]
        assert agent.invalidate("other", keys=[b"a"], wait=cache.WAIT_LOCAL).complete
        poll(lambda: watcher.dots, "the row to be told")
        watcher.acknowledge()
        assert agent.receipt(receipt.dots).complete
        answers: list[cache.Receipt] = []
        caller = threading.Thread(
            target=lambda: answers.append(
                agent.invalidate("local", keys=[b"b"], wait=cache.WAIT_LOCAL, timeout=30)
            )
        )
        caller.start()
        poll(lambda: len(watcher.dots) == 2, "the next row to be told")
        assert not answers
        watcher.acknowledge()
        caller.join(10)
        assert answers[0].complete


def test_a_watcher_that_went_away_is_missing_from_receipts(agent: AgentProcess) -> None:
    with Watcher(agent, "gone", acknowledges=True):
        pass
    poll(lambda: not agent.status().watchers, "the watch to be over")
    receipt = agent.invalidate("gone", keys=[b"a"], wait=cache.WAIT_LOCAL, timeout=0.3)
    assert not receipt.complete
    assert [missing.name for missing in receipt.missing] == ["a"]
    assert agent.invalidate("another", keys=[b"a"], wait=cache.WAIT_LOCAL).complete


def test_bookmarks_come_also_while_other_namespaces_are_busy(agent: AgentProcess) -> None:
    with Watcher(agent, "quiet") as watcher:
        first = watcher.cursor

        def is_told() -> bool:
            agent.invalidate("busy", keys=[b"a"])
            return watcher.cursor != first

        poll(is_told, "a bookmark")
        assert not watcher.changes


def test_a_slow_watcher_delays_nobody_and_misses_nothing(agent: AgentProcess) -> None:
    with (
        Watcher(agent, "slow", reads=False) as slow,
        Watcher(agent, "slow", acknowledges=True) as fast,
    ):
        poll(lambda: len(agent.status().watchers) == 2, "both to be there")
        dots = []
        for _ in range(24):
            receipt = agent.invalidate("slow", keys=MEGABYTE)
            dots += dots_of(receipt.dots)
            poll(lambda r=receipt: fast.cursor == r.cursor, "the fast one to be told")
            fast.acknowledge()
        assert agent.receipt(receipt.dots).complete
        lag = max(watcher.lag for watcher in agent.status().watchers)
        assert lag > 8_000, "more than is kept in memory"
        slow.read()
        poll(lambda: slow.cursor == receipt.cursor, "the slow one to be told everything", 60)
        assert slow.dots == fast.dots == dots
        assert not slow.resets


def test_a_watcher_goes_on_over_kills_without_a_gap_or_a_repetition(tmp_path: Path) -> None:
    account, over = Account(), threading.Event()
    told: list[Watcher] = []
    with redis_server(tmp_path / "redis") as server, lone(tmp_path) as agent:
        agent.start()
        cursor = agent.status().cursor
        clients = [Client(agent, server.port, n, n, account, over.is_set) for n in range(2)]
        for client in clients:
            client.start()
        for _ in range(4):
            with Watcher(agent, cursor=cursor) as watcher:
                poll(lambda w=watcher: len(w.dots) > 200, "some rows to be told")
                agent.kill()
                poll(lambda w=watcher: w.error, "the watch to break")
            told.append(watcher)
            cursor = watcher.cursor
            agent.start()
        over.set()
        for client in clients:
            client.join(30)
        with Watcher(agent, cursor=cursor) as watcher:
            poll(lambda: watcher.cursor == agent.status().cursor, "the rest to be told")
        told.append(watcher)
        with redis.Redis(port=server.port) as client:
            assert client.ping()
    dots = [dot for each in told for dot in each.dots]
    assert len(dots) == len(set(dots))
    assert not set(account.answered) - set(dots)
    assert not any(each.resets for each in told)
