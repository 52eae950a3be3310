"""The command `coherd` (floor 6): its verbs, each imported when it is used, and its errors.

`coherd --help` needs click and nothing else, so that it is there at once. Whatever a verb raises as
a `CoherdError` is one line on standard error and an exit code; a traceback is a bug.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any, NamedTuple

import click

from coherd import __version__
from coherd.cli.exit_codes import PARTS_MISSING, ExitCode, exit_code
from coherd.errors import CoherdError


class Verb(NamedTuple):
    """A verb that is not imported yet."""

    target: str
    """module:attribute of its click command."""
    help: str
    """What `coherd --help` says of it."""


VERBS = {
    "agent": Verb("coherd.cli.agent:agent", "Run the agent of this host."),
    "invalidate": Verb(
        "coherd.cli.invalidate:invalidate", "Drop keys, tags or prefixes on every host."
    ),
    "watch": Verb("coherd.cli.watch:watch", "Show invalidations as they arrive here."),
    "receipt": Verb("coherd.cli.receipt:receipt", "Ask who has applied an earlier invalidation."),
    "trace": Verb("coherd.cli.trace:trace", "Ask every host when and how it got a key's rows."),
    "status": Verb("coherd.cli.status:status", "Show how this host's agent is."),
    "members": Verb("coherd.cli.members:members", "List the agents that this one knows."),
    "join": Verb("coherd.cli.join:join", "Ask further agents who is in the cluster."),
    "doctor": Verb("coherd.cli.doctor:doctor", "Find what is wrong, and say what to do about it."),
    "audit-log": Verb(
        "coherd.cli.audit_log:audit_log", "Show who was refused, and who changed much."
    ),
    "forget": Verb("coherd.cli.forget:forget", "Strike an agent that will not come back."),
    "leave": Verb("coherd.cli.leave:leave", "Take this host's agent out of the cluster for good."),
    "config": Verb("coherd.cli.config:config", "Print, check and explain an agent's settings."),
    "pki": Verb(
        "coherd.cli.pki:pki", "Make certificates, for those who have no authority of their own."
    ),
    "auth": Verb("coherd.cli.auth:auth", "Say who may do what by an agent's grants."),
    "simulate": Verb("coherd.cli.simulate:simulate", "Ask a simulated cluster of any size."),
    "demo": Verb("coherd.cli.demo:demo", "Watch three agents keep their caches coherent."),
}


class LazyGroup(click.Group):
    """A group that knows its verbs by name and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the verbs in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb; None for a name that is none."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module, _, attribute = verb.target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or name the nearest one."""
        if args[0] not in VERBS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such verb: {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; turn its errors into lines and an exit code."""
        try:
            return super().invoke(ctx)
        except CoherdError as error:
            report([error])
            ctx.exit(exit_code(error))
        except ExceptionGroup as group:  # what leaves a nursery
            ours, others = group.split(CoherdError)
            if ours is None or others is not None:
                raise
            errors = list(leaves(ours))
            report(errors)
            ctx.exit(max(exit_code(error) for error in errors))
        except ModuleNotFoundError as error:
            if is_ours(error):
                raise
            click.echo(PARTS_MISSING, err=True)
            ctx.exit(ExitCode.USAGE)


def leaves(group: ExceptionGroup[CoherdError]) -> Iterable[CoherdError]:
    """Give the errors in a group and in the groups in it."""
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def report(errors: Iterable[CoherdError]) -> None:
    """Print errors on standard error, a line each; a wrong file has a line for each problem."""
    from coherd.config.source import ConfigProblems
    from coherd.config.values import printable

    for error in errors:
        lines = error.problems if isinstance(error, ConfigProblems) else (str(error),)
        for line in dict.fromkeys(lines):
            click.echo(printable(line) or type(error).__name__, err=True)


def is_ours(error: ModuleNotFoundError) -> bool:
    """Tell a bug of ours from a package that is not installed."""
    return (error.name or "").partition(".")[0] in {"coherd", "coherd_membership"}


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit codes: "
        + ", ".join(f"{code} {code.name.lower().replace('_', ' ')}" for code in ExitCode)
        + "."
    ),
)
@click.version_option(__version__, prog_name="coherd")
def cli() -> None:
    """Keep the caches of many hosts coherent: what is invalidated once is dropped everywhere."""
