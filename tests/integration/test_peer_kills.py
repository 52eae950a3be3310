"""A peer that is killed again and again is not noticed by those who invalidate elsewhere."""

from __future__ import annotations

import threading
from pathlib import Path

from integration.agents import cluster, wait_until_whole
from integration.load import Account, Client
from integration.polling import poll
from integration.watching import Watcher
from servers import redis_server

from coherd.model import Position

KILLS = 5
CLIENTS = 4


def test_a_peer_that_dies_fails_no_call_and_leaves_no_hole(tmp_path: Path) -> None:
    account, over = Account(), threading.Event()
    with (
        redis_server(tmp_path / "redis") as server,
        cluster(tmp_path, ["a", "b"]) as (one, two),
    ):
        clients = [Client(one, server.port, n, n, account, over.is_set) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(KILLS):
            two.kill()
            two.start()
            wait_until_whole([one, two])
        over.set()
        for client in clients:
            client.join(30)
        assert not account.refusals
        head = Position.parse(one.status().cursor).n
        assert head == len(account.answered)
        poll(lambda: Position.parse(two.status().cursor).n == head, "b to have everything")
        for agent in (one, two):
            assert not agent.namespace().gaps_open
            assert not agent.namespace().resets
        with Watcher(two, cursor="b/0/0") as watcher:
            poll(lambda: Position.parse(watcher.cursor).n == head, "all rows to be told")
        assert watcher.keys == account.answered
