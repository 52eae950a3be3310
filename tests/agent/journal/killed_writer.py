"""Writes into a journal as fast as it can and prints what was committed, until it is killed.

Arguments: the journal, the first number, the largest file in bytes or 0 for no limit.
"""

from __future__ import annotations

import resource
import signal
import sys
import time
from pathlib import Path

import trio

from coherd import logs
from coherd.errors import NotDurable
from coherd.journal import Block, Durability, Write
from coherd.journal.sqlite import open_journal
from coherd.model import Cause, Lane, Origin, Stream

ME = Stream("products", Origin("a", 1), Lane.NORMAL)


async def main(path: Path, number: int, limit: int) -> None:
    journal = open_journal(
        path, cluster="shop", name="a", durability=Durability.OS, now=time.monotonic, boot_id="boot"
    )
    for _ in journal.blocks():
        pass
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    async def write() -> None:
        nonlocal number
        while True:
            n, number = number, number + 1
            block = Block(n, 1, "products", ME, ((n, n),), 0.0, Cause.LOCAL, b"%d" % n * 20)
            try:
                await journal.committed(journal.append_nowait(Write(blocks=[block])))
            except NotDurable:
                break
            sys.stdout.write(f"{n}\n")
            sys.stdout.flush()
        if not await journal.read(0, 100):
            raise RuntimeError("reading ended with writing")

    async with trio.open_nursery() as nursery:
        for _ in range(32):
            nursery.start_soon(write)
    await journal.aclose()


if __name__ == "__main__":
    logs.configure()  # to standard error
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
