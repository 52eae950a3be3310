"""The directory of a small authority (floor 2): its roots, what it has issued, and how a root is replaced.

``ca.pem`` has the roots that are believed: this file is for every host. ``ca.key`` is the key of the root
that issues, ``ca-next.key`` that of the one that will. ``issued/`` remembers what was issued and not renewed
since, wherever it was written to, so that no root is dropped on which a certificate depends.

A root is replaced in three steps, and nobody is refused in between: the next one is believed beside the old
one, then it issues, then the old one is believed no more.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from coherd.errors import CertificateRefused, ConfigError, InvalidRequest
from coherd.pki import (
    LEAF_LIFETIME,
    ROOT_LIFETIME,
    Pair,
    hosts_of,
    is_issued_by,
    issue,
    lifetime_of,
    make_root,
    trust_of,
    uris_of,
)
from coherd.pki.files import (
    CERTIFICATE_MODE,
    KEY_MODE,
    KEY_SUFFIX,
    SUFFIX,
    belong_together,
    make_directory,
    public,
    read_certificates,
    read_key,
    rename,
    write,
    write_pair,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime, timedelta

    from cryptography import x509

    from coherd.identity import Identity

ROOTS = "ca.pem"
KEY = "ca.key"
NEXT_KEY = "ca-next.key"
ISSUED = "issued"
NAMED_MAX = 10
"""Of those who depend on a root; the others are counted."""


@dataclass(frozen=True, slots=True)
class Authority:
    """What is in the directory."""

    directory: Path
    roots: tuple[x509.Certificate, ...]
    """Those that are believed, the older first."""
    root: Pair
    """The one that issues."""
    next: Pair | None
    """The one that will."""

    @property
    def trust(self) -> str:
        """Its domain."""
        return trust_of(self.root.certificate)

    @property
    def old(self) -> Sequence[x509.Certificate]:
        """The roots that are still believed and issue no more."""
        keep = [pair.certificate for pair in (self.root, self.next) if pair is not None]
        return [root for root in self.roots if root not in keep]

    def issue(
        self,
        identity: Identity,
        path: Path,
        now: datetime,
        lifetime: timedelta = LEAF_LIFETIME,
        hosts: Iterable[str] = (),
    ) -> x509.Certificate:
        """Issue a certificate to somebody, who has none at `path`. Raises CoherdError."""
        pair = issue(self.root, identity, now, lifetime, hosts)
        for taken in (path, path.with_suffix(KEY_SUFFIX)):
            if os.path.lexists(taken):
                raise InvalidRequest(
                    f"{taken} is there already: `coherd pki renew` replaces a certificate and its key, "
                    "--out DIRECTORY writes elsewhere"
                )
        make_directory(path.parent)
        if not self.bring_roots(path.parent, make=True):
            raise InvalidRequest(
                f"{path.parent / ROOTS} has roots of another authority: --out DIRECTORY writes elsewhere"
            )
        self._remember(pair)
        write_pair(path, pair)
        return pair.certificate

    def renew(
        self, identity: Identity, path: Path, now: datetime, lifetime: timedelta | None = None
    ) -> x509.Certificate:
        """Issue anew what is at `path`, to `identity`, whose it is. Raises CoherdError.

        It lives as long as before, unless that is said.
        """
        path = Path(os.path.realpath(path))
        before = read_certificates(path)[0]
        root = self.issuer_of(before)
        if root is None:
            raise CertificateRefused(
                f"{path} was issued by none of the roots in {self.directory / ROOTS}: issue it anew, "
                "`coherd pki issue`"
            )
        lifetime = lifetime or lifetime_of(before, root) or LEAF_LIFETIME
        pair = issue(self.root, identity, now, lifetime, hosts_of(before, identity))
        self.bring_roots(path.parent)  # first: whoever is shown the new certificate believes it
        self._remember(pair)
        write_pair(path, pair)
        self._issued(before).unlink(missing_ok=True)
        return pair.certificate

    def bring_roots(self, directory: Path, *, make: bool = False) -> bool:
        """Have the roots beside what was issued; False where only those of another authority are.

        Roots of other domains, which somebody has added to ours, stay.
        """
        path = directory / ROOTS
        if directory.samefile(self.directory) or not (make or path.exists()):
            return True
        found = read_certificates(path) if path.exists() else ()
        if found and not set(found) & set(self.roots):
            return False
        due = (*self.roots, *(root for root in found if trust_of(root) != self.trust))
        if found != due:
            _write_roots(directory, due)
        return True

    def issuer_of(self, certificate: x509.Certificate) -> x509.Certificate | None:
        """Give the root that has signed a certificate; None when none has."""
        return next((root for root in self.roots if is_issued_by(certificate, root)), None)

    def add_next(self, now: datetime, lifetime: timedelta = ROOT_LIFETIME) -> None:
        """Believe a second root, which issues nothing yet. Raises CoherdError."""
        if self.next is not None:
            raise InvalidRequest(
                f"{self.directory / ROOTS} has the next root already: go on with --switch when every host "
                "has that file"
            )
        if self.old:
            raise InvalidRequest(
                f"{self.directory / ROOTS} still has an old root: drop it first, with --retire"
            )
        pair = make_root(self.trust, now, lifetime)
        write(self.directory / NEXT_KEY, pair.key_pem, KEY_MODE)
        _write_roots(self.directory, [*self.roots, pair.certificate])

    def switch(self) -> None:
        """Let the next root issue from now on; the key of the old one is gone. Raises CoherdError."""
        if self.next is None:
            raise InvalidRequest(f"{self.directory} has no next root: --next makes one")
        rename(self.directory / NEXT_KEY, self.directory / KEY)

    def retire(self, now: datetime) -> None:
        """Believe the old root no more, once nothing depends on it. Raises CoherdError."""
        if self.next is not None:
            raise InvalidRequest("the next root issues nothing yet: --switch comes before --retire")
        if not self.old:
            raise InvalidRequest(f"{self.directory} has no old root: there is nothing to retire")
        if needed := list(self._depending_on(self.old, now)):
            last = max(certificate.not_valid_after_utc for certificate in needed)
            who = list(dict.fromkeys(map(_called, needed)))
            more = f" and {len(who) - NAMED_MAX} more" if len(who) > NAMED_MAX else ""
            raise CertificateRefused(
                f"the old root is needed by {', '.join(who[:NAMED_MAX])}{more}: renew them "
                f"(`coherd pki renew`), or wait until they have expired, at {last:%Y-%m-%d %H:%M:%S} UTC"
            )
        _write_roots(self.directory, [self.root.certificate])
        for path in pem_files(self.directory / ISSUED):
            if read_certificates(path)[0].not_valid_after_utc < now:
                path.unlink(missing_ok=True)

    def _depending_on(
        self, roots: Iterable[x509.Certificate], now: datetime
    ) -> Iterator[x509.Certificate]:
        """Give those that are valid and that one of `roots` has issued."""
        for path in (*pem_files(self.directory), *pem_files(self.directory / ISSUED)):
            certificate = read_certificates(path)[0]
            is_over = certificate.not_valid_after_utc < now
            if not is_over and any(is_issued_by(certificate, root) for root in roots):
                yield certificate

    def _remember(self, pair: Pair) -> None:
        make_directory(self.directory / ISSUED)
        write(self._issued(pair.certificate), pair.pem, CERTIFICATE_MODE)

    def _issued(self, certificate: x509.Certificate) -> Path:
        return self.directory / ISSUED / f"{certificate.serial_number:x}{SUFFIX}"


def create(directory: Path, trust: str, now: datetime, lifetime: timedelta = ROOT_LIFETIME) -> None:
    """Make an authority where there is none. Raises CoherdError."""
    root = make_root(trust, now, lifetime)
    make_directory(directory)
    with held(directory):
        for name in (ROOTS, KEY):
            if os.path.lexists(directory / name):
                raise InvalidRequest(
                    f"{directory / name} is there already, and is not overwritten: name another directory, "
                    "or replace the root step by step, --next first"
                )
        write(directory / KEY, root.key_pem, KEY_MODE)
        _write_roots(directory, [root.certificate])


def load(directory: Path) -> Authority:
    """Read an authority. Raises ConfigError."""
    if not (directory / ROOTS).exists():
        raise ConfigError(
            f"{directory} is no authority, it has no {ROOTS}: `coherd pki init {directory} --trust DOMAIN` "
            "makes one"
        )
    roots = read_certificates(directory / ROOTS)
    root = _with_key(roots, directory / KEY)
    if root is None:
        raise ConfigError(
            f"{directory / KEY} is the key of no root in {directory / ROOTS}: restore the two from one backup"
        )
    if not trust_of(root.certificate):
        raise ConfigError(
            f"{directory / ROOTS} names no trust domain: `coherd pki init` makes one that does"
        )
    upcoming = directory / NEXT_KEY
    # A key without its root is what a machine leaves that stopped while it was made: as if it were not there.
    return Authority(
        directory, roots, root, _with_key(roots, upcoming) if upcoming.exists() else None
    )


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Wait until nobody else changes the authority, and let nobody do so meanwhile."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise ConfigError(
            f"{directory}: {reason}: name the directory of an authority; "
            f"`coherd pki init {directory} --trust DOMAIN` makes one"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_due(path: Path, now: datetime, within: timedelta) -> bool:
    """Tell whether a certificate ends `within` some time, or does not belong to the key beside it.

    The latter is what a machine leaves that stopped while the two were replaced.
    """
    certificate, key = read_certificates(path)[0], path.with_suffix(KEY_SUFFIX)
    if certificate.not_valid_after_utc - now <= within:
        return True
    return key.exists() and not belong_together(certificate, key)


def pem_files(directory: Path) -> list[Path]:
    """Give the files of certificates in a directory that are not those of roots."""
    return [path for path in sorted(directory.glob(f"*{SUFFIX}")) if path.name != ROOTS]


def file_name(identity: Identity) -> str:
    """Say in which file somebody's certificate is: agents and clients may have one name."""
    return f"{identity.role}-{identity.name}{SUFFIX}"


def _with_key(roots: Iterable[x509.Certificate], path: Path) -> Pair | None:
    key = read_key(path)
    return next((Pair(root, key) for root in roots if public(root) == public(key)), None)


def _write_roots(directory: Path, roots: Iterable[x509.Certificate]) -> None:
    pem = b"".join(root.public_bytes(Encoding.PEM) for root in roots)
    write(directory / ROOTS, pem, CERTIFICATE_MODE)


def _called(certificate: x509.Certificate) -> str:
    """Say whose certificate it is: prod/agent/cache-1."""
    names = uris_of(certificate)
    return (
        names[0].partition("/cluster/")[2] if names else certificate.subject.rfc4514_string()[:80]
    )
