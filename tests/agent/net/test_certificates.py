"""Which files an agent may be known by, what is said of others, and that new ones need no restart."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
import trio
from certificates import (
    CURVE,
    HOUR,
    UNKNOWN_CURVE,
    Authority,
    Files,
    change,
    identity,
    pem_of,
)
from cryptography.hazmat.primitives.asymmetric import rsa
from trio.testing import MockClock, wait_all_tasks_blocked

from coherd.errors import CertificateRefused, StartRefused
from coherd.net import credentials as credentials_module
from coherd.net.certificates import Holder, holder_of, load_bundle
from coherd.net.credentials import LOOK_INTERVAL, Credentials

A = identity("agent/a")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Authority(tmp_path).issue(A)


def test_what_is_right_is_read(files: Files) -> None:
    bundle = load_bundle(files.tls, time.time())
    assert bundle.holder.identity == A
    assert bundle.chain == files.cert.read_bytes()


def _world_readable(files: Files) -> Path:
    files.key.chmod(0o644)
    return files.key


def _of_another_pair(files: Files) -> Path:
    other = Authority(files.key.parent / "other").issue(A)
    files.key.write_bytes(other.key.read_bytes())
    return files.key


def _empty(files: Files) -> Path:
    files.cert.write_bytes(b"\n")
    return files.cert


def _directory(files: Files) -> Path:
    files.ca.unlink()
    files.ca.mkdir()
    return files.ca


def _fifo(files: Files) -> Path:
    files.key.unlink()
    os.mkfifo(files.key, 0o600)
    return files.key


def _gone(files: Files) -> Path:
    files.cert.unlink()
    return files.cert


def _no_pem(files: Files) -> Path:
    files.ca.write_text("certificate")
    return files.ca


def _no_key(files: Files) -> Path:
    files.key.write_bytes(files.cert.read_bytes())
    return files.key


def _large(files: Files) -> Path:
    files.ca.write_bytes(b"#" * 1024 * 1024 + b"#")
    return files.ca


def _no_text(files: Files) -> Path:
    change(files.cert, b"somebody", b"some\xffody")
    return files.cert


def _unknown_key(files: Files) -> Path:
    change(files.key, CURVE, UNKNOWN_CURVE)
    return files.key


def _unknown_certified_key(files: Files) -> Path:
    change(files.cert, CURVE, UNKNOWN_CURVE)
    return files.cert


WRONG: dict[str, tuple[Callable[[Files], Path], str]] = {
    "world-readable": (_world_readable, "may be read by others (mode 0644): `chmod 0600"),
    "of another pair": (_of_another_pair, "is not the key of"),
    "empty": (_empty, "is empty: correct tls.cert"),
    "a directory": (_directory, "correct tls.ca"),
    "a FIFO": (_fifo, "is no file: correct tls.key"),
    "not there": (_gone, "can't be read (no such file or directory): correct tls.cert"),
    "no PEM": (_no_pem, "no certificates in PEM"),
    "no key": (_no_key, "no private key without a password"),
    "a name that is no text": (_no_text, "subject is malformed"),
    "an unknown curve": (_unknown_key, "a key of a kind that can't be used"),
    "an unknown curve, certified": (_unknown_certified_key, "of a kind that can't be used"),
    "too large": (_large, "has more than 1048576 bytes"),
}


@pytest.mark.bad_input(67)
@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_cannot_be_used_is_named_with_the_remedy(files: Files, case: str) -> None:
    change, said = WRONG[case]
    path = change(files)
    with pytest.raises(StartRefused) as caught:
        load_bundle(files.tls, time.time())
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_certificate_is_valid_between_two_moments() -> None:
    holder = Holder(A, 100.0, 200.0)
    for now in (100.0, 200.0):
        holder.check(now)
    with pytest.raises(CertificateRefused, match="not valid before 1970-01-01 00:01:40 UTC"):
        holder.check(99.9)
    with pytest.raises(CertificateRefused, match="expired at 1970-01-01 00:03:20 UTC"):
        holder.check(200.1)


def test_only_the_certificate_of_this_very_agent_will_do(files: Files) -> None:
    credentials = Credentials(files.tls, time.time)
    credentials.check_agent("test", "a")
    for cluster, name in (("other", "a"), ("test", "b")):
        with pytest.raises(StartRefused, match=f"this agent is .*/{cluster}/agent/{name}"):
            credentials.check_agent(cluster, name)


async def test_new_files_are_used_and_wrong_ones_are_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue(A)
    credentials = Credentials(files.tls, time.time)
    renewed: list[float] = []
    credentials.on_renewed = lambda: renewed.append(credentials.left)
    first = credentials.bundle
    await credentials.look()
    assert credentials.bundle is first
    new = authority.issue(A, file="new", ends=3 * HOUR)
    new.cert.replace(files.cert)  # the key is not there yet
    await credentials.look()
    assert credentials.bundle is first
    assert "is not the key of" in credentials.problem
    new.key.replace(files.key)
    await credentials.look()
    assert credentials.problem == ""
    assert credentials.left > timedelta(hours=2).total_seconds()
    assert len(renewed) == 1
    other = authority.issue(identity("agent/b"))
    other.key.replace(files.key)
    other.cert.replace(files.cert)
    await credentials.look()
    assert "is the certificate of" in credentials.problem
    files.cert.write_bytes(authority.odd(A))
    files.key.write_bytes(pem_of(authority.key))
    await credentials.look()
    assert "malformed" in credentials.problem
    assert credentials.identity == A
    assert len(renewed) == 1


async def test_the_files_are_looked_at_now_and_then(
    tmp_path: Path, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    credentials = Credentials(Authority(tmp_path).issue(A).tls, time.time)
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        await trio.lowlevel.checkpoint()

    credentials.look = look  # type: ignore[method-assign]
    nursery.start_soon(credentials.run)
    for expected in range(3):
        await wait_all_tasks_blocked()
        assert looks == expected
        mock_clock.jump(LOOK_INTERVAL)


def test_a_certificate_is_due_when_a_third_of_its_time_is_left(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    soon, later = (
        Credentials(authority.issue(A, starts=-2 * HOUR, ends=ends).tls, time.time)
        for ends in (0.9 * HOUR, 1.1 * HOUR)
    )
    assert soon.is_due
    assert not later.is_due


@pytest.mark.bad_input(66)
def test_what_is_no_certificate_is_refused_in_words(tmp_path: Path) -> None:
    for shown in (b"", b"-----BEGIN CERTIFICATE-----", Authority(tmp_path).odd(A)):
        with pytest.raises(CertificateRefused, match=r"malformed|no certificate"):
            holder_of(shown)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("a short key", r": .*ee key too small.*: issue another"),
        ("no file", r" .*too many open files.*: see how many"),
    ],
)
async def test_what_only_tls_refuses_is_refused_with_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, said: str
) -> None:
    authority = Authority(tmp_path)
    files = authority.issue(A)
    credentials = Credentials(files.tls, time.time)
    before = credentials.bundle, credentials.https
    if case == "a short key":
        authority.issue(A, key=rsa.generate_private_key(65537, 1024))
    else:
        authority.issue(A)
        full = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        monkeypatch.setattr(os, "memfd_create", Mock(side_effect=full))
    with pytest.raises(StartRefused, match=f"{files.cert}{said}"):
        Credentials(files.tls, time.time)
    await credentials.look()
    assert re.search(said, credentials.problem)
    assert (credentials.bundle, credentials.https) == before
    monkeypatch.undo()
    authority.issue(A)
    await credentials.look()
    assert credentials.problem == ""
    assert credentials.https is not before[1]


def test_words_between_certificates_are_left_out(files: Files) -> None:
    for words in ("# Wurzel für alle\n".encode(), b"# Wurzel f\xfcr alle\n", b""):
        files.ca.write_bytes(words + files.ca.read_bytes() + words)
        assert Credentials(files.tls, time.time).https.cert_store_stats()["x509_ca"] == 1


def test_a_file_that_holds_key_and_certificate_may_be_named_twice(files: Files) -> None:
    files.key.write_bytes(files.key.read_bytes() + files.cert.read_bytes())
    assert Credentials(files._replace(cert=files.key).tls, time.time).identity == A


@pytest.mark.parametrize("wrong", [_no_text, _unknown_key, _unknown_certified_key])
async def test_new_files_that_no_library_understands_leave_those_of_before(
    files: Files, wrong: Callable[[Files], Path]
) -> None:
    credentials = Credentials(files.tls, time.time)
    before = credentials.bundle
    path = wrong(files)
    await credentials.look()
    assert str(path) in credentials.problem
    assert credentials.bundle is before


async def test_whatever_goes_wrong_with_new_files_those_of_before_stay(
    files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    credentials = Credentials(files.tls, time.time)
    before = credentials.bundle
    os.utime(files.cert, (0, 0))
    with monkeypatch.context() as patch:
        patch.setattr(credentials_module, "load_bundle", Mock(side_effect=RuntimeError("a fault")))
        for _ in range(2):
            await credentials.look()
    assert "RuntimeError('a fault')" in credentials.problem
    assert capsys.readouterr().out.count("is not used") == 1, "said once"
    assert credentials.bundle is before
    await credentials.look()
    assert credentials.problem == ""


def test_a_disk_that_fails_is_said(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = OSError(errno.EIO, os.strerror(errno.EIO))
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", Mock(side_effect=failed))
        with pytest.raises(StartRefused, match="input/output error"):
            load_bundle(files.tls, time.time())
