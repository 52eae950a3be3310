"""What `coherd demo` looks like: lines of at most 80 columns, and on a terminal the hosts live below them."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import trio

from coherd.cli.output import count_of, say

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from coherd.cli.demo.agents import DemoAgent
    from coherd.cli.demo.caches import Cache

Part = str | tuple[str, str]
"""Text, perhaps with a style."""

BAR_WIDTH = 28
LABEL_WIDTH = 26
AT_WIDTH = 10
CELL_WIDTH = 13
REFRESH_INTERVAL = 0.05
STATE_STYLES = {"alive": "green", "starting": "yellow", "killed": "bold red"}


class Glyphs(NamedTuple):
    """How things are drawn."""

    good: str
    bad: str
    fresh: str
    stale: str
    dropped: str
    dot: str
    pending: str


PRETTY = Glyphs("✓", "✗", "█", "▓", "░", "●", "…")
ASCII = Glyphs("+", "x", "#", "x", ".", "*", "...")


def glyphs() -> Glyphs:
    """Give what the encoding of standard output has."""
    try:
        "".join(PRETTY).encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return ASCII
    return PRETTY


@dataclass
class Host:
    """One host of the demo: an agent and the cache beside it."""

    agent: DemoAgent
    cache: Cache
    state: str = "starting"
    stale: Callable[[], int] = lambda: 0

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.agent.name


@dataclass
class Row:
    """One invalidation, or many alike, and what became of it at each host."""

    label: str
    at: str
    """Which host was called."""
    starts: Mapping[str, float]
    """The copies' keys, each with the time of the call."""
    fold: Callable[[Sequence[float]], float] = max
    """What is shown of their times."""
    applied: Collection[str] = field(default_factory=set)
    """Whom the receipt names."""

    def time_at(self, host: Host) -> float | None:
        """Give the seconds from the call until the copies were dropped; None while some are left."""
        at = host.cache.drops.at
        if not all(key in at for key in self.starts):
            return None
        return self.fold([at[key] - start for key, start in self.starts.items()])


class Show:
    """Says nothing at all: what JSON needs."""

    def __init__(self) -> None:
        self.hosts: Sequence[Host] = ()
        self.glyphs = glyphs()

    def line(self, *parts: Part) -> None:
        """Show a line that stays."""

    def gauges(self) -> None:
        """Show what the caches hold now."""

    @contextmanager
    def row(self, _row: Row) -> Iterator[None]:
        """Show a row while it changes, then for good."""
        yield

    async def pause(self, seconds: float) -> None:
        """Let people follow."""

    async def run(self) -> None:
        """Keep what is shown up to date."""

    @contextmanager
    def open(self) -> Iterator[None]:
        """Show things inside."""
        yield

    def head(self) -> list[Part]:
        """Give the head of a table of rows."""
        names = "".join(f"{host.name:>{CELL_WIDTH - 2}}  " for host in self.hosts)
        return [(f"  {'':{LABEL_WIDTH}}{'called at':{AT_WIDTH}}{names.rstrip()}", "dim")]

    def cells(self, row: Row) -> list[Part]:
        """Give a row as a line."""
        parts: list[Part] = [f"  {row.label:{LABEL_WIDTH}}{row.at:{AT_WIDTH}}"]
        for host in self.hosts:
            seconds = row.time_at(host)
            took = self.glyphs.pending if seconds is None else f"{seconds * 1000:.1f} ms"
            mark = self.glyphs.good if host.name in row.applied else " "
            parts += [f"{took:>{CELL_WIDTH - 2}} ", (mark, "green")]
        return parts

    def gauge(self, host: Host) -> list[Part]:
        """Give a host as a line: its state and what its cache holds."""
        copies, stale = len(host.cache.copies), host.stale()
        total = max(1, copies + len(host.cache.drops.at.keys() - host.cache.copies))
        width = round(copies / total * BAR_WIDTH)
        bad = -(-stale * BAR_WIDTH // total) if stale else 0
        style = STATE_STYLES[host.state]
        parts: list[Part] = [
            f"  {host.name}  ",
            (f"{self.glyphs.dot} {host.state:9}", style),
            (self.glyphs.fresh * max(0, width - bad), "green"),
            (self.glyphs.stale * bad, "red"),
            (self.glyphs.dropped * (BAR_WIDTH - max(width, bad)), "dim"),
            f"  {count_of(copies, 'copy')}",
        ]
        return [*parts, (f", {stale:,} stale", "bold red")] if stale else parts


class PlainShow(Show):
    """Lines, one after the other."""

    def line(self, *parts: Part) -> None:
        """Show a line that stays."""
        say("".join(part if isinstance(part, str) else part[0] for part in parts).rstrip())

    def gauges(self) -> None:
        """Show what the caches hold now."""
        for host in self.hosts:
            self.line(*self.gauge(host))

    @contextmanager
    def row(self, row: Row) -> Iterator[None]:
        """Show a row once it is complete."""
        yield
        self.line(*self.cells(row))


class TerminalShow(Show):
    """The same lines, with the hosts below them as they change."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console

        self._console: Console = Console(highlight=False, emoji=False, markup=False)
        self._live: Live | None = None
        self._row: Row | None = None

    def line(self, *parts: Part) -> None:
        """Show a line that stays."""
        self._refresh()  # what is below must not lag behind what is said
        self._console.print(_text(parts), soft_wrap=True)

    @contextmanager
    def row(self, row: Row) -> Iterator[None]:
        """Show a row while it changes, then for good."""
        self._row = row
        try:
            yield
        finally:
            self._row = None
        self.line(*self.cells(row))
        self._refresh()

    async def pause(self, seconds: float) -> None:
        """Let people follow."""
        await trio.sleep(seconds)

    async def run(self) -> None:
        """Keep what is shown up to date."""
        while True:
            self._refresh()
            await trio.sleep(REFRESH_INTERVAL)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Show the hosts inside; what they were last stays."""
        from rich.live import Live

        with Live(
            console=self._console,
            auto_refresh=False,
            get_renderable=self._below,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as self._live:
            yield
        self._live = None

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.refresh()

    def _below(self) -> Text:
        from rich.text import Text

        lines = [] if self._row is None else [_text(self.cells(self._row))]
        lines += [_text([""]), *(_text(self.gauge(host)) for host in self.hosts)]
        return Text("\n", no_wrap=True, overflow="ellipsis").join(lines)


def _text(parts: Sequence[Part]) -> Text:
    from rich.text import Text

    return Text.assemble(*parts)


def now() -> float:
    """Give the time that rows are measured by."""
    return time.perf_counter()
