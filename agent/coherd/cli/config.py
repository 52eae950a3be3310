"""`coherd config`: a file to start from, what is wrong with one, and what one results in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import click

from coherd.cli.exit_codes import ExitCode
from coherd.config import (
    DEFAULTS,
    EXAMPLE,
    AgentConfig,
    ConfigProblems,
    RedisHandlerConfig,
    Written,
    full_name,
    load,
    trace,
)
from coherd.config.lines import Key
from coherd.config.values import format_duration

Shown = bool | int | float | str | list[str] | None
"""A value as a file would spell it; None where nothing is set."""

_output = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How to print the answer.",
)


@click.group()
def config() -> None:
    """Print, check and explain an agent's settings."""


@config.command()
def example() -> None:
    """Print a commented file with every setting."""
    click.echo(EXAMPLE, nl=False)


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@_output
@click.pass_context
def check(ctx: click.Context, file: Path, output: str) -> None:
    """Say what is wrong with FILE, a line for each problem, or that nothing is.

    Only FILE is looked at: no variables, no directory, no address.
    """
    try:
        found = load(file, {}, {})
    except ConfigProblems as error:
        if output == "text":
            raise
        click.echo(json.dumps({"ok": False, "problems": list(error.problems)}))
        ctx.exit(ExitCode.USAGE)
    if output == "json":
        click.echo(json.dumps({"ok": True, "problems": []}))
    else:
        click.echo(f"{file}: ok, {summary(found)}")


def summary(found: AgentConfig) -> str:
    """Say in a line what agent it is."""
    seeds, handlers = len(found.join), len(found.handlers)
    return (
        f"agent {found.name} of cluster {found.cluster}, listens on {found.listen}, "
        f"{seeds} seed{'s' * (seeds != 1)}, {handlers} handler{'s' * (handlers != 1)}"
    )


@config.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@_output
def show(file: Path | None, output: str) -> None:
    """Print every setting with its value and where it comes from.

    Reads FILE, if given, and the COHERD_* variables as `coherd agent` would. Passwords are hidden.
    """
    settings = list(explain(*trace(file, os.environ, {})))
    if output == "json":
        click.echo(json.dumps({"settings": [asdict(setting) for setting in settings]}, indent=2))
        return
    rows = [(s.name, "" if s.value is None else json.dumps(s.value), s.source) for s in settings]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, source in rows:
        click.echo(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it took effect."""

    name: str
    """Its full name: namespaces.shop.max_ttl."""
    value: Shown
    source: str
    """FILE:LINE, the variable, or "default"."""


def explain(found: AgentConfig, written: Written) -> Iterator[Setting]:
    """Give every setting with its value and its source."""
    for field in fields(found):
        if field.name not in {"namespaces", "handlers"}:
            yield _setting(written, (field.name,), getattr(found, field.name))
    for name, namespace in found.namespaces.items():
        for field in fields(namespace):
            key: Key = ("namespaces", name, field.name)
            inherited: Key = ("namespaces", DEFAULTS, field.name)
            origin = key if key in written.places else inherited
            yield _setting(written, key, getattr(namespace, field.name), origin)
    for index, handler in enumerate(found.handlers):
        for field in fields(handler):
            key = ("handlers", index, field.name)
            yield _setting(written, key, _handler_value(handler, field.name))


def _handler_value(handler: RedisHandlerConfig, name: str) -> object:
    return handler.label if name == "url" else getattr(handler, name)


def _setting(written: Written, key: Key, value: object, origin: Key | None = None) -> Setting:
    place = written.places.get(origin or key)
    return Setting(full_name(key), _spell(key, value), str(place or "default"))


def _spell(key: Key, value: object) -> Shown:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):  # a rate is a number; every other one is a duration
        return value if str(key[-1]).endswith("rate_max") else format_duration(value)
    if type(value) is tuple:
        return [str(entry) for entry in value]
    return str(value)
