"""`coherd pki show`: whose certificates they are, how long they are valid, and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from cryptography import x509
from cryptography.x509.oid import NameOID

from coherd.cli.exit_codes import ExitCode
from coherd.cli.output import Json, duration, escaped, output_option, print_json, say, table
from coherd.errors import CertificateRefused, ConfigError
from coherd.identity import Role
from coherd.net.certificates import read_holder
from coherd.pki import authority, dns_names_of, is_issued_by, own_names, trust_of
from coherd.pki.files import KEY_SUFFIX, SUFFIX, belong_together, read_certificates

if TYPE_CHECKING:
    from coherd.net.certificates import Holder
    from coherd.pki.authority import Authority

HEADS = ("FILE", "WHO", "ISSUER", "FROM", "UNTIL", "LEFT")


@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate, or a file that has none."""

    file: Path
    certificate: x509.Certificate | None
    who: str
    """For people."""
    uri: str | None
    """The identity, or the domain of a root; None where there is none."""
    problems: Sequence[str]


@click.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@output_option("text", "json")
@click.pass_context
def show(ctx: click.Context, paths: tuple[Path, ...], *, as_json: bool) -> None:
    """Show certificates: files, or the .pem files of directories.

    Exit code 0: all is well. 1: something is wrong with one, and is said below it.
    """
    now = datetime.now(UTC)
    entries = [entry for path in paths for file in _files(path) for entry in look(file, now)]
    if as_json:
        print_json({"certificates": [_json(entry, now) for entry in entries]})
    else:
        for line in lines_of(entries, now):
            say(line)
    if any(entry.problems for entry in entries):
        ctx.exit(ExitCode.FAILED)


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    if found := sorted(path.glob(f"*{SUFFIX}")):
        return found
    raise ConfigError(f"{path} has no {SUFFIX} files: name a directory with certificates")


def look(file: Path, now: datetime) -> Iterator[Entry]:
    """Look at the certificates of a file."""
    try:
        certificates = read_certificates(file)
    except ConfigError as error:
        yield Entry(file, None, "-", None, [str(error)])
        return
    beside, problem = _roots_beside(file)
    for number, certificate in enumerate(certificates):
        issuers = (*beside, *certificates)
        problems = [problem] if problem else []
        if beside and not any(is_issued_by(certificate, issuer) for issuer in issuers):
            problems.append(f"issued by none of the roots in {file.parent / authority.ROOTS}")
        if _is_authority(certificate):
            yield _root(file, certificate, now, problems)
        else:
            key = file.with_suffix(KEY_SUFFIX) if number == 0 else None
            yield _leaf(file, certificate, now, [*problems, *_key_problems(certificate, key)])


def leaf_at(path: Path) -> tuple[Holder, x509.Certificate]:
    """Read the first certificate of a file, and whose it is. Raises ConfigError, CertificateRefused."""
    certificate = read_certificates(path)[0]
    try:
        return read_holder(certificate), certificate
    except CertificateRefused as error:
        raise CertificateRefused(f"{path}: {error}") from None


def _roots_beside(file: Path) -> tuple[Sequence[x509.Certificate], str]:
    """Give the roots in the directory of a file, and what is wrong with them."""
    path = file.parent / authority.ROOTS
    if file.name == authority.ROOTS or not path.exists():
        return (), ""
    try:
        return read_certificates(path), ""
    except ConfigError as error:
        return (), str(error)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _root(
    file: Path, certificate: x509.Certificate, now: datetime, problems: Sequence[str]
) -> Entry:
    trust = trust_of(certificate)
    who, found = f"root of {trust}" if trust else "root", list(problems)
    if file.name == authority.ROOTS and os.access(file.parent / authority.KEY, os.R_OK):
        try:
            who += f", {_part(authority.load(file.parent), certificate)}"
        except ConfigError as error:
            found.append(str(error))
    if now > certificate.not_valid_after_utc:
        found.append(f"expired at {call_date(certificate.not_valid_after_utc)}: replace it")
    elif now < certificate.not_valid_before_utc:
        found.append(f"not valid before {call_date(certificate.not_valid_before_utc)}")
    return Entry(file, certificate, who, f"spiffe://{trust}" if trust else None, found)


def _part(found: Authority, root: x509.Certificate) -> str:
    """Say what a root does in its authority."""
    if root == found.root.certificate:
        return "issues"
    return "old" if root in found.old else "next"


def _leaf(
    file: Path, certificate: x509.Certificate, now: datetime, problems: Sequence[str]
) -> Entry:
    try:
        holder = read_holder(certificate)
    except CertificateRefused as error:
        return Entry(file, certificate, "-", None, [*problems, str(error)])
    found, identity = list(problems), holder.identity
    if identity.role is Role.AGENT:
        missing = [name for name in own_names(identity) if name not in dns_names_of(certificate)]
        if missing:
            names = " and ".join(missing)
            found.append(
                f"others find an agent by DNS names that this lacks: issue it with {names}"
            )
    try:
        holder.check(now.timestamp())
    except CertificateRefused as error:
        found.append(str(error))
    who = f"{identity.label} of {identity.cluster}"
    return Entry(file, certificate, who, str(identity), found)


def _key_problems(certificate: x509.Certificate, key: Path | None) -> Iterator[str]:
    """Say what is wrong with the key beside a certificate; nothing where it is not for this account."""
    if key is None or not os.access(key, os.R_OK):
        return
    try:
        if not belong_together(certificate, key):
            yield f"{key} is the key of another certificate: renew it, which writes both"
    except ConfigError as error:
        yield str(error)


def lines_of(entries: Sequence[Entry], now: datetime) -> Iterator[str]:
    """Give a table, and below each row what is wrong."""
    heads, *rows = table(HEADS, [_cells(entry, now) for entry in entries])
    yield heads
    for row, entry in zip(rows, entries, strict=True):
        yield row
        for problem in entry.problems:
            yield f"    {escaped(problem)}"


def _cells(entry: Entry, now: datetime) -> Sequence[str]:
    certificate = entry.certificate
    if certificate is None:
        return (str(entry.file), entry.who, "-", "-", "-", "-")
    left = (certificate.not_valid_after_utc - now).total_seconds()
    return (
        str(entry.file),
        entry.who,
        _issuer(certificate),
        call_date(certificate.not_valid_before_utc),
        call_date(certificate.not_valid_after_utc),
        duration(left) if left > 0 else "expired",
    )


def _issuer(certificate: x509.Certificate) -> str:
    names = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.issuer.rfc4514_string()


def _json(entry: Entry, now: datetime) -> Json:
    certificate = entry.certificate
    begin = certificate and certificate.not_valid_before_utc
    end = certificate and certificate.not_valid_after_utc
    return {
        "file": str(entry.file),
        "who": entry.uri,
        "issuer": certificate and _issuer(certificate),
        "not_before": begin and f"{begin:%Y-%m-%dT%H:%M:%SZ}",
        "not_after": end and f"{end:%Y-%m-%dT%H:%M:%SZ}",
        "left_s": end and int((end - now).total_seconds()),
        "dns": list(dns_names_of(certificate)) if certificate else [],
        "problems": list(entry.problems),
    }


def call_date(at: datetime) -> str:
    """Write a moment as people read it."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
