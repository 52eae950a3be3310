"""`coherd members`: list the agents that this host's agent knows, and watch them come and go."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from coherd.cli.connection import ANSWER_TIMEOUT, connect, local_option
from coherd.cli.output import duration, output_option, plain, print_json, say, table, tell, word

if TYPE_CHECKING:
    from coherd.cli.connection import Connection
    from coherd.v1 import types_pb2

HEADS = (
    "NAME",
    "STATE",
    "SINCE",
    "READY",
    "REGION",
    "ADDRESS",
    "ROUND TRIP",
    "CLOCK",
    "NAMESPACES",
    "HANDLERS",
    "VERSION",
    "PROTOCOL",
    "EPOCH",
)
LEAVE_OUT = ("EPOCH", "PROTOCOL", "VERSION", "REGION", "HANDLERS", "CLOCK", "READY")
"""What a terminal that is too narrow does not show, the first first."""


@click.command()
@click.option("--watch", is_flag=True, help="Go on showing them, and what changes, until Ctrl-C.")
@click.option("--wide", is_flag=True, help="All columns, however narrow the terminal is.")
@output_option("text", "json")
@local_option
def members(*, watch: bool, wide: bool, as_json: bool, local: str | None) -> None:
    """List the agents that this host's agent knows, itself first.

    A terminal that is too narrow does not show every column. With --watch it shows the list anew every
    second; where the output is no terminal, the list once and then a line for each change.
    """
    with connect(local) as connection:
        found = ask(connection)
        if watch:
            from coherd.cli.members_watch import follow

            follow(connection, found, wide=wide, as_json=as_json)
            return
    if as_json:
        print_json([plain(member) for member in found])
        return
    lines, left_out = lines_for_people(found, wide=wide)
    for line in lines:
        say(line)
    if left_out:
        tell(left_out)


def ask(connection: Connection) -> list[types_pb2.Member]:
    """Ask the agent whom it knows."""
    from coherd.v1 import admin_service_pb2 as pb

    request = pb.ListMembersRequest()
    return list(connection.admin.ListMembers(request, timeout=ANSWER_TIMEOUT).members)


def lines_for_people(found: Sequence[types_pb2.Member], *, wide: bool) -> tuple[list[str], str]:
    """Give the table, and a line about what the terminal is too narrow for; empty where it is not."""
    cells = [row(member) for member in found]
    if wide or not sys.stdout.isatty():
        return lines_of(cells, HEADS), ""
    lines, without = fitted(cells, shutil.get_terminal_size().columns)
    left_out = ", ".join(LEAVE_OUT[:without]).lower()
    return lines, f"not shown: {left_out}; --wide shows them" if without else ""


def row(member: types_pb2.Member) -> dict[str, str]:
    """Give the cells of a member."""
    low, high = member.protocol_min, member.protocol_max
    age, trip = member.state_age_ms / 1000, member.round_trip_us / 1e6
    return {
        "NAME": member.name,
        "STATE": state_of(member),
        "SINCE": duration(age) if age else "-",
        "READY": ("yes" if member.ready else "no") if member.HasField("ready") else "-",
        "REGION": member.region or "-",
        "ADDRESS": member.address,
        "ROUND TRIP": duration(trip) if trip else "-",
        "CLOCK": clock_of(member),
        "NAMESPACES": ",".join(member.namespaces),
        "HANDLERS": ",".join(f"{each.kind}:{each.namespace}" for each in member.handlers) or "-",
        "VERSION": member.version or "-",
        "PROTOCOL": str(high) if low == high else f"{low}-{high}",
        "EPOCH": str(member.epoch),
    }


def state_of(member: types_pb2.Member) -> str:
    """Say how a member is; of another one that is alive also that there is no link to it."""
    from coherd.v1 import types_pb2

    state = word(types_pb2.MemberState, member.state)
    is_itself = not member.state_age_ms
    alive = member.state == types_pb2.MEMBER_STATE_ALIVE
    return f"{state}, no link" if alive and not member.linked and not is_itself else state


def clock_of(member: types_pb2.Member) -> str:
    """Say between which bounds a member's clock is ahead (+) or behind (-), in milliseconds."""
    if not member.HasField("clock_offset_min_us"):
        return "-"
    low, high = member.clock_offset_min_us / 1000, member.clock_offset_max_us / 1000
    return f"{low:+,.1f}..{high:+,.1f} ms"


def fitted(cells: Sequence[dict[str, str]], width: int) -> tuple[list[str], int]:
    """Give lines that fit into `width`, if leaving out columns can do it, and how many were."""
    for count in range(len(LEAVE_OUT) + 1):
        lines = lines_of(cells, [head for head in HEADS if head not in LEAVE_OUT[:count]])
        if max(map(len, lines)) <= width:
            break
    return lines, count


def lines_of(cells: Sequence[dict[str, str]], heads: Sequence[str]) -> list[str]:
    """Give the table with some of its columns."""
    return table(heads, [[row[head] for head in heads] for row in cells])
