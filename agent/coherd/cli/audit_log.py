"""`coherd audit-log`: who was refused, who changed the cluster, who invalidated much, on this host.

It asks no agent: the files are there when the agent is not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click

from coherd.audit_lines import Event, Kind, encode
from coherd.audit_reading import Reading, read
from coherd.cli.exit_codes import ExitCode
from coherd.cli.output import count_of, escaped, output_option, say, tell
from coherd.cli.traces import moment
from coherd.config.values import WrongValue, duration
from coherd.errors import InvalidRequest

PAUSE = 0.2
"""Seconds between two looks for what has come since."""
BLOCK_ROWS = 1000
"""So many rows are aligned with each other; the log may have millions."""
HEADS = ("TIME", "WHO", "KIND", "RPC", "NAMESPACE", "WHAT", "OUTCOME", "WHY")


class Age(click.ParamType[float]):
    """Seconds, written as in the settings, of any length: 90s, 1h, 30d."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read one."""
        try:
            return duration(0.0)(value)
        except WrongValue as error:
            self.fail(str(error), param, ctx)


@click.command("audit-log")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--since", type=Age(), help="Only what is at most so old: 90s, 1h, 30d.")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([kind.value for kind in Kind]),
    multiple=True,
    help="Only events of this kind; repeatable.",
)
@click.option(
    "--who", help="Only what these did: an identity, or its end, with * and ?: client/web-*."
)
@click.option("--follow", is_flag=True, help="Go on until Ctrl-C, and show what comes.")
@output_option("text", "jsonl", "json")
@click.pass_context
def audit_log(
    ctx: click.Context,
    file: Path,
    *,
    since: float | None,
    kinds: tuple[str, ...],
    who: str | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Show the audit log in FILE and in the files it was rotated to, the oldest events first."""
    since_us = None if since is None else time.time_ns() // 1000 - int(since * 1_000_000)
    reading = read(file, since_us, kinds, who, follow=follow)
    show = show_json if as_json else Table().show
    try:
        show(iter(reading))
        while follow:
            time.sleep(PAUSE)
            show(iter(reading))
    except BrokenPipeError:  # of whoever reads what is printed
        raise
    except PermissionError as error:
        tell(f"{error.filename or file}: may not be read by this account")
        ctx.exit(ExitCode.DENIED)
    except OSError as error:
        raise unreadable(file, error) from None
    except KeyboardInterrupt:
        if not follow:
            raise
    finally:
        _end(reading)


def _end(reading: Reading) -> None:
    """Close the log, and say what of it says nothing."""
    reading.close()
    if reading.damaged:
        tell(f"{count_of(reading.damaged, 'line')} damaged, not shown")


def unreadable(file: Path, error: OSError) -> InvalidRequest:
    """Say that a log can't be read."""
    return InvalidRequest(
        f"{error.filename or file}: {error.strerror}: name the file that the agent writes"
    )


def show_json(events: Iterator[Event]) -> None:
    """Print events as they are in the file."""
    for event in events:
        click.echo(encode(event), nl=False)


class Table:
    """Columns that get wider with what comes, and never narrower."""

    def __init__(self) -> None:
        self._widths: list[int] | None = None

    def show(self, events: Iterator[Event]) -> None:
        """Print events, as many as there are."""
        while block := [cells_of(event) for event in islice(events, BLOCK_ROWS)]:
            if self._widths is None:
                self._widths = [0] * len(HEADS)
                block.insert(0, HEADS)
            self._widths = [
                max(width, *(len(row[i]) for row in block)) for i, width in enumerate(self._widths)
            ]
            for row in block:
                cells = (cell.ljust(width) for cell, width in zip(row, self._widths, strict=True))
                say("  ".join(cells).rstrip())


def cells_of(event: Event) -> tuple[str, ...]:
    """Give an event as people read it."""
    at = moment(event.at_us)
    when = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}" if at else "?"
    texts = (event.who, event.kind, event.rpc, event.namespace, event.what, event.outcome)
    return (when, *(escaped(text) or "-" for text in texts), escaped(event.why))
