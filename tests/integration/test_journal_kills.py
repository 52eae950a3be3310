"""The journal survives SIGKILL at any moment: nothing accepted is lost, no number is reused."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from pathlib import Path

import pytest
import redis
from integration.agents import AgentProcess, lone, redis_settings
from integration.load import Account, Client
from integration.polling import poll
from integration.watching import Watcher
from servers import RedisServer, redis_server

from coherd.model import Position
from coherd.v1 import types_pb2 as types

CLIENTS = 3
UNTOUCHED = 500
DOTS_MAX = 5_000
"""Ranges of dots of one question."""


class Moment(Enum):
    """In which part of a life the kill comes."""

    START = "up to 0.6 s after the process began"
    LOAD = "up to 0.4 s after it answered for the first time"
    ANSWER = "at once when one of the next answers has come"
    HANG = "after it has accepted what its cache, which hangs, has not applied"
    STOP = "up to 0.3 s after it was told to stop"


class Killed:
    """An agent that is killed again and again, a holder beside it, and the clients' account."""

    def __init__(
        self, agent: AgentProcess, holder: AgentProcess, server: RedisServer, seed: int
    ) -> None:
        self.agent = agent
        self.holder = holder
        self.server = server
        self.account = Account()
        self.cache = redis.Redis(port=server.port)
        self.moments: Counter[str] = Counter()
        self.epochs: list[int] = []
        self.exit_codes: set[int] = set()
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._clients = [
            Client(agent, server.port, n, seed * CLIENTS + n, self.account, self._over.is_set)
            for n in range(CLIENTS)
        ]

    @contextmanager
    def load(self) -> Iterator[None]:
        for client in self._clients:
            client.start()
        try:
            yield
        finally:
            self._over.set()
            for client in self._clients:
                client.join(30)
            assert not any(client.is_alive() for client in self._clients)

    def live_and_die(self) -> None:
        """One life: started, and killed at a random moment."""
        moment = self._random.choice(list(Moment))
        self.moments[moment.name] += 1
        durability = self._random.choice(("os", "disk"))
        self.agent.settings = f'durability = "{durability}"\n' + redis_settings(self.server.url)
        if moment is Moment.START:
            self.agent.spawn()
            self._pass(self._random.uniform(0, 0.6))
        else:
            self.agent.start()
            self.look()
        if moment is Moment.LOAD:
            self._pass(self._random.uniform(0, 0.4))
        elif moment is Moment.ANSWER:
            self._kill_after_answers(self._random.randint(1, 50))
        elif moment is Moment.HANG:
            self._invalidate_what_cannot_be_applied()
        elif moment is Moment.STOP:
            self.agent.signal(signal.SIGTERM)
            self._pass(self._random.uniform(0, 0.3))
        self._kill()
        self.exit_codes.add(self.agent.ended())
        self.server.thaw()

    def _kill(self) -> None:
        assert self.agent.process is not None
        self.agent.process.send_signal(signal.SIGKILL)

    def _kill_after_answers(self, answers: int) -> None:
        process, left = self.agent.process, iter(range(answers - 1))
        assert process is not None

        def answered() -> None:
            if next(left, None) is None:
                process.send_signal(signal.SIGKILL)

        self.account.on_answer = answered
        process.wait(30)
        self.account.on_answer = lambda: None

    def _invalidate_what_cannot_be_applied(self) -> None:
        life = self.epochs[-1]
        batches = [[b"hang-%d-%d-%d" % (life, n, m) for m in range(3)] for n in range(10)]
        self.cache.mset({b"shop:" + key: b"value" for keys in batches for key in keys})
        self.server.freeze()
        for keys in batches:
            self.account.accepted(self.agent.invalidate(keys=keys), keys)

    def live_of_the_holder(self) -> None:
        """Sometimes the holder comes, sometimes it dies."""
        if self._random.random() < 0.2:
            if self.holder.process is None:
                self.holder.spawn()
            else:
                self.holder.kill()

    def look(self) -> None:
        """Note the life that runs, and that the cursor in the cache is one of this agent's."""
        self.epochs.append(self.agent.status().me.epoch)
        for cursor in self.cursors():
            assert (cursor.name, cursor.epoch <= self.epochs[-1]) == ("a", True)

    def cursors(self) -> list[Position]:
        held = self.cache.hgetall("coherd:cursor:test:a")
        return [Position.parse(value.decode().partition(" ")[0]) for value in held.values()]

    def _pass(self, seconds: float) -> None:
        """Let a part of the agent's life pass: which part is what the test draws."""
        with suppress(subprocess.TimeoutExpired):
            assert self.agent.process is not None
            self.agent.process.wait(seconds)


@contextmanager
def killed(folder: Path, seed: int) -> Iterator[Killed]:
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(folder / "redis"))
        agent = stack.enter_context(lone(folder, "a"))
        holder = stack.enter_context(lone(folder, "b"))
        holder.seeds = [agent.address]
        kept = Killed(agent, holder, server, seed)
        stack.callback(kept.cache.close)
        kept.cache.mset({f"shop:untouched-{n}": "value" for n in range(UNTOUCHED)})
        yield kept


def kill_again_and_again(kept: Killed, kills: int) -> None:
    with kept.load():
        for _ in range(kills):
            kept.live_and_die()
            kept.live_of_the_holder()
        kept.agent.start()
        kept.look()
        if kept.holder.process is None:
            kept.holder.spawn()
    assert kept.exit_codes <= {-signal.SIGKILL, 0}
    assert kept.epochs == sorted(set(kept.epochs)), "epochs strictly ascend"
    assert not kept.account.twice
    assert not kept.account.stale
    assert kept.account.answered


def assert_cache_is_right(kept: Killed) -> None:
    """What was answered is gone, what nobody touched is there, and the cursor is at the head."""
    agent = kept.agent
    poll(lambda: agent.is_ready_with(2), "the last life to be ready")
    poll(lambda: not agent.status().handlers[0].lag, "the cache to be up to date")
    left = {key.removeprefix(b"shop:") for key in kept.cache.scan_iter("shop:*", count=1000)}
    assert not left & set(kept.account.answered.values())
    assert left >= {b"untouched-%d" % n for n in range(UNTOUCHED)}
    head = Position.parse(agent.status().cursor)
    assert [cursor.n for cursor in kept.cursors()] == [head.n]
    assert not agent.status().handlers[0].resets
    assert not agent.namespace().resets
    assert not kept.holder.namespace().resets


def assert_journals_are_right(kept: Killed) -> None:
    """Both agents have each answered row under its dot, and each dot once."""
    agents = (kept.agent, kept.holder)
    poll(lambda: len({kept_sum(agent) for agent in agents}) == 1, "the agents to be equal", 60)
    answered = kept.account.answered
    for agent in agents:
        head = Position.parse(agent.status().cursor).n
        with Watcher(agent, cursor=f"{agent.name}/0/0") as watcher:
            poll(
                lambda w=watcher, h=head: Position.parse(w.cursor).n >= h,
                "the whole journal to be told",
                60,
            )
        assert not watcher.resets
        told = watcher.dots
        assert len(told) == len(set(told)) == head, "each dot once, each position one row"
        keys = watcher.keys
        assert {dot: keys.get(dot) for dot in answered} == answered
    ranges = [
        types.Dots(
            namespace=namespace,
            origin=types.Origin(name=name, epoch=epoch),
            lane=lane,
            first=number,
            last=number,
        )
        for namespace, name, epoch, lane, number in answered
    ]
    for start in range(0, len(ranges), DOTS_MAX):
        receipt = kept.agent.receipt(ranges[start : start + DOTS_MAX])
        assert list(receipt.applied) == ["a", "b"]


def kept_sum(agent: AgentProcess) -> tuple[int, int]:
    status = agent.namespace()
    return (int(agent.status().cursor.rpartition("/")[2]), status.gaps_open)


def test_nothing_accepted_is_lost_by_a_few_kills(tmp_path: Path) -> None:
    with killed(tmp_path, seed=8) as kept:
        kill_again_and_again(kept, 8)
        assert_cache_is_right(kept)
        assert_journals_are_right(kept)


@pytest.mark.slow
def test_nothing_accepted_is_lost_by_200_kills(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10_000)
    print(f"seed {seed}")
    with killed(tmp_path, seed) as kept:
        kill_again_and_again(kept, 200)
        assert_cache_is_right(kept)
        assert_journals_are_right(kept)
        print(kept.moments, len(kept.account.answered), "rows answered", kept.account.refusals)
