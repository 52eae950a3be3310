"""Opens, crashes and breaks either journal in the same words, for the suite that both must pass."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from coherd.journal import Block, Durability, Write
from coherd.journal.memory import Disk, MemoryJournal
from coherd.journal.sqlite import SqliteJournal, open_journal
from coherd.model import Cause, Lane, Origin, Range, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coherd.journal.base import BaseJournal

ME = Origin("a", 1_700_000_000_000)
PEER = Origin("b", 1_700_000_000_001)
MINE = Stream("products", ME, Lane.NORMAL)
THEIRS = Stream("products", PEER, Lane.URGENT)

PLENTY = 1 << 30


def block(
    position: int,
    *numbers: Range,
    stream: Stream = MINE,
    payload: bytes = b"rows",
    accepted_at: float = 1.5,
) -> Block:
    rows = sum(high - low + 1 for low, high in numbers)
    return Block(
        position, rows, stream.namespace, stream, numbers, accepted_at, Cause.LINK, payload
    )


def row(n: int, payload: bytes = b"row", namespace: str = "products") -> Block:
    """The block of my n-th row, at position n."""
    return block(n, (n, n), stream=MINE._replace(namespace=namespace), payload=payload)


def reset(position: int, namespace: str = "products") -> Block:
    return Block(position, 1, namespace, None, (), 0.0, Cause.BELOW_FLOOR, b"")


async def store(journal: BaseJournal, *blocks: Block, **parts: Any) -> None:
    await journal.committed(journal.append_nowait(Write(blocks=blocks, **parts)))


class Twin:
    """One kind of journal, and what it keeps between openings."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.boot_id = "a boot"
        self.durability = Durability.OS
        self.loaded: list[Block] = []
        """What the last opening read."""
        self.opened: list[BaseJournal] = []

    def open(self, **settings: Any) -> BaseJournal:
        settings.setdefault("now", lambda: self.time)
        settings.setdefault("boot_id", self.boot_id)
        settings.setdefault("durability", self.durability)
        journal = self._open(settings)
        self.opened.append(journal)
        self.loaded = list(journal.blocks())
        return journal

    def _open(self, settings: dict[str, Any]) -> BaseJournal:
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close whatever was opened and was not closed."""
        for journal in self.opened:
            await journal.aclose()

    def crash(self, journal: BaseJournal) -> None:
        """Let the next opening find what a process that was killed now would leave."""
        raise NotImplementedError

    def fail(self, journal: BaseJournal) -> None:
        """Let the next commit fail."""
        raise NotImplementedError

    def damage(self, *positions: int) -> None:
        """Change the blocks at `positions`."""
        raise NotImplementedError

    @contextmanager
    def stalled(self, journal: BaseJournal) -> Iterator[None]:
        """Let nothing be committed inside."""
        yield


class MemoryTwin(Twin):
    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()

    def _open(self, settings: dict[str, Any]) -> BaseJournal:
        return MemoryJournal(self.disk, **settings)

    def crash(self, journal: BaseJournal) -> None:
        assert isinstance(journal, MemoryJournal)
        self.disk = journal.crash().disk

    def fail(self, journal: BaseJournal) -> None:
        assert isinstance(journal, MemoryJournal)
        journal.fail_next()

    def damage(self, *positions: int) -> None:
        self.disk.lost.update(positions)


class SqliteTwin(Twin):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.path = folder / "journal.db"
        self.crashes = 0

    def _open(self, settings: dict[str, Any]) -> BaseJournal:
        return open_journal(self.path, **{"cluster": "shop", "name": "a", **settings})

    def crash(self, journal: BaseJournal) -> None:
        self.crashes += 1
        folder = self.folder / f"crash-{self.crashes}"
        folder.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", folder)
        self.path = folder / "journal.db"

    def fail(self, journal: BaseJournal) -> None:
        assert isinstance(journal, SqliteJournal)
        assert journal._writer is not None
        journal._writer._connection.execute("PRAGMA query_only = ON")

    def damage(self, *positions: int) -> None:
        for position in positions:
            self.change(
                f"UPDATE blocks SET payload = CAST(payload || x'00' AS BLOB) WHERE position = {position}"
            )

    def change(self, *statements: str) -> None:
        """Do to the file what nobody is to do."""
        with closing(sqlite3.connect(self.path)) as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount
            connection.commit()

    @contextmanager
    def stalled(self, journal: BaseJournal) -> Iterator[None]:
        assert isinstance(journal, SqliteJournal)
        writer, gate = journal._writer, threading.Event()
        assert writer is not None
        commit = writer.commit

        def wait_and_commit(*arguments: Any) -> None:
            assert gate.wait(10)
            commit(*arguments)

        writer.commit = wait_and_commit  # type: ignore[method-assign]
        try:
            yield
        finally:
            writer.commit = commit  # type: ignore[method-assign]
            gate.set()
