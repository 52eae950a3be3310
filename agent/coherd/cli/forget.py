"""`coherd forget NAME`: strike an agent that will not come back from every roster."""

from __future__ import annotations

import click

from coherd.cli.connection import ANSWER_TIMEOUT, connect, local_option
from coherd.cli.output import duration, escaped, output_option, plain, print_json, say, word


@click.command()
@click.argument("name")
@output_option("text", "json")
@local_option
def forget(name: str, *, as_json: bool, local: str | None) -> None:
    """Strike the agent NAME, which will not come back, from every roster: receipts stop waiting for it.

    Its caches must be gone or empty: nobody tells them of invalidations any more. Should it start again,
    it is back by itself. An agent that is alive is refused: run `coherd leave` on its host.
    """
    with connect(local) as connection:
        from coherd.v1 import admin_service_pb2 as pb
        from coherd.v1 import types_pb2

        request = pb.ForgetRequest(name=name)
        member = connection.admin.Forget(request, timeout=ANSWER_TIMEOUT).member
    if as_json:
        print_json(plain(member))
        return
    state = word(types_pb2.MemberState, member.state)
    age = duration(member.state_age_ms / 1000)
    say(f"forgotten: {escaped(member.name)} at {escaped(member.address)}, {state} for {age}")
