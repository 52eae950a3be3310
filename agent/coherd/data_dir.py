"""The agent's data directory: made private, and held by one agent at a time."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coherd.errors import StartRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_NAME = "lock"
JOURNAL_NAME = "journal.db"
AUDIT_NAME = "audit.jsonl"


@contextmanager
def locked(path: Path, owner: str) -> Iterator[None]:
    """Hold the directory; make it where it is missing.

    Raises StartRefused when another agent holds it, naming that one, or when it can't be used.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartRefused(
            f"the data directory {path} can't be used ({error.strerror}): set `data_dir` to one "
            "that this user may write"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise StartRefused(
                f"the data directory {path} is in use by {holder or 'another agent'}: "
                "each agent needs a `data_dir` of its own"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"agent {owner}, pid {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)
