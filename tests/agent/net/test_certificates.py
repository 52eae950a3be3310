"""Which files an agent may be known by, what is said of others, and that new ones need no restart."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import trio
from certificates import HOUR, Authority, Files, identity, pem_of
from trio.testing import MockClock, wait_all_tasks_blocked

from coherd.errors import CertificateRefused, StartRefused
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


WRONG: dict[str, tuple[Callable[[Files], Path], str]] = {
    "world-readable": (_world_readable, "may be read by others (mode 0644): `chmod 0600"),
    "of another pair": (_of_another_pair, "is not the key of"),
    "empty": (_empty, "is empty: correct tls.cert"),
    "a directory": (_directory, "correct tls.ca"),
    "a FIFO": (_fifo, "is no file: correct tls.key"),
    "not there": (_gone, "can't be read (no such file or directory): correct tls.cert"),
    "no PEM": (_no_pem, "no certificates in PEM"),
    "no key": (_no_key, "no private key without a password"),
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
