"""The audit log: what is written, what is only counted, what rotations, crashes and full disks do to it."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from coherd import audit
from coherd.audit import AuditLog, AuditLogs, Event, Kind, Statistics, Wrote
from coherd.audit_lines import decode, encode
from coherd.audit_reading import read

AT = 1_760_000_000_000_000
WHO = "spiffe://example.org/cluster/prod/client/web-1"


def event(n: int = 0, kind: Kind = Kind.DENIED, **more: str) -> Event:
    return Event(AT + n, kind, more.pop("who", WHO), "Invalidate", "shop", **more)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as found:
        yield found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def numbers(path: Path) -> list[int]:
    """Which events are in a file, lines about suppressed ones left out."""
    return [line["at_us"] - AT for line in lines(path) if line["kind"] != "suppressed"]


def write_all(log: AuditLog, now: float = 0.0) -> None:
    while (wrote := log.write(now)) is Wrote.PART:
        pass
    assert wrote is Wrote.ALL


def ready_log(path: Path, **more: Any) -> AuditLog:
    log = AuditLog(path, **more)
    write_all(log)
    return log


# ---------------------------------------------------------------- lines


def test_an_event_is_one_object_with_its_keys_in_order(path: Path) -> None:
    log = ready_log(path)
    log.note(event(what="everything", outcome="denied", why="no grant"), 0.0)
    write_all(log)
    assert path.read_text() == (
        f'{{"at_us":{AT},"kind":"denied","who":"{WHO}","rpc":"Invalidate","namespace":"shop",'
        '"what":"everything","outcome":"denied","why":"no grant"}\n'
    )


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        ready_log(path, bytes_max=1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# ---------------------------------------------------------------- rotation


def test_it_rotates_at_its_size_and_keeps_so_many(path: Path) -> None:
    size = len(encode(event()))
    log = ready_log(path, bytes_max=3 * size, files_max=2)
    for n in range(10):
        log.note(event(n), 0.0)
    write_all(log)
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == ["audit.log", "audit.log.1", "audit.log.2"]
    assert [numbers(path.with_name(f"audit.log{end}")) for end in (".2", ".1", "")] == [
        [3, 4, 5],
        [6, 7, 8],
        [9],
    ]
    assert log.statistics() == Statistics(written=10, suppressed=0, failed=0)


def test_a_line_longer_than_a_file_may_be_is_written(path: Path) -> None:
    log = ready_log(path, bytes_max=10, files_max=3)
    for n in range(3):
        log.note(event(n), 0.0)
    write_all(log)
    assert [numbers(path.with_name(f"audit.log{end}")) for end in (".2", ".1", "")] == [
        [0],
        [1],
        [2],
    ]


def test_it_goes_on_with_the_file_of_its_last_life(path: Path) -> None:
    size = len(encode(event()))
    for n in range(4):
        log = ready_log(path, bytes_max=3 * size)
        log.note(event(n), 0.0)
        log.close()
    assert numbers(path.with_name("audit.log.1")) == [0, 1, 2]
    assert numbers(path) == [3]


def test_a_rotation_fills_the_first_hole_and_moves_nothing_beyond_it(path: Path) -> None:
    old = path.with_name("audit.log.3")
    old.write_text("old\n")
    log = ready_log(path, bytes_max=1, files_max=3)
    for n in range(3):
        log.note(event(n), 0.0)
    write_all(log)
    assert old.read_text() == "old\n"
    assert numbers(path.with_name("audit.log.2")) == [0]


def test_a_file_that_was_moved_away_is_left_alone(path: Path) -> None:
    log = ready_log(path)
    log.note(event(0), 0.0)
    write_all(log)
    moved = path.rename(path.with_name("audit.log-2026"))
    log.note(event(1), 0.0)
    write_all(log)
    path.unlink()
    path.write_text("")  # as logrotate does it
    log.note(event(2), 0.0)
    write_all(log)
    assert (numbers(moved), numbers(path)) == ([0], [2])


def test_a_file_that_was_emptied_is_begun_anew(path: Path) -> None:
    log = ready_log(path)
    for n in range(2):
        log.note(event(n), 0.0)
        write_all(log)
        if n == 0:
            os.truncate(path, 0)
    assert numbers(path) == [1]
    assert b"\0" not in path.read_bytes()


# ---------------------------------------------------------------- too much at once


def test_beyond_the_rate_events_are_counted_and_a_line_says_so(path: Path) -> None:
    log = ready_log(path, rate_max=1.0)  # the burst is 10
    for n in range(15):
        log.note(event(n), 100.0)
    write_all(log, 100.0)
    assert numbers(path) == list(range(10))
    assert lines(path)[-1] == {
        "at_us": AT + 14,
        "kind": "suppressed",
        "who": "",
        "rpc": "",
        "namespace": "",
        "what": "5 denied",
        "outcome": "",
        "why": "more came than could be written",
        "count": 5,
    }
    log.note(event(20), 102.0)
    log.note(event(21), 102.0)
    log.note(event(22), 102.0)
    write_all(log, 102.0)
    assert numbers(path) == [*range(10), 20, 21]
    assert [line["count"] for line in lines(path) if line["kind"] == "suppressed"] == [5, 1]
    assert log.statistics() == Statistics(written=12, suppressed=6, failed=0)


def test_a_flood_is_told_of_once_a_second(path: Path) -> None:
    log = ready_log(path, rate_max=0.1)
    for tenth in range(35):
        log.note(event(tenth), 0.0)
        write_all(log, 50.0 + tenth / 10)
    counts = [line["count"] for line in lines(path) if line["kind"] == "suppressed"]
    assert counts == [1, 10, 10, 10]
    log.close()
    assert lines(path)[-1]["count"] == 3


def test_a_flood_of_one_kind_hides_no_other(path: Path) -> None:
    log = ready_log(path, rate_max=1.0)
    for n in range(100):
        log.note(event(n), 0.0)
    log.note(event(100, Kind.ADMIN), 0.0)
    write_all(log)
    assert 100 in numbers(path)
    assert lines(path)[-1]["what"] == "90 denied"


def test_a_flood_of_refusals_rotates_nothing_else_away(path: Path) -> None:
    size = len(encode(event(why="y" * 300)))
    logs = AuditLogs(path, bytes_max=100 * size, files_max=2)
    logs.note(event(0, Kind.ADMIN), 0.0)
    logs.note(event(1, Kind.WIDE), 0.0)
    for second in range(20):
        for n in range(100):
            logs.note(event(100 * second + n + 2, why="y" * 300), float(second))
        for log in (logs.others, logs.denied):
            write_all(log, float(second))
    for log in (logs.others, logs.denied):
        log.close()
    kept = list(read(path))
    assert [e.kind for e in kept if e.kind != Kind.DENIED] == [Kind.ADMIN, Kind.WIDE]
    assert [e.at_us - AT for e in kept[2:]] == [*range(2002 - len(kept[2:]), 2002)]
    assert len(kept) > 200
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 301 * size


def test_the_queue_is_bounded_for_each_kind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "QUEUE_MAX", 5)
    log = ready_log(path)
    for n in range(7):
        log.note(event(n), 0.0)
    for n in range(7, 10):
        log.note(event(n, Kind.WIDE), 0.0)
    write_all(log)
    assert numbers(path) == [0, 1, 2, 3, 4, 7, 8, 9]
    assert lines(path)[-1]["count"] == 2
    log.note(event(10), 0.0)
    write_all(log)
    assert numbers(path)[-1] == 10, "there is room again"


def test_what_was_suppressed_is_told_in_the_next_file_at_a_rotation(path: Path) -> None:
    size = len(encode(event()))
    log = ready_log(path, bytes_max=10 * size, rate_max=1.0)
    for n in range(12):
        log.note(event(n), 0.0)
    write_all(log)
    assert numbers(path.with_name("audit.log.1")) == list(range(10))
    assert [line["count"] for line in lines(path)] == [2]


# ---------------------------------------------------------------- crashes and full disks


def test_a_line_that_a_crash_cut_is_ended_first(path: Path) -> None:
    path.write_bytes(encode(event(0)) + encode(event(1))[:30])
    log = ready_log(path)
    log.note(event(2), 0.0)
    write_all(log)
    found = [decode(line) for line in path.read_bytes().splitlines()]
    assert found == [event(0), None, event(2)]


def test_a_disk_that_is_full_in_the_middle_of_a_line_loses_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ready_log(path)
    for n in range(3):
        log.note(event(n), 0.0)
    size = len(encode(event()))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda to, data: write(to, data[: size + 20]))
        assert log.write(0.0) is Wrote.NOTHING
    write_all(log)
    found = [decode(line) for line in path.read_bytes().splitlines()]
    assert found == [event(0), None, event(1), event(2)]
    assert log.statistics() == Statistics(written=3, suppressed=0, failed=1)


def test_while_it_cannot_be_written_events_wait_and_it_is_said_once(
    tmp_path: Path, logs: list[Any]
) -> None:
    path = tmp_path / "missing" / "audit.log"
    log = AuditLog(path)
    for n in range(3):
        log.note(event(n), 0.0)
        assert log.write(0.0) is Wrote.NOTHING
    assert [entry["event"] for entry in logs] == [
        "the audit log can't be written, and is tried again"
    ]
    assert (logs[0]["path"], logs[0]["why"]) == (str(path), "No such file or directory")
    assert log.statistics() == Statistics(written=0, suppressed=0, failed=3)
    path.parent.mkdir()
    write_all(log)
    assert numbers(path) == [0, 1, 2]
    assert logs[-1]["event"] == "the audit log is written again"
    path.unlink()
    path.parent.rmdir()
    log.note(event(3), 0.0)
    assert log.write(0.0) is Wrote.NOTHING
    assert len(logs) == 3, "that it fails anew is said anew"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_and_not_waited_for(path: Path, make: Any) -> None:
    make(path)
    log = AuditLog(path)
    log.note(event(), 0.0)
    assert log.write(0.0) is Wrote.NOTHING
    assert log.statistics().failed == 1


def test_a_file_that_cannot_be_rotated_grows_to_what_all_of_them_may_take(
    path: Path, monkeypatch: pytest.MonkeyPatch, logs: list[Any]
) -> None:
    size = len(encode(event()))
    log = ready_log(path, bytes_max=2 * size, files_max=2)

    def refuse(_self: Path, _target: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for n in range(8):
        log.note(event(n), 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        while log.write(0.0) is Wrote.PART:
            pass
        assert numbers(path) == [0, 1, 2, 3, 4, 5]
        assert log.write(0.0) is Wrote.NOTHING
        assert len(logs) == 1
    write_all(log)
    assert numbers(path) == [6, 7]
    assert len(logs) == 2


def test_what_is_lost_at_the_end_is_said(tmp_path: Path, logs: list[Any]) -> None:
    log = AuditLog(tmp_path / "missing" / "audit.log")
    for n in range(3):
        log.note(event(n), 0.0)
    log.close()
    assert (logs[-1]["event"], logs[-1]["count"]) == (
        "audit events are lost: they could not be written",
        3,
    )


def test_whoever_goes_on_noting_does_not_hold_up_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ready_log(path)
    log.note(event(0), 0.0)
    sizes: list[int] = []
    write = os.write

    def noting(to: int, data: bytes) -> int:
        sizes.append(len(data))
        if len(sizes) < 100:
            log.note(event(len(sizes)), 0.0)
        return write(to, data)

    monkeypatch.setattr(os, "write", noting)
    log.close()
    assert len(sizes) == 1
    assert numbers(path) == [0]
