"""Agents that ask for certificates, as real processes: among each other, of clients, of the command."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from certificates import Authority, Files, identity
from integration.agents import AgentProcess, cluster, lone
from integration.polling import poll
from servers import free_port

from coherd.v1 import cache_service_pb2 as cache

NAMES = ("a", "b", "c")
GRANTS = """
[namespaces.shop]
owners = ["client/shop-*"]

[[grants]]
identities = ["client/shop-*"]
verbs = ["read", "invalidate", "watch"]
namespaces = ["shop"]
"""


class Hosts:
    """Three agents with certificates; the first also asks clients for theirs."""

    def __init__(self, authority: Authority, agents: list[AgentProcess], port: int) -> None:
        self.authority = authority
        self.agents = agents
        self.port = port

    def coherd(self, files: Files | None, *arguments: str) -> tuple[int, str, str]:
        """Run the command against the door that asks."""
        with self.begun(files, *arguments) as process:
            out, error = process.communicate(timeout=60)
        return process.returncode, out, error

    @contextmanager
    def begun(self, files: Files | None, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Begin the command against the door that asks; it is over afterwards."""
        environment = {**os.environ, "COHERD_ADDRESS": f"127.0.0.1:{self.port}"}
        if files is not None:
            environment |= {
                "COHERD_CERT": str(files.cert),
                "COHERD_CA": str(files.ca),
                "COHERD_KEY": str(files.key),
            }
        command = [sys.executable, "-m", "coherd", *arguments]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=environment
        ) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("identities")
    authority = Authority(folder / "pki")
    settings = {n: GRANTS + authority.issue(identity(f"agent/{n}")).toml for n in NAMES}
    port = free_port()
    with cluster(folder, NAMES, settings, asking={"a": port}) as agents:
        yield Hosts(authority, agents, port)


def test_agents_with_certificates_keep_each_other_coherent(hosts: Hosts) -> None:
    for agent in hosts.agents:
        receipt = agent.invalidate(keys=[b"user:1"], wait=cache.WAIT_REGION, timeout=5)
        assert sorted(receipt.applied) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("label", "namespace", "code"),
    [("client/shop-1", "shop", 0), ("client/shop-1", "billing", 5), ("operator/ann", "billing", 0)],
)
def test_a_client_may_what_a_grant_says(
    hosts: Hosts, label: str, namespace: str, code: int
) -> None:
    files = hosts.authority.issue(identity(label))
    ended, _, error = hosts.coherd(files, "invalidate", namespace, "user:1", "--wait", "region")
    assert ended == code, error
    if code:
        assert "no grant lets client/shop-1 invalidate namespace 'billing'" in error
        assert error.count("\n") == 1


def test_every_host_knows_who_issued_a_row_and_whether_that_is_an_owner(hosts: Hosts) -> None:
    one, two, _ = hosts.agents
    files = hosts.authority.issue(identity("client/shop-1"))
    order = ("invalidate", "shop", "issued", "--wait", "region")
    assert hosts.coherd(files, *order)[0] == 0
    operator = hosts.authority.issue(identity("operator/ann"))
    ended, text, _ = hosts.coherd(operator, "trace", "shop", "issued", "-o", "json")
    assert ended == 0
    (row,) = json.loads(text)["rows"]
    assert (row["issuer"], row["origin"]) == ("client/shop-1", "a")
    one.invalidate(keys=[b"unknown"], wait=cache.WAIT_REGION, timeout=5)
    poll(lambda: strangers(two), "the stranger in the log")
    assert {entry["issuer"] for entry in strangers(two)} == {"nobody known"}


def strangers(agent: AgentProcess) -> list[dict[str, str]]:
    """Give what an agent says of rows whose issuers are no owners."""
    return [json.loads(line) for line in agent.log.splitlines() if "rows of a stranger" in line]


def times_read(agent: AgentProcess) -> int:
    """Count how often it says that it has read its file again, rightly or in vain."""
    return agent.log.count('"settings read again"') + agent.log.count('"the settings are not used"')


def test_grants_are_read_again_without_a_restart(hosts: Hosts) -> None:
    agent = hosts.agents[0]
    files = hosts.authority.issue(identity("client/late"))
    order = ("invalidate", "shop", "user:1")
    assert hosts.coherd(files, *order)[0] == 5
    before = agent.settings
    for settings, code in (
        (before.replace("client/shop-*", "client/*"), 0),
        ("grants = 3\n" + before, 0),
        (before, 5),
    ):
        agent.settings = settings
        agent.write_config()
        said = times_read(agent)
        agent.signal(signal.SIGHUP)
        poll(lambda n=said: times_read(agent) > n, "the file to be read")
        assert hosts.coherd(files, *order)[0] == code


def test_a_watch_ends_when_its_grant_is_taken_away(hosts: Hosts) -> None:
    agent = hosts.agents[0]
    files = hosts.authority.issue(identity("client/shop-watcher"))
    with hosts.begun(files, "watch", "shop", "-o", "jsonl") as watching:
        poll(lambda: agent.status().watchers, "the watch to begin")
        before = agent.settings
        agent.settings = before.replace("client/shop-*", "client/others")
        agent.write_config()
        agent.signal(signal.SIGHUP)
        _, error = watching.communicate(timeout=30)
        assert watching.returncode == 5
        assert "no grant lets client/shop-watcher watch namespace 'shop'" in error
        said = times_read(agent)
        agent.settings = before
        agent.write_config()
        agent.signal(signal.SIGHUP)
        poll(lambda: times_read(agent) > said, "the file to be read")


def test_an_operator_sees_everything_and_a_client_does_not(hosts: Hosts) -> None:
    operator = hosts.authority.issue(identity("operator/ann"))
    ended, text, _ = hosts.coherd(operator, "status", "-o", "json")
    assert ended == 0
    assert json.loads(text)["ready"] is True
    client = hosts.authority.issue(identity("client/shop-1"))
    ended, _, error = hosts.coherd(client, "join", "127.0.0.1:1")
    assert ended == 5
    assert "no grant lets client/shop-1 admin" in error
    log = str(hosts.agents[0].data / "audit.jsonl")
    poll(lambda: "admin" in hosts.coherd(None, "audit-log", log)[1], "the denial in the audit log")
    ended, text, _ = hosts.coherd(None, "audit-log", log, "--who", "client/shop-1", "-o", "json")
    last = json.loads(text.splitlines()[-1])
    assert (last["kind"], last["rpc"], last["outcome"]) == ("denied", "Join", "denied")


def test_the_command_says_why_no_handshake_comes_about(hosts: Hosts) -> None:
    foreign = Authority(hosts.authority.folder, "foreign")
    files = foreign.issue(identity("operator/eve"), ca=hosts.authority.path)
    ended, _, error = hosts.coherd(files, "status")
    assert ended != 0
    assert "it refuses the own certificate" in error
    assert error.count("\n") == 1
    ended, _, error = hosts.coherd(None, "status")
    assert "--cert" in error


def test_figures_that_others_can_reach_are_for_those_who_may_read_everything(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path / "pki")
    grant = '[[grants]]\nidentities = ["client/prometheus"]\nverbs = ["read"]\nnamespaces = ["*"]\n'
    files = authority.issue(identity("agent/a"))
    with lone(tmp_path, settings=grant + files.toml) as agent:
        agent.http = f"0.0.0.0:{free_port()}"
        agent.start()

        def get(path: str, label: str) -> int:
            shown = authority.issue(identity(label))
            tls = ssl.create_default_context(cafile=str(shown.ca))
            tls.check_hostname = False  # an address, which is in nobody's certificate here
            tls.load_cert_chain(shown.cert, shown.key)
            port = int(agent.http.rpartition(":")[2])
            with closing(HTTPSConnection("127.0.0.1", port, timeout=10, context=tls)) as connection:
                connection.request("GET", path)
                return connection.getresponse().status

        assert get("/metrics", "client/prometheus") == 200
        assert get("/metrics", "client/shop-1") == 403
        assert get("/livez", "client/shop-1") == 200
        audit = agent.data / "audit-denied.jsonl"
        event = json.loads(poll(audit.read_text, "the refusal in the audit log"))
        assert (event["rpc"], event["who"]) == ("http", str(identity("client/shop-1")))


WRONG = {
    "another cluster's": "is the certificate of",
    "without a URI": "no URI among its alternative names",
    "another name's": "is the certificate of",
}
"""What is said of which."""


@pytest.mark.parametrize("case", WRONG)
def test_an_agent_does_not_start_with_a_certificate_that_is_not_its_own(
    tmp_path: Path, case: str
) -> None:
    authority = Authority(tmp_path / "pki")
    files = {
        "another cluster's": lambda: authority.issue(identity("agent/a", cluster="other")),
        "without a URI": lambda: authority.issue(identity("agent/a"), uris=[]),
        "another name's": lambda: authority.issue(identity("agent/b")),
    }[case]()
    with lone(tmp_path, settings=files.toml) as agent:
        line = agent.refused()
        assert str(files.cert) in line
        assert WRONG[case] in line


def test_who_has_a_certificate_of_another_authority_is_told_so_in_its_log(
    hosts: Hosts, tmp_path: Path
) -> None:
    foreign = Authority(tmp_path / "pki", "foreign")
    files = foreign.issue(identity("agent/d"), ca=hosts.authority.path)
    with lone(tmp_path, "d", files.toml) as stranger:
        stranger.seeds = [hosts.agents[0].address]
        stranger.start()
        poll(lambda: '"refused"' in stranger.log, "the refusal in the log")
        (line,) = [line for line in stranger.log.splitlines() if '"refused"' in line]
        assert "it refuses the own certificate" in json.loads(line)["error"]
        assert "d" not in hosts.agents[0].states()
