"""`coherd members --watch`: what becomes of the agents that this host's agent knows, as it happens.

It asks about once a second. A terminal is redrawn in place; anything else gets a line for each change. An
agent that restarts is asked again until it is back.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from coherd.cli.connection import Connection, connect
from coherd.cli.members import HEADS, ask, fitted, lines_of, not_shown, rows, state_of
from coherd.cli.output import Json, escaped, plain, print_json, say, tell
from coherd.cli.watch import AWAY
from coherd.errors import RpcFailed

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from coherd.v1 import types_pb2

INTERVAL = 1.0
"""Seconds between two looks."""
MARKED_FOR = 5.0
"""Seconds for which a member that changed is marked."""
CHANGES_SHOWN = 5
"""Latest changes below the table."""


class Change(NamedTuple):
    """What became of one member."""

    name: str
    kind: str
    """known, joined, gone, state, epoch."""
    before: str
    after: str

    def __str__(self) -> str:
        name, before, after = map(escaped, (self.name, self.before, self.after))
        match self.kind:
            case "known":
                return f"{name}  {after}"
            case "joined":
                return f"{name}  joined, {after}"
            case "gone":
                return f"{name}  gone, was {before}"
            case "epoch":
                return f"{name}  new epoch {after}, was {before}"
        return f"{name}  {before} -> {after}"


class Seen(NamedTuple):
    """How a member was seen at one look."""

    state: str
    epoch: int


def run(local: str | None, *, wide: bool, as_json: bool) -> None:
    """Look until Ctrl-C. Raises CallFailed where no agent answers at the first look."""
    shown: Shown = AsJson() if as_json else Screen(wide=wide) if sys.stdout.isatty() else Lines()
    with connect(local) as connection:
        try:
            with shown.shown():
                follow(connection, shown)
        except KeyboardInterrupt:
            pass


def follow(connection: Connection, shown: Shown) -> None:
    """Look again and again; an agent that does not answer any more is waited for."""
    before: dict[str, Seen] | None = None
    is_away = False
    while True:
        try:
            with connection.failures():
                found = ask(connection)
        except RpcFailed as error:
            if before is None or error.code not in AWAY:
                raise
            if not is_away:
                is_away = True
                shown.away(f"no answer from the agent at {connection.address}: trying again")
        else:
            if is_away:
                is_away = False
                shown.back(f"the agent at {connection.address} is back")
            now = seen_of(found)
            shown.look(found, changes(before, now), is_first=before is None)
            before = now
        pause()


def pause() -> None:
    """Wait for the next look."""
    time.sleep(INTERVAL)


def seen_of(found: Sequence[types_pb2.Member]) -> dict[str, Seen]:
    """Give what is compared of each member."""
    return {
        member.name: Seen(state_of(member, is_me=i == 0), member.epoch)
        for i, member in enumerate(found)
    }


def changes(before: dict[str, Seen] | None, now: dict[str, Seen]) -> list[Change]:
    """Give what became of the members between two looks; at the first, who is there."""
    if before is None:
        return [Change(name, "known", "", seen.state) for name, seen in now.items()]
    return [
        *(change for name, seen in now.items() for change in _of_one(name, before.get(name), seen)),
        *(Change(name, "gone", seen.state, "") for name, seen in before.items() if name not in now),
    ]


def _of_one(name: str, before: Seen | None, now: Seen) -> Iterator[Change]:
    if before is None:
        yield Change(name, "joined", "", now.state)
        return
    if before.epoch != now.epoch:
        yield Change(name, "epoch", str(before.epoch), str(now.epoch))
    if before.state != now.state:
        yield Change(name, "state", before.state, now.state)


class Shown:
    """Where it is shown; this one tells on standard error that the agent is away."""

    def shown(self) -> AbstractContextManager[object]:
        """Hold what is needed while something is shown."""
        return nullcontext()

    def look(
        self, found: Sequence[types_pb2.Member], changes: Sequence[Change], *, is_first: bool
    ) -> None:
        """Show what was found, and what changed."""
        raise NotImplementedError

    def away(self, text: str) -> None:
        """Say that the agent does not answer."""
        tell(text)

    def back(self, text: str) -> None:
        """Say that it answers again."""
        tell(text)


class Lines(Shown):
    """A line for each change."""

    def look(
        self, found: Sequence[types_pb2.Member], changes: Sequence[Change], *, is_first: bool
    ) -> None:
        """Print the changes."""
        when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S")
        for change in changes:
            say(f"{when}  {change}")
        sys.stdout.flush()


class AsJson(Shown):
    """An object for each change, after one with the whole list."""

    def look(
        self, found: Sequence[types_pb2.Member], changes: Sequence[Change], *, is_first: bool
    ) -> None:
        """Print the list, or the changes."""
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        members = {member.name: plain(member) for member in found}
        if is_first:
            print_json({"time": when, "members": [*members.values()]}, indent=None)
        else:
            for change in changes:
                print_json(self._object(when, change, members.get(change.name)), indent=None)
        sys.stdout.flush()

    def _object(self, when: str, change: Change, member: Json | None) -> Json:
        is_epoch = change.kind == "epoch"
        before, after = (
            (int(value) if is_epoch else value) if value else None
            for value in (change.before, change.after)
        )
        return {
            "time": when,
            "name": change.name,
            "change": change.kind,
            "before": before,
            "after": after,
            "member": member,
        }


class Screen(Shown):
    """A table on a terminal, drawn again and again at the same place."""

    def __init__(self, *, wide: bool) -> None:
        self._wide = wide
        self._members: Sequence[types_pb2.Member] = ()
        self._marked: dict[str, float] = {}
        self._changes: deque[str] = deque(maxlen=CHANGES_SHOWN)
        self._away = ""
        self._live: Live | None = None

    def shown(self) -> Live:
        """Take the terminal."""
        from rich.live import Live

        self._live = Live(auto_refresh=False)
        return self._live

    def look(
        self, found: Sequence[types_pb2.Member], changes: Sequence[Change], *, is_first: bool
    ) -> None:
        """Draw the table; who has changed is marked for a while."""
        now = time.monotonic()
        self._members = found
        self._marked = {n: at for n, at in self._marked.items() if now - at < MARKED_FOR}
        if not is_first:
            self._marked |= {change.name: now for change in changes}
            when = datetime.now().astimezone().strftime("%H:%M:%S")
            self._changes.extend(f"{when}  {change}" for change in changes)
        self._draw()

    def away(self, text: str) -> None:
        """Say it below the table, which is old from now on."""
        self._away = text
        self._draw()

    def back(self, text: str) -> None:
        """Say it no more; the table that follows shows it."""
        self._away = ""

    def _draw(self) -> None:
        assert self._live is not None
        self._live.update(self._text(), refresh=True)

    def _text(self) -> Text:
        from rich.text import Text

        cells = rows(self._members)
        if self._wide:
            (heads, *lines), without = lines_of(cells, HEADS), 0
        else:
            (heads, *lines), without = fitted(cells, shutil.get_terminal_size().columns - 2)
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"  {heads}\n", "bold")
        for member, line in zip(self._members, lines, strict=True):
            is_marked = member.name in self._marked
            text.append(f"{'*' if is_marked else ' '} {line}\n", "bold yellow" if is_marked else "")
        for line in self._changes:
            text.append(f"  {line}\n", "dim")
        if without:
            text.append(f"  {not_shown(without)}\n", "dim")
        text.append(f"  {escaped(self._away)}" if self._away else "", "bold red")
        text.rstrip()
        return text
