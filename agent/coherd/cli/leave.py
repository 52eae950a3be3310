"""`coherd leave`: take this host's agent out of the cluster for good, and stop it."""

from __future__ import annotations

import click

from coherd.cli.connection import ANSWER_TIMEOUT, connect, local_option
from coherd.cli.exit_codes import ExitCode
from coherd.cli.output import escaped, output_option, plain, print_json, say, tell


@click.command()
@output_option("text", "json")
@local_option
@click.pass_context
def leave(ctx: click.Context, *, as_json: bool, local: str | None) -> None:
    """Take this host's agent out of the cluster for good, and stop it.

    Nobody waits for it any more: empty its caches, or let nobody read them. Started again, it joins
    again. Exit code 3: some agents could not be told; they learn it from the others.
    """
    with connect(local) as connection:
        from coherd.v1 import admin_service_pb2 as pb

        answer = connection.admin.Leave(pb.LeaveRequest(), timeout=ANSWER_TIMEOUT)
    if as_json:
        print_json(plain(answer))
    else:
        nobody = "nobody could be told" if answer.missed else "there are no others to be told"
        told = f"told: {' '.join(map(escaped, answer.told))}" if answer.told else nobody
        say(f"left; {told}")
    if answer.missed:
        missed = " ".join(answer.missed)
        tell(
            f"not told: {missed}; they learn it from the others"
            if answer.told
            else f"not told: {missed}; run `coherd forget` with this agent's name on one of them"
        )
        ctx.exit(ExitCode.PARTIAL)
