"""`coherd members --watch`: the list again and again on a terminal, else a line for each change."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from coherd.cli.connection import CallFailed
from coherd.cli.members import ask, lines_for_people, state_of
from coherd.cli.output import plain, print_json, say, tell

if TYPE_CHECKING:
    from coherd.cli.connection import Connection
    from coherd.v1 import types_pb2

INTERVAL = 1.0
"""Seconds between two looks."""
CHANGES_SHOWN = 8
"""Last changes below the list on a terminal."""


class Change(NamedTuple):
    """What became of a member."""

    name: str
    what: str
    """joined, gone, state, life, address or ready."""
    before: str
    after: str

    def __str__(self) -> str:
        if self.what in {"joined", "gone"}:
            return f"{self.name}  {self.what}"
        label = "" if self.what == "state" else f"{self.what} "
        return f"{self.name}  {label}{self.before} -> {self.after}"


def changes(before: Sequence[types_pb2.Member], after: Sequence[types_pb2.Member]) -> list[Change]:
    """Compare two lists of members."""
    earlier = {member.name: member for member in before}
    later = {member.name: member for member in after}
    found = [Change(name, "gone", "", "") for name in earlier if name not in later]
    for name, member in later.items():
        if (was := earlier.get(name)) is None:
            found.append(Change(name, "joined", "", ""))
            continue
        for what, read in _READ.items():
            if read(was) != read(member):
                found.append(Change(name, what, read(was), read(member)))
    return found


_READ: dict[str, Callable[[types_pb2.Member], str]] = {
    "state": state_of,
    "life": lambda member: str(member.epoch),
    "address": lambda member: member.address,
    "ready": lambda member: ("yes" if member.ready else "no") if member.HasField("ready") else "-",
}


def follow(
    connection: Connection, found: Sequence[types_pb2.Member], *, wide: bool, as_json: bool
) -> None:
    """Show the members until Ctrl-C; an agent that does not answer is asked again."""
    with suppress(KeyboardInterrupt):
        if as_json:
            print_json([plain(member) for member in found], indent=None)
            _look(connection, found, _print_json)
        elif sys.stdout.isatty():
            _follow_live(connection, found, wide=wide)
        else:
            for line in lines_for_people(found, wide=wide)[0]:
                say(line)
            _look(connection, found, _print_lines)


def _follow_live(connection: Connection, found: Sequence[types_pb2.Member], *, wide: bool) -> None:
    from rich.live import Live
    from rich.text import Text

    recent: deque[str] = deque(maxlen=CHANGES_SHOWN)
    with Live(auto_refresh=False) as live:

        def draw(members: Sequence[types_pb2.Member], new: Sequence[Change]) -> None:
            recent.extend(f"{now()}  {change}" for change in new)
            lines, left_out = lines_for_people(members, wide=wide)
            shown = [*lines, *([left_out] if left_out else []), "", *recent]
            live.update(Text("\n".join(shown), no_wrap=True, overflow="crop"), refresh=True)

        draw(found, ())
        _look(connection, found, draw)


def _look(
    connection: Connection,
    found: Sequence[types_pb2.Member],
    show: Callable[[Sequence[types_pb2.Member], Sequence[Change]], None],
) -> None:
    """Ask again and again."""
    is_away = False
    while True:
        time.sleep(INTERVAL)
        try:
            with connection.failures():
                later = ask(connection)
        except CallFailed as error:
            if not is_away:
                tell(f"no answer: {error}")
            is_away = True
            continue
        if is_away:
            tell(f"the agent at {connection.address} is back")
        is_away = False
        show(later, changes(found, later))
        found = later


def _print_lines(_members: Sequence[types_pb2.Member], new: Sequence[Change]) -> None:
    for change in new:
        say(f"{now()}  {change}")
    sys.stdout.flush()


def _print_json(_members: Sequence[types_pb2.Member], new: Sequence[Change]) -> None:
    for change in new:
        print_json({"time": time.time(), **change._asdict()}, indent=None)
    sys.stdout.flush()


def now() -> str:
    """Give the time of day."""
    return datetime.now().astimezone().strftime("%H:%M:%S")
