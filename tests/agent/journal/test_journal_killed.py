"""What a killed process, or a full disk, leaves of a journal under load."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from journal_twins import SqliteTwin

WRITER = Path(__file__).with_name("killed_writer.py")
KILLS = 10


def start_writer(twin: SqliteTwin, number: int, limit: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, WRITER, twin.path, str(number), str(limit)],
        stdout=subprocess.PIPE,
        text=True,
    )


async def check(twin: SqliteTwin, reported: list[int]) -> int:
    """Open the journal and tell how far it goes; what was reported must be there."""
    journal = twin.open(boot_id="boot")
    held = [block.position for block in twin.loaded]
    assert not set(reported) - set(held)
    assert held == list(range(1, len(held) + 1))
    assert all(block.payload == b"%d" % block.position * 20 for block in twin.loaded)
    assert [tuple(ranges) for ranges in journal.contents.vector.values()] == [((1, len(held)),)]
    assert journal.contents.clean
    await journal.aclose()
    return len(held)


async def test_nothing_reported_is_lost_by_kills(sqlite_twin: SqliteTwin) -> None:
    chance = random.Random(1)
    reported: list[int] = []
    for _ in range(KILLS):
        held = await check(sqlite_twin, reported) if reported else 0
        enough = len(reported) + chance.randrange(20, 2000)
        with start_writer(sqlite_twin, held + 1) as child:
            assert child.stdout is not None
            for line in child.stdout:
                reported.append(int(line))
                if len(reported) == enough:
                    child.kill()
    await check(sqlite_twin, reported)
    assert len(reported) >= KILLS * 20


async def test_nothing_reported_is_lost_by_a_full_disk(sqlite_twin: SqliteTwin) -> None:
    with start_writer(sqlite_twin, 1, limit=300_000) as child:
        output, _ = child.communicate()
    assert child.returncode == 0
    reported = [int(line) for line in output.split()]
    assert reported
    await check(sqlite_twin, reported)
