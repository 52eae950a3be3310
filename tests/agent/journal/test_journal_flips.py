"""Every byte of a small journal flipped, every length of it cut: nothing changed is given, all loss is told.

The journal is opened and read as an agent does; every so often it is also written and opened again.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from journal_twins import ME, MINE, THEIRS, SqliteTwin, block, reset, row, store

from coherd.errors import JournalDamaged, StartRefused
from coherd.journal import Block, Contents, Damage, Durability, Floor
from coherd.journal.check import Scan
from coherd.journal.opening import _Mine, _open, open_file
from coherd.model import Position

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITTEN_EVERY = 16
"""Of so many damaged journals one is also written and opened again."""


class Found(NamedTuple):
    """What an opening gave."""

    contents: Contents
    blocks: list[Block]
    damages: list[Damage]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteTwin]:
    """A twin of small pages, in memory where that is possible."""
    monkeypatch.setattr("coherd.journal.opening.PAGE_BYTES", 512)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield SqliteTwin(Path(folder))


def look(path: Path, *, put_aside: bool = True) -> Found:
    """Open a journal and read all of it, without writing anything.

    Without `put_aside` one that cannot be believed raises JournalDamaged: that is quicker.
    """
    mine = _Mine(path, "shop", "a", "a boot", Durability.OS)
    opened = open_file(*mine) if put_aside else _open(mine)
    scan = Scan(path, opened.connection, opened.held)
    try:
        blocks = list(scan.blocks())
    finally:
        opened.connection.close()
    damages = [*opened.damages, *scan.damages]
    contents = opened.held.contents(opened.clean)
    contents.clean &= all(damage.namespace is not None for damage in damages)
    return Found(contents, blocks, damages)


async def fill(twin: SqliteTwin) -> list[Found]:
    """Store some of everything, and leave the last commits in the log; give what each of them left."""
    journal = twin.open()
    await store(journal, life=ME, members={"b": b"entry"}, cursors={"reader": Position("a", 3, 4)})
    await store(journal, row(1), row(2, namespace="other"), row(3, b"x" * 600))
    await store(journal, block(4, (1, 1), (5, 5), stream=THEIRS), reset(6))
    await store(journal, forgotten={"products": 2}, max_ttls={"other": [(0.0, inf)]})
    await journal.aclose()
    journal = twin.open()
    states = [look(twin.path)]
    for parts in (
        {"blocks": [row(7, namespace="other"), row(9)], "namespace_floors": {"other": Floor(1)}},
        {"blocks": [row(20, namespace="other")], "stream_floors": {MINE: Floor(1, 0.5)}},
    ):
        await store(journal, *parts.pop("blocks"), **parts)  # type: ignore[misc]
        states.append(look(twin.path))
    twin.crash(journal)
    await journal.aclose()
    return states


async def fill_file(twin: SqliteTwin) -> Found:
    """As `fill`, with everything in the file and no log."""
    await fill(twin)
    await twin.open().aclose()
    return look(twin.path)


def judge(original: Found, found: Found) -> str:
    """Tell which kind of answer it is; fail where it hides a loss, or gives what was not written."""
    contents, blocks, damages = found
    if any(damage.namespace is None for damage in damages):
        assert not contents.clean
        if not contents.lives:
            assert not blocks, "a new journal"
            return "put aside"
    else:
        assert contents == original.contents
    known = {block.position: block for block in original.blocks}
    assert [b.position for b in blocks] == sorted(b.position for b in blocks)
    assert all(known.get(b.position) == b for b in blocks), "what was never written"
    given = {b.position for b in blocks}
    upto = {damage.namespace: damage.position for damage in damages}
    for lost in (b for b in original.blocks if b.position not in given):
        assert upto.get(lost.namespace, 0) >= lost.position + lost.rows - 1, lost
    if damages:
        return "index" if None in upto else "blocks"
    assert found == original
    return "nothing"


async def check_goes_on(twin: SqliteTwin, found: Found) -> None:
    """The journal can be written, and the next opening finds the same and tells the same."""
    journal = twin.open()
    assert twin.loaded == found.blocks
    added = row(journal.contents.position + 50)
    await store(journal, added)
    await journal.aclose()
    again = look(twin.path)
    assert again.blocks == [*found.blocks, added]
    assert again.contents.clean is found.contents.clean
    assert {(d.namespace, d.position) for d in again.damages} == {
        (d.namespace, d.position) for d in found.damages if d.namespace is not None
    }


def flipped(good: bytes, step: int) -> Iterator[bytes]:
    """Give copies with one byte changed: the first hundred, and of the others every `step`-th."""
    chance = random.Random(step)
    for offset in [*range(100), *range(100, len(good), step)][:: 1 if step == 1 else 3]:
        bad = bytearray(good)
        bad[offset] ^= chance.randrange(1, 256)
        yield bytes(bad)


def cut(good: bytes, step: int) -> Iterator[bytes]:
    """Give copies of every `step`-th length."""
    for length in range(0, len(good), step):
        yield good[:length]


STEPS = [41, pytest.param(1, marks=pytest.mark.slow)]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("spoil", [flipped, cut])
async def test_a_spoiled_file_hides_nothing(small: SqliteTwin, spoil, step: int) -> None:
    original = await fill_file(small)
    good = small.path.read_bytes()
    assert judge(original, look(small.path)) == "nothing"
    answers: Counter[str] = Counter()
    for number, bad in enumerate(spoil(good, step)):
        for leftover in small.folder.glob("journal.db*"):
            leftover.unlink()
        small.path.write_bytes(bad)
        try:
            thorough = number % WRITTEN_EVERY == 0
            found = look(small.path, put_aside=thorough)
            answers[judge(original, found)] += 1
            if found.damages and thorough:
                small.path.write_bytes(bad)
                await check_goes_on(small, found)
        except JournalDamaged:
            answers["put aside"] += 1
        except StartRefused:
            answers["refused"] += 1
            assert small.path.read_bytes() == bad
        except AssertionError as error:
            raise AssertionError(f"copy {number}: {error}") from error
    assert answers["put aside"] > answers.total() // 10
    assert answers["refused"]
    if spoil is flipped:
        assert answers["blocks"] > answers.total() // 20
        assert answers["nothing"] > answers.total() // 20
    if step == 1:
        assert answers.total() == len(good)
        assert answers["index"] or spoil is cut


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("spoil", [flipped, cut])
async def test_a_spoiled_log_hides_nothing(small: SqliteTwin, spoil, step: int) -> None:
    states = await fill(small)
    log = small.path.with_name("journal.db-wal")
    database, good = small.path.read_bytes(), log.read_bytes()
    answers: Counter[int] = Counter()
    before = 0
    for number, bad in enumerate(spoil(good, step)):
        small.path.write_bytes(database)
        log.write_bytes(bad)
        small.path.with_name("journal.db-shm").unlink(missing_ok=True)
        found = look(small.path)
        whole = [Found(*state)._replace(damages=[]) for state in states]
        plain = found._replace(damages=[])
        plain.contents.clean, clean = True, plain.contents.clean
        assert plain in whole, f"copy {number}: what was never committed"
        commits = whole.index(plain)
        answers[commits] += 1
        if spoil is cut:  # a log that is short is like one that was never longer
            assert commits >= before
            before = commits
        else:
            assert commits < len(states) - 1, f"copy {number}: a byte without a meaning"
            assert not clean
            assert [damage.namespace for damage in found.damages] == [None]
            if number % WRITTEN_EVERY == 0:
                found.contents.clean = False
                log.write_bytes(bad)
                await check_goes_on(small, found)
    assert set(answers) == set(range(len(states) - 1))


async def test_the_judge_notices_what_is_not_checked(
    small: SqliteTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    for check in ("is_block_intact", "is_intact"):
        with monkeypatch.context() as patched:
            shutil.rmtree(small.folder)
            small.folder.mkdir()
            small.path = small.folder / "journal.db"
            patched.setattr(f"coherd.journal.check.{check}", lambda _: True)
            with pytest.raises(AssertionError, match=r"copy \d+: "):
                await test_a_spoiled_file_hides_nothing(small, flipped, 5)
