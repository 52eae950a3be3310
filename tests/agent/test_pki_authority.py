"""The small authority's files: their rights, what a crash leaves, how a root is replaced."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from certificates import CURVE, UNKNOWN_CURVE, change
from cryptography import x509

from coherd.config import TlsConfig
from coherd.errors import CertificateRefused, CoherdError, ConfigError, InvalidRequest, StartRefused
from coherd.identity import Identity, Role
from coherd.net.certificates import load_bundle
from coherd.pem import FILE_BYTES_MAX
from coherd.pki import authority, files, hosts_of, is_issued_by, issue, make_root

NOW = datetime(2026, 2, 3, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
AGENT = Identity("example.org", "prod", Role.AGENT, "cache-1")
PEER = AGENT._replace(name="cache-2")
CLIENT = AGENT._replace(role=Role.CLIENT)
OPERATOR = AGENT._replace(role=Role.OPERATOR)
HOSTS = ("cache-1.internal", "10.0.0.11", "2001:db8::1")


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    authority.create(tmp_path / "ca", "example.org", NOW)
    return tmp_path / "ca"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_keys_and_directories_are_for_their_owner_alone_from_the_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int
) -> None:
    opened, real = {}, os.open

    def spy(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        descriptor = real(path, flags, mode, **more)
        if flags & os.O_CREAT:
            opened[Path(path).name] = stat.S_IMODE(os.fstat(descriptor).st_mode), flags
        return descriptor

    monkeypatch.setattr(os, "open", spy)
    ca, out = tmp_path / "ca", tmp_path / "out"
    with umask(mask):
        authority.create(ca, "example.org", NOW)
        authority.load(ca).issue(AGENT, out / "a.pem", NOW)
        authority.load(ca).add_next(NOW)
    assert [mode(path) for path in (ca, out, ca / "issued")] == [0o700] * 3
    assert [mode(p) for p in (ca / "ca.key", ca / "ca-next.key", out / "a.key")] == [0o600] * 3
    assert [mode(path) for path in (ca / "ca.pem", out / "a.pem")] == [0o644] * 2
    keys = [entry for name, entry in opened.items() if ".key." in name]
    assert len(keys) == 3
    assert all(found == 0o600 and flags & os.O_EXCL for found, flags in keys)


def test_nothing_is_left_beside_what_was_written(ca: Path) -> None:
    authority.load(ca).issue(AGENT, ca / "a.pem", NOW)
    authority.load(ca).renew(AGENT, ca / "a.pem", NOW)
    assert sorted(path.name for path in ca.iterdir()) == [
        *("a.key", "a.pem", "ca.key", "ca.pem", "issued"),
    ]


def test_an_authority_that_is_there_is_not_overwritten(ca: Path) -> None:
    before = {path: path.read_bytes() for path in ca.iterdir()}
    with pytest.raises(InvalidRequest, match=r"ca\.pem is there already"):
        authority.create(ca, "example.org", NOW)
    (ca / "ca.pem").rename(ca / "elsewhere")
    with pytest.raises(InvalidRequest, match=r"ca\.key is there already"):
        authority.create(ca, "example.org", NOW)
    assert (ca / "ca.key").read_bytes() == before[ca / "ca.key"]


@pytest.mark.parametrize("taken", ["a.pem", "a.key"])
def test_what_is_there_is_not_overwritten_by_issuing(ca: Path, taken: str) -> None:
    (ca / taken).write_text("mine")
    with pytest.raises(InvalidRequest, match=f"{taken} is there already.*renew"):
        authority.load(ca).issue(AGENT, ca / "a.pem", NOW)
    assert (ca / taken).read_text() == "mine"
    assert not (ca / "issued").exists()


def tls(ca: Path) -> TlsConfig:
    return TlsConfig(ca / "ca.pem", ca / "a.pem", ca / "a.key")


def test_an_agent_takes_what_was_issued_and_what_was_renewed(ca: Path) -> None:
    authority.load(ca).issue(AGENT, ca / "a.pem", NOW, hosts=HOSTS)
    first = load_bundle(tls(ca), NOW.timestamp())
    authority.load(ca).renew(AGENT, ca / "a.pem", NOW + HOUR)
    second = load_bundle(tls(ca), (NOW + HOUR).timestamp())
    assert first.holder.identity == second.holder.identity == AGENT
    assert first.key != second.key
    assert second.holder.not_after - first.holder.not_after == HOUR.total_seconds()
    renewed = x509.load_pem_x509_certificate(second.chain)
    assert hosts_of(renewed, AGENT) == HOSTS


def test_two_that_do_not_match_are_renewed_whatever_their_age(
    ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine stops after the key was replaced, before the certificate is."""
    path = ca / "a.pem"
    authority.load(ca).issue(AGENT, path, NOW)
    assert not authority.is_due(path, NOW, HOUR)
    real = Path.replace

    def stops(self: Path, target: Path) -> Path:
        if target == path:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stops)
        with pytest.raises(KeyboardInterrupt):
            authority.load(ca).renew(AGENT, path, NOW)
    with pytest.raises(StartRefused, match="is not the key of"):
        load_bundle(tls(ca), NOW.timestamp())
    assert authority.is_due(path, NOW, HOUR)
    authority.load(ca).renew(AGENT, path, NOW)
    assert load_bundle(tls(ca), NOW.timestamp()).holder.identity == AGENT
    assert not [path for path in ca.iterdir() if path.name.startswith(".")]


def test_a_disk_that_is_full_leaves_what_was_there(
    ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.load(ca).issue(AGENT, ca / "a.pem", NOW)
    before = load_bundle(tls(ca), NOW.timestamp())
    calls = []

    def full(_descriptor: int) -> None:
        calls.append(1)
        if len(calls) == 4:  # after what is remembered and its directory, and the key
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match=r"a\.pem: no space left on device: make room"):
            authority.load(ca).renew(AGENT, ca / "a.pem", NOW)
    assert load_bundle(tls(ca), NOW.timestamp()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_is_renewed_still_belongs_to_the_agents_account(ca: Path) -> None:
    authority.load(ca).issue(AGENT, ca / "a.pem", NOW)
    for name in ("a.pem", "a.key"):
        os.chown(ca / name, 12345, 23456)
    authority.load(ca).renew(AGENT, ca / "a.pem", NOW)
    for name in ("a.pem", "a.key"):
        found = (ca / name).stat()
        assert (found.st_uid, found.st_gid) == (12345, 23456)


def test_a_link_stays_a_link(ca: Path, tmp_path: Path) -> None:
    authority.load(ca).issue(AGENT, tmp_path / "out/a.pem", NOW)
    before = (tmp_path / "out/a.pem").read_bytes()
    (tmp_path / "link.pem").symlink_to("out/a.pem")
    authority.load(ca).renew(AGENT, tmp_path / "link.pem", NOW)
    assert (tmp_path / "link.pem").is_symlink()
    assert (tmp_path / "out/a.pem").read_bytes() != before


def test_the_lifetime_is_that_of_before_unless_the_root_has_cut_it(ca: Path) -> None:
    def lifetime(certificate: x509.Certificate, now: datetime) -> timedelta:
        return certificate.not_valid_after_utc - now

    found, path = authority.load(ca), ca / "a.pem"
    found.issue(AGENT, path, NOW + HOUR, 5 * HOUR)
    for hours in (1, 2, 3):
        now = NOW + hours * HOUR
        assert lifetime(found.renew(AGENT, path, now), now) == 5 * HOUR
    assert lifetime(found.renew(AGENT, path, NOW, 7 * HOUR), NOW) == 7 * HOUR
    ends = found.root.certificate.not_valid_after_utc
    assert lifetime(found.renew(AGENT, path, ends - 2 * HOUR), ends) == timedelta()
    found.add_next(ends - HOUR)
    authority.load(ca).switch()
    now = ends - HOUR
    assert lifetime(authority.load(ca).renew(AGENT, path, now), now) == 24 * HOUR


def test_what_another_authority_issued_is_not_renewed(ca: Path) -> None:
    forged = issue(make_root("example.org", NOW), OPERATOR, NOW)
    files.write_pair(ca / "o.pem", forged)
    with pytest.raises(CertificateRefused, match="issued by none of the roots"):
        authority.load(ca).renew(OPERATOR, ca / "o.pem", NOW)
    assert (ca / "o.pem").read_bytes() == forged.pem


def test_the_roots_are_brought_where_certificates_go(ca: Path, tmp_path: Path) -> None:
    path = tmp_path / "out/a.pem"
    authority.load(ca).issue(AGENT, path, NOW)
    roots = path.with_name("ca.pem")
    assert roots.read_bytes() == (ca / "ca.pem").read_bytes()
    authority.load(ca).add_next(NOW)
    authority.load(ca).renew(AGENT, path, NOW)
    assert files.read_certificates(roots) == authority.load(ca).roots
    foreign = make_root("example.com", NOW)
    roots.write_bytes(foreign.pem + roots.read_bytes())
    authority.load(ca).switch()
    authority.load(ca).renew(AGENT, path, NOW)
    authority.load(ca).retire(NOW)
    authority.load(ca).renew(AGENT, path, NOW)
    due = (*authority.load(ca).roots, foreign.certificate)
    assert files.read_certificates(roots) == due
    roots.unlink()
    authority.load(ca).renew(AGENT, path, NOW)
    assert not roots.exists()


def test_the_roots_of_another_authority_are_left_as_they_are(ca: Path, tmp_path: Path) -> None:
    authority.create(tmp_path / "other", "example.org", NOW)
    before = (tmp_path / "other/ca.pem").read_bytes()
    with pytest.raises(InvalidRequest, match="has roots of another authority"):
        authority.load(ca).issue(AGENT, tmp_path / "other/a.pem", NOW)
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["ca.key", "ca.pem"]
    authority.load(ca).issue(AGENT, ca / "a.pem", NOW)
    for name in ("a.pem", "a.key"):
        (ca / name).rename(tmp_path / "other" / name)
    authority.load(ca).renew(AGENT, tmp_path / "other/a.pem", NOW)
    assert (tmp_path / "other/ca.pem").read_bytes() == before


# Replacing the root.


def test_a_root_is_replaced_in_three_steps(ca: Path, tmp_path: Path) -> None:
    path, elsewhere = ca / "a.pem", tmp_path / "out/b.pem"
    old = authority.load(ca).root.certificate
    authority.load(ca).issue(AGENT, path, NOW)
    authority.load(ca).issue(PEER, elsewhere, NOW)
    authority.load(ca).add_next(NOW)
    found = authority.load(ca)
    assert (found.roots[0], found.root.certificate, len(found.roots)) == (old, old, 2)
    assert is_issued_by(found.renew(AGENT, path, NOW), old)
    found.switch()
    found = authority.load(ca)
    new = found.root.certificate
    assert new != old
    assert (found.roots, found.old, found.next) == ((old, new), [old], None)
    assert not (ca / "ca-next.key").exists()
    needed = r"needed by prod/agent/cache-1, prod/agent/cache-2: .*2026-02-04 12:00:00 UTC"
    with pytest.raises(CertificateRefused, match=needed):
        found.retire(NOW)
    assert is_issued_by(found.renew(AGENT, path, NOW), new)
    with pytest.raises(CertificateRefused, match="needed by prod/agent/cache-2:"):
        found.retire(NOW)
    assert authority.load(ca).roots == (old, new)
    found.renew(PEER, elsewhere, NOW)
    found.retire(NOW)
    assert authority.load(ca).roots == (new,)


def test_who_has_expired_needs_no_root(ca: Path) -> None:
    authority.load(ca).issue(AGENT, ca / "a.pem", NOW)
    authority.load(ca).add_next(NOW)
    authority.load(ca).switch()
    end = NOW + timedelta(hours=24)
    with pytest.raises(CertificateRefused, match="needed"):
        authority.load(ca).retire(end)
    authority.load(ca).retire(end + timedelta(seconds=1))
    assert len(authority.load(ca).roots) == 1
    assert list((ca / "issued").iterdir()) == []


def test_many_who_depend_are_counted(ca: Path) -> None:
    for number in range(12):
        who = CLIENT._replace(name=f"c{number}")
        authority.load(ca).issue(who, ca / authority.file_name(who), NOW)
    authority.load(ca).add_next(NOW)
    authority.load(ca).switch()
    with pytest.raises(CertificateRefused, match="and 2 more: renew"):
        authority.load(ca).retire(NOW)


def test_steps_out_of_order_are_refused(ca: Path) -> None:
    def refused(step: str, text: str) -> None:
        before = {path: path.read_bytes() for path in ca.iterdir()}
        arguments = () if step == "switch" else (NOW,)
        with pytest.raises(InvalidRequest, match=text):
            getattr(authority.load(ca), step)(*arguments)
        assert {path: path.read_bytes() for path in ca.iterdir()} == before

    refused("switch", "--next makes one")
    refused("retire", "nothing to retire")
    authority.load(ca).add_next(NOW)
    refused("add_next", "go on with --switch")
    refused("retire", "--switch comes before --retire")
    authority.load(ca).switch()
    refused("switch", "--next makes one")
    refused("add_next", "drop it first, with --retire")


def test_a_next_key_whose_root_was_not_written_is_made_anew(ca: Path) -> None:
    (ca / "ca-next.key").write_bytes(make_root("example.org", NOW).key_pem)
    (ca / "ca-next.key").chmod(0o600)
    assert authority.load(ca).next is None
    authority.load(ca).add_next(NOW)
    assert authority.load(ca).next is not None


def test_an_authority_is_changed_by_one_at_a_time(ca: Path) -> None:
    descriptor = os.open(ca, os.O_RDONLY)
    with authority.held(ca), pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


# What is wrong with files.


def spoil(ca: Path, what: str) -> None:
    match what:
        case "no authority":
            (ca / "ca.pem").unlink()
        case "no key":
            (ca / "ca.key").unlink()
        case "another key":
            (ca / "ca.key").write_bytes(make_root("example.org", NOW).key_pem)
        case "readable key":
            (ca / "ca.key").chmod(0o640)
        case "no pem":
            (ca / "ca.pem").write_text("x")
        case "key no pem":
            (ca / "ca.key").write_text("x")
        case "directory":
            (ca / "ca.key").unlink()
            (ca / "ca.key").mkdir()
        case "fifo":
            (ca / "ca.key").unlink()
            os.mkfifo(ca / "ca.key", 0o600)
        case "large":
            (ca / "ca.pem").write_bytes(b"x" * (FILE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("no authority", r"it has no ca\.pem: `coherd pki init .* --trust DOMAIN` makes one"),
        ("no key", r"ca\.key can.t be read \(no such file"),
        ("another key", "is the key of no root"),
        ("readable key", r"may be read by others \(mode 0640\): `chmod 0600"),
        ("no pem", r"ca\.pem: no certificates in PEM"),
        ("key no pem", "no private key without a password"),
        ("directory", r"ca\.key is no file"),
        ("fifo", r"ca\.key is no file"),
        ("large", "more than"),
    ],
)
def test_an_authority_that_is_not_whole_says_what_to_do(ca: Path, what: str, text: str) -> None:
    spoil(ca, what)
    with pytest.raises(CoherdError, match=text) as caught:
        authority.load(ca)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"), [("ca.pem", "a malformed certificate"), ("ca.key", "no private key")]
)
def test_a_curve_that_nobody_knows_is_no_fault_of_the_command(
    ca: Path, name: str, text: str
) -> None:
    change(ca / name, CURVE, UNKNOWN_CURVE)
    with pytest.raises(ConfigError, match=f"{name}: {text}"):
        authority.load(ca)


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca").chmod(0o770)
    with pytest.raises(ConfigError, match="written by others: `chmod 0700"):
        authority.create(tmp_path / "ca", "example.org", NOW)
    assert list((tmp_path / "ca").iterdir()) == []
