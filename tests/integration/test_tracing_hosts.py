"""`coherd trace` and a followed `coherd invalidate` against real agents: who has it, and by which way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
import pytest
from integration.agents import AgentProcess, coherd, wait_until_whole
from integration.hosts import three_agents
from integration.polling import poll
from servers import RedisServer
from terminal import Terminal

NAMES = ["cache-1", "cache-2", "cache-3"]
Hosts = tuple[list[AgentProcess], RedisServer]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three agents; only the third has a cache to look after."""
    with three_agents(tmp_path_factory.mktemp("tracing")) as found:
        yield found


def trace(agent: AgentProcess, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Ask about `user:42`: the exit code, and what is said of the newest row by host."""
    code, text, errors = coherd(agent, "trace", "shop", "user:42", "-o", "json", *arguments)
    assert not errors
    found = json.loads(text)
    newest = found["rows"][0] if found["rows"] else {"hosts": []}
    return code, {host["name"]: host for host in newest["hosts"]}


def test_a_host_that_was_stopped_gets_it_by_repair_and_both_are_told(hosts: Hosts) -> None:
    agents, _ = hosts
    one, two, three = agents
    assert trace(one) == (6, {}), "nobody has invalidated it"
    two.stop()
    poll(lambda: one.states()["cache-2"] == "dead", "the second to be dead")
    invalidate = ("invalidate", "shop", "user:42", "--wait", "2", "--reason", "price change")
    assert coherd(one, *invalidate)[0] == 0
    poll(lambda: trace(one)[1]["cache-3"]["standing"] == "applied", "the third to have it")
    code, found = trace(one)
    assert code == 3
    assert {name: host["standing"] for name, host in found.items()} == {
        "cache-1": "applied",
        "cache-2": "unknown",
        "cache-3": "applied",
    }
    assert [found[name]["path"] for name in NAMES] == ["local", None, "link"]
    (cache,) = found["cache-3"]["caches"]
    assert cache["kind"] == "handler"
    assert found["cache-3"]["received"] <= cache["time"]
    two.start()
    wait_until_whole(agents)
    for agent in agents:
        poll(lambda a=agent: trace(a)[0] == 0, f"all to be told by {agent.name}")
        code, found = trace(agent)
        assert [found[name]["path"] for name in NAMES] == ["local", "repair", "link"]
        assert found["cache-2"]["late_s"] > found["cache-3"]["late_s"]
        assert found["cache-2"]["received"] is not None
    three.stop()
    three.start()
    wait_until_whole(agents)
    code, text, errors = coherd(one, "trace", "shop", "user:42")
    assert (code, errors) == (0, "")
    lines = text.splitlines()
    assert lines[0].startswith("key user:42  drop  shop/cache-1/")
    assert lines[1].startswith("issued by cache-1 at ")
    assert lines[1].endswith(" ago: price change")
    assert [line.split()[1] for line in lines[3:6]] == NAMES
    assert "(started then)" in lines[5]
    assert lines[-1] == "✓ 3 of 3 hosts have applied it"


def test_who_is_waited_for_is_shown_until_it_has_applied_the_rows(hosts: Hosts) -> None:
    (one, _, _), server = hosts
    server.freeze()
    try:
        options = ("--wait", "region", "--timeout", "60s", "--local", f"unix:{one.socket}")
        terminal = Terminal("invalidate", "shop", "user:42", *options, columns=120)
        terminal.read("2 of 3 applied, missing: cache-3 (alive)")
        code, found = trace(one)
        assert (code, found["cache-3"]["standing"]) == (3, "received")
    finally:
        server.thaw()
    last = click.unstyle(terminal.read("receipt shop/cache-1/"))
    assert "✓ shop user:42  applied by 3 of 3: cache-1 cache-2 cache-3  in" in last
    assert terminal.ended() == 0
