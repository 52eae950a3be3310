"""Metrics and health of real agents over HTTP."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.agents import AgentProcess, cluster, lone, redis_settings
from integration.polling import poll
from prometheus_client.parser import text_string_to_metric_families
from servers import free_port, redis_server

from coherd.v1 import cache_service_pb2 as cache

IDLE_CONNECTIONS = 200
SEED = "127.0.0.1:1"
"""Nobody listens there."""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent with HTTP that nobody has started yet."""
    with lone(tmp_path) as agent:
        agent.http = f"127.0.0.1:{free_port()}"
        yield agent


def samples(agent: AgentProcess, name: str) -> dict[tuple[str, ...], float]:
    """Scrape an agent: give the samples of a name by their label values, in the order of the labels."""
    status, text = agent.get("/metrics")
    assert status == 200
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def reasons(agent: AgentProcess) -> list[str]:
    """Say why it is not ready."""
    status, text = agent.get("/readyz?format=json")
    said = json.loads(text)
    assert (status == 200) == said["ready"] == (not said["reasons"])
    return list(said["reasons"])


def test_counts_move_after_an_invalidation_on_a_peer(tmp_path: Path) -> None:
    with (
        redis_server(tmp_path / "redis") as server,
        cluster(tmp_path, ["a", "b"], {"b": redis_settings(server.url)}, http=True) as (a, b),
    ):
        assert samples(b, "coherd_ready") == {(): 1}
        assert samples(b, "coherd_rows_total") == {}
        receipt = a.invalidate(keys=[b"1", b"2", b"3"], wait=cache.WAIT_REGION)
        assert receipt.complete
        assert samples(a, "coherd_rows_total") == {("normal", "shop", "local"): 3}
        assert samples(b, "coherd_rows_total") == {("normal", "shop", "link"): 3}
        assert samples(b, "coherd_apply_seconds_count") == {("normal", "shop", "link"): 3}
        assert 0 < samples(b, "coherd_apply_seconds_sum")["normal", "shop", "link"] < 30
        ((handler, namespace), applied), *others = samples(
            b, "coherd_handler_applied_rows_total"
        ).items()
        assert (namespace, applied, others) == ("shop", 3, [])
        assert str(server.port) in handler
        assert samples(a, "coherd_link_sent_parcels_total")["rest", "b"] == 1
        assert samples(a, "coherd_journal_commits_total")[()] > 0
        assert samples(a, "process_resident_memory_bytes")[()] > 10e6
        poll(lambda: samples(a, "coherd_loop_lateness_seconds_count")[()] > 0, "the loop's timer")
        poll(lambda: samples(a, "coherd_member_sync_age_seconds"), "a sync with the member")


def test_readiness_is_red_while_no_seed_answers(agent: AgentProcess) -> None:
    agent.seeds = [SEED]
    agent.start()
    (reason,) = reasons(agent)
    assert "no seed answers" in reason
    assert agent.get("/readyz") == (503, f"{reason}\n")
    assert agent.get("/livez") == (200, "ok\n")
    assert samples(agent, "coherd_ready") == {(): 0}
    assert agent.health() == "NOT_SERVING"


def test_readiness_is_red_while_a_cache_is_down(agent: AgentProcess, tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        agent.settings = redis_settings(server.url)
        agent.start()
        poll(lambda: not reasons(agent), "the agent to be ready")
        server.kill()
        (reason,) = poll(lambda: reasons(agent), "the agent to notice")
        assert re.fullmatch(rf"handler .*:{server.port} does not answer: .+", reason)
        assert list(samples(agent, "coherd_handler_connected").values()) == [0]
        server.start()
        poll(lambda: not reasons(agent), "the agent to be ready again")


def test_readiness_is_red_while_cut_off_from_the_others(tmp_path: Path) -> None:
    with cluster(tmp_path, ["a", "b", "c"], http=True) as (a, b, c):
        b.kill()
        c.kill()
        (reason,) = poll(lambda: reasons(a), "a to be cut off")
        assert "none of the 2 other agents" in reason
        b.start()
        poll(lambda: not reasons(a), "a to be ready again")


def test_many_idle_connections_stop_neither_answers_nor_the_agent(agent: AgentProcess) -> None:
    agent.start()
    host, port = agent.http.split(":")
    idle = []
    try:
        for _ in range(IDLE_CONNECTIONS):
            idle.append(socket.create_connection((host, int(port)), timeout=5))
            idle[-1].sendall(b"GET /livez HTTP/1.1\r\n")
        assert agent.get("/livez") == (200, "ok\n")
        assert agent.invalidate(keys=[b"1"]).complete
        assert samples(agent, "process_open_fds")[()] < IDLE_CONNECTIONS
        assert agent.stop() == 0
        assert "Traceback" not in agent.log
    finally:
        for connection in idle:
            connection.close()


def test_an_idle_agent_stops_cleanly_with_a_scraper_connected(agent: AgentProcess) -> None:
    agent.start()
    host, port = agent.http.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as scraper:
        scraper.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert scraper.recv(9) == b"HTTP/1.1 "
        assert agent.stop() == 0
    assert '"event": "stopped"' in agent.log.splitlines()[-1]


def test_port_0_is_any_free_one_and_is_logged(agent: AgentProcess) -> None:
    agent.http = "127.0.0.1:0"
    agent.start()
    (line,) = [line for line in agent.log.splitlines() if '"event": "http"' in line]
    agent.http = json.loads(line)["address"]
    assert agent.get("/livez") == (200, "ok\n")


def test_http_is_off_where_nothing_is_set(agent: AgentProcess) -> None:
    agent.http = ""
    agent.start()
    assert '"event": "http"' not in agent.log


def test_a_port_that_is_taken_is_refused_with_the_setting(agent: AgentProcess) -> None:
    agent.start()
    with lone(agent.folder, "second") as second:
        second.http = agent.http
        said = second.refused()
        assert agent.http in said
        assert "`http`" in said
    assert agent.get("/livez") == (200, "ok\n")


def test_the_command_line_does_not_load_the_server() -> None:
    script = (
        "import sys, coherd.cli.main, coherd.daemon\n"
        "print([m for m in ('starlette', 'hypercorn', 'prometheus_client') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert said.stdout == b"[]\n", "only an agent that serves HTTP needs them"
