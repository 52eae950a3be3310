"""`coherd join`: ask further agents who is in the cluster."""

from __future__ import annotations

import click

from coherd.cli.connection import ANSWER_TIMEOUT, connect, local_option
from coherd.cli.exit_codes import ExitCode
from coherd.cli.output import count_of, escaped, output_option, plain, print_json, say
from coherd.config.address import seed as seed_address
from coherd.config.values import WrongValue
from coherd.errors import ConfigError


@click.command()
@click.argument("seeds", nargs=-1, required=True, metavar="SEED...")
@output_option("text", "json")
@local_option
@click.pass_context
def join(ctx: click.Context, seeds: tuple[str, ...], *, as_json: bool, local: str | None) -> None:
    """Let this host's agent ask each SEED (HOST or HOST:PORT) who is in the cluster, now and from now on.

    Until it restarts: what is to last stands in `join` of its file. Exit code 3: no SEED answers yet.
    """
    try:
        addresses = [str(seed_address(text)) for text in seeds]
    except WrongValue as error:
        raise ConfigError(f"SEED: {error}") from None
    with connect(local) as connection:
        from coherd.v1 import admin_service_pb2 as pb

        answer = connection.admin.Join(pb.JoinRequest(seeds=addresses), timeout=ANSWER_TIMEOUT)
    if as_json:
        print_json(plain(answer))
    else:
        for each in answer.seeds:
            outcome = f"no answer: {each.error}" if each.error else f"answered: {each.name}"
            say(f"{escaped(each.seed)}  {escaped(outcome)}")
        say(f"{count_of(answer.members_known, 'agent')} known")
    if all(each.error for each in answer.seeds):
        ctx.exit(ExitCode.PARTIAL)
