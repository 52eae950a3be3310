"""The unix socket of the local API: who may open it, and what is done about one that is there already."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from coherd.errors import StartRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SOCKET_MODE = 0o660
DIRECTORY_MODE = 0o750


class Owner(NamedTuple):
    """Account and group by their numbers; -1: as they are."""

    uid: int = -1
    gid: int = -1

    @classmethod
    def parse(cls, text: str) -> Owner:
        """Find USER, USER:GROUP or :GROUP. Raises StartRefused."""
        user, _, group = text.partition(":")
        try:
            return cls(_number(user, pwd.getpwnam), _number(group, grp.getgrnam))
        except KeyError as error:
            raise StartRefused(f"local_owner: {error.args[0]}: create it, or correct it") from None

    def take(self, path: Path) -> None:
        """Give a file to them, and never what a link in its place leads to. Raises StartRefused.

        The directory may be theirs already, and they may put there what they like at any time.
        """
        try:
            os.chown(path, *self, follow_symlinks=False)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise StartRefused(
                f"{path} can't be given to local_owner ({reason}): the agent's account has to be a member "
                "of the group, or be root"
            ) from None


def _number(name: str, find: Callable[[str], Sequence[Any]]) -> int:
    """Give the number of an account or group, the third of what is known of it; -1 without a name."""
    if not name:
        return -1
    return int(name) if name.isdecimal() else int(find(name)[2])


def make_room(path: Path, owner: Owner) -> None:
    """Make the socket's directory, which is given to `owner`, and remove a socket that nobody answers.

    Raises StartRefused when another agent answers there, or when what is there is no socket.
    """
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            owner.take(path.parent)
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
