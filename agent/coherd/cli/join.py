"""`coherd join SEED...`: have this host's agent ask further agents who is in the cluster."""

from __future__ import annotations

import click

from coherd.cli.connection import ANSWER_TIMEOUT, connect, local_option
from coherd.cli.exit_codes import ExitCode
from coherd.cli.output import (
    count_of,
    escaped,
    mark,
    output_option,
    plain,
    print_json,
    say,
    table,
)


@click.command()
@click.argument("seeds", nargs=-1, required=True, metavar="SEED...")
@output_option("text", "json")
@local_option
@click.pass_context
def join(ctx: click.Context, seeds: tuple[str, ...], *, as_json: bool, local: str | None) -> None:
    """Have this host's agent ask the agents at SEED (HOST or HOST:PORT) who is in the cluster.

    It goes on asking those that do not answer, until it restarts: what it is to ask then stands in its
    setting `join`. Exit code 0: at least one has answered. 4: none has.
    """
    from coherd.api.checks import seeds_of
    from coherd.v1 import admin_service_pb2 as pb

    request = pb.JoinRequest(seeds=seeds_of(pb.JoinRequest(seeds=seeds)))
    with connect(local) as connection:
        answer = connection.admin.Join(request, timeout=ANSWER_TIMEOUT)
    if as_json:
        print_json(plain(answer))
    else:
        answers = [escaped(each.name) or f"no answer: {each.error}" for each in answer.seeds]
        cells = zip((each.seed for each in answer.seeds), answers, strict=True)
        for each, line in zip(answer.seeds, table(("", ""), cells)[1:], strict=True):
            say(f"{mark('✓', 'green') if each.name else mark('…', 'yellow')} {line}")
        say(f"{count_of(answer.members_known, 'agent')} known, this one included")
    if not any(each.name for each in answer.seeds):
        ctx.exit(ExitCode.UNREACHABLE)
