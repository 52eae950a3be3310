"""`coherd auth`: what an agent's grants allow, without asking an agent."""

from __future__ import annotations

import os
from pathlib import Path

import click

from coherd.cli.arguments import identity_of
from coherd.cli.exit_codes import ExitCode
from coherd.cli.output import escaped, mark, output_option, print_json, say, tell
from coherd.config import load
from coherd.config.values import WrongValue, interest
from coherd.errors import InvalidRequest
from coherd.grants import Decision, Verb, decide
from coherd.model import EVERY_NAMESPACE

TRUST_OF_NOBODY = "-"
"""Stands for the trust domain of who is named by role and name: no decision looks at it."""


@click.group()
def auth() -> None:
    """Say who may do what by an agent's grants."""


@auth.command()
@click.argument("identity")
@click.argument("verb", type=click.Choice([str(verb) for verb in Verb]))
@click.argument("namespace", default=EVERY_NAMESPACE)
@click.option(
    "-c",
    "--config",
    "file",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The agent's settings.",
)
@output_option("text", "json")
@click.pass_context
def check(
    ctx: click.Context, identity: str, verb: str, namespace: str, *, file: Path, as_json: bool
) -> None:
    """Say whether IDENTITY may do VERB with NAMESPACE, or with the agent as a whole, and why.

    IDENTITY is a role and a name, client/web-1, or a whole spiffe:// URI. Reads the settings as the agent
    would; no agent is asked. Exit code 0: allowed. 5: denied.
    """
    try:
        interest(namespace)
    except WrongValue as error:
        raise InvalidRequest(str(error)) from None
    asked = Verb(verb)
    if asked is Verb.ADMIN and namespace != EVERY_NAMESPACE:
        raise InvalidRequest(f"{verb} is about the agent as a whole: leave out the namespace")
    config = load(file, os.environ, {})
    who = identity_of(identity, TRUST_OF_NOBODY, config.cluster)
    if who.cluster == config.cluster:
        decision = decide([grant.grant for grant in config.grants], who, asked, namespace)
    else:
        decision = Decision(False, f"the agent is of cluster {config.cluster}, not {who.cluster}")
    if config.tls is None:
        tell(
            f"{file} has no [tls]: there nobody is asked for a certificate, and grants count for nothing"
        )
    if as_json:
        print_json(
            {
                "identity": identity,
                "verb": verb,
                "namespace": namespace,
                "allowed": decision.allowed,
                "why": decision.why,
            }
        )
    else:
        word = mark("allowed", "green") if decision.allowed else mark("denied", "red")
        say(f"{word}: {escaped(decision.why)}")
    if not decision.allowed:
        ctx.exit(ExitCode.DENIED)
