"""The unix socket of the local API: who may open it, and what is done about one that is there already."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coherd.errors import StartRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET_MODE = 0o660
DIRECTORY_MODE = 0o750


def make_room(path: Path) -> None:
    """Make the socket's directory and remove a socket that nobody answers.

    Raises StartRefused when another agent answers there, or when what is there is no socket.
    """
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartRefused(f"{path} can't be used ({error.strerror}): set `local`") from None
    if not stat.S_ISSOCK(found.st_mode):
        raise StartRefused(f"{path} is there and is no socket: remove it, or set `local`")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink()
        else:
            raise StartRefused(f"another agent answers at {path}: stop it, or set `local`")


@contextmanager
def private_mode() -> Iterator[None]:
    """Have sockets that are made inside belong to owner and group only, from their first moment."""
    before = os.umask(0o777 & ~SOCKET_MODE)
    try:
        yield
    finally:
        os.umask(before)
