"""The task that writes the audit log: at once, to the end, again after failures, beside a disk that hangs."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from integration.polling import poll_async

from coherd import audit
from coherd.audit import AuditLog, AuditLogs, Event, Kind


def event(n: int = 0) -> Event:
    return Event(n, Kind.DENIED, "local")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def numbers(path: Path) -> list[int]:
    return [line["at_us"] for line in lines(path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


async def test_what_is_noted_is_written_and_at_the_end_the_rest(
    path: Path, nursery: trio.Nursery
) -> None:
    log = AuditLog(path, rate_max=1.0)
    log.note(event(0), 0.0)
    nursery.start_soon(log.run)
    await poll_async(lambda: path.exists() and numbers(path) == [0], "the event before the start")
    log.note(event(1), 0.0)
    await poll_async(lambda: numbers(path) == [0, 1], "one more")
    for n in range(2, 20):
        log.note(event(n), 0.0)
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await poll_async(lambda: len(lines(path)) == 11, "the rest")
    assert lines(path)[-1]["count"] == 10


async def test_refusals_have_a_file_of_their_own(path: Path, nursery: trio.Nursery) -> None:
    logs = AuditLogs(path)
    nursery.start_soon(logs.run)
    denied = path.with_name("audit-denied.log")
    logs.note(event(0), 0.0)
    logs.note(Event(1, Kind.ADMIN, "local"), 0.0)
    await poll_async(lambda: denied.exists() and numbers(denied) == [0], "the refusal")
    await poll_async(lambda: path.exists() and numbers(path) == [1], "the change")
    logs.note(event(2), 0.0)
    logs.note(Event(3, Kind.WIDE, "local"), 0.0)
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await poll_async(lambda: numbers(denied) == [0, 2] and numbers(path) == [1, 3], "the rest")


async def test_what_was_suppressed_is_told_though_nothing_else_happens(
    path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "SUPPRESSED_PAUSE", 0.3)
    log = AuditLog(path, rate_max=0.1)
    nursery.start_soon(log.run)
    log.note(event(), 0.0)

    def told() -> list[int]:
        return [line["count"] for line in lines(path) if "count" in line]

    await poll_async(lambda: log.statistics().written == 1, "the file")
    log.note(event(), 0.0)
    await poll_async(lambda: told() == [1], "a line")
    log.note(event(), 0.0)
    await poll_async(lambda: told() == [1, 1], "another line, later and without a further note")


async def test_notes_of_many_threads_are_all_written_in_the_order_of_each(
    path: Path, nursery: trio.Nursery
) -> None:
    log = AuditLog(path, bytes_max=20_000, files_max=50, rate_max=1000.0)
    nursery.start_soon(log.run)

    def note(first: int) -> None:
        for n in range(first, first + 200):
            log.note(event(n), 0.0)

    threads = [threading.Thread(target=note, args=(first,)) for first in range(0, 1600, 200)]
    for thread in threads:
        thread.start()
    await poll_async(lambda: log.statistics().written == 1600, "all of them")
    files = sorted(path.parent.iterdir(), key=lambda file: int(file.suffix.strip(".log") or 0))
    found = [n for file in reversed(files) for n in numbers(file)]
    assert sorted(found) == list(range(1600))
    for first in range(0, 1600, 200):
        mine = [n for n in found if first <= n < first + 200]
        assert mine == sorted(mine)
    assert all(file.stat().st_size <= 20_000 for file in files)


async def test_it_is_tried_again_by_itself(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "RETRY", 0.01)
    path = tmp_path / "missing" / "audit.log"
    log = AuditLog(path)
    nursery.start_soon(log.run)
    log.note(event(), 0.0)
    await poll_async(lambda: log.statistics().failed > 1, "two attempts")
    path.parent.mkdir()
    await poll_async(lambda: log.statistics().written == 1, "the event")


async def test_a_disk_that_hangs_holds_up_neither_notes_nor_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "CLOSE_WAIT", 0.05)
    released, hangs = threading.Event(), threading.Event()
    write = os.write

    def hang(to: int, data: bytes) -> int:
        hangs.set()
        released.wait(30)
        return write(to, data)

    monkeypatch.setattr(audit.os, "write", hang)
    log = AuditLog(path)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            log.note(event(), 0.0)
            await poll_async(hangs.is_set, "a write under way")
            log.note(event(1), 0.0)
            nursery.cancel_scope.cancel()
        assert log.statistics().written == 0
    finally:
        released.set()
