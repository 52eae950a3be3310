"""`coherd members`: list the agents that this host's agent knows."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from coherd.cli.connection import ANSWER_TIMEOUT, connect, local_option
from coherd.cli.output import duration, output_option, plain, print_json, say, table, tell, word

if TYPE_CHECKING:
    from coherd.v1 import types_pb2

HEADS = (
    "NAME",
    "STATE",
    "SINCE",
    "REGION",
    "ADDRESS",
    "ROUND TRIP",
    "NAMESPACES",
    "VERSION",
    "PROTOCOL",
    "EPOCH",
)
LEAVE_OUT = ("EPOCH", "PROTOCOL", "VERSION", "REGION")
"""What a terminal that is too narrow does not show, the first first."""


@click.command()
@click.option("--wide", is_flag=True, help="All columns, however narrow the terminal is.")
@output_option("text", "json")
@local_option
def members(*, wide: bool, as_json: bool, local: str | None) -> None:
    """List the agents that this host's agent knows, itself first.

    A terminal that is too narrow does not show every column.
    """
    with connect(local) as connection:
        from coherd.v1 import admin_service_pb2 as pb

        request = pb.ListMembersRequest()
        found = connection.admin.ListMembers(request, timeout=ANSWER_TIMEOUT).members
    if as_json:
        print_json([plain(member) for member in found])
        return
    cells = [row(member) for member in found]
    if wide or not sys.stdout.isatty():
        lines, without = lines_of(cells, HEADS), 0
    else:
        lines, without = fitted(cells, shutil.get_terminal_size().columns)
    for line in lines:
        say(line)
    if without:
        tell(f"not shown: {', '.join(LEAVE_OUT[:without]).lower()}; --wide shows them")


def row(member: types_pb2.Member) -> dict[str, str]:
    """Give the cells of a member."""
    from coherd.v1 import types_pb2

    low, high = member.protocol_min, member.protocol_max
    age, trip = member.state_age_ms / 1000, member.round_trip_us / 1e6
    return {
        "NAME": member.name,
        "STATE": word(types_pb2.MemberState, member.state),
        "SINCE": duration(age) if age else "-",
        "REGION": member.region,
        "ADDRESS": member.address,
        "ROUND TRIP": duration(trip) if trip else "-",
        "NAMESPACES": ",".join(member.namespaces),
        "VERSION": member.version,
        "PROTOCOL": str(high) if low == high else f"{low}-{high}",
        "EPOCH": str(member.epoch),
    }


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
