"""`coherd watch`: show invalidations as they arrive at this host's agent.

When the agent restarts the watch goes on where it was, so nothing is missed and nothing comes twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING

import click

from coherd.api.checks import check_namespace
from coherd.cli.connection import Connection, connect, local_option
from coherd.cli.output import Json, escaped, json_bytes, output_option, print_json, say, tell, word
from coherd.cli.receipts import DotsText
from coherd.errors import RpcFailed
from coherd.replication.clock import wall_ms

if TYPE_CHECKING:
    from coherd.v1 import cache_service_pb2 as pb

WATCHER_NAME = "coherd watch"
"""How it is called in `coherd status`."""
AWAY = frozenset({"UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"})
"""How a watch ends when its agent stops."""
PAUSE = 0.1
"""Seconds before it is opened again."""

Row = tuple[str, bytes]
"""Kind and selector."""


@click.command()
@click.argument("namespaces", nargs=-1, required=True, metavar="NAMESPACE...")
@click.option(
    "--cursor", default="", help="Where to go on, as an earlier watch said. Default: now."
)
@click.option("--count", type=click.IntRange(1), help="Stop after so many rows.")
@output_option("text", "jsonl", "json")
@local_option
def watch(
    namespaces: tuple[str, ...],
    *,
    cursor: str,
    count: int | None,
    as_json: bool,
    local: str | None,
) -> None:
    """Show the invalidations of NAMESPACE as they arrive here, a line each, until Ctrl-C.

    The watch outlives a restart of the agent. Its last line on standard error is the cursor from which
    another watch can go on.
    """
    for namespace in namespaces:
        check_namespace(namespace)
    watching = Watching(namespaces, cursor, count, as_json=as_json)
    with connect(local) as connection:
        try:
            watching.run(connection)
        except KeyboardInterrupt:
            pass
        finally:
            if watching.cursor != cursor:
                tell(f"to go on from here: --cursor {watching.cursor}")


class Watching:
    """One watch, over as many calls as it takes."""

    def __init__(
        self, namespaces: tuple[str, ...], cursor: str, count: int | None, *, as_json: bool
    ) -> None:
        self._namespaces = namespaces
        self._width = max(map(len, namespaces))
        self._left = count
        self._as_json = as_json
        self.cursor = cursor
        """Everything up to here was printed."""
        self._is_away = False

    def run(self, connection: Connection) -> None:
        """Print until enough is printed; goes on when the agent is back. Raises CallFailed."""
        seen = False
        while True:
            try:
                with connection.failures(), self._call(connection, wait=seen) as responses:
                    for response in responses:
                        seen = True
                        self._is_back(connection)
                        if self._print(response):
                            return
            except RpcFailed as error:
                if not seen or error.code not in AWAY:
                    raise
            if not self._is_away:
                self._is_away = True
                tell(f"lost the agent at {connection.address}: waiting until it is back")
            time.sleep(PAUSE)

    def _is_back(self, connection: Connection) -> None:
        if self._is_away:
            self._is_away = False
            tell(f"the agent at {connection.address} is back: going on from {self.cursor}")

    @contextmanager
    def _call(self, connection: Connection, *, wait: bool) -> Iterator[Iterator[pb.WatchResponse]]:
        """Open the watch; the agent ends it when this side stops sending, so it is kept open."""
        from coherd.v1 import cache_service_pb2 as pb

        opening = pb.WatchOpen(namespaces=self._namespaces, cursor=self.cursor, name=WATCHER_NAME)
        requests: SimpleQueue[pb.WatchRequest | None] = SimpleQueue()
        requests.put(pb.WatchRequest(open=opening))
        responses = connection.cache.Watch(iter(requests.get, None), wait_for_ready=wait)
        try:
            yield responses
        finally:
            requests.put(None)
            cancel: Callable[[], object] = responses.cancel
            cancel()

    def _print(self, response: pb.WatchResponse) -> bool:
        """Print what arrived; True when that is enough."""
        rows = [(change, row) for change in response.changes for row in rows_of(change)]
        shown = rows if self._left is None else rows[: self._left]
        for i, (change, row) in enumerate(shown):
            is_last = i == len(rows) - 1
            if self._as_json:
                value = as_json(change, row, response.cursor if is_last else None)
                print_json(value, indent=None)
            else:
                say(as_text(change, row, self._width))
        if len(shown) == len(rows):
            self.cursor = response.cursor
        if self._left is not None:
            self._left -= len(shown)
        return self._left == 0


def rows_of(change: pb.Change) -> Iterator[Row]:
    """Give the rows of a change one by one."""
    for kind, selectors in (
        ("key", change.keys),
        ("tag", change.tags),
        ("prefix", change.prefixes),
    ):
        for selector in selectors:
            yield kind, selector
    if change.everything:
        yield "everything", b""


def effect_of(change: pb.Change) -> str:
    """Give the effect as a word."""
    from coherd.v1 import types_pb2

    return word(types_pb2.Effect, change.effect)


def origin_of(change: pb.Change) -> str:
    """Give the agent that accepted the rows; empty for a reset, which no agent did."""
    return change.dots[0].origin.name if change.dots else ""


def accepted_at(change: pb.Change) -> datetime | None:
    """Give when the rows were accepted, by their origin's clock; None when nothing can say it."""
    try:
        return datetime.fromtimestamp(wall_ms(change.stamp) / 1000, UTC) if change.stamp else None
    except (OverflowError, ValueError):
        return None


def as_text(change: pb.Change, row: Row, width: int) -> str:
    """Give a row as a line for people."""
    kind, selector = row
    at = accepted_at(change)
    when = at.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if at else "-".ljust(23)
    what = f"{kind} {escaped(selector)}".rstrip()
    origin = escaped(origin_of(change)) or "-"
    if change.issuer:
        origin = f"{escaped(change.issuer)} at {origin}"
    cause = escaped(change.cause)
    line = f"{when}  {escaped(change.namespace):{width}}  {what}  {effect_of(change)}  {cause}  {origin}"
    return f"{line}  {escaped(change.reason)}" if change.reason else line


def as_json(change: pb.Change, row: Row, cursor: str | None) -> Json:
    """Give a row for JSON; the cursor goes with the last row before it."""
    kind, selector = row
    at = accepted_at(change)
    return {
        "time": at.isoformat(timespec="milliseconds") if at else None,
        "namespace": change.namespace,
        "kind": kind,
        "selector": json_bytes(selector) if selector else None,
        "effect": effect_of(change),
        "cause": change.cause,
        "origin": origin_of(change) or None,
        "reason": change.reason or None,
        "issuer": change.issuer or None,
        "dots": [str(DotsText.of(dots)) for dots in change.dots],
        "cursor": cursor,
    }
