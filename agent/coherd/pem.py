"""Small files of certificates, keys and secrets (floor 2): read whole, or refused in words."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from coherd.errors import FileRefused

if TYPE_CHECKING:
    from pathlib import Path

FILE_BYTES_MAX = 1024 * 1024
"""Of one file: a chain of certificates has some thousands."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO
MALFORMED = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What is raised by certificates that are none, or of no known kind; most of it only when a part is read."""


def read_small(path: Path) -> bytes:
    """Read a regular file: a FIFO would never end, and a directory says nothing. Raises FileRefused."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileRefused(f"{path} is no file")
        data = os.read(descriptor, FILE_BYTES_MAX + 1)
    except OSError as error:  # a disk that fails
        raise _unreadable(path, error) from None
    finally:
        os.close(descriptor)
    if not data.strip():
        raise FileRefused(f"{path} is empty")
    if len(data) > FILE_BYTES_MAX:
        raise FileRefused(f"{path} has more than {FILE_BYTES_MAX} bytes")
    return data


def _unreadable(path: Path, error: OSError) -> FileRefused:
    return FileRefused(f"{path} can't be read ({(error.strerror or '').lower()})")


def check_mode(path: Path) -> None:
    """Refuse a secret that others can read, with the remedy. Raises FileRefused."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # reading it says why
    if stat.S_ISREG(mode) and mode & OTHERS:
        raise FileRefused(
            f"{path} may be read by others (mode {stat.S_IMODE(mode):04o}): "
            f"`chmod 0600 {path}`, and replace it if others were there"
        )


def check_owner(path: Path) -> None:
    """Refuse a secret of another account, which could change it, with the remedy. Raises FileRefused."""
    try:
        owner = path.stat().st_uid
    except OSError:
        return  # reading it says why
    if owner not in {0, os.geteuid()}:
        raise FileRefused(f"{path} belongs to another account: `chown` it to the agent's")
