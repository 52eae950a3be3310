"""`coherd auth check`: what it says is what an agent with these settings decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_agent import coherd

FILE = """\
name = "cache-1"
cluster = "prod"
[tls]
ca = "/etc/coherd/ca.pem"
cert = "/etc/coherd/agent.pem"
key = "/etc/coherd/agent.key"
[[grants]]
identities = ["client/web-*"]
verbs = ["invalidate", "read"]
namespaces = ["shop", "shop.*"]
[[grants]]
identities = ["client/monitor"]
verbs = ["read", "admin"]
namespaces = ["*"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "coherd.toml"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ("client/web-1 invalidate shop", 0, "allowed: by the grant number 1"),
        ("client/web-1 read shop.eu", 0, "allowed: by the grant number 1"),
        ("client/monitor read", 0, "allowed: by the grant number 2"),
        ("client/monitor admin", 0, "allowed: by the grant number 2"),
        ("operator/o admin", 0, "allowed: an operator may do everything"),
        (
            "spiffe://example.org/cluster/prod/client/web-1 read shop",
            0,
            "allowed: by the grant number 1",
        ),
        (
            "client/web-1 watch shop",
            5,
            "denied: no grant lets client/web-1 watch namespace 'shop': add it to [[grants]] of the agent",
        ),
        (
            "client/web-1 read",
            5,
            "denied: no grant lets client/web-1 read the agent as a whole: add it to [[grants]] of the agent",
        ),
        (
            "agent/cache-2 read shop",
            5,
            "denied: an agent may only speak with agents, not read namespace 'shop'",
        ),
        (
            "spiffe://example.org/cluster/test/operator/o read",
            5,
            "denied: the agent is of cluster prod, not test",
        ),
    ],
)
def test_the_decision_is_one_line_and_an_exit_code(
    file: Path, arguments: str, code: int, line: str
) -> None:
    result = coherd("auth", "check", *arguments.split(), "--config", file)
    assert (result.exit_code, result.stdout, result.stderr) == (code, f"{line}\n", "")


@pytest.mark.parametrize(("verb", "allowed"), [("invalidate", True), ("watch", False)])
def test_the_decision_as_json(file: Path, verb: str, allowed: bool) -> None:
    result = coherd("auth", "check", "client/web-1", verb, "shop", "-c", file, "-o", "json")
    found = json.loads(result.stdout)
    assert ("grant number 1" if allowed else "no grant lets") in found.pop("why")
    assert found == {
        "identity": "client/web-1",
        "verb": verb,
        "namespace": "shop",
        "allowed": allowed,
    }
    assert result.exit_code == (0 if allowed else 5)


def test_variables_count_as_they_do_for_the_agent(file: Path) -> None:
    uri = "spiffe://example.org/cluster/test/operator/o"
    arguments = ("auth", "check", uri, "read", "-c", file)
    assert coherd(*arguments, env={"COHERD_CLUSTER": "test"}).exit_code == 0
    assert coherd(*arguments).exit_code == 5


def test_without_tls_it_is_said_that_nobody_is_asked(file: Path) -> None:
    file.write_text('name = "a"\n')
    result = coherd("auth", "check", "operator/o", "read", "-c", file)
    assert (result.exit_code, result.stdout) == (0, "allowed: an operator may do everything\n")
    assert result.stderr.startswith(f"{file} has no [tls]: there nobody is asked")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("web-1 read", "web-1: ROLE/NAME is due"),
        ("king/a read", "'king' is no role"),
        ("http://a/b read", "is not of the form spiffe://"),
        ("client/a read Shop", "'Shop' is not a namespace"),
        ("client/monitor admin shop", "leave out the namespace"),
        ("client/a write shop", "'write' is not one of"),
    ],
)
def test_what_makes_no_sense_is_refused(file: Path, arguments: str, text: str) -> None:
    result = coherd("auth", "check", *arguments.split(), "-c", file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert text in result.stderr


def test_wrong_settings_are_told_as_ever(file: Path) -> None:
    file.write_text(FILE.replace('"client/monitor"', '"monitor"'))
    result = coherd("auth", "check", "client/a", "read", "-c", file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{file}:12: grants[1].identities[0]: expected an identity" in result.stderr
    assert coherd("auth", "check", "client/a", "read").exit_code == 2
