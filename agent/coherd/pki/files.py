"""Files of keys and certificates (floor 2): read whole or refused, replaced whole or not at all.

A key is never readable by others, not for a moment. Errors are a `ConfigError` with the file and the remedy.
"""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from coherd.errors import ConfigError, FileRefused
from coherd.pem import MALFORMED, check_mode, read_small

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from coherd.pki import Pair

DIRECTORY_MODE = 0o700
KEY_MODE = 0o600
CERTIFICATE_MODE = 0o644
OTHERS_WRITE = 0o022
SUFFIX = ".pem"
"""Of certificates; the key has the same name with the next one."""
KEY_SUFFIX = ".key"


def make_directory(path: Path) -> None:
    """Make a directory that is for its owner alone, where it is missing; refuse one that others may write."""
    with _told(path, "name a directory that this account may write"):
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        mode = path.stat().st_mode
    if mode & OTHERS_WRITE:
        raise ConfigError(f"{path} may be written by others: `chmod 0700 {path}`")


def read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Read the certificates of a file, at least one. Raises ConfigError."""
    try:
        found = tuple(x509.load_pem_x509_certificates(read(path)))
    except MALFORMED as error:
        raise ConfigError(f"{path}: no certificates in PEM: {error}") from None
    try:
        for certificate in found:  # these are parsed when they are asked for
            _ = certificate.subject, certificate.issuer, certificate.extensions
            certificate.public_key()
    except MALFORMED as error:
        raise ConfigError(f"{path}: a malformed certificate: {error}") from None
    return found


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the key of an authority. Raises ConfigError."""
    key = _read_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path}: only a key of an elliptic curve can issue here")
    return key


def _read_key(path: Path) -> PrivateKeyTypes:
    data = read(path)
    try:
        check_mode(path)
    except FileRefused as error:
        raise ConfigError(str(error)) from None
    try:
        return load_pem_private_key(data, password=None)
    except (*MALFORMED, TypeError) as error:
        raise ConfigError(f"{path}: no private key without a password: {error}") from None


def read(path: Path) -> bytes:
    """Read a regular file of a sensible size. Raises ConfigError."""
    try:
        return read_small(path)
    except FileRefused as error:
        raise ConfigError(f"{error}: name a file that this account may read") from None


def write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file, or make it."""
    _replace({path: (data, mode)})


def write_pair(path: Path, pair: Pair) -> None:
    """Replace a certificate and its key, or make them.

    The two are renamed one right after the other when both are on the disk. Whoever reads in between finds
    that they do not match, and looks again. A machine that stops in between leaves two that do not match:
    those are renewed whatever their age (`authority.is_due`).
    """
    _replace(
        {
            path.with_suffix(KEY_SUFFIX): (pair.key_pem, KEY_MODE),
            path: (pair.pem, CERTIFICATE_MODE),
        }
    )


def belong_together(certificate: x509.Certificate, path: Path) -> bool:
    """Tell whether the file at `path` is the key of a certificate. Raises ConfigError when it is no key."""
    return public(_read_key(path)) == public(certificate)


def public(of: x509.Certificate | PrivateKeyTypes) -> bytes:
    """Give the public key, to be compared."""
    return of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def rename(old: Path, new: Path) -> None:
    """Let a file take the place of another."""
    with _told(new, "make the directory writable for this account"):
        old.replace(new)
        _sync(new.parent)


def _replace(files: dict[Path, tuple[bytes, int]]) -> None:
    """Write all files beside where they belong, then rename them; they are in one directory."""
    beside = {path: path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}") for path in files}
    try:
        for path, (data, mode) in files.items():
            with _told(path, "make room, and the directory writable for this account"):
                _write_new(beside[path], data, mode, path)
        for path, temporary in beside.items():
            with _told(path, "make the directory writable for this account"):
                temporary.replace(path)
        with _told(path, "look after the disk"):
            _sync(path.parent)
    finally:
        for temporary in beside.values():
            temporary.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes, mode: int, old: Path) -> None:
    """Write a file that is not there yet, for whoever owns the one that it replaces."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask is
        if old.exists() and (found := old.stat()).st_uid != os.geteuid():
            os.fchown(descriptor, found.st_uid, found.st_gid)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{path}: {reason}: {remedy}") from None
