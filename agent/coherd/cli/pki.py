"""`coherd pki`: certificates for those who have no authority of their own."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coherd.cli.arguments import Duration, identity_of
from coherd.cli.output import say, tell
from coherd.cli.pki_show import call_date, leaf_at, show
from coherd.config.values import DURATION_MAX, format_duration
from coherd.errors import CoherdError, InvalidRequest
from coherd.identity import Role
from coherd.pki import LEAF_LIFETIME, ROOT_LIFETIME, authority
from coherd.pki.files import KEY_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

    from coherd.identity import Identity

LIFETIME = Duration(1.0, DURATION_MAX)
LEAF_DEFAULT = "24h"
assert format_duration(LEAF_LIFETIME.total_seconds()) in {LEAF_DEFAULT, "1d"}

_directory = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))


@click.group()
def pki() -> None:
    """Make certificates, for those who have no authority of their own."""


pki.add_command(show)


@pki.command()
@_directory
@click.option("--trust", metavar="DOMAIN", help="The trust domain of a new authority: example.org.")
@click.option(
    "--lifetime",
    type=LIFETIME,
    help=f"How long the root is valid.  [default: {format_duration(ROOT_LIFETIME.total_seconds())}]",
)
@click.option("--next", "is_next", is_flag=True, help="Replace the root, step 1: believe another.")
@click.option("--switch", "is_switch", is_flag=True, help="Step 2: let the other one issue.")
@click.option("--retire", "is_retire", is_flag=True, help="Step 3: believe the old one no more.")
def init(
    directory: Path,
    *,
    trust: str | None,
    lifetime: float | None,
    is_next: bool,
    is_switch: bool,
    is_retire: bool,
) -> None:
    """Make an authority in DIR, or replace its root in three steps.

    DIR/ca.pem is for every host. DIR/ca.key stays here, and whoever has it can be anybody.
    """
    steps = is_next + is_switch + is_retire
    if steps > 1:
        raise click.UsageError("one step at a time: --next, --switch or --retire")
    if steps and trust is not None:
        raise click.UsageError("a new root is of the same domain: leave out --trust")
    if lifetime is not None and (is_switch or is_retire):
        raise click.UsageError("--lifetime is that of a new root: leave it out")
    span = ROOT_LIFETIME if lifetime is None else timedelta(seconds=lifetime)
    if steps:
        with authority.held(directory):
            found = authority.load(directory)
            if is_next:
                found.add_next(datetime.now(UTC), span)
            elif is_switch:
                found.switch()
            else:
                found.retire(datetime.now(UTC))
    elif trust is None:
        raise click.UsageError("say of which domain the authority is: --trust example.org")
    else:
        authority.create(directory, trust, datetime.now(UTC), span)
    for line in _what_next(directory, is_next=is_next, is_switch=is_switch, is_retire=is_retire):
        say(line)


def _what_next(
    directory: Path, *, is_next: bool, is_switch: bool, is_retire: bool
) -> Sequence[str]:
    """Say what was done, and what is to be done with it."""
    roots = directory / authority.ROOTS
    if is_next:
        return (
            f"{roots} has the next root, too: bring it to every host,",
            f"then run `coherd pki init {directory} --switch`",
        )
    if is_switch:
        return (
            f"the next root issues from now on: run `coherd pki renew {directory} --all`, bring the new",
            f"certificates and keys to their hosts, then run `coherd pki init {directory} --retire`",
        )
    if is_retire:
        return (f"{roots} has one root again: bring it to every host",)
    return (
        f"{roots}: the root, for every host",
        f"{directory / authority.KEY}: its key, which stays here: whoever has it can be anybody",
    )


@pki.command()
@_directory
@click.argument("who", metavar="ROLE/NAME")
@click.option("--cluster", required=True, help="Whom it belongs to.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="A DNS name or an IP address under which an agent is reached by others than agents; repeatable.",
)
@click.option(
    "--lifetime",
    type=LIFETIME,
    default=LEAF_DEFAULT,
    show_default=True,
    help="How long it is valid; with the root it ends in any case.",
)
@click.option(
    "--out",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    help="Where the two files go, and ca.pem beside them; left out, DIR.",
)
def issue(
    directory: Path,
    who: str,
    *,
    cluster: str,
    hosts: tuple[str, ...],
    lifetime: float,
    out: Path | None,
) -> None:
    """Issue a certificate to agent/NAME, client/NAME or operator/NAME.

    Writes ROLE-NAME.pem and ROLE-NAME.key, and prints the table [tls] of an agent.
    """
    with authority.held(directory):
        found = authority.load(directory)
        identity = identity_of(who, found.trust, cluster)
        if identity.cluster != cluster:
            raise InvalidRequest(
                f"{identity} is not of the cluster {cluster}: leave one of the two out"
            )
        path = (out or directory) / authority.file_name(identity)
        span = timedelta(seconds=lifetime)
        certificate = found.issue(identity, path, datetime.now(UTC), span, hosts)
    for line in _issued(identity, certificate, path):
        say(line)
    if certificate.not_valid_after_utc == found.root.certificate.not_valid_after_utc:
        tell(
            f"it ends with the root: replace that, `coherd pki init {directory} --next` is the first step"
        )


def _issued(identity: Identity, certificate: x509.Certificate, path: Path) -> Sequence[str]:
    """Say what was issued, so that it can be pasted."""
    until = call_date(certificate.not_valid_after_utc)
    heading = f"# {identity.label} of cluster {identity.cluster}, until {until}"
    files = {
        "ca": path.with_name(authority.ROOTS),
        "cert": path,
        "key": path.with_suffix(KEY_SUFFIX),
    }
    settings = [f"{name} = {_spelled(file)}" for name, file in files.items()]
    return (heading, *(["[tls]"] if identity.role is Role.AGENT else []), *settings)


def _spelled(path: Path) -> str:
    """Write a path as TOML has it."""
    return json.dumps(os.path.abspath(path), ensure_ascii=False)  # noqa: PTH100 # links stay


@pki.command()
@_directory
@click.argument("files", metavar="[FILE.pem]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--all", "everything", is_flag=True, help="All that are in DIR.")
@click.option(
    "--within",
    type=Duration(0.0, DURATION_MAX),
    metavar="TIME",
    help="Only those that expire that soon, and those that do not belong to the key beside them.",
)
@click.option(
    "--lifetime", type=LIFETIME, help="How long they are valid; left out, as long as before."
)
def renew(
    directory: Path,
    files: tuple[Path, ...],
    *,
    everything: bool,
    within: float | None,
    lifetime: float | None,
) -> None:
    """Issue certificates anew: the same identities and hosts, other keys.

    A certificate and its key are replaced in place, also the roots beside them, and agents take them within
    seconds. With --within it is for cron: what is not due is passed over in silence.
    """
    if bool(files) == everything:
        raise click.UsageError("name files, or all of DIR with --all")
    span = None if lifetime is None else timedelta(seconds=lifetime)
    errors = []
    with authority.held(directory):
        found = authority.load(directory)
        for path in _leaves(authority.pem_files(directory) if everything else files):
            try:
                if within is None or authority.is_due(
                    path, datetime.now(UTC), timedelta(seconds=within)
                ):
                    holder, _ = leaf_at(path)
                    new = found.renew(holder.identity, path, datetime.now(UTC), span)
                    say(
                        f"{path}: {holder.identity.label}, until {call_date(new.not_valid_after_utc)}"
                    )
            except CoherdError as error:  # the others are renewed all the same
                errors.append(error)
    if errors:
        raise ExceptionGroup("", errors)


def _leaves(files: Sequence[Path]) -> Sequence[Path]:
    """Leave out the roots, which *.pem also gives, where there is anything else."""
    return [path for path in files if path.name != authority.ROOTS] or files
