"""`coherd status`: how this host's agent is, on one screen; the exit code says whether it is ready."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from coherd.v1 import admin_service_pb2 as pb


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
        for part in (
            head(found),
            namespaces(found),
            handlers(found),
            watchers(found),
            links(found),
        ):
            for line in part:
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
    yield f"members  {found.members_alive} of {found.members_known} alive"
    yield (
        f"journal  durability {word(types_pb2.Durability, journal.durability)}, "
        f"{count_of(journal.commits, 'commit')}, {size(journal.size_bytes)}, "
        f"{size(journal.queued_bytes)} queued"
    )
    if journal.error:
        yield f"         {mark('closed', 'red')}: {escaped(journal.error)}"
    yield f"cursor   {escaped(found.cursor)}"


def namespaces(found: pb.GetStatusResponse) -> Iterator[str]:
    """What each namespace has seen; resets with their causes below."""
    heads = ("NAMESPACE", "ACCEPTED", "RECEIVED", "REPAIRED", "GAPS", "RESETS", "REMEMBERED")
    if not found.namespaces:
        return
    yield ""
    rows = [
        (
            entry.namespace,
            entry.accepted,
            entry.received,
            entry.repaired,
            entry.gaps_open,
            sum(entry.resets.values()),
            entry.remembered,
        )
        for entry in found.namespaces
    ]
    first, *lines = table(heads, rows)
    yield first
    for line, entry in zip(lines, found.namespaces, strict=True):
        yield line
        if entry.gaps_open:
            yield f"    the oldest gap is open for {duration(entry.gap_age_s)}"
        if entry.resets:
            causes = (
                f"{escaped(cause)} {count:,}" for cause, count in sorted(entry.resets.items())
            )
            yield f"    resets: {', '.join(causes)}"


def handlers(found: pb.GetStatusResponse) -> Iterator[str]:
    """The caches that it keeps coherent; the last failure below."""
    heads = ("CACHE", "NAMESPACE", "STATE", "LAG", "APPLIED", "FAILURES", "RESETS")
    if not found.handlers:
        return
    yield ""
    rows = [
        (
            entry.label,
            entry.namespace,
            "up" if entry.connected else "down",
            entry.lag,
            entry.applied,
            entry.failures,
            entry.resets,
        )
        for entry in found.handlers
    ]
    first, *lines = table(heads, rows)
    yield first
    for line, entry in zip(lines, found.handlers, strict=True):
        yield line
        if entry.error:
            yield f"    last failure: {escaped(entry.error)}"


def watchers(found: pb.GetStatusResponse) -> Iterator[str]:
    """The applications that follow it."""
    if not found.watchers:
        return
    yield ""
    rows = [
        (
            entry.name,
            ",".join(entry.namespaces),
            "yes" if entry.acknowledges else "no",
            entry.lag,
        )
        for entry in found.watchers
    ]
    yield from table(("WATCHER", "NAMESPACES", "ACKNOWLEDGES", "LAG"), rows)


def links(found: pb.GetStatusResponse) -> Iterator[str]:
    """The links to its peers."""
    if not found.links:
        return
    yield ""
    rows = [
        (
            entry.name,
            entry.lanes,
            "open" if entry.open else "down",
            size(entry.queued_bytes),
            entry.sent,
            entry.dropped,
        )
        for entry in found.links
    ]
    heads = ("LINK TO", "LANES", "STATE", "QUEUED", "SENT", "DROPPED")
    yield from table(heads, rows, right=["QUEUED"])
