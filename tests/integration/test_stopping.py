"""How an agent process ends: by signals, under load, with calls open and with a cache that hangs."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
import redis
from integration.agents import AgentProcess, cluster, lone, redis_settings
from integration.load import Account, Client
from integration.polling import poll
from integration.watching import Watcher
from servers import RedisServer, redis_server

from coherd.v1 import cache_service_pb2 as cache

STOPS_WITHIN = 5.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def agent_with_redis(folder: Path) -> Iterator[tuple[AgentProcess, RedisServer]]:
    with redis_server(folder / "redis") as server, lone(folder, "a") as agent:
        agent.settings = redis_settings(server.url)
        agent.start()
        poll(lambda: agent.status().ready, "the agent to be ready")
        yield agent, server


def assert_ends_well(agent: AgentProcess) -> None:
    began = time.monotonic()
    assert agent.ended() == 0, agent.log
    assert time.monotonic() - began < STOPS_WITHIN
    assert "Traceback" not in agent.log
    assert "exception" not in agent.log
    assert '"event": "stopped"' in agent.log.splitlines()[-1]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: str)
def test_a_signal_ends_an_idle_agent_well(tmp_path: Path, number: signal.Signals) -> None:
    with lone(tmp_path) as agent:
        agent.start()
        agent.signal(number)
        assert_ends_well(agent)
        assert not agent.socket.exists()
        agent.start()  # on what it left behind
        assert agent.stop() == 0


def test_it_ends_well_under_load(tmp_path: Path) -> None:
    account, over = Account(), threading.Event()
    with agent_with_redis(tmp_path) as (agent, server):
        clients = [Client(agent, server.port, n, n, account, over.is_set) for n in range(3)]
        for client in clients:
            client.start()
        poll(lambda: len(account.answered) > 500, "some load")
        agent.signal(signal.SIGTERM)
        assert_ends_well(agent)
        agent.start()
        over.set()
        for client in clients:
            client.join(30)
        poll(lambda: agent.status().ready, "the agent to be ready again")
        poll(lambda: not agent.status().handlers[0].lag, "the cache to be up to date")
        with redis.Redis(port=server.port) as client, Watcher(agent, cursor="a/0/0") as watcher:
            left = {key.removeprefix(b"shop:") for key in client.scan_iter("shop:*")}
            assert left <= set(account.unanswered)
            poll(lambda: watcher.keys.keys() >= account.answered.keys(), "all rows to be told")
    assert not account.twice
    assert not account.stale


def test_it_ends_well_with_calls_open_and_a_cache_that_hangs(tmp_path: Path) -> None:
    with agent_with_redis(tmp_path) as (agent, server), ExitStack() as stack:
        watcher = stack.enter_context(Watcher(agent, acknowledges=True))
        server.freeze()
        errors: list[grpc.RpcError] = []

        def invalidate() -> None:
            try:
                agent.invalidate(keys=[b"a"], wait=cache.WAIT_LOCAL, timeout=50)
            except grpc.RpcError as error:
                errors.append(error)

        caller = threading.Thread(target=invalidate)
        caller.start()
        poll(lambda: watcher.dots, "the row to be on its way")
        agent.signal(signal.SIGTERM)
        assert_ends_well(agent)
        caller.join(10)
        assert len(errors) == 1
        poll(lambda: watcher.error, "the watch to end")


def test_it_ends_the_links_of_its_peers_instead_of_waiting_for_them(tmp_path: Path) -> None:
    with cluster(tmp_path, ["a", "b"]) as (one, two):
        two.signal(signal.SIGTERM)
        assert_ends_well(two)
        poll(lambda: "the peer ended the link" in one.log, "the links to be ended in order")
        poll(lambda: one.states()["b"] == "restarting", "the other to know that it will be back")


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with agent_with_redis(tmp_path) as (agent, server), Watcher(agent):
        server.freeze()
        agent.signal(signal.SIGTERM)
        poll(lambda: '"event": "stopping"' in agent.log, "the agent to be stopping")
        agent.signal(signal.SIGINT)
        assert agent.ended() == 128 + signal.SIGINT
        assert "Traceback" not in agent.log


def test_two_signals_at_the_same_moment_leave_no_traceback(tmp_path: Path) -> None:
    with lone(tmp_path) as agent:
        agent.start()
        agent.signal(signal.SIGSTOP)
        for number in SIGNALS:
            agent.signal(number)
        agent.signal(signal.SIGCONT)
        assert agent.ended(STOPS_WITHIN) in {128 + number for number in SIGNALS}
        assert "Traceback" not in agent.log
