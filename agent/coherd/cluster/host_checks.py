"""What `coherd doctor` finds in the files of this host: the data directory, its disk, the local sockets.

Everything here blocks: it runs in a thread.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from coherd.cluster.findings import Finding, broken, fine, warning
from coherd.config import UnixSocket
from coherd.data_dir import LOCK_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from coherd.config import Address, AgentConfig

FREE_BYTES_MIN = 1024**3
FREE_SHARE_MIN = 0.1
"""Less room than this is a warning: the journal closes on a full disk."""
FSYNC_SLOW = 0.1
"""Seconds from which an fsync is a warning: `durability = "disk"` waits for one in every answer."""
FSYNC_BYTES = 4096


def check_host(config: AgentConfig) -> list[Finding]:
    """Look at everything on this host that belongs to an agent."""
    return [
        *check_directory(config.data_dir),
        *check_disk(config.data_dir),
        *check_sockets(config.local),
    ]


def check_directory(path: Path) -> Iterator[Finding]:
    """Look at who may read the data directory and the files in it."""
    try:
        open_to_others = [
            str(found)
            for found in [path, *sorted(path.iterdir())]
            if stat.S_IMODE(found.stat().st_mode) & 0o077
        ]
    except OSError as error:
        yield _unusable(path, error)
        return
    for name in open_to_others:
        yield warning(
            "disk",
            name,
            "others than its owner may use it; who may read it knows every key",
            f"chmod go= {name}",
        )
    if not open_to_others:
        yield fine("disk", str(path), "only its owner may read it")


def check_disk(path: Path) -> Iterator[Finding]:
    """Look at how much room there is where the journal lies, and how long the disk takes."""
    name = str(path)
    try:
        usage = shutil.disk_usage(path)
        seconds = _fsync_seconds(path)
    except OSError as error:
        yield _unusable(path, error)
        return
    share = usage.free / usage.total if usage.total else 0.0
    room = f"{usage.free / 1024**3:,.1f} GiB free ({share:.0%})"
    if usage.free < FREE_BYTES_MIN or share < FREE_SHARE_MIN:
        yield warning("disk", name, room, "make room: the journal closes when the disk is full")
    else:
        yield fine("disk", name, room)
    took = f"an fsync takes {seconds * 1000:,.1f} ms"
    if seconds > FSYNC_SLOW:
        yield warning(
            "disk", name, took, "set `data_dir` to a faster disk, or find what keeps it busy"
        )
    else:
        yield fine("disk", name, took)


def check_sockets(addresses: Iterable[Address | UnixSocket]) -> Iterator[Finding]:
    """Look at who may use the addresses where applications find the agent."""
    for address in addresses:
        if isinstance(address, UnixSocket):
            yield _check_socket(Path(address.path))
        else:
            yield fine("socket", str(address), "every account of this host may use it")


def _check_socket(path: Path) -> Finding:
    name = str(path)
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return broken("socket", name, f"it can't be reached: {reason}", "restart the agent")
    if not stat.S_ISSOCK(mode):
        return broken("socket", name, "it is no socket any more", "remove it and restart the agent")
    rights = f"rights {stat.S_IMODE(mode):04o}"
    if mode & 0o007:
        text = f"{rights}: every account of this host may use it"
        return warning("socket", name, text, f"chmod o= {name}")
    return fine("socket", name, f"{rights}: its owner and its group may use it")


def holder_of(path: Path) -> str:
    """Say which agent holds the data directory; empty when none does, or it can't be seen."""
    try:
        lock = path / LOCK_NAME
        inode = lock.stat().st_ino
        locks = Path("/proc/locks").read_text().splitlines()
        held = any("FLOCK" in line and f":{inode} " in line for line in locks)
        return lock.read_text(errors="replace").strip()[:200] if held else ""
    except OSError:
        return ""


def _fsync_seconds(path: Path) -> float:
    with tempfile.TemporaryFile(dir=path) as file:
        file.write(bytes(FSYNC_BYTES))
        file.flush()
        start = time.perf_counter()
        os.fsync(file.fileno())
        return time.perf_counter() - start


def _unusable(path: Path, error: OSError) -> Finding:
    text = f"it can't be used: {(error.strerror or str(error)).lower()}"
    return broken(
        "disk", str(path), text, "set `data_dir` to one that the agent's account may write"
    )
