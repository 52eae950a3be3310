"""A build that speaks one version more, and says things that are not known here, beside this one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from integration.agents import AgentProcess, cluster, wait_until_whole
from integration.polling import poll

from coherd.net.peer import PROTOCOL_MAX
from coherd.v1 import cache_service_pb2 as cache

NAMES = ["a", "b", "c"]
NEXT_AGENT = Path(__file__).parent / "next_agent.py"


def upgrade(agent: AgentProcess) -> None:
    """Let it be of the next version from its next start on."""
    agent.program = [sys.executable, str(NEXT_AGENT)]


@pytest.mark.parametrize("newer", [0, 2], ids=["the seed", "one that joins"])
def test_the_next_version_works_with_this_one_both_ways(tmp_path: Path, newer: int) -> None:
    with cluster(tmp_path, NAMES) as agents:
        log = {agent.name: len(agent.log) for agent in agents}
        agents[newer].stop()
        upgrade(agents[newer])
        missed = agents[1].invalidate(keys=[b"while it was upgraded"])
        agents[newer].start()
        wait_until_whole(agents)
        for agent in agents:
            ranges = {member.name: member.protocol_max for member in agent.members()}
            assert ranges[NAMES[newer]] == PROTOCOL_MAX + 1, agent.name
            receipt = agent.invalidate(keys=[agent.name.encode()], wait=cache.WAIT_REGION)
            assert list(receipt.applied) == NAMES
        poll(lambda: list(agents[newer].receipt(missed.dots).applied) == NAMES, "its repair")
        agents[0].invalidate(keys=[b"k" * 100] * 900)
        for agent in agents:
            assert not agent.namespace().resets
            assert "Traceback" not in agent.log
            said = agent.log[log[agent.name] :]
            assert "malformed" not in said
            assert "not believed" not in said
