"""`coherd agent`: run the agent of this host."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import click

from coherd.config import load


@click.command()
@click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The settings; `coherd config example` prints a file to start from.",
)
@click.option("--name", help="Unique in the cluster. Default: the host name.")
@click.option("--cluster", help="Whom it belongs to.")
@click.option("--listen", metavar="HOST:PORT", help="Where other agents reach it.")
@click.option(
    "--join", multiple=True, metavar="HOST:PORT", help="Agents to ask; repeatable, or with commas."
)
@click.option(
    "--interest",
    multiple=True,
    metavar="NAMESPACE",
    help='Namespaces kept here, "*" for all; repeatable, or with commas.',
)
@click.option("--data-dir", metavar="DIRECTORY", help="Journal and identity; for one agent alone.")
@click.option(
    "--local",
    multiple=True,
    metavar="ADDRESS",
    help="unix:/PATH or HOST:PORT for this host; repeatable, or with commas.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "text", "json"]),
    default="auto",
    show_default=True,
    help="auto: text on a terminal, else JSON.",
)
def agent(file: Path | None, *, log_level: str, log_format: str, **flags: object) -> None:
    """Run the agent of this host until SIGTERM or Ctrl-C; a second one stops it at once.

    Flags override the variables COHERD_*, which override the file. SIGHUP has the grants of the file read
    again; new certificates are noticed without. The log goes to standard error.
    """
    read = partial(load, file, os.environ, flags)
    config = read()
    import trio

    from coherd import daemon, logs

    logs.configure(log_level, json={"auto": None, "text": False, "json": True}[log_format])
    # In a terminal SIGHUP says that it was closed.
    in_terminal = sys.stdin is not None and sys.stdin.isatty()
    trio.run(partial(daemon.run, config, read=None if in_terminal else read))
