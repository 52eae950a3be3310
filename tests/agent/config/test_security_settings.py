"""Settings of who is let in: certificates, grants, the owner of a socket, the secret of a door."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_files import problems, read

from coherd.config import TlsConfig
from coherd.config.conflicts import exposed
from coherd.grants import Grant, Verb


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "coherd.toml"


TLS = '[tls]\nca = "/ca.pem"\ncert = "/a.pem"\nkey = "/a.key"\n'


def test_a_door_that_others_can_reach_needs_certificates(file: Path) -> None:
    local = 'insecure = true\nlocal = ["127.0.0.1:1", "0.0.0.0:4376"]\n'
    (problem,) = problems(file, local)
    assert problem.startswith("FILE:2: local: 0.0.0.0:4376 is not a loopback address")
    assert 'set [tls], or use 127.0.0.1, [::1] or "unix:/PATH"' in problem
    assert len(read(file, local + TLS).local) == 2


def test_with_certificates_no_address_of_agents_needs_permission(file: Path) -> None:
    config = read(file, 'listen = "10.0.0.1:1"\nadvertise = "host:1"\n' + TLS)
    assert not config.insecure
    assert config.tls == TlsConfig(Path("/ca.pem"), Path("/a.pem"), Path("/a.key"))


def test_http_that_others_can_reach_needs_certificates_or_the_secret(file: Path) -> None:
    http = 'http = "10.0.0.1:1"\n'
    (problem,) = problems(file, http)
    assert "http: 10.0.0.1:1 is not a loopback address" in problem
    assert "set [tls] or token_file" in problem
    for protected in (TLS, 'token_file = "/token"\n'):
        assert not exposed(read(file, http + protected))
    assert list(exposed(read(file, http + "insecure = true\n"))) == ["http"]


@pytest.mark.parametrize("written", ["a b", ":", "a:", "a:b:c", "é"])
def test_who_cannot_own_a_socket_is_refused(file: Path, written: str) -> None:
    (problem,) = problems(file, f'local_owner = "{written}"')
    assert "local_owner: " in problem
    assert '"USER", "USER:GROUP" or ":GROUP"' in problem
    for right in ("", "coherd", "coherd:www-data", ":33"):
        assert read(file, f'local_owner = "{right}"').local_owner == right


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('identities = ["web"]', "grants[0].identities[0]: expected an identity"),
        ('identities = ["agent/*"]', "grants are for clients"),
        ('verbs = ["write"]', "grants[0].verbs[0]: expected"),
        ('namespaces = ["Shop"]', "matches no namespace"),
        ("verbs = []", "is empty"),
        ("tags = []", "unknown setting 'grants[0].tags'"),
    ],
)
def test_what_is_wrong_with_a_grant_is_said(file: Path, written: str, expected: str) -> None:
    right = {
        "identities": 'identities = ["client/web-?"]',
        "verbs": 'verbs = ["read", "watch"]',
        "namespaces": 'namespaces = ["*"]',
    }
    text = "[[grants]]\n" + "\n".join((right | {written.partition(" ")[0]: written}).values())
    (problem,) = problems(file, text)
    assert expected in problem
    (grant,) = read(file, "[[grants]]\n" + "\n".join(right.values())).grants
    assert grant.grant == Grant(("client/web-?",), [Verb.READ, Verb.WATCH], ("*",))
