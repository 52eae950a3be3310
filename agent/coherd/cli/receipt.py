"""`coherd receipt`: ask who has applied an earlier invalidation."""

from __future__ import annotations

import time

import click

from coherd.cli.arguments import Duration
from coherd.cli.connection import ANSWER_TIMEOUT, connect, local_option
from coherd.cli.exit_codes import ExitCode
from coherd.cli.output import duration, output_option, print_json, say
from coherd.cli.receipts import Summary, parse_all


@click.command()
@click.argument("dots", nargs=-1, required=True, metavar="DOTS...")
@click.option(
    "--timeout", type=Duration(), default="1s", show_default=True, help="Longest wait, up to 1h."
)
@output_option("text", "json")
@local_option
@click.pass_context
def receipt(
    ctx: click.Context, dots: tuple[str, ...], timeout: float, *, as_json: bool, local: str | None
) -> None:
    """Ask who has applied the rows DOTS, as `coherd invalidate` names them after "receipt".

    Exit code 3: not everybody has, or could be asked, within the timeout.
    """
    asked = parse_all(dots)
    summary = Summary()
    with connect(local) as connection:
        from google.protobuf.duration_pb2 import Duration as Timeout

        from coherd.v1 import cache_service_pb2 as pb

        wait = Timeout()
        wait.FromNanoseconds(int(timeout * 1e9))
        request = pb.GetReceiptRequest(dots=[entry.message() for entry in asked], timeout=wait)
        started = time.perf_counter()
        response = connection.cache.GetReceipt(request, timeout=timeout + ANSWER_TIMEOUT)
        seconds = time.perf_counter() - started
        summary.add(response.receipt)
    if as_json:
        print_json(summary.json())
    else:
        what = " ".join(map(str, asked))
        say(f"{summary.text(what)}  in {duration(seconds)}")
    if not summary.is_complete:
        ctx.exit(ExitCode.PARTIAL)
