"""`coherd audit-log`: a table, JSON lines, filters, and following over rotations until Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from toy_agent import coherd

from coherd.audit import AuditLog, Event, Kind, Wrote
from coherd.audit_lines import encode
from coherd.cli import audit_log

AT = 1_760_000_000_123_456
CLUSTER = "spiffe://example.org/cluster/prod"
DENIED = Event(
    AT, Kind.DENIED, f"{CLUSTER}/client/web-1", "Invalidate", "shop", "", "denied", "no grant"
)
ADMIN = Event(AT + 1, Kind.ADMIN, f"{CLUSTER}/operator/ann", "Forget", "", "cache-3", "ok")
WIDE = Event(AT + 2, Kind.WIDE, "local unix:", "Invalidate", "shop", "everything", "ok")
MANY = Event(AT + 3, Kind.SUPPRESSED, what="7 denied", why="more came", count=7)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def write(path: Path, *events: Event) -> None:
    with path.open("ab") as file:
        file.write(b"".join(map(encode, events)))


def test_a_table_for_people(path: Path) -> None:
    write(path.with_name("audit.log.1"), DENIED, ADMIN)
    write(path, WIDE, MANY)
    result = coherd("audit-log", str(path))
    assert (result.exit_code, result.stderr) == (0, "")
    at, web = "2025-10-09 08:53:20.123", f"{CLUSTER}/client/web-1"
    ann = f"{CLUSTER}/operator/ann"
    w = len(ann)
    assert result.stdout.splitlines() == [
        f"TIME                     {'WHO':{w}}  KIND        RPC         NAMESPACE  WHAT        OUTCOME  WHY",
        f"{at}  {web:{w}}  denied      Invalidate  shop       -           denied   no grant",
        f"{at}  {ann:{w}}  admin       Forget      -          cache-3     ok",
        f"{at}  {'local unix:':{w}}  wide        Invalidate  shop       everything  ok",
        f"{at}  {'-':{w}}  suppressed  -           -          7 denied    -        more came",
    ]


def test_refusals_are_shown_from_the_file_beside_it(path: Path) -> None:
    write(path, ADMIN, WIDE)
    write(path.with_name("audit-denied.log"), DENIED, MANY)
    result = coherd("audit-log", str(path), "-o", "json")
    assert result.stdout.encode() == b"".join(map(encode, [DENIED, ADMIN, WIDE, MANY]))
    with following(path, "-o", "json") as process:
        for event in (DENIED, ADMIN, WIDE, MANY):
            assert line(process.stdout).encode() == encode(event)
        write(path.with_name("audit-denied.log"), DENIED)
        assert line(process.stdout).encode() == encode(DENIED)


def test_json_is_as_in_the_file(path: Path) -> None:
    write(path, DENIED, MANY)
    result = coherd("audit-log", str(path), "-o", "json")
    assert result.stdout.encode() == path.read_bytes()
    assert json.loads(result.stdout.splitlines()[1])["count"] == 7
    assert coherd("audit-log", str(path), env={"COHERD_OUTPUT": "json"}).stdout == result.stdout
    assert coherd("audit-log", str(path), "-o", "jsonl").stdout == result.stdout


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("--kind denied", [DENIED, MANY]),
        ("--kind denied --kind admin", [DENIED, ADMIN, MANY]),
        ("--who client/*", [DENIED, MANY]),
        ("--who local*", [WIDE, MANY]),
        ("--since 2h", [DENIED, ADMIN, WIDE, MANY]),
        ("--since 1s", []),
    ],
)
def test_only_what_is_asked_for_is_shown(
    path: Path, arguments: str, found: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    hour_later_ns = (AT + 3_600_000_000) * 1000
    monkeypatch.setattr(audit_log.time, "time_ns", lambda: hour_later_ns)
    write(path, DENIED, ADMIN, WIDE, MANY)
    result = coherd("audit-log", str(path), "-o", "json", *arguments.split())
    assert result.exit_code == 0
    assert result.stdout == b"".join(map(encode, found)).decode()


def test_nothing_is_shown_for_nothing(path: Path) -> None:
    path.touch()
    result = coherd("audit-log", str(path))
    assert (result.exit_code, result.output) == (0, "")


def test_damaged_lines_are_counted(path: Path) -> None:
    path.write_bytes(b"\x1b[31m\n" + encode(ADMIN) + b'{"at_us"')
    result = coherd("audit-log", str(path), "-o", "json")
    assert result.stdout.encode() == encode(ADMIN)
    assert result.stderr == "2 lines damaged, not shown\n"


def test_a_forged_line_moves_no_cursor_and_breaks_no_column(path: Path) -> None:
    path.write_bytes(b'{"at_us":99999999999999999999999,"kind":"\\u001b[2J","who":"\\ud800\\n"}\n')
    result = coherd("audit-log", str(path))
    assert result.stdout.splitlines()[1].split()[:3] == ["?", "\\ud800\\n", "\\x1b[2J"]
    assert coherd("audit-log", str(path), "-o", "json").stdout.isprintable() is False
    assert "\x1b" not in coherd("audit-log", str(path), "-o", "json").stdout


def test_columns_are_aligned_in_blocks_so_that_a_long_log_needs_no_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "BLOCK_ROWS", 2)
    write(path, WIDE, WIDE, DENIED, WIDE)
    rows = coherd("audit-log", str(path)).stdout.splitlines()
    assert len(rows) == 5
    assert rows[1] == rows[2]
    assert rows[4].index("wide") == rows[3].index("denied") > rows[2].index("wide")


def test_what_cannot_be_read_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = coherd("audit-log", str(path))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"{path}: No such file or directory: name the file that the agent writes\n"
    )
    assert coherd("audit-log", str(path.parent)).exit_code == 2
    assert coherd("audit-log", str(path), "--kind", "x").exit_code == 2
    assert coherd("audit-log", str(path), "--since", "soon").exit_code == 2

    def refuse(_name: object, _flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    result = coherd("audit-log", str(path))
    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr == f"{path}: may not be read by this account\n"


@contextmanager
def following(path: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "coherd", "audit-log", str(path), "--follow", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


def test_following_goes_on_over_rotations_and_ends_well_on_ctrl_c(path: Path) -> None:
    events = [Event(AT + n, Kind.ADMIN, "local", "Join", "", f"seed-{n}") for n in range(8)]
    log = AuditLog(path, bytes_max=3 * len(encode(events[0])))

    def note(event: Event) -> None:
        log.note(event, 0.0)
        while log.write(0.0) is Wrote.PART:
            pass

    note(events[0])
    with following(path, "-o", "json") as process:
        for event in events[1:]:
            assert line(process.stdout).encode() == encode(events[events.index(event) - 1])
            note(event)
        assert line(process.stdout).encode() == encode(events[-1])
        path.rename(path.with_name("moved-away"))
        note(WIDE)
        assert line(process.stdout).encode() == encode(WIDE)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert process.stderr is not None
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
    assert path.with_name("audit.log.2").exists(), "it was rotated meanwhile"


def test_following_shows_a_table_whose_head_comes_once(path: Path) -> None:
    path.touch()
    with following(path, "--kind", "wide") as process:
        write(path, DENIED, WIDE)
        assert line(process.stdout).split()[:2] == ["TIME", "WHO"]
        assert "everything" in line(process.stdout)
        path.rename(path.with_name("audit.log.1"))
        write(path, WIDE, ADMIN)
        assert "everything" in line(process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_who_reads_no_more_ends_it_without_a_word_about_the_file(path: Path) -> None:
    write(path, *[WIDE] * 5000)
    with subprocess.Popen(
        [sys.executable, "-m", "coherd", "audit-log", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) == 1
