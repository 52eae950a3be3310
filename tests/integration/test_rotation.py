"""Certificates and authorities are replaced under load: no call fails, and no row is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from certificates import HOUR, Authority, Files, identity
from integration.agents import AgentProcess, cluster
from integration.polling import poll

from coherd.v1 import cache_service_pb2 as cache

NAMES = ("a", "b", "c")


class Load:
    """Invalidates one key after the other at each agent, and waits for the region each time."""

    def __init__(self) -> None:
        self.done = 0
        self.incomplete: list[str] = []
        self.failed: list[grpc.RpcError] = []

    @contextmanager
    def at(self, agents: list[AgentProcess]) -> Iterator[Load]:
        """Run one caller an agent meanwhile."""
        end = threading.Event()
        callers = [threading.Thread(target=self._call, args=(agent, end)) for agent in agents]
        for caller in callers:
            caller.start()
        try:
            yield self
        finally:
            end.set()
            for caller in callers:
                caller.join()

    def _call(self, agent: AgentProcess, end: threading.Event) -> None:
        n = 0
        while not end.wait(0.01):  # a pace, not a wait for something
            n += 1
            key = f"{agent.name}:{n}"
            try:
                receipt = agent.invalidate(keys=[key.encode()], wait=cache.WAIT_REGION, timeout=20)
            except grpc.RpcError as error:
                self.failed.append(error)
            else:
                self.done += 1
                if not receipt.complete:
                    self.incomplete.append(key)


def replaced(agent: AgentProcess, before: float) -> bool:
    """Tell whether an agent shows a certificate that is good for longer than `before` seconds."""
    return agent.status().security.certificate_left_s > before


def renew(hosts: list[AgentProcess], issuer: Authority, ca: Path, hours: int) -> None:
    """Write a new certificate for every agent, and wait until each uses it."""
    for agent in hosts:
        files = issuer.issue(identity(f"agent/{agent.name}"), ends=hours * HOUR, ca=ca)
        ours = paths(ca.parent, agent.name)
        files.key.replace(ours.key)
        files.cert.replace(ours.cert)
    for agent in hosts:
        poll(lambda a=agent: replaced(a, (hours - 0.5) * 3600), f"{agent.name} to use it", 30)
        assert agent.status().security.problem == ""


def paths(folder: Path, name: str) -> Files:
    return Files(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")


@pytest.mark.slow
def test_leaves_and_roots_are_replaced_under_load(tmp_path: Path) -> None:
    folder = tmp_path / "used"
    folder.mkdir()
    old, new = Authority(tmp_path / "old", "old"), Authority(tmp_path / "new", "new")
    ca = folder / "ca.pem"
    ca.write_bytes(old.path.read_bytes())
    settings = {}
    for name in NAMES:
        files, ours = old.issue(identity(f"agent/{name}")), paths(folder, name)
        files.key.rename(ours.key)
        files.cert.rename(ours.cert)
        settings[name] = ours.toml
    with cluster(tmp_path, NAMES, settings) as agents, Load().at(agents) as load:
        renew(agents, old, ca, 2)
        ca.write_bytes(old.path.read_bytes() + new.path.read_bytes())
        renew(agents, old, ca, 3)  # the two roots are believed everywhere now
        renew(agents, new, ca, 4)
        ca.write_bytes(new.path.read_bytes())
        renew(agents, new, ca, 5)
        before = load.done
        poll(lambda: load.done > before + 30, "calls after the last change", 30)
    assert load.failed == []
    assert load.incomplete == []
    assert load.done > 100
