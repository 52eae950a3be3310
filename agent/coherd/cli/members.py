"""`coherd members`: list the agents that this host's agent knows, once or for as long as somebody looks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from math import ceil, floor
from typing import TYPE_CHECKING

import click

from coherd.cli.connection import ANSWER_TIMEOUT, connect, local_option
from coherd.cli.output import duration, output_option, plain, print_json, say, table, tell, word

if TYPE_CHECKING:
    from coherd.cli.connection import Connection
    from coherd.v1 import types_pb2
    from coherd.v1.admin_service_pb2 import HostTrace

HEADS = (
    "NAME",
    "STATE",
    "SINCE",
    "REGION",
    "ADDRESS",
    "ROUND TRIP",
    "CLOCK",
    "NAMESPACES",
    "HANDLERS",
    "READY",
    "VERSION",
    "PROTOCOL",
    "EPOCH",
)
LEAVE_OUT = ("EPOCH", "PROTOCOL", "VERSION", "HANDLERS", "REGION", "CLOCK", "READY")
"""What a terminal that is too narrow does not show, the first first."""


@click.command()
@click.option("--watch", is_flag=True, help="Go on, and show what changes, until Ctrl-C.")
@click.option("--wide", is_flag=True, help="All columns, however narrow the terminal is.")
@output_option("text", "json")
@local_option
def members(*, watch: bool, wide: bool, as_json: bool, local: str | None) -> None:
    """List the agents that this host's agent knows, itself first.

    A terminal that is too narrow does not show every column. With --watch a terminal is kept up to date;
    anything else gets a line for each change.
    """
    if watch:
        from coherd.cli import members_watch

        members_watch.run(local, wide=wide, as_json=as_json)
        return
    with connect(local) as connection:
        found = ask(connection)
    if as_json:
        print_json([plain(member) for member in found])
        return
    if wide or not sys.stdout.isatty():
        lines, without = lines_of(rows(found), HEADS), 0
    else:
        lines, without = fitted(rows(found), shutil.get_terminal_size().columns)
    for line in lines:
        say(line)
    if without:
        tell(not_shown(without))


def ask(connection: Connection) -> Sequence[types_pb2.Member]:
    """Give whom the agent knows, itself first."""
    from coherd.v1 import admin_service_pb2 as pb

    return connection.admin.ListMembers(pb.ListMembersRequest(), timeout=ANSWER_TIMEOUT).members


def rows(found: Sequence[types_pb2.Member]) -> list[dict[str, str]]:
    """Give the cells of a list of members."""
    return [row(member, is_me=i == 0) for i, member in enumerate(found)]


def row(member: types_pb2.Member, *, is_me: bool) -> dict[str, str]:
    """Give the cells of a member."""
    low, high = member.protocol_min, member.protocol_max
    age, trip = member.state_age_ms / 1000, member.round_trip_us / 1e6
    handlers = (f"{handler.kind}:{handler.namespace}" for handler in member.handlers)
    return {
        "NAME": member.name,
        "STATE": state_of(member, is_me=is_me),
        "SINCE": duration(age) if age else "-",
        "REGION": member.region or "-",
        "ADDRESS": member.address,
        "ROUND TRIP": duration(trip) if trip else "-",
        "CLOCK": clock_of(member),
        "NAMESPACES": ",".join(member.namespaces),
        "HANDLERS": ", ".join(handlers) or "-",
        "READY": ("yes" if member.ready else "no") if member.HasField("ready") else "-",
        "VERSION": member.version or "-",
        "PROTOCOL": str(high) if low == high else f"{low}-{high}",
        "EPOCH": str(member.epoch),
    }


def state_of(member: types_pb2.Member, *, is_me: bool) -> str:
    """Say how a member is seen, and whether an agent that lives cannot be linked with."""
    from coherd.v1 import types_pb2

    state = word(types_pb2.MemberState, member.state)
    is_cut_off = member.state == types_pb2.MEMBER_STATE_ALIVE and not (member.linked or is_me)
    return f"{state}, no link" if is_cut_off else state


def clock_of(member: types_pb2.Member | HostTrace) -> str:
    """Say how far a member's clock is ahead: the interval that surely holds it, never a narrower one."""
    if not (member.HasField("clock_offset_min_us") and member.HasField("clock_offset_max_us")):
        return "-"
    low, high = member.clock_offset_min_us, member.clock_offset_max_us
    unit, size = ("ms", 1000) if max(abs(low), abs(high)) < 1_000_000 else ("s", 1_000_000)
    tenth = size // 10
    return f"{floor(low / tenth) / 10:+.1f}..{ceil(high / tenth) / 10:+.1f} {unit}"


def fitted(cells: Sequence[dict[str, str]], width: int) -> tuple[list[str], int]:
    """Give lines that fit into `width`, if leaving out columns can do it, and how many were."""
    for count in range(len(LEAVE_OUT) + 1):
        lines = lines_of(cells, [head for head in HEADS if head not in LEAVE_OUT[:count]])
        if max(map(len, lines)) <= width:
            break
    return lines, count


def not_shown(count: int) -> str:
    """Say which columns were left out."""
    return f"not shown: {', '.join(LEAVE_OUT[:count]).lower()}; --wide shows them"


def lines_of(cells: Sequence[dict[str, str]], heads: Sequence[str]) -> list[str]:
    """Give the table with some of its columns."""
    return table(heads, [[row[head] for head in heads] for row in cells])
