"""What is found in the files of a host: rights, room, a slow disk, sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

import pytest

from coherd.cluster import host_checks
from coherd.cluster.findings import Finding, Severity
from coherd.cluster.host_checks import check_directory, check_disk, check_sockets, holder_of
from coherd.config import Address, UnixSocket
from coherd.data_dir import locked

GIB = 1024**3


def bad(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(f.name, f.remedy) for f in findings if f.severity is not Severity.OK]


def test_a_private_directory_is_fine_and_one_that_others_may_read_is_not(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    journal = data / "journal.db"
    journal.touch(mode=0o600)
    assert not bad(check_directory(data))
    journal.chmod(0o640)
    data.chmod(0o755)
    assert bad(check_directory(data)) == [
        (str(data), f"chmod go= {data}"),
        (str(journal), f"chmod go= {journal}"),
    ]


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for check in (check_directory, check_disk):
        (found,) = check(tmp_path / "data")
        assert found.severity is Severity.ERROR
        assert "no such file or directory" in found.text
        assert "`data_dir`" in found.remedy


@pytest.mark.parametrize(
    ("free", "total", "is_fine"),
    [
        (20 * GIB, 100 * GIB, True),
        (9 * GIB, 100 * GIB, False),
        (GIB - 1, 2 * GIB, False),
        (0, 0, False),
    ],
)
def test_little_room_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, total: int, *, is_fine: bool
) -> None:
    usage = host_checks.shutil._ntuple_diskusage(total, total - free, free)  # type: ignore[attr-defined]
    monkeypatch.setattr(host_checks.shutil, "disk_usage", lambda _: usage)
    room, _ = check_disk(tmp_path)
    assert (room.severity is Severity.OK) is is_fine
    assert "GiB free" in room.text


def test_a_slow_fsync_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, severity in ((0.002, Severity.OK), (0.25, Severity.WARNING)):
        monkeypatch.setattr(host_checks, "_fsync_seconds", lambda _path, s=seconds: s)
        _, took = check_disk(tmp_path)
        assert took.severity is severity
        assert took.text == f"an fsync takes {seconds * 1000:.1f} ms"


def test_who_may_use_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))
    where = [UnixSocket(str(path))]
    path.chmod(0o660)
    assert not bad(check_sockets([*where, Address("127.0.0.1", 1)]))
    path.chmod(0o662)
    assert bad(check_sockets(where)) == [(str(path), f"chmod o= {path}")]
    path.unlink()
    (gone,) = check_sockets(where)
    assert (gone.severity, gone.text) == (
        *(Severity.ERROR, "it can't be reached: no such file or directory"),
    )
    path.touch()
    (other,) = check_sockets(where)
    assert (other.severity, other.text) == (Severity.ERROR, "it is no socket any more")


def test_the_holder_of_a_directory_is_known_while_it_holds_it(tmp_path: Path) -> None:
    assert not holder_of(tmp_path)
    with locked(tmp_path, "cache-1"):
        assert holder_of(tmp_path).startswith("agent cache-1, pid ")
    assert not holder_of(tmp_path)
