"""Following one invalidation on a terminal: a bar that names who has not applied the rows yet.

It appears when the waiting gets long enough to be noticed, so that a quick one costs nothing, is drawn in
place on standard error, and is gone at the end.
"""

from __future__ import annotations

import shutil
import sys
from threading import Lock, Timer
from typing import TYPE_CHECKING, Self

from coherd.cli.connection import CLIENT, CallFailed
from coherd.cli.output import duration, escaped, word
from coherd.errors import RpcFailed

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

    from coherd.cli.connection import Connection
    from coherd.v1 import cache_service_pb2 as pb

SHOW_AFTER = 0.2
"""Seconds of waiting after which the bar appears."""
BAR_WIDTH = 20
"""Columns of the bar itself."""


def is_watched() -> bool:
    """Tell whether somebody sees what is drawn on standard error."""
    return sys.stderr.isatty()


def follow(connection: Connection, request: pb.InvalidateRequest, timeout: float) -> pb.Receipt:
    """Invalidate, and show who has applied the rows as it goes. Raises CallFailed.

    An agent of an older release is asked in the way that it knows.
    """
    from coherd.v1 import cache_service_pb2 as pb

    asked = pb.InvalidateProgressRequest(invalidate=request)
    try:
        with connection.failures(), Bar(request.members) as bar:
            for message in connection.cache.InvalidateProgress(
                asked, timeout=timeout, metadata=CLIENT
            ):
                if message.final:
                    return message.receipt
                bar.show(message.receipt)
    except RpcFailed as error:
        if error.code != "UNIMPLEMENTED":
            raise
        with connection.failures():
            return connection.cache.Invalidate(request, timeout=timeout, metadata=CLIENT).receipt
    raise CallFailed(
        "UNAVAILABLE",
        f"the agent at {connection.address} ended the call before its answer; it may be stopping: try "
        "again, which does no harm",
    )


class Bar:
    """The bar of one invalidation; `rich` is imported once it appears."""

    def __init__(self, members: int) -> None:
        """`members`: how many are enough; 0 is all of them."""
        self._members = members
        self._lock = Lock()
        self._timer = Timer(SHOW_AFTER, self._appear)
        self._timer.daemon = True
        self._receipt: pb.Receipt | None = None
        self._drawn: tuple[Progress, TaskID] | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._is_over = True
            if self._drawn:
                self._drawn[0].stop()

    def show(self, receipt: pb.Receipt) -> None:
        """Take a newer receipt."""
        with self._lock:
            self._receipt = receipt
            self._draw()

    def _appear(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        column = Column(no_wrap=True, overflow="ellipsis")
        text = TextColumn("{task.description}", markup=False, table_column=column)
        with self._lock:
            if self._is_over:
                return
            console = Console(stderr=True)
            progress = Progress(BarColumn(BAR_WIDTH), text, console=console, transient=True)
            self._drawn = progress, progress.add_task("")
            self._draw()
            progress.start()

    def _draw(self) -> None:
        if self._drawn is None or self._receipt is None:
            return
        progress, task = self._drawn
        done, total = count(self._receipt, self._members)
        width = shutil.get_terminal_size().columns - BAR_WIDTH - 2
        text = sentence(self._receipt, self._members, width)
        progress.update(task, completed=done, total=total, description=text)


def count(receipt: pb.Receipt, members: int) -> tuple[int, int]:
    """Tell how many have applied the rows, and how many are waited for."""
    done = len(receipt.applied)
    return done, members or done + len(receipt.missing)


def sentence(receipt: pb.Receipt, members: int, width: int) -> str:
    """Say who has applied the rows and who is missing, as many names as fit into `width`."""
    from coherd.v1 import types_pb2

    done, total = count(receipt, members)
    text = f"{done} of {total} applied"
    names = []
    for missing in receipt.missing:
        state = word(types_pb2.MemberState, missing.state)
        if state != "alive" and missing.state_age_ms:
            state += f" {duration(missing.state_age_ms / 1000)}"
        names.append(f"{escaped(missing.name)} ({state})")
    for shown in range(len(names), -1, -1):
        more = len(names) - shown
        listed = ", ".join(names[:shown])
        rest = f" and {more} more" if more and shown else f"{more}" if more else ""
        line = f"{text}, missing: {listed}{rest}" if names else text
        if len(line) <= width:
            break
    return line
