"""`coherd pki`: what it writes and prints, what it refuses, for cron and for people."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pki_commands import AGENT, HOUR, leaf, made, pki
from toy_agent import coherd

from coherd.config import load
from coherd.identity import Role
from coherd.net.certificates import load_bundle, read_holder
from coherd.pki import authority, files, hosts_of, issue, make_root
from coherd.pki.files import read_certificates

CLIENT = AGENT._replace(role=Role.CLIENT)


def left(path: Path) -> timedelta:
    return leaf(path).not_valid_after_utc - datetime.now(UTC)


def near(found: timedelta, due: timedelta) -> bool:
    return due - timedelta(minutes=2) < found <= due


def content(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# init


def test_init_makes_a_root_and_says_for_whom_the_files_are(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    result = pki("init", ca, "--trust", "example.org", "--lifetime", "30d")
    assert result.stdout.splitlines() == [
        f"{ca}/ca.pem: the root, for every host",
        f"{ca}/ca.key: its key, which stays here: whoever has it can be anybody",
    ]
    assert near(left(ca / "ca.pem"), timedelta(days=30))
    assert sorted(entry.name for entry in ca.iterdir()) == ["ca.key", "ca.pem"]


def test_init_lasts_ten_years_unless_told_otherwise(ca: Path) -> None:
    assert near(left(ca / "ca.pem"), timedelta(days=3650))


def test_init_overwrites_nothing(ca: Path) -> None:
    before = content(ca)
    result = pki("init", ca, "--trust", "example.org", code=2)
    assert "ca.pem is there already, and is not overwritten" in result.stderr
    assert result.stderr.count("\n") == 1
    assert content(ca) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--trust example.org"),
        (["--trust", "Ex"], "no trust domain"),
        (["--trust", "a", "--next"], "leave out --trust"),
        (["--next", "--switch"], "one step at a time"),
        (["--switch", "--lifetime", "1d"], "leave it out"),
        (["--trust", "a", "--lifetime", "soon"], "expected a duration"),
        (["--next"], "name the directory of an authority"),
    ],
)
def test_init_refuses_what_makes_no_sense(tmp_path: Path, arguments: list[str], text: str) -> None:
    result = pki("init", tmp_path / "ca", *arguments, code=2)
    assert text in result.stderr
    assert not (tmp_path / "ca").exists()


# issue


def test_issue_prints_the_table_that_an_agent_starts_with(ca: Path, tmp_path: Path) -> None:
    result = pki("issue", ca, "agent/cache-1", "--cluster", "prod", "--host", "10.0.0.11")
    assert result.stderr == ""
    file = tmp_path / "coherd.toml"
    file.write_text('name = "cache-1"\ncluster = "prod"\n' + result.stdout)
    config = load(file, {}, {})
    assert config.tls is not None
    bundle = load_bundle(config.tls, datetime.now(UTC).timestamp())
    assert bundle.holder.identity == AGENT
    path = ca / "agent-cache-1.pem"
    assert hosts_of(leaf(path), AGENT) == ("10.0.0.11",)
    assert near(left(path), 24 * HOUR)
    until = f"{leaf(path).not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    assert result.stdout.startswith(f"# agent/cache-1 of cluster prod, until {until}\n[tls]\n")


def test_issue_to_others_is_no_table_of_an_agent(ca: Path) -> None:
    result = pki("issue", ca, "client/cache-1", "--cluster", "prod", "--lifetime", "90m")
    assert "[tls]" not in result.stdout
    assert tomllib.loads(result.stdout) == {
        "ca": f"{ca}/ca.pem",
        "cert": f"{ca}/client-cache-1.pem",
        "key": f"{ca}/client-cache-1.key",
    }
    assert near(left(ca / "client-cache-1.pem"), 1.5 * HOUR)


def test_an_agent_and_a_client_may_have_one_name(ca: Path) -> None:
    agent, client = made(ca), made(ca, "client/cache-1")
    assert read_holder(leaf(agent)).identity == AGENT
    assert read_holder(leaf(client)).identity == CLIENT


def test_issue_writes_elsewhere_and_takes_a_whole_uri(ca: Path, tmp_path: Path) -> None:
    pki("issue", ca, str(AGENT), "--cluster", "prod", "--out", tmp_path / "out")
    assert read_holder(leaf(tmp_path / "out/agent-cache-1.pem")).identity == AGENT
    assert (tmp_path / "out/ca.pem").read_bytes() == (ca / "ca.pem").read_bytes()
    assert not (ca / "agent-cache-1.pem").exists()
    pki("renew", ca, *sorted((tmp_path / "out").glob("*.pem")))


def test_issue_overwrites_nothing(ca: Path) -> None:
    made(ca)
    before = content(ca)
    result = pki("issue", ca, "agent/cache-1", "--cluster", "other", code=2)
    assert "agent-cache-1.pem is there already: `coherd pki renew`" in result.stderr
    assert content(ca) == before


def test_issue_says_when_the_root_ends_first(tmp_path: Path) -> None:
    pki("init", tmp_path / "ca", "--trust", "example.org", "--lifetime", "1h")
    result = pki("issue", tmp_path / "ca", "agent/a", "--cluster", "prod")
    assert "it ends with the root: replace that" in result.stderr
    assert near(left(tmp_path / "ca/agent-a.pem"), HOUR)


@pytest.mark.parametrize(
    ("who", "arguments", "text"),
    [
        ("cache-1", (), "cache-1: ROLE/NAME is due, such as client/web-1"),
        ("king/a", (), "'king' is no role: agent, client, operator are"),
        ("agent/../a", (), "ROLE/NAME is due"),
        ("agent/.a", (), "'.a' can be the name of nobody"),
        ("client/a", ("--host", "b"), "only agents are reached at hosts"),
        ("agent/a", ("--host", "b:4373"), "without port"),
        ("agent/a", ("--lifetime", "0s"), "expected 1s to 3650d"),
        ("spiffe://example.com/cluster/prod/agent/a", (), "another domain than the authority"),
        ("spiffe://example.org/cluster/other/agent/a", (), "is not of the cluster prod"),
    ],
)
def test_issue_refuses_what_makes_no_sense(
    ca: Path, who: str, arguments: tuple[str, ...], text: str
) -> None:
    before = content(ca)
    result = pki("issue", ca, who, "--cluster", "prod", *arguments, code=2)
    assert text in result.stderr
    assert content(ca) == before


@pytest.mark.parametrize("verb", [("issue", "agent/a", "--cluster", "c"), ("renew", "--all")])
def test_where_no_authority_is_it_is_said_how_to_make_one(
    tmp_path: Path, verb: tuple[str, ...]
) -> None:
    for directory in (tmp_path, tmp_path / "none"):
        result = pki(verb[0], directory, *verb[1:], code=2)
        assert f"`coherd pki init {directory} --trust DOMAIN` makes one" in result.stderr
        assert result.stderr.count("\n") == 1


# renew


def test_renew_keeps_who_it_is_and_its_hosts_and_changes_the_key(ca: Path) -> None:
    path = made(ca, "agent/cache-1", "--host", "a.internal", "--host", "::1", "--lifetime", "6h")
    before, key = leaf(path), path.with_suffix(".key").read_bytes()
    result = pki("renew", ca, path)
    after = leaf(path)
    until = f"{after.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    assert result.stdout == f"{path}: agent/cache-1, until {until}\n"
    assert read_holder(after).identity == AGENT
    assert hosts_of(after, AGENT) == ("a.internal", "::1")
    assert near(left(path), 6 * HOUR)
    assert after.serial_number != before.serial_number
    assert after.public_key() != before.public_key()
    assert path.with_suffix(".key").read_bytes() != key
    assert files.belong_together(after, path.with_suffix(".key"))
    pki("renew", ca, path, "--lifetime", "2h")
    assert near(left(path), 2 * HOUR)


def test_renew_all_leaves_the_root_alone(ca: Path) -> None:
    paths = [made(ca), made(ca, "client/cache-1")]
    before = content(ca)
    result = pki("renew", ca, "--all")
    assert len(result.stdout.splitlines()) == 2
    after = content(ca)
    changed = {path for path in before if before[path] != after.get(path)}
    assert changed >= {*paths, *(path.with_suffix(".key") for path in paths)}
    assert ca / "ca.pem" not in changed
    assert ca / "ca.key" not in changed


def test_with_within_only_what_expires_that_soon_is_renewed(ca: Path) -> None:
    soon, later = made(ca, "agent/a", "--lifetime", "4h"), made(ca, "agent/b")
    before = content(ca)
    result = pki("renew", ca, "--all", "--within", "3h")
    assert (result.stdout, result.stderr) == ("", "")
    assert content(ca) == before
    result = pki("renew", ca, "--all", "--within", "8h")
    assert result.stdout.startswith(f"{soon}: agent/a, until ")
    assert result.stdout.count("\n") == 1
    assert later.read_bytes() == before[later]
    assert soon.read_bytes() != before[soon]


def test_what_has_expired_is_renewed(tmp_path: Path) -> None:
    ca, now = tmp_path / "ca", datetime.now(UTC)
    authority.create(ca, "example.org", now - 48 * HOUR)
    path = ca / "agent-cache-1.pem"
    authority.load(ca).issue(AGENT, path, now - 47 * HOUR)
    assert left(path) < timedelta()
    pki("renew", ca, "--all", "--within", "8h")
    assert near(left(path), 24 * HOUR)


def test_a_key_of_another_certificate_is_renewed_although_it_is_not_due(ca: Path) -> None:
    one, other = made(ca, "agent/a"), made(ca, "agent/b")
    one.with_suffix(".key").write_bytes(other.with_suffix(".key").read_bytes())
    result = pki("renew", ca, "--all", "--within", "1s")
    assert result.stdout.startswith(f"{one}: agent/a, until ")
    assert result.stdout.count("\n") == 1
    assert files.belong_together(leaf(one), one.with_suffix(".key"))


def test_one_that_cannot_be_renewed_does_not_keep_the_others_from_it(ca: Path) -> None:
    root = make_root("example.org", datetime.now(UTC))
    forged = ca / "operator-o.pem"
    files.write_pair(forged, issue(root, AGENT._replace(role=Role.OPERATOR), datetime.now(UTC)))
    (ca / "agent-b.pem").write_text("nonsense")
    path = made(ca, "agent/z")
    result = coherd("pki", "renew", ca, "--all")
    assert result.exit_code == 2
    assert result.stdout.startswith(f"{path}: agent/z")
    first, second = result.stderr.splitlines()
    assert first.startswith(f"{ca}/agent-b.pem: no certificates in PEM")
    assert second.startswith(f"{forged} was issued by none of the roots in {ca}/ca.pem")
    assert read_certificates(forged)[0].issuer == root.certificate.subject


def test_renew_asks_for_files_or_all_and_takes_no_root(ca: Path) -> None:
    for arguments in ([], ["--all", ca / "a.pem"]):
        assert "name files, or all of DIR" in pki("renew", ca, *arguments, code=2).stderr
    result = pki("renew", ca, ca / "ca.pem", code=1)
    assert result.stderr.startswith(f"{ca}/ca.pem: the certificate of ")
    assert "authority" in result.stderr


# The steps that replace a root.


def test_the_root_is_replaced_step_by_step(ca: Path) -> None:
    path = made(ca)
    (old,) = read_certificates(ca / "ca.pem")
    assert f"then run `coherd pki init {ca} --switch`" in pki("init", ca, "--next").stdout
    pki("renew", ca, "--all")
    assert leaf(path).issuer == old.subject
    assert "--switch comes before --retire" in pki("init", ca, "--retire", code=2).stderr
    switched = pki("init", ca, "--switch").stdout
    assert f"`coherd pki renew {ca} --all`" in switched
    assert f"`coherd pki init {ca} --retire`" in switched
    refused = pki("init", ca, "--retire", code=1).stderr
    assert "the old root is needed by prod/agent/cache-1: renew them" in refused
    assert len(read_certificates(ca / "ca.pem")) == 2
    pki("renew", ca, "--all")
    assert "has one root again" in pki("init", ca, "--retire").stdout
    (new,) = read_certificates(ca / "ca.pem")
    assert new != old
    assert leaf(path).issuer == new.subject
