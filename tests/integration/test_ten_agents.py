"""Ten agents as real processes: killed, frozen, moved, taken for another, cut apart, restarted in turn."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from integration.agents import AgentProcess, cluster, lone, wait_until_whole
from integration.polling import poll, stays
from servers import free_port

from coherd.v1 import cache_service_pb2 as cache

pytestmark = pytest.mark.slow

NAMES = [f"cache-{n}" for n in range(10)]
DEAD_WITHIN = 60.0
HEALED_WITHIN = 60.0
CUT_FOR = 120.0
"""Seconds."""


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[AgentProcess]]:
    with cluster(tmp_path_factory.mktemp("ten"), NAMES) as agents:
        yield agents


class Log:
    """What agents say of each other from now on."""

    def __init__(self, agents: Sequence[AgentProcess]) -> None:
        self._agents = agents
        self._before = {agent.name: len(agent.log) for agent in agents}

    def of(self, event: str) -> list[tuple[str, str]]:
        """Give (who says it, of whom) for an event of membership."""
        said = []
        for agent in self._agents:
            for line in agent.log[self._before[agent.name] :].splitlines():
                entry = json.loads(line)
                if entry["event"] == event:
                    said.append((agent.name, entry["member"]))
        return said


def seen_as(agents: Sequence[AgentProcess], name: str, state: str) -> Callable[[], bool]:
    """Tell whether all others see an agent in a state."""
    others = [agent for agent in agents if agent.name != name]
    return lambda: all(agent.states()[name] == state for agent in others)


def whole_after(agents: Sequence[AgentProcess], seconds: float = HEALED_WITHIN) -> None:
    wait_until_whole(agents, seconds)
    # Who was seen alive by one may be suspected once more, by news that are still on their way.
    poll(
        lambda: all(set(agent.states().values()) == {"alive"} for agent in agents),
        "all to see all alive",
        seconds,
    )


def test_one_that_is_killed_is_dead_for_all_and_comes_back(ten: list[AgentProcess]) -> None:
    log = Log(ten)
    ten[3].kill()
    poll(lambda: log.of("dead"), "the first to declare it dead", DEAD_WITHIN)
    poll(seen_as(ten, "cache-3", "dead"), "all to know", DEAD_WITHIN)
    assert {of for _, of in log.of("dead")} == {"cache-3"}
    ten[3].start()
    whole_after(ten)


def test_one_that_is_frozen_for_three_seconds_is_not_declared_dead(ten: list[AgentProcess]) -> None:
    log = Log(ten)
    ten[4].signal(signal.SIGSTOP)
    stays(lambda: not log.of("dead"), 3.0, "nobody to be declared dead")
    ten[4].signal(signal.SIGCONT)
    whole_after(ten)
    stays(lambda: not log.of("dead"), 10.0, "nobody to be declared dead afterwards")


def test_one_that_is_frozen_for_a_minute_is_dead_and_comes_back_by_itself(
    ten: list[AgentProcess],
) -> None:
    log = Log(ten)
    others = [agent for agent in ten if agent.name != "cache-5"]
    ten[5].signal(signal.SIGSTOP)
    stays(lambda: all(a.answers() for a in others), 60.0, "the others to answer")
    assert seen_as(ten, "cache-5", "dead")()
    missed = ten[0].invalidate(keys=[b"while it was frozen"])
    ten[5].signal(signal.SIGCONT)
    whole_after(ten)
    assert {of for who, of in log.of("dead") if who != "cache-5"} == {"cache-5"}
    assert ten[5].receipt(missed.dots, 30).complete


def test_one_that_moves_to_another_port_keeps_its_name(ten: list[AgentProcess]) -> None:
    ten[6].kill()
    ten[6].port = free_port()
    ten[6].start()
    whole_after(ten)
    for agent in ten:
        (moved,) = [member for member in agent.members() if member.name == "cache-6"]
        assert moved.address == ten[6].address
    assert ten[6].invalidate(keys=[b"moved"], wait=cache.WAIT_REGION).complete


def test_one_whose_name_is_taken_exits_and_names_the_holder(
    ten: list[AgentProcess], tmp_path: Path
) -> None:
    log = Log(ten)
    with lone(tmp_path, "cache-7") as newcomer:
        newcomer.seeds = [ten[0].address, ten[1].address]
        said = newcomer.refused()
    assert f"the name 'cache-7' is taken by the agent at {ten[7].address}" in said
    assert not log.of("dead")
    whole_after(ten)


def test_each_restarts_in_turn_and_nobody_is_declared_dead_and_nothing_is_lost(
    ten: list[AgentProcess],
) -> None:
    log = Log(ten)
    receipts = []
    for number, agent in enumerate(ten):
        neighbour = ten[(number + 1) % len(ten)]
        assert agent.stop() == 0
        poll(seen_as(ten, agent.name, "restarting"), "all to know that it restarts", 5.0)
        receipts.append(neighbour.invalidate(keys=[f"{number}".encode()]))
        agent.start()
        receipts.append(agent.invalidate(keys=[f"after {number}".encode()]))
        whole_after(ten)
    assert not log.of("dead")
    for receipt in receipts:
        found = ten[0].receipt(receipt.dots, 30)
        assert found.complete, found
        assert list(found.applied) == NAMES
    assert not any(agent.namespace().resets for agent in ten)


def test_all_are_killed_and_started_at_once(ten: list[AgentProcess]) -> None:
    accepted = [agent.invalidate(keys=[b"before"], wait=cache.WAIT_LOCAL) for agent in ten]
    for agent in ten:
        agent.kill()
    for agent in ten:
        agent.spawn()
    for agent in ten:
        poll(agent.answers, f"agent {agent.name}", 60.0)
    whole_after(ten)
    for receipt in accepted:
        assert list(ten[0].receipt(receipt.dots, 30).applied) == NAMES
    assert not any(agent.namespace().resets for agent in ten)


def test_halves_that_were_cut_apart_for_two_minutes_become_one_by_themselves(
    tmp_path: Path,
) -> None:
    with cluster(tmp_path, NAMES, proxies=True) as agents:
        halves = agents[:5], agents[5:]
        for half, other in (halves, halves[::-1]):
            for agent in half:
                assert agent.proxy is not None
                agent.proxy.cut([stranger.name for stranger in other])
        accepted = [half[0].invalidate(keys=[b"meanwhile"]) for half in halves]
        stays(lambda: all(a.answers() for a in agents), CUT_FOR, "everybody to answer")
        for half, other in (halves, halves[::-1]):
            for agent in half:  # how many depends on how long it takes itself for the sick one
                states = agent.states()
                assert any(states[stranger.name] == "dead" for stranger in other), states
        for agent in agents:
            assert agent.proxy is not None
            agent.proxy.heal()
        whole_after(agents)
        for receipt in accepted:
            assert list(agents[0].receipt(receipt.dots, 30).applied) == NAMES
        assert not any(agent.namespace().resets for agent in agents)
