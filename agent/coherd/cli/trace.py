"""`coherd trace`: ask every host when and how the last rows that touch a key came there."""

from __future__ import annotations

import click

from coherd.api.checks import check_namespace
from coherd.cli.arguments import Duration, selector_of
from coherd.cli.connection import ANSWER_TIMEOUT, connect, local_option
from coherd.cli.exit_codes import ExitCode
from coherd.cli.output import escaped, output_option, print_json, say
from coherd.cli.traces import Trace
from coherd.limits import TRACE_ROWS_MAX


@click.command()
@click.argument("namespace")
@click.argument("key", required=False)
@click.option("--tag", "tags", multiple=True, help="Rows of the tag, too; repeatable.")
@click.option("--prefix", "prefixes", multiple=True, help="Rows of the prefix, too; repeatable.")
@click.option("--hex", "is_hex", is_flag=True, help="Key, tags and prefixes are hexadecimal.")
@click.option(
    "--rows",
    type=click.IntRange(1, TRACE_ROWS_MAX),
    default=5,
    show_default=True,
    help="How many rows, the newest first.",
)
@click.option(
    "--timeout",
    type=Duration(),
    default="2s",
    show_default=True,
    help="Longest wait for the other hosts, up to 1h.",
)
@output_option("text", "json")
@local_option
@click.pass_context
def trace(
    ctx: click.Context,
    namespace: str,
    key: str | None,
    *,
    tags: tuple[str, ...],
    prefixes: tuple[str, ...],
    is_hex: bool,
    rows: int,
    timeout: float,
    as_json: bool,
    local: str | None,
) -> None:
    """Ask every host when and how the last rows that touch KEY came there, and what has applied them.

    Rows of the whole namespace, of prefixes of the key and resets count, too; those of tags when they are
    named. Without a key, tag or prefix it is about rows of the whole namespace.

    Exit code 3: a host has not received or applied a row, or did not answer; 6: no row is remembered.
    """
    check_namespace(namespace)
    texts = {"k": [key] if key is not None else [], "t": tags, "p": prefixes}
    named = {k: [selector_of(text, is_hex=is_hex) for text in texts[k]] for k in texts}
    words = [f"{word}{escaped(s)}" for k, word in WORDS.items() for s in named[k]]
    with connect(local) as connection:
        from google.protobuf.duration_pb2 import Duration as Timeout

        from coherd.v1 import admin_service_pb2 as pb

        wait = Timeout()
        wait.FromNanoseconds(int(timeout * 1e9))
        request = pb.TraceKeyRequest(
            namespace=namespace,
            keys=named["k"],
            tags=named["t"],
            prefixes=named["p"],
            rows=rows,
            timeout=wait,
        )
        hosts = connection.admin.TraceKey(request, timeout=timeout + ANSWER_TIMEOUT).hosts
    asked = [k.encode() + selector for k, each in named.items() for selector in each] or [b"n"]
    found = Trace(" ".join([namespace, *words]), asked, hosts)
    if as_json:
        print_json(found.json())
    else:
        for line in found.lines():
            say(line)
    if not found.rows and not any(host.error for host in hosts):
        ctx.exit(ExitCode.NOT_FOUND)
    if not found.is_complete:
        ctx.exit(ExitCode.PARTIAL)


WORDS = {"k": "", "t": "tag ", "p": "prefix "}
"""How what was asked about is written, by kind."""
