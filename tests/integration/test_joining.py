"""How agents find each other, whom they refuse, and how they come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from integration.agents import AgentProcess, coherd, lone, wait_until_whole
from integration.polling import poll
from servers import free_port

from coherd.v1 import cache_service_pb2 as cache

NOBODY = "coherd-test.invalid:4373"
"""A seed whose name does not resolve."""


class Make(Protocol):
    def __call__(self, name: str, *seeds: str, settings: str = "") -> AgentProcess: ...


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make agents that are not started yet; they may have the same name."""
    with ExitStack() as stack:

        def make(name: str, *seeds: str, settings: str = "") -> AgentProcess:
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            agent = stack.enter_context(lone(folder, name, settings))
            agent.seeds = list(seeds)
            return agent

        yield make


def test_the_first_agent_is_ready_alone(make: Make) -> None:
    first = make("a")
    first.start()
    poll(lambda: first.is_ready_with(1), "it to be ready")
    assert first.states() == {"a": "alive"}
    assert first.health() == "SERVING"


@pytest.mark.parametrize("itself", [False, True], ids=["others", "itself"])
def test_where_no_seed_answers_it_is_not_ready_and_says_why(make: Make, *, itself: bool) -> None:
    agent = make("a", f"127.0.0.1:{free_port()}", NOBODY)
    if itself:
        agent.seeds.append(agent.address)
    agent.start()
    status = agent.status()
    assert not status.ready
    assert "no seed answers" in " ".join(status.reasons)
    assert "join_alone" in " ".join(status.reasons)
    assert agent.health() == "NOT_SERVING"
    assert agent.invalidate(keys=[b"a"]).complete, "what it is told it takes all the same"


def test_join_alone_makes_it_ready_although_no_seed_answers(make: Make) -> None:
    agent = make("a", f"127.0.0.1:{free_port()}", NOBODY, settings="join_alone = true")
    agent.start()
    poll(lambda: agent.is_ready_with(1), "it to be ready")


def test_one_good_seed_among_bad_ones_is_enough(make: Make) -> None:
    first = make("a")
    second = make("b", NOBODY, f"127.0.0.1:{free_port()}", first.address, first.address)
    second.seeds += [second.address, second.address]
    first.start()
    second.start()
    wait_until_whole([first, second])
    for agent in (first, second):
        assert agent.states() == {"a": "alive", "b": "alive"}
        assert agent.status().members_known == 2
        assert len(agent.status().links) == 2


def test_a_seed_may_be_a_name_and_may_come_later(make: Make) -> None:
    first = make("a")
    second = make("b", f"localhost:{first.port}")
    second.start()
    assert not second.status().ready
    first.start()
    wait_until_whole([first, second])


def test_agents_find_each_other_over_a_third(make: Make) -> None:
    first = make("a")
    others = [make(name, first.address) for name in ("b", "c", "d")]
    for agent in (first, *others):
        agent.start()
    wait_until_whole([first, *others])
    first.kill()
    for agent in others:
        receipt = agent.invalidate(keys=[b"a"], wait=cache.WAIT_MEMBERS, members=3, timeout=30)
        assert list(receipt.applied) == ["b", "c", "d"]
        assert agent.status().ready


def test_two_clusters_of_one_name_become_one_when_an_agent_is_told_of_the_other(make: Make) -> None:
    one, three = make("a"), make("c")
    two, four = make("b", one.address), make("d", three.address)
    for agent in (one, two, three, four):
        agent.start()
    wait_until_whole([one, two])
    wait_until_whole([three, four])
    dead = f"127.0.0.1:{free_port()}"
    code, said, error = coherd(one, "join", dead, four.address)
    assert (code, error) == (0, "")
    assert f"{four.address}  d\n" in said
    assert f"{dead}  no answer: " in said
    wait_until_whole([one, two, three, four])
    receipt = two.invalidate(keys=[b"key"], wait=cache.WAIT_REGION)
    assert list(receipt.applied) == ["a", "b", "c", "d"]


def test_a_seed_that_is_told_to_an_agent_may_come_later(make: Make) -> None:
    first, second = make("a"), make("b")
    first.start()
    code, said, _ = coherd(first, "join", second.address)
    assert (code, "no answer" in said) == (4, True)
    second.start()
    wait_until_whole([first, second])


def test_who_refuses_to_be_joined_says_why(make: Make) -> None:
    first, stranger = make("a"), make("b")
    stranger.cluster = "other"
    first.start()
    stranger.start()
    code, said, _ = coherd(first, "join", stranger.address)
    assert code == 4
    assert "this is cluster 'other', not 'test'" in said
    assert first.states() == {"a": "alive"}


def test_agents_of_another_cluster_stay_among_themselves(make: Make) -> None:
    first, stranger = make("a"), make("b")
    stranger.cluster, stranger.seeds = "other", [first.address]
    first.start()
    stranger.start()
    poll(lambda: "this is cluster 'test', not 'other'" in stranger.log, "it to be refused by name")
    assert not stranger.status().ready
    assert "no seed answers" in " ".join(stranger.status().reasons)
    assert first.states() == {"a": "alive"}
    assert stranger.states() == {"b": "alive"}


def test_a_name_that_is_taken_ends_the_newcomer(make: Make) -> None:
    first = make("a")
    holder = make("b", first.address)
    first.start()
    holder.start()
    wait_until_whole([first, holder])
    newcomers = [make("b", seed.address) for seed in (first, holder)]
    for newcomer in newcomers:
        newcomer.spawn()
    for newcomer in newcomers:
        said = newcomer.was_refused()
        assert f"the name 'b' is taken by the agent at {holder.address}" in said
        assert "`name`" in said
    assert first.states() == holder.states() == {"a": "alive", "b": "alive"}
    receipt = first.invalidate(keys=[b"key"], wait=cache.WAIT_REGION)
    assert list(receipt.applied) == ["a", "b"]


def test_a_name_becomes_free_when_its_holder_is_gone(make: Make) -> None:
    first = make("a")
    holder = make("b", first.address)
    first.start()
    holder.start()
    wait_until_whole([first, holder])
    holder.kill()
    successor = make("b", first.address)
    successor.start()
    wait_until_whole([first, successor])
    epochs = {member.name: member.epoch for member in first.members()}
    assert epochs["b"] == successor.status().me.epoch
    assert "is taken by the agent at" in holder.refused()


@pytest.mark.parametrize("how", ["killed", "stopped", "moved", "without its data"])
def test_an_agent_comes_back_under_its_name_in_a_later_epoch(make: Make, how: str) -> None:
    first = make("a")
    second = make("b", first.address)
    first.start()
    second.start()
    wait_until_whole([first, second])
    before = second.status().me.epoch
    early = second.invalidate(keys=[b"early"], wait=cache.WAIT_REGION)
    if how == "stopped":
        second.stop()
    else:
        second.kill()
    if how == "moved":
        second.port = free_port()
    if how == "without its data":
        second.data = second.folder / "new"
    meanwhile = first.invalidate(keys=[b"meanwhile"])
    second.start()
    wait_until_whole([first, second])
    me = second.status().me
    assert me.epoch > before
    (seen,) = [member for member in first.members() if member.name == "b"]
    assert (seen.epoch, seen.address) == (me.epoch, second.address)
    late = second.invalidate(keys=[b"late"], wait=cache.WAIT_REGION)
    assert [dots.origin.epoch for dots in (*early.dots, *late.dots)] == [before, me.epoch]
    for receipt in (early, meanwhile, late):
        for agent in (first, second):
            assert list(agent.receipt(receipt.dots).applied) == ["a", "b"]
    assert not second.namespace().resets


def test_a_whole_cluster_that_was_restarted_is_ready_again(make: Make) -> None:
    agents = [make(name) for name in ("a", "b", "c")]
    for agent in agents:
        agent.seeds = [other.address for other in agents]
        agent.start()
    wait_until_whole(agents)
    for agent in agents:
        agent.kill()
    for agent in agents:
        agent.spawn()
    for agent in agents:
        poll(agent.answers, f"agent {agent.name}")
    wait_until_whole(agents)
