"""What a diagnosis says of whole agents in virtual time: seeds, links, clocks, versions, caches."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulation.hosts import Host, hosts, until
from trio.testing import MockClock

from coherd.cluster.diagnosis import Diagnosis
from coherd.cluster.findings import Finding, Severity
from coherd.cluster.roster import State
from coherd.config import Address
from coherd.net.obstacles import Explain, Obstacle

REFUSED = Obstacle("connection refused", "start the agent there")


async def refused(_address: Address, _name: str | None) -> Obstacle | None:
    return REFUSED


async def open_port(_address: Address, _name: str | None) -> Obstacle | None:
    return None


async def diagnosed(host: Host, probe: Explain = refused) -> dict[str, list[Finding]]:
    """Give the findings by subject."""
    found: dict[str, list[Finding]] = {}
    host.agent.protection.explain = probe
    for finding in await Diagnosis(host.agent, host=None).run():
        assert bool(finding.remedy) == (finding.severity is not Severity.OK)
        found.setdefault(finding.subject, []).append(finding)
    return found


def config_of(host: Host, *seeds: str) -> None:
    join = tuple(Address(name, 4373) for name in seeds)
    host.agent.config = replace(host.agent.config, join=join)


async def test_where_all_is_well_every_finding_says_so(autojump_clock: MockClock) -> None:
    async with hosts(3) as (one, two, _):
        one.fill([b"a", b"b"])
        for host, seed in ((one, "this agent itself"), (two, "host-1, coherd 0.1.0")):
            found = await diagnosed(host)
            assert {f.severity for fs in found.values() for f in fs} == {Severity.OK}
            assert [f.text for f in found["seed"]] == [seed]
        found = await diagnosed(one)
        assert [f.name for f in found["link"]] == ["host-2", "host-3"]
        assert all(f.text.startswith("round trip ") for f in found["link"])
        assert [f.name for f in found["clock"]] == ["host-2", "host-3"]
        assert [f.text for f in found["version"]] == ["coherd 0.1.0, protocol 1 everywhere"]
        assert [f.text for f in found["handler"]] == ["2 of 2 keys match {key}"]
        assert [f.text for f in found["ready"]] == ["it can vouch for the caches of this host"]


async def test_seeds_that_do_not_answer_are_told_apart(autojump_clock: MockClock) -> None:
    async with hosts(2) as (one, two):
        config_of(two, "10.0.0.1", "10.0.0.2", "10.0.0.9")
        texts = {f.name: (f.severity, f.text) for f in (await diagnosed(two))["seed"]}
        assert texts == {
            "10.0.0.1:4373": (Severity.OK, "host-1, coherd 0.1.0"),
            "10.0.0.2:4373": (Severity.OK, "this agent itself"),
            "10.0.0.9:4373": (Severity.WARNING, "connection refused"),
        }
        config_of(two, "10.0.0.9")
        (alone,) = (await diagnosed(two, open_port))["seed"]
        assert alone.severity is Severity.ERROR
        assert alone.text == "something answers there that is no agent (unavailable)"
        one.agent.endpoint._cluster = "other"
        config_of(two, "10.0.0.1")
        (other,) = (await diagnosed(two))["seed"]
        assert other.severity is Severity.ERROR
        assert other.text == "it refuses this agent: this is cluster 'other', not 'test'"
        assert other.remedy == "check `cluster` and `join`"


async def test_a_clock_that_is_far_ahead_and_another_version_are_warnings(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosts(3) as (one, two, _):
        wall = two.agent.clock.wall_us
        monkeypatch.setattr(two.agent.clock, "wall_us", lambda: wall() + 60_000_000)
        one.agent.roster.me = replace(one.agent.roster.me, version="0.2.0", protocol_max=2)
        found = await diagnosed(one)
        ahead, same = found["clock"]
        assert (ahead.name, ahead.severity) == ("host-2", Severity.WARNING)
        assert ahead.text.startswith(("60.0", "59.9"))
        assert same.severity is Severity.OK
        (mix,) = found["version"]
        assert mix.severity is Severity.WARNING
        assert mix.text == (
            "coherd 0.1.0, protocol 1: host-2, host-3; coherd 0.2.0, protocol 1 to 2: host-1"
        )


async def test_members_that_are_away_and_caches_that_fail_are_named(
    autojump_clock: MockClock,
) -> None:
    async with hosts(3) as (one, two, three):
        await two.agent.operators.tell_stop()
        two.crash()
        three.crash()
        await until(lambda: one.agent.roster.members["host-3"].state is State.DEAD)
        one.cache.fail_next(10_000)
        await one.invalidate([b"a"])
        await until(lambda: not one.agent.delivery.handlers[0].connected)
        found = await diagnosed(one)
        restarting, gone = found["link"]
        assert restarting.severity is Severity.OK
        assert "it said" in restarting.text
        assert gone.severity is Severity.WARNING
        assert gone.remedy.endswith("coherd forget host-3")
        assert "clock" not in found
        (cache,) = found["handler"]
        assert cache.severity is Severity.ERROR
        assert "told to fail" in cache.text
        assert found["ready"][0].severity is Severity.WARNING


async def test_a_cache_whose_keys_are_named_otherwise_is_a_warning(
    autojump_clock: MockClock,
) -> None:
    async with hosts(1) as (one,):
        (empty,) = (await diagnosed(one))["handler"]
        assert (empty.severity, empty.text) == (Severity.OK, "empty")
        one.cache.strangers |= {b"prod:shop:17"}
        (found,) = (await diagnosed(one))["handler"]
        assert found.severity is Severity.WARNING
        assert found.text == "0 of 1 keys match {key}; e.g. `prod:shop:17` does not"


async def test_what_takes_too_long_is_a_finding(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosts(1) as (one,):

        async def never() -> object:
            await until(lambda: False, 10_000)
            raise AssertionError

        monkeypatch.setattr(one.cache, "survey", never)
        (found,) = (await diagnosed(one))["handler"]
        assert (found.severity, found.text) == (Severity.ERROR, "not done after 8 s")
