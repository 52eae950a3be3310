"""`coherd doctor` on real agents: what is wrong is named with what to do, and what is right is not."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import redis
from integration.agents import AgentProcess, cluster, lone, redis_settings
from integration.polling import poll
from servers import free_port, redis_server

Found = dict[str, list[dict[str, str]]]


def doctor(agent: AgentProcess, *arguments: str) -> tuple[int, Found]:
    """Give the exit code and the findings by subject."""
    command = [sys.executable, "-m", "coherd", "doctor", "--config", str(agent.config)]
    done = subprocess.run(
        [*command, "-o", "json", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr
    found: Found = {}
    for finding in json.loads(done.stdout)["findings"]:
        assert bool(finding["remedy"]) == (finding["severity"] != "ok"), finding
        found.setdefault(finding["subject"], []).append(finding)
    return done.returncode, found


def told(found: Found, subject: str) -> list[tuple[str, str]]:
    return [(finding["severity"], finding["text"]) for finding in found[subject]]


def test_a_healthy_cluster_has_nothing_to_mend(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(tmp_path / "redis"))
        client = stack.enter_context(redis.Redis(port=server.port))
        client.mset({"shop:1": "value", "other": "value"})
        client.sadd("tag:shop:red", "shop:1")
        settings = {"b": redis_settings(server.url)}
        one, two = stack.enter_context(cluster(tmp_path, ["a", "b"], settings))
        code, found = doctor(two)
        bad = [f for each in found.values() for f in each if f["severity"] != "ok"]
        room = [f for f in bad if "GiB free" in f["text"]]  # the machine's own disk may be full
        assert bad == room
        assert code == (3 if room else 0)
        subjects = "config ready seed link clock version disk socket journal handler"
        assert list(found) == subjects.split()
        assert [f["name"] for f in found["seed"]] == [one.address, two.address]
        assert found["seed"][1]["text"] == "this agent itself"
        assert told(found, "handler") == [
            ("ok", "1 of 3 keys match shop:{key}, 1 are sets of tags"),
        ]


def test_what_is_wrong_is_told_apart(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(tmp_path / "redis"))
        stranger = stack.enter_context(lone(tmp_path, "stranger"))
        stranger.cluster = "other"
        stranger.start()
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        agent = stack.enter_context(lone(tmp_path, "a", redis_settings(server.url)))
        refused = f"127.0.0.1:{free_port()}"
        agent.seeds = [stranger.address, refused, f"127.0.0.1:{deaf.getsockname()[1]}"]
        with redis.Redis(port=server.port) as client:
            client.mset({f"prod:shop:{n}": "value" for n in range(1532)})
        agent.start()
        poll(lambda: agent.status().handlers[0].connected, "the cache to be reached")
        agent.data.chmod(0o755)
        agent.socket.chmod(0o666)
        code, found = doctor(agent)
        assert code == 1
        other, nobody, silent = told(found, "seed")
        assert other == (*("error", "it refuses this agent: this is cluster 'other', not 'test'"),)
        assert nobody == ("error", "connection refused")
        assert silent[0] == "error"
        assert silent[1].startswith("something answers there that is no agent")
        severity, text = told(found, "handler")[0]
        assert severity == "warning"
        assert text.startswith("0 of 1,532 keys match shop:{key}; e.g. `prod:shop:")
        assert found["disk"][0]["remedy"] == f"chmod go= {agent.data}"
        assert found["socket"][0]["remedy"] == f"chmod o= {agent.socket}"
        assert any("no seed answers" in f["text"] for f in found["ready"])
        server.freeze()
        poll(lambda: not agent.status().handlers[0].connected, "the cache to be missed")
        _, found = doctor(agent)
        assert found["handler"][0]["severity"] == "error"
        assert "does not answer" in found["handler"][0]["text"]


def test_an_agent_that_is_gone_is_looked_for(tmp_path: Path) -> None:
    with lone(tmp_path, "a") as agent:
        agent.start()
        agent.kill()
        code, found = doctor(agent)
        assert code == 4
        assert "left over from an agent that was killed" in found["agent"][0]["text"]
        assert told(found, "process") == [("ok", "no agent holds the data directory")]
        agent.start()
        agent.socket.unlink()
        code, found = doctor(agent)
        assert code == 4
        assert found["agent"][0]["text"] == "the socket is missing"
        assert found["process"][0]["severity"] == "error"
        assert found["process"][0]["text"].startswith("agent a, pid ")
