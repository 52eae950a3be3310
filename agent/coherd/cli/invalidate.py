"""`coherd invalidate`: drop keys, tags, prefixes or a whole namespace on every host."""

from __future__ import annotations

import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from os import fstat
from typing import TYPE_CHECKING

import click

from coherd.api.checks import check_namespace
from coherd.cli import following
from coherd.cli.arguments import (
    STDIN,
    Batch,
    Batches,
    Duration,
    Waiting,
    WaitType,
    keys_in,
    opened,
    selector_of,
)
from coherd.cli.connection import (
    ANSWER_TIMEOUT,
    CLIENT,
    CallFailed,
    Connection,
    connect,
    local_option,
)
from coherd.cli.exit_codes import ExitCode, exit_code
from coherd.cli.output import count_of, duration, escaped, output_option, print_json, say, tell
from coherd.cli.receipts import Summary
from coherd.config import BATCH_WINDOW_MAX
from coherd.errors import CoherdError
from coherd.limits import NUMBER_MAX
from coherd.model import Effect, Lane

if TYPE_CHECKING:
    from typing import BinaryIO

    from coherd.v1 import cache_service_pb2 as pb

    Ask = Callable[[Connection, pb.InvalidateRequest, float], pb.Receipt]

UNSPECIFIED = "unspecified"
BUSY_ATTEMPTS = 8
BUSY_PAUSE = 0.1
"""A busy agent is asked again this often, after this many seconds, doubled each time."""
PUSHBACK_MAX = 60.0
"""Seconds; an agent that says to come later than that is not waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line asks for; checked."""

    namespace: str
    keys: tuple[bytes, ...]
    tags: tuple[bytes, ...]
    prefixes: tuple[bytes, ...]
    everything: bool
    keys_from: str | None
    is_hex: bool
    lane: str | None
    effect: str | None
    """None: the namespace's own."""
    version: int | None
    wait: Waiting
    timeout: float
    reason: str

    def request(self, batch: Batch) -> pb.InvalidateRequest:
        """Write the request for some of the rows."""
        from google.protobuf.duration_pb2 import Duration as Timeout

        from coherd.v1 import cache_service_pb2 as pb
        from coherd.v1 import types_pb2

        timeout = Timeout()
        timeout.FromNanoseconds(int(self.timeout * 1e9))
        return pb.InvalidateRequest(
            namespace=self.namespace,
            keys=batch.keys,
            tags=batch.tags,
            prefixes=batch.prefixes,
            everything=batch.everything,
            lane=types_pb2.Lane.Value(f"LANE_{(self.lane or UNSPECIFIED).upper()}"),
            effect=types_pb2.Effect.Value(f"EFFECT_{(self.effect or UNSPECIFIED).upper()}"),
            versions=[] if self.version is None else [self.version],
            wait=pb.Wait.Value(f"WAIT_{self.wait.name.upper()}"),
            members=self.wait.members,
            timeout=timeout,
            reason=self.reason,
        )


@dataclass(slots=True)
class Done:
    """What was accepted so far."""

    rows: dict[str, int] = field(default_factory=dict)
    """How many, by kind: key, tag, prefix, everything."""
    only: str = ""
    """The row, when it is the only one."""
    summary: Summary = field(default_factory=Summary)
    seconds: float = 0.0
    """From the first request to the last answer."""

    def add(self, batch: Batch) -> None:
        """Count the rows of a batch."""
        kinds = {"key": batch.keys, "tag": batch.tags, "prefix": batch.prefixes}
        for kind, selectors in kinds.items():
            if selectors:
                self.rows[kind] = self.rows.get(kind, 0) + len(selectors)
                self.only = f"{kind} " * (kind != "key") + escaped(selectors[0])
        if batch.everything:
            self.rows["everything"] = 1
            self.only = "everything"

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(self.rows.values())

    def __str__(self) -> str:
        if self.count == 1:
            return self.only
        return ", ".join(
            kind if kind == "everything" else count_of(count, kind)
            for kind, count in self.rows.items()
        )


@click.command()
@click.argument("namespace")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--tag", "tags", multiple=True, help="Every key that carries the tag; repeatable.")
@click.option(
    "--prefix", "prefixes", multiple=True, help="Every key that begins with it; repeatable."
)
@click.option("--all", "--everything", "everything", is_flag=True, help="The whole namespace.")
@click.option(
    "--keys-from", metavar="FILE", help="Keys from a file, one a line; - is standard input."
)
@click.option("--hex", "is_hex", is_flag=True, help="Keys, tags and prefixes are hexadecimal.")
@click.option(
    "--lane",
    type=click.Choice([lane.name.lower() for lane in Lane]),
    help="How soon it leaves. Default: as the namespace has it.",
)
@click.option(
    "--effect",
    type=click.Choice([effect.name.lower() for effect in reversed(Effect)]),
    help="stale: copies may be served while they are refreshed. Default: as the namespace has it.",
)
@click.option(
    "--version",
    type=click.IntRange(1, NUMBER_MAX),
    help="The source's version; with exactly one key.",
)
@click.option(
    "--wait",
    type=WaitType(),
    default="accepted",
    show_default=True,
    help="Until it is accepted here, applied on this host, applied by every agent of the region, or "
    "applied by N agents.",
)
@click.option(
    "--timeout", type=Duration(), default="5s", show_default=True, help="Longest wait, up to 1h."
)
@click.option("--reason", default="", help="Why, in a few words: shown to watchers and in traces.")
@click.option("--yes", is_flag=True, help="Do not ask before --all or --prefix.")
@click.option("--dry-run", is_flag=True, help="Check, say what would be sent, send nothing.")
@output_option("text", "json")
@local_option
@click.pass_context
def invalidate(
    ctx: click.Context,
    /,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    local: str | None,
    **given: object,
) -> None:
    """Drop keys, tags, prefixes or a whole namespace on every host that holds copies.

    More than 1,000 rows are sent in several requests. Exit code 3: accepted, and not applied by all
    that was waited for; it will be, as soon as they can be reached.
    """
    asked = read(given)
    if not dry_run:
        confirm(ctx, asked, yes=yes)
    done = Done()
    try:
        with batches(asked) as found:
            if dry_run:
                for batch in found():
                    done.add(batch)
            else:
                with connect(local) as connection:
                    send(connection, asked, found(), done, ask=way(asked, as_json=as_json))
    except BaseException as error:
        if done.count and not dry_run:
            done.summary.stopped = True
            show(asked, done, as_json=as_json)
            tell(
                f"stopped early: {count_of(done.count, 'row')} accepted, of the next ones nothing is "
                "known; to do it all again does no harm"
            )
            if isinstance(error, CoherdError) and exit_code(error) is ExitCode.USAGE:
                raise CallFailed("ABORTED", str(error)) from None  # for something was done
        raise
    if not done.count:
        tell("the file has no keys: nothing was to do")
    if dry_run:
        dry(asked, done, as_json=as_json)
        return
    show(asked, done, as_json=as_json)
    if not done.summary.is_complete:
        ctx.exit(ExitCode.PARTIAL)


def read(given: dict[str, object]) -> Asked:
    """Check the command line. Raises UsageError or InvalidRequest."""
    is_hex = bool(given["is_hex"])
    for kind in ("keys", "tags", "prefixes"):
        texts = given[kind]
        assert isinstance(texts, tuple)
        given[kind] = tuple(selector_of(text, is_hex=is_hex) for text in texts)
    asked = Asked(**given)  # type: ignore[arg-type]
    check_namespace(asked.namespace)
    rows = len(asked.keys) + len(asked.tags) + len(asked.prefixes) + asked.everything
    if not rows and asked.keys_from is None:
        raise click.UsageError(
            "Nothing to invalidate: name keys, --tag, --prefix, --keys-from or --all."
        )
    if asked.version is not None and (rows, len(asked.keys), asked.keys_from) != (1, 1, None):
        raise click.UsageError("--version goes with exactly one key and nothing else.")
    return asked


def is_terminal() -> bool:
    """Tell whether somebody can be asked."""
    return sys.stdin.isatty()


def confirm(ctx: click.Context, asked: Asked, *, yes: bool) -> None:
    """Have wide scopes confirmed by whoever sits at the terminal."""
    if yes or not is_terminal():
        return
    if asked.everything:
        question = f"Every copy of {asked.namespace} on every host? Type the namespace to confirm"
        if click.prompt(question, err=True, default="", show_default=False) != asked.namespace:
            tell(f"that is not {asked.namespace}: nothing was done")
            ctx.exit(ExitCode.FAILED)
    elif asked.prefixes:
        names = ", ".join(map(escaped, asked.prefixes))
        question = f"Every key of {asked.namespace} that begins with {names}?"
        if not click.confirm(question, err=True):
            tell("nothing was done")
            ctx.exit(ExitCode.FAILED)


@contextmanager
def batches(asked: Asked) -> Iterator[Callable[[], Iterator[Batch]]]:
    """Open the file of keys, if there is one, and check all of it where it can be read twice."""
    if asked.keys_from is None:
        yield partial(cut, asked, None)
        return
    with opened(asked.keys_from) as file:
        if asked.keys_from == STDIN or not stat.S_ISREG(fstat(file.fileno()).st_mode):
            with progress(None) as shown:
                yield lambda: shown(cut(asked, file))
            return
        for _ in keys_in(file, escaped(asked.keys_from), is_hex=asked.is_hex):
            pass
        size = file.tell()
        file.seek(0)
        with progress(size) as shown:
            yield lambda: shown(cut(asked, file))


def cut(asked: Asked, file: BinaryIO | None) -> Iterator[Batch]:
    """Give the rows in batches: those of the command line, those of the file, everything."""
    rows = Batches()
    for key in asked.keys:
        yield from rows.add("keys", key)
    for tag in asked.tags:
        yield from rows.add("tags", tag)
    for prefix in asked.prefixes:
        yield from rows.add("prefixes", prefix)
    position = 0
    if file is not None:
        name = "standard input" if asked.keys_from == STDIN else escaped(str(asked.keys_from))
        for key, end in keys_in(file, name, is_hex=asked.is_hex):
            yield from rows.add("keys", key, read=position)
            position = end
    yield from rows.rest(everything=asked.everything, read=position)


@contextmanager
def progress(size: int | None) -> Iterator[Callable[[Iterator[Batch]], Iterator[Batch]]]:
    """Show on a terminal how much of a file is done; the batches pass through."""
    if not sys.stderr.isatty() or (size is None and is_terminal()):
        yield lambda found: found
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.fields[rows]:,} keys"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=size, rows=0)

        def through(found: Iterator[Batch]) -> Iterator[Batch]:
            rows = 0
            for batch in found:
                yield batch
                rows += len(batch)
                bar.update(task, completed=batch.read, rows=rows)

        yield through


def way(asked: Asked, *, as_json: bool) -> Ask:
    """Give how to ask: where others are waited for, somebody at a terminal is shown for whom.

    Not beside the progress of a file.
    """
    waits = asked.wait.name in {"region", "members"} and asked.keys_from is None
    return following.follow if waits and not as_json and following.is_watched() else ask_once


def ask_once(connection: Connection, request: pb.InvalidateRequest, timeout: float) -> pb.Receipt:
    """Send one request and wait for its answer. Raises CallFailed."""
    with connection.failures():
        return connection.cache.Invalidate(request, timeout=timeout, metadata=CLIENT).receipt


def send(
    connection: Connection, asked: Asked, found: Iterator[Batch], done: Done, *, ask: Ask
) -> None:
    """Send batch after batch. Raises CallFailed."""
    started = time.perf_counter()
    timeout = asked.timeout + ANSWER_TIMEOUT
    if asked.lane == Lane.BULK.name.lower():
        timeout += BATCH_WINDOW_MAX
    for batch in found:
        receipt = call(partial(ask, connection, asked.request(batch), timeout))
        done.add(batch)
        done.summary.add(receipt)
        done.seconds = time.perf_counter() - started


def call(ask: Callable[[], pb.Receipt]) -> pb.Receipt:
    """Ask once, and again after a moment, or when it says, when the agent takes no more."""
    pause = BUSY_PAUSE
    for attempt in range(1, BUSY_ATTEMPTS + 1):
        try:
            return ask()
        except CallFailed as error:
            after = pause if error.retry_after is None else error.retry_after
            is_last = attempt == BUSY_ATTEMPTS or after > PUSHBACK_MAX
            if error.code != "RESOURCE_EXHAUSTED" or is_last:
                raise
        time.sleep(after)
        pause *= 2
    raise AssertionError("the last attempt answers or raises")


def show(asked: Asked, done: Done, *, as_json: bool) -> None:
    """Print what became of the rows."""
    if as_json:
        print_json({"accepted": done.count, **done.summary.json()})
        return
    if not done.count:
        return
    line = done.summary.text(f"{asked.namespace} {done}")
    say(f"{line}  in {duration(done.seconds)}  receipt {done.summary.tokens()}")


def dry(asked: Asked, done: Done, *, as_json: bool) -> None:
    """Print what would be sent."""
    if as_json:
        print_json({"dry_run": True, "namespace": asked.namespace, "rows": done.count})
        return
    if done.count:
        say(f"would invalidate {asked.namespace} {done}; nothing was sent")
