"""Agents that restart, die, are forgotten or leave: what the others say of them, and their receipts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from integration.agents import cluster, coherd, redis_settings, wait_until_whole
from integration.polling import poll
from servers import redis_server

from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import types_pb2 as types

NAMES = ["a", "b", "c"]


def missing(receipt: cache.Receipt) -> list[tuple[str, int]]:
    return [(each.name, each.state) for each in receipt.missing]


def dots_of(receipt: cache.Receipt) -> Sequence[str]:
    return [
        f"{d.namespace}/{d.origin.name}/{d.origin.epoch}/normal/{d.first}-{d.last}"
        for d in receipt.dots
    ]


def test_who_is_stopped_is_restarting_at_once_and_required_until_it_is_back(tmp_path: Path) -> None:
    with (
        redis_server(tmp_path / "redis") as server,
        cluster(tmp_path, NAMES, {"c": redis_settings(server.url)}) as agents,
    ):
        one, two, three = agents
        assert three.stop() == 0
        for agent in (one, two):
            assert agent.states()["c"] == "restarting"
        receipt = one.invalidate(keys=[b"x"], wait=cache.WAIT_REGION, timeout=0.5)
        assert missing(receipt) == [("c", types.MEMBER_STATE_RESTARTING)]
        code, said, _ = coherd(one, "receipt", *dots_of(receipt))
        assert code == 3
        assert "missing: c (restarting)" in said
        three.start()
        wait_until_whole(agents)
        assert one.states()["c"] == "alive"
        code, said, _ = coherd(two, "receipt", "--timeout", "20s", *dots_of(receipt))
        assert (code, "applied by 3 of 3: a b c" in said) == (0, True)


def test_a_dead_agent_is_required_until_it_is_forgotten_and_is_back_when_it_starts(
    tmp_path: Path,
) -> None:
    with cluster(tmp_path, NAMES) as agents:
        one, two, three = agents
        epoch = three.status().me.epoch
        three.kill()
        code, _, said = coherd(one, "forget", "b")
        assert (code, said.startswith("refused: b is alive: ")) == (1, True)
        code, _, said = coherd(one, "forget", "z")
        assert (code, said) == (6, "not found: no agent 'z'; known are: b, c\n")
        poll(lambda: one.states()["c"] == "dead", "the third to be dead")
        receipt = one.invalidate(keys=[b"x"], wait=cache.WAIT_REGION, timeout=3600)
        assert missing(receipt) == [("c", types.MEMBER_STATE_DEAD)]
        code, said, _ = coherd(one, "forget", "c")
        assert (code, said.startswith(f"forgotten: c at {three.address}, dead")) == (0, True)
        poll(lambda: "c" not in two.states(), "the second to hear of it")
        for agent in (one, two):
            assert agent.receipt(receipt.dots).complete
            assert list(agent.receipt(receipt.dots).applied) == ["a", "b"]
            assert {link.name for link in agent.status().links} == {"a", "b"} - {agent.name}
            assert agent.status().members_known == 2
        one.kill()
        one.start()
        wait_until_whole([one, two])
        assert set(one.states()) == {"a", "b"}, "it outlives a restart"
        three.start()
        wait_until_whole(agents)
        assert three.status().me.epoch > epoch
        assert not three.namespace().resets
        receipt = two.invalidate(keys=[b"y"], wait=cache.WAIT_REGION)
        assert list(receipt.applied) == NAMES


def test_who_leaves_ends_well_and_nobody_waits_for_it(tmp_path: Path) -> None:
    with cluster(tmp_path, NAMES) as agents:
        one, two, three = agents
        assert coherd(three, "leave") == (0, "left; told: a b\n", "")
        assert three.ended() == 0
        assert '"event": "stopped"' in three.log.splitlines()[-1]
        assert "Traceback" not in three.log
        for agent in (one, two):
            assert set(agent.states()) == {"a", "b"}
            receipt = agent.invalidate(keys=[b"x"], wait=cache.WAIT_REGION)
            assert (receipt.complete, list(receipt.applied)) == (True, ["a", "b"])
        three.start()
        wait_until_whole(agents)


def test_who_is_stopped_for_good_leaves(tmp_path: Path) -> None:
    with cluster(tmp_path, NAMES, {"c": 'on_stop = "leave"'}) as agents:
        one, two, three = agents
        assert three.stop() == 0
        assert '"event": "left the cluster"' in three.log
        for agent in (one, two):
            assert set(agent.states()) == {"a", "b"}
            assert agent.invalidate(keys=[b"x"], wait=cache.WAIT_REGION).complete
        three.start()
        wait_until_whole(agents)
        before = three.log.count('"event": "left the cluster"')
        assert coherd(three, "leave") == (0, "left; told: a b\n", "")
        assert three.ended() == 0
        assert three.log.count('"event": "left the cluster"') == before + 1


def test_who_leaves_while_it_is_cut_off_names_those_it_could_not_tell(tmp_path: Path) -> None:
    with cluster(tmp_path, NAMES, proxies=True) as agents:
        one, two, three = agents
        for agent, other in ((two, three), (three, two)):
            assert agent.proxy is not None
            agent.proxy.cut([other.name])
        poll(lambda: not three.member("b").linked, "the second to be out of reach")
        assert three.states()["b"] == "alive", "the first reaches it"
        code, said, error = coherd(three, "leave")
        assert (code, said) == (3, "left; told: a\n")
        assert error == "not told: b; they learn it from the others\n"
        assert three.ended() == 0
        assert set(one.states()) == {"a", "b"}
        poll(lambda: set(two.states()) == {"a", "b"}, "the second to hear of it")
        assert two.invalidate(keys=[b"x"], wait=cache.WAIT_REGION).complete


def test_a_live_agent_that_is_forgotten_by_mistake_is_back_after_the_heal(tmp_path: Path) -> None:
    with cluster(tmp_path, NAMES, proxies=True) as agents:
        one, two, three = agents
        epoch = three.status().me.epoch
        for agent, other in ((one, three), (two, three), (three, one), (three, two)):
            assert agent.proxy is not None
            agent.proxy.cut([other.name])
        poll(lambda: one.states()["c"] == "dead", "the third to be dead")
        assert coherd(one, "forget", "c")[0] == 0
        poll(lambda: "c" not in two.states(), "the second to hear of it")
        three.invalidate(keys=[b"meanwhile"])
        for agent in agents:
            assert agent.proxy is not None
            agent.proxy.heal()
        wait_until_whole(agents)
        assert three.status().me.epoch > epoch
        poll(lambda: one.namespace().repaired, "what it accepted meanwhile")
        receipt = one.invalidate(keys=[b"x"], wait=cache.WAIT_REGION)
        assert list(receipt.applied) == NAMES
        assert not any(agent.namespace().resets for agent in agents)
