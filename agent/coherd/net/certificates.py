"""Certificates: which files an agent may use, and who holds the certificate that somebody shows.

The chain, the key and the roots are checked by TLS itself. What is checked here is what TLS does not know of:
exactly one URI that is an identity (SPIFFE X.509-SVID, sections 2 and 5.2), a leaf that is no authority, and,
call by call, that it is not out of date: TLS looks at that only while a connection is made.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from coherd.errors import CertificateRefused, FileRefused, StartRefused
from coherd.identity import SHAPE, Identity
from coherd.pem import MALFORMED, check_mode, check_owner, read_small

if TYPE_CHECKING:
    from pathlib import Path

    from coherd.config import TlsConfig


class Holder(NamedTuple):
    """Who holds a certificate, and for how long."""

    identity: Identity
    not_before: float
    not_after: float
    """Seconds since 1970."""

    def check(self, now: float) -> None:
        """Refuse a certificate that is not valid `now`, in seconds since 1970."""
        if now > self.not_after:
            raise CertificateRefused(
                f"the certificate of {self.identity} expired at {_shown(self.not_after)}: renew it"
            )
        if now < self.not_before:
            raise CertificateRefused(
                f"the certificate of {self.identity} is not valid before {_shown(self.not_before)}: "
                "are the clocks right?"
            )


class Bundle(NamedTuple):
    """What TLS needs of one side, as PEM, and who it makes of it."""

    roots: bytes
    chain: bytes
    key: bytes
    holder: Holder


def read_holder(certificate: x509.Certificate) -> Holder:
    """Find out who holds a certificate. Raises CertificateRefused."""
    try:
        subject = certificate.subject.rfc4514_string()[:80]
    except MALFORMED as error:
        raise CertificateRefused(f"the certificate's subject is malformed: {error}") from None
    try:
        is_authority, uris = _is_authority(certificate), _uris(certificate)
    except MALFORMED as error:
        raise CertificateRefused(f"the certificate of {subject!r} is malformed: {error}") from None
    if is_authority:
        raise CertificateRefused(
            f"the certificate of {subject!r} is that of an authority, which speaks for itself nowhere: "
            "issue one for the agent, client or operator with it"
        )
    if len(uris) != 1:
        found = "no URI" if not uris else f"{len(uris)} URIs"
        hint = "; its common name counts for nothing" if not uris else ""
        raise CertificateRefused(
            f"the certificate of {subject!r} has {found} among its alternative names{hint}: "
            f"exactly one is due, {SHAPE}"
        )
    try:
        identity = Identity.parse(uris[0])
    except ValueError as error:
        raise CertificateRefused(f"the certificate's URI: {error}") from None
    return Holder(
        identity,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return basic.value.ca


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


@lru_cache(maxsize=1024)
def holder_of(pem: bytes) -> Holder:
    """Find out who holds the certificate that a peer has shown. Raises CertificateRefused."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except MALFORMED as error:
        raise CertificateRefused(f"what was shown is no certificate: {error}") from None
    return read_holder(certificate)


def load_bundle(tls: TlsConfig, now: float) -> Bundle:
    """Read the files of `[tls]`. Raises StartRefused with the file and the remedy."""
    roots, chain = read_file(tls.ca, "tls.ca"), read_file(tls.cert, "tls.cert")
    check_private(tls.key)
    key = read_file(tls.key, "tls.key")
    _certificates(roots, tls.ca)
    leaf = _certificates(chain, tls.cert)[0]
    if _public_of(key, tls.key) != _certified(leaf, tls.cert):
        raise StartRefused(
            f"{tls.key} is not the key of {tls.cert}: `coherd pki issue` writes both at once"
        )
    try:
        holder = read_holder(leaf)
        holder.check(now)
    except CertificateRefused as error:
        raise StartRefused(f"{tls.cert}: {error}") from None
    return Bundle(roots, chain, key, holder)


def _public_of(pem: bytes, path: Path) -> bytes:
    try:
        return _public(load_pem_private_key(pem, password=None).public_key())
    except UnsupportedAlgorithm as error:
        raise StartRefused(f"{path}: a key of a kind that can't be used: {error}") from None
    except (ValueError, TypeError) as error:
        raise StartRefused(f"{path}: no private key without a password: {error}") from None


def _certified(leaf: x509.Certificate, path: Path) -> bytes:
    try:
        return _public(leaf.public_key())
    except MALFORMED as error:
        raise StartRefused(f"{path}: its key is of a kind that can't be used: {error}") from None


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except MALFORMED as error:
        raise StartRefused(f"{path}: no certificates in PEM: {error}") from None


def read_file(path: Path, setting: str) -> bytes:
    """Read a small file that a setting names. Raises StartRefused."""
    try:
        return read_small(path)
    except FileRefused as error:
        raise StartRefused(f"{error}: correct {setting}") from None


def check_private(path: Path) -> None:
    """Refuse a secret that others can read or change. Raises StartRefused."""
    try:
        check_mode(path)
        check_owner(path)
    except FileRefused as error:
        raise StartRefused(str(error)) from None


def _shown(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
