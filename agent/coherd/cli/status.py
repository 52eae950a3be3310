"""`coherd status`: how this host's agent is, on one screen; the exit code says whether it is ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from coherd.cli.connection import ANSWER_TIMEOUT, connect, local_option
from coherd.cli.exit_codes import ExitCode
from coherd.cli.output import (
    count_of,
    duration,
    escaped,
    mark,
    output_option,
    plain,
    print_json,
    say,
    size,
    table,
    word,
)
from coherd.model import Cause

if TYPE_CHECKING:
    from coherd.v1 import admin_service_pb2 as pb

T = TypeVar("T")

RESETS = {
    Cause.BELOW_FLOOR: "rows were missing, and whoever had them had forgotten them too recently",
    Cause.UNCLAIMED: "rows were missing, and nobody who could be reached had them",
    Cause.TOO_FAR_BEHIND: "more rows were missing than a replay is worth",
    Cause.LEFT_BEHIND: "it was away for so long that nobody may know any more what it missed",
    Cause.POWER_LOSS: "a loss of power or damage may have taken rows, and nobody was there who has them",
    Cause.CURSOR: "a reader went on from where nothing is known any more",
}
"""Why a namespace was reset, by cause."""


@click.command()
@output_option("text", "json")
@local_option
@click.pass_context
def status(ctx: click.Context, *, as_json: bool, local: str | None) -> None:
    """Show how this host's agent is: its peers, its journal, and the caches that it keeps coherent.

    Exit code 0: it is ready, which means that it can vouch for the caches of this host. 1: it is not.
    """
    with connect(local) as connection:
        from coherd.v1 import admin_service_pb2 as pb

        found = connection.admin.GetStatus(pb.GetStatusRequest(), timeout=ANSWER_TIMEOUT)
    if as_json:
        print_json(plain(found))
    else:
        for part in (head, namespaces, handlers, watchers, links):
            for line in part(found):
                say(line)
    if not found.ready:
        ctx.exit(ExitCode.FAILED)


def head(found: pb.GetStatusResponse) -> Iterator[str]:
    """Who it is, whether it is ready, whom it knows, its journal."""
    from coherd.v1 import types_pb2

    me, journal = found.me, found.journal
    yield (
        f"{escaped(me.name)}: cluster {escaped(found.cluster)}, region {escaped(me.region)}, "
        f"{escaped(me.address)}, coherd {escaped(me.version)}"
    )
    state = mark("ready", "green") if found.ready else mark("not ready", "red")
    yield f"state    {state}, up {duration(found.uptime_s)}"
    for reason in found.reasons:
        yield f"         {escaped(reason)}"
    yield from security(found)
    yield f"members  {found.members_alive} of {found.members_known} alive"
    yield (
        f"journal  durability {word(types_pb2.Durability, journal.durability)}, "
        f"{count_of(journal.commits, 'commit')}, {size(journal.size_bytes)}, "
        f"{size(journal.queued_bytes)} queued"
    )
    if journal.error:
        yield f"         {mark('closed', 'red')}: {escaped(journal.error)}"
    for damage in journal.damages:
        yield f"         {mark('damaged', 'yellow')}: {escaped(damage)}"
    if journal.healing:
        yield f"         {mark('healing', 'yellow')}: what may be lost is not made good yet"
    yield f"cursor   {escaped(found.cursor)}"


def security(found: pb.GetStatusResponse) -> Iterator[str]:
    """By what it is known to others, and where nobody asks."""
    about = found.security
    if about.identity:
        yield f"identity {escaped(about.identity)}, for {duration(about.certificate_left_s)}"
    if about.problem:
        yield f"         {mark('not renewed', 'red')}: {escaped(about.problem)}"
    if about.exposed:
        where = ", ".join(map(escaped, about.exposed))
        yield f"{mark('INSECURE', 'red')} nothing is encrypted at {where}, and whoever is there is let in"


def listed(
    heads: Sequence[str],
    entries: Sequence[T],
    row: Callable[[T], Sequence[str | int]],
    notes: Callable[[T], Iterable[str]] = lambda _entry: (),
    *,
    right: Iterable[str] = (),
) -> Iterator[str]:
    """Give a table with a row for each entry and its notes below the row; nothing without entries."""
    if entries:
        first, *lines = table(heads, map(row, entries), right=right)
        yield from ("", first)
        for line, entry in zip(lines, entries, strict=True):
            yield line
            for note in notes(entry):
                yield f"    {note}"


def namespaces(found: pb.GetStatusResponse) -> Iterator[str]:
    """What each namespace has seen; gaps, resets and what was forgotten below."""

    def row(entry: pb.NamespaceStatus) -> Sequence[str | int]:
        return (
            entry.namespace,
            entry.accepted,
            entry.received,
            entry.repaired,
            entry.gaps_open,
            sum(entry.resets.values()),
            entry.remembered,
        )

    heads = ("NAMESPACE", "ACCEPTED", "RECEIVED", "REPAIRED", "GAPS", "RESETS", "REMEMBERED")
    return listed(heads, found.namespaces, row, notes_of)


def notes_of(entry: pb.NamespaceStatus) -> Iterator[str]:
    """Say what deserves a word about a namespace."""
    if entry.gaps_open:
        yield f"the oldest gap is open for {duration(entry.gap_age_s)}"
    if entry.resets:
        causes = (f"{escaped(cause)} {count:,}" for cause, count in sorted(entry.resets.items()))
        yield f"resets: {', '.join(causes)}"
    if entry.HasField("last_reset"):
        last = entry.last_reset
        known = last.cause in set(RESETS)
        why = RESETS[Cause(last.cause)] if known else escaped(last.cause)
        missing = f" ({count_of(last.missing, 'row')} missing)" if last.missing else ""
        yield f"reset {duration(last.age_s)} ago: {why}{missing}"
    if entry.forgotten or entry.HasField("floor_age_s"):
        age = (
            f", at least {duration(entry.floor_age_s)} old" if entry.HasField("floor_age_s") else ""
        )
        yield f"forgotten: {count_of(entry.forgotten, 'row')} since the start{age}"


def handlers(found: pb.GetStatusResponse) -> Iterator[str]:
    """The caches that it keeps coherent; the last failure below."""

    def row(entry: pb.HandlerStatus) -> Sequence[str | int]:
        return (
            entry.label,
            entry.namespace,
            "up" if entry.connected else "down",
            entry.lag,
            entry.applied,
            entry.failures,
            entry.resets,
        )

    def notes(entry: pb.HandlerStatus) -> Iterator[str]:
        if entry.error:
            yield f"last failure: {escaped(entry.error)}"

    heads = ("CACHE", "NAMESPACE", "STATE", "LAG", "APPLIED", "FAILURES", "RESETS")
    return listed(heads, found.handlers, row, notes)


def watchers(found: pb.GetStatusResponse) -> Iterator[str]:
    """The applications that follow it."""

    def row(entry: pb.WatcherStatus) -> Sequence[str | int]:
        acknowledges = "yes" if entry.acknowledges else "no"
        return (entry.name, ",".join(entry.namespaces), acknowledges, entry.lag)

    return listed(("WATCHER", "NAMESPACES", "ACKNOWLEDGES", "LAG"), found.watchers, row)


def links(found: pb.GetStatusResponse) -> Iterator[str]:
    """The links to its peers."""

    def row(entry: pb.LinkStatus) -> Sequence[str | int]:
        return (
            entry.name,
            entry.lanes,
            "open" if entry.open else "down",
            size(entry.queued_bytes),
            entry.sent,
            entry.dropped,
        )

    heads = ("LINK TO", "LANES", "STATE", "QUEUED", "SENT", "DROPPED")
    return listed(heads, found.links, row, right=["QUEUED"])
