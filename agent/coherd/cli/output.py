"""How verbs print: answers on standard output, everything else on standard error, JSON when asked for.

What came from the other side is escaped before it reaches a terminal. Nothing here imports more than
click.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from google.protobuf.message import Message

OUTPUT_VARIABLE = "COHERD_OUTPUT"
"""What `-o` is unless it is given: for scripts that want JSON from every verb."""

F = TypeVar("F", bound=Callable[..., Any])
Json = dict[str, Any]


def output_option(*choices: str) -> Callable[[F], F]:
    """Make the option `-o`; the first choice is for people, the others are JSON."""
    return click.option(
        "-o",
        "--output",
        "as_json",
        type=click.Choice(choices),
        default=choices[0],
        envvar=OUTPUT_VARIABLE,
        show_default=True,
        help=f"How to print the answer; the variable {OUTPUT_VARIABLE} also says it.",
        callback=lambda _ctx, _param, value: value != choices[0],
    )


def say(line: str = "") -> None:
    """Print a line of the answer; what the terminal's encoding lacks is escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(line.encode(encoding, "backslashreplace").decode(encoding))


def tell(line: str) -> None:
    """Print a line that is no part of the answer."""
    click.echo(escaped(line), err=True)


def print_json(value: Json | Sequence[Json], *, indent: int | None = 2) -> None:
    """Print the answer as JSON."""
    click.echo(json.dumps(value, indent=indent))


def mark(text: str, color: str) -> str:
    """Colour a word, on a terminal that is not told to go without."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return click.style(text, fg=color)


def escaped(value: str | bytes) -> str:
    r"""Give what may be anything on one line: what is not printable as \n, \x1b, \xff."""
    text = value if isinstance(value, str) else value.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def json_bytes(value: bytes) -> str | Json:
    """Give bytes for JSON without loss: as text, or {"hex": "ff00"} when they are none."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex()}


def plain(message: Message) -> Json:
    """Give a message for JSON: all fields under their names, numbers as numbers, enums as words.

    What may be left out and was is None.
    """
    return {
        field.name: None
        if field.has_presence and not message.HasField(field.name)
        else _plain(getattr(message, field.name), field)
        for field in message.DESCRIPTOR.fields
    }


def _plain(value: Any, field: Any) -> Any:
    if hasattr(value, "items"):
        return dict(value)
    if not isinstance(value, str | bytes) and hasattr(value, "__len__"):
        return [_plain(entry, field) for entry in value]
    if field.enum_type is not None:
        return word(field.enum_type, value)
    return plain(value) if field.message_type is not None else value


def word(enum: Any, value: int) -> str:
    """Give an enum's value as a word: MEMBER_STATE_ALIVE is alive, what nobody knows is unknown."""
    descriptor = getattr(enum, "DESCRIPTOR", enum)
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    known = descriptor.values_by_number.get(value or -1)
    return known.name.removeprefix(prefix).lower() if known else "unknown"


def duration(seconds: float) -> str:
    """Give a time as people say it, in one or two units."""
    if seconds < 0.9995:
        ms = seconds * 1000
        return f"{ms:.2g} ms" if 0 < ms < 0.95 else f"{ms:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    units = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    at = next(i for i, (span, _) in enumerate(units) if whole >= span)
    (span, unit), (small_span, small_unit) = units[at : at + 2]
    rest = whole % span // small_span
    return f"{whole // span} {unit}" + (f" {rest} {small_unit}" if rest else "")


def size(count: int) -> str:
    """Give a number of bytes as people say it."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.1f}".removesuffix(".0") + f" {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def count_of(count: int, noun: str) -> str:
    """Give "1 key" or "2,000 keys"."""
    plural = noun[:-1] + "ies" if noun.endswith("y") and noun != "key" else noun + "s"
    plural = noun + "es" if noun.endswith("x") else plural
    return f"{count:,} {noun if count == 1 else plural}"


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str | int]], *, right: Iterable[str] = ()
) -> list[str]:
    """Give lines with aligned columns; numbers, and the columns in `right`, to the right."""
    all_rows = list(rows)
    to_right = {heads.index(head) for head in right}
    if all_rows:
        to_right |= {i for i, cell in enumerate(all_rows[0]) if isinstance(cell, int)}
    cells = [
        tuple(heads),
        *(tuple(f"{c:,}" if isinstance(c, int) else escaped(c) for c in row) for row in all_rows),
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    return [
        "  ".join(
            text.rjust(widths[i]) if i in to_right else text.ljust(widths[i])
            for i, text in enumerate(row)
        ).rstrip()
        for row in cells
    ]
