"""Damaged journals of real agents: said, and repaired from peers or the cache flushed; nothing goes stale.

One of two hosts stops with a Redis that lacks half of what its journal holds; its files are damaged, and
more is invalidated meanwhile. What it then says, and what its Redis then holds, is looked at.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from integration.hosts import KEPT, Host, hosts, keys, settle, start
from integration.polling import poll
from integration.watching import Watcher

Two = tuple[Host, Host]


class Case(NamedTuple):
    """A damage, and what becomes of it."""

    do: Callable[[Path, str], None]
    """Damages the journal at a path, in which the rows of a case are."""
    killed: bool
    """The agent was killed: its log holds what it wrote last. Else it was stopped, and the file holds all."""
    said: str
    """A part of what it says of the damage; empty where it looks like what any crash leaves."""
    flushes: bool = False
    """The Redis is flushed: rows are gone that it had not applied, or others would be believed of them."""


def log_of(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}-wal")


def flip(file: Path, at: int) -> None:
    """Flip a bit, in a file that may be in use."""
    with file.open("r+b", buffering=0) as opened:
        opened.seek(at)
        (byte,) = opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte ^ 0x10]))


def flip_bytes(file: Path, what: bytes) -> None:
    """Flip a bit of the first place where some bytes are."""
    flip(file, file.read_bytes().index(what))


def flip_page(file: Path, table: str) -> None:
    """Flip a bit of the last row that was stored on the first page of a table."""
    with closing(sqlite3.connect(file)) as connection:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        ((page,),) = connection.execute(query, (table,)).fetchall()
        ((size,),) = connection.execute("PRAGMA page_size").fetchall()
    start = (page - 1) * size
    content = int.from_bytes(file.read_bytes()[start + 5 : start + 7], "big")
    flip(file, start + content + 12)


def delete(file: Path, what: str) -> None:
    """Remove rows, as a lost write does."""
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute(f"DELETE FROM {what}").rowcount > 0
        connection.commit()


def delete_in_the_middle(file: Path, case: str) -> None:
    places = f"SELECT position FROM blocks WHERE instr(payload, '{case}:14')"
    delete(file, f"blocks WHERE position IN ({places})")


def truncate(file: Path, size: int) -> None:
    with file.open("r+b") as opened:
        opened.truncate(size)


CASES = {
    "a block that is still to be applied": Case(
        lambda path, case: flip_bytes(path, b"%s:155" % case.encode()), False, "are damaged", True
    ),
    "a block that is applied": Case(
        lambda path, case: flip_bytes(path, b"%s:055" % case.encode()), False, "are damaged"
    ),
    "blocks missing in the middle": Case(delete_in_the_middle, False, "missing", True),
    "the page of meta": Case(lambda path, _: flip_page(path, "meta"), False, "damaged"),
    "the row of a namespace": Case(lambda path, _: flip_page(path, "namespaces"), False, "damaged"),
    "the schema": Case(lambda path, _: flip_bytes(path, b"CREATE TABLE streams"), False, "damaged"),
    "a torn tail of the log": Case(
        lambda path, _: truncate(log_of(path), log_of(path).stat().st_size - 30_000), True, ""
    ),
    "a bit in the middle of the log": Case(
        lambda path, _: flip(log_of(path), log_of(path).stat().st_size // 2), True, "too soon"
    ),
    "the log is gone": Case(lambda path, _: log_of(path).unlink(), True, "is gone"),
}
MORE_CASES = {
    "the row of a stream": Case(lambda path, _: flip_page(path, "streams"), False, "damaged"),
    "a stream that is missing": Case(
        lambda path, _: delete(path, "streams WHERE id = 1"), False, "a row is missing"
    ),
    "half of the file": Case(
        lambda path, _: truncate(path, path.stat().st_size // 2), False, "damaged"
    ),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Two hosts that live through all cases, the second with another damage each time."""
    with hosts(tmp_path_factory.mktemp("damage"), "a", "b") as (one, two):
        start([one, two])
        yield one, two


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_damage_is_said_and_leaves_nothing_stale(both: Two, case: Case) -> None:
    check_damage(both, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", MORE_CASES.values(), ids=MORE_CASES)
def test_more_damage_is_said_and_leaves_nothing_stale(both: Two, case: Case) -> None:
    check_damage(both, case)


def check_damage(both: Two, case: Case) -> None:
    one, two = both
    name = f"case-{[*CASES.values(), *MORE_CASES.values()].index(case)}"
    for host in both:
        host.fill(keys(name, 0, 300))
    one.invalidate(keys(name, 0, 60))
    two.invalidate(keys(name, 60, 100))
    poll(lambda: not two.left(keys(name, 0, 100)), "what comes first to be applied")
    poll(lambda: not two.agent.status().handlers[0].lag, "the cursor to be stored")
    two.cache.save()
    two.server.kill()
    before = two.position
    one.invalidate(keys(name, 100, 160))
    two.invalidate(keys(name, 160, 200))
    poll(lambda: two.position == before + 100, "the rows to arrive")
    if case.killed:
        two.agent.kill()
    else:
        assert two.agent.stop() == 0
    case.do(two.agent.data / "journal.db", name)
    one.invalidate(keys(name, 200, 300))
    two.server.start()
    assert len(two.left(keys(name, 0, 300))) == 200
    two.agent.start()
    said = two.damages
    settle(both, keys(name, 0, 300))
    if case.said:
        assert case.said in said
        assert str(two.agent.data / "journal.db") in said
        assert "journal damaged" in two.agent.log
        assert case.said in status_of(two)
    else:
        assert not said
    assert two.resets == ({"handler": 1} if case.flushes else {})
    assert two.left([KEPT]) == (set() if case.flushes else {KEPT})
    assert one.left([KEPT]) == {KEPT}
    assert one.resets == {}


def status_of(host: Host) -> str:
    """What an operator is told."""
    address = f"unix:{host.agent.socket}"
    command = [sys.executable, "-m", "coherd", "status", "--local", address]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_damage_that_is_found_while_it_is_read_resets_the_reader(both: Two) -> None:
    one, two = both
    cursor = two.agent.status().cursor
    one.fill([])
    one.invalidate(keys("late", 0, 100))
    settle(both, [])
    assert two.agent.stop() == 0
    two.agent.start()
    assert not two.damages
    flip_bytes(two.agent.data / "journal.db", b"late:055")
    two.agent.invalidate(keys=[b"SQLite looks again"])
    with Watcher(two.agent, cursor=cursor) as watcher:
        poll(lambda: b"late:099" in watcher.keys.values(), "the rows behind the damage")
        assert b"late:000" in watcher.keys.values()
        assert len(watcher.resets) == 1
    assert "journal.db" in two.damages
    assert "journal damaged" in two.agent.log
    settle(both, [])
    assert two.resets == one.resets == {}


def test_nobody_believes_a_damaged_journal_that_there_was_nothing(both: Two) -> None:
    one, two = both
    one.fill(keys("alone", 0, 100))
    one.agent.kill()
    two.invalidate(keys("alone", 0, 100))
    assert two.agent.stop() == 0
    flip_bytes(two.agent.data / "journal.db", b"alone:055")
    two.agent.start()
    assert "are damaged" in two.damages
    one.agent.start()
    settle(both, keys("alone", 0, 100), 60)
    assert one.resets == {"below-floor": 1}
    assert one.left([KEPT]) == set()
    assert two.resets == {}
