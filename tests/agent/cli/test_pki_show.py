"""`coherd pki show`: whose certificates they are, and what is wrong with them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from pki_commands import AGENT, HOUR, leaf, made, pki

from coherd.pki import Pair, files, issue, make_root

Shown = dict[str, dict[str, object]]
"""What is shown of each file, by its name."""


@pytest.fixture
def shown(ca: Path) -> tuple[Path, Shown]:
    """A directory with much that is wrong, and what is shown of each file."""
    now = datetime.now(UTC)
    other = make_root("example.org", now - 48 * HOUR)
    made(ca, "agent/good")
    files.write_pair(ca / "expired.pem", issue(other, AGENT, now - 25 * HOUR))
    files.write_pair(ca / "early.pem", issue(other, AGENT, now + HOUR))
    made(ca, "agent/swapped").with_suffix(".key").write_bytes(make_root("a", now).key_pem)
    made(ca, "agent/open").with_suffix(".key").chmod(0o644)
    made(ca, "agent/alone").with_suffix(".key").unlink()
    (ca / "nonsense.pem").write_text("x")
    files.write(ca / "root.pem", make_root("other.org", now - 48 * HOUR, HOUR).pem, 0o644)
    result = pki("show", ca, "-o", "json", code=1)
    entries = json.loads(result.stdout)["certificates"]
    return ca, {Path(entry["file"]).name: entry for entry in entries}


def test_show_says_what_is_wrong(shown: tuple[Path, Shown]) -> None:
    ca, entries = shown
    none = f"issued by none of the roots in {ca}/ca.pem"
    due = {
        "ca.pem": [],
        "agent-good.pem": [],
        "agent-alone.pem": [],
        "expired.pem": [none, "expired at"],
        "early.pem": [none, "is not valid before"],
        "agent-swapped.pem": ["agent-swapped.key is the key of another certificate"],
        "agent-open.pem": ["agent-open.key may be read by others (mode 0644): `chmod 0600"],
        "nonsense.pem": ["nonsense.pem: no certificates in PEM"],
        "root.pem": ["expired at"],
    }
    assert set(entries) == set(due)
    for name, texts in due.items():
        problems = entries[name]["problems"]
        assert isinstance(problems, list)
        assert len(problems) == len(texts), name
        assert all(text in problem for text, problem in zip(texts, problems, strict=True))


def test_show_as_json_has_all_fields(shown: tuple[Path, Shown]) -> None:
    ca, entries = shown
    certificate, good = leaf(ca / "agent-good.pem"), AGENT._replace(name="good")
    left_s = entries["agent-good.pem"].pop("left_s")
    assert isinstance(left_s, int)
    assert 86_000 < left_s <= 86_400
    (issuer,) = {str(part.value) for part in certificate.issuer if "root" in str(part.value)}
    assert entries["agent-good.pem"] == {
        "file": f"{ca}/agent-good.pem",
        "who": "spiffe://example.org/cluster/prod/agent/good",
        "issuer": issuer,
        "not_before": f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        "not_after": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        "dns": [good.server_name, good.cluster_server_name],
        "problems": [],
    }
    assert entries["ca.pem"]["who"] == "spiffe://example.org"
    left_s = entries["expired.pem"]["left_s"]
    assert isinstance(left_s, int)
    assert left_s < 0
    nothing = dict.fromkeys(("who", "issuer", "not_before", "not_after", "left_s"))
    assert entries["nonsense.pem"].items() >= nothing.items()


def test_show_for_people_is_a_table_with_what_is_wrong_below(ca: Path) -> None:
    path = made(ca, "agent/cache-1", "--lifetime", "90m")
    heads, agent, root = pki("show", path, ca / "ca.pem").stdout.splitlines()
    for head, in_agent, in_root in (
        ("FILE", f"{path} ", f"{ca}/ca.pem "),
        ("WHO", "agent/cache-1 of prod ", "root of example.org, issues "),
        ("ISSUER", "coherd root ", "coherd root "),
        ("FROM", "20", "20"),
        ("UNTIL", "20", "20"),
        ("LEFT", "1 h ", "36"),
    ):
        at = heads.index(head)
        assert agent[at:].startswith(in_agent)
        assert root[at:].startswith(in_root)
    path.with_suffix(".key").chmod(0o644)
    lines = pki("show", path, code=1).stdout.splitlines()
    assert lines[2] == (
        f"    {ca}/agent-cache-1.key may be read by others (mode 0644): "
        f"`chmod 0600 {ca}/agent-cache-1.key`, and replace it if others were there"
    )


def test_show_says_which_root_does_what(ca: Path) -> None:
    def parts() -> list[str]:
        lines = pki("show", ca / "ca.pem").stdout.splitlines()[1:]
        return [line.split("example.org, ")[1].split()[0] for line in lines]

    assert parts() == ["issues"]
    pki("init", ca, "--next")
    assert parts() == ["issues", "next"]
    pki("init", ca, "--switch")
    assert parts() == ["old", "issues"]
    (ca / "ca.key").unlink()
    assert "example.org  " in pki("show", ca / "ca.pem").stdout  # on a host, which has no key


def test_show_names_the_dns_names_that_an_agents_certificate_lacks(tmp_path: Path) -> None:
    """As one from elsewhere may be: here that of a client, called an agent by its URI."""
    now = datetime.now(UTC)
    root = make_root("example.org", now)
    names = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(str(AGENT)), x509.DNSName(AGENT.server_name)]
    )
    certificate = (
        x509.CertificateBuilder(root.certificate.subject, root.certificate.subject)
        .public_key(root.key.public_key())
        .serial_number(1)
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
        .add_extension(names, critical=False)
        .sign(root.key, SHA256())
    )
    files.write_pair(tmp_path / "a.pem", Pair(certificate, root.key))
    result = pki("show", tmp_path / "a.pem", code=1)
    (line,) = result.stdout.splitlines()[2:]
    assert line.endswith(f"DNS names that this lacks: issue it with {AGENT.cluster_server_name}")


def test_a_malformed_certificate_is_said_to_be_one(ca: Path) -> None:
    root = make_root("example.org", datetime.now(UTC)).certificate
    key_usage, names = bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d11")
    twice = root.public_bytes(Encoding.DER).replace(key_usage, names)
    text = base64.encodebytes(twice).decode()
    (ca / "a.pem").write_text(f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n")
    (_, row, problem) = pki("show", ca / "a.pem", code=1).stdout.splitlines()
    assert row.split()[1:] == ["-"] * 5
    assert problem.startswith(f"    {ca}/a.pem: a malformed certificate: Duplicate 2.5.29.17")
    pki("renew", ca, ca / "a.pem", code=2)


def test_show_of_nothing_is_an_error(tmp_path: Path) -> None:
    assert "has no .pem files" in pki("show", tmp_path, code=2).stderr
    result = pki("show", tmp_path / "none.pem", code=1)
    assert f"{tmp_path}/none.pem can't be read (no such file" in result.stdout
