"""Disks that are full, read-only or slow, and boots that never were: what only root can make."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from integration.agents import AgentProcess
from integration.polling import poll
from servers import require

BOOT_ID = "/proc/sys/kernel/random/boot_id"
EXT4_OPTIONS = "loop,errors=remount-ro"


def as_root(*command: str) -> str:
    """Run what only root may and give its output; skip the test where even root may not."""
    if os.geteuid():
        pytest.skip(f"only root may run {command[0]}")
    require(command[0])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and ("permission denied" in done.stderr or "permitted" in done.stderr):
        pytest.skip(f"{command[0]} is not allowed here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def mounted(where: Path, *arguments: str) -> Iterator[Path]:
    """Mount something for a while."""
    where.mkdir()
    as_root("mount", *arguments, str(where))
    try:
        yield where
    finally:
        as_root("umount", "--lazy", str(where))


@contextmanager
def small_disk(where: Path, size_bytes: int) -> Iterator[Path]:
    """Give a folder on a disk of its own, in memory."""
    with mounted(where, "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs") as folder:
        yield folder


class FailingDisk:
    """An ext4 file system that becomes read-only when the kernel finds an error in it."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self._image = image

    def fail(self) -> None:
        """Have the kernel find an error."""
        loop = Path(as_root("losetup", "--associated", str(self._image)).partition(":")[0])
        Path(f"/sys/fs/ext4/{loop.name}/trigger_fs_error").write_text("1")

    def mount_again(self) -> None:
        """Have it as it is after its machine was started again; nobody may be using it."""
        as_root("umount", str(self.folder))
        as_root("mount", "-o", EXT4_OPTIONS, str(self._image), str(self.folder))


@contextmanager
def failing_disk(where: Path) -> Iterator[FailingDisk]:
    """Give a disk of a few megabytes that can be made to fail."""
    if not Path("/dev/loop-control").exists():
        pytest.skip("no file can be mounted here: there are no loop devices")
    image = where.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(16 << 20)
    as_root("mkfs.ext4", "-q", str(image))
    with mounted(where, "-o", EXT4_OPTIONS, str(image)) as folder:
        yield FailingDisk(folder, image)


def boot_again(agent: AgentProcess, boot_id: str) -> None:
    """Let the agent's next starts be under another boot of the machine."""
    as_root("unshare", "--mount", "true")
    file = agent.folder / "boot_id"
    file.write_text(f"{boot_id}\n")
    script = f'mount --bind "$0" {BOOT_ID} && exec "$@"'
    agent.wrapper = ["unshare", "--mount", "sh", "-c", script, str(file)]


# -------------------------------------------------------------------- system calls that fail


def journal_thread(agent: AgentProcess) -> int:
    """Find the thread that writes the journal: the one that writes most when a row is stored."""
    before = _written(agent)
    agent.invalidate(keys=[b"who writes?"])
    after = _written(agent)
    return max(after, key=lambda thread: after[thread] - before.get(thread, 0))


def _written(agent: AgentProcess) -> dict[int, int]:
    """Give the bytes that each thread has written."""
    assert agent.process is not None
    found = {}
    for io in Path(f"/proc/{agent.process.pid}/task").glob("*/io"):
        fields = dict(line.split(": ") for line in io.read_text().splitlines())
        found[int(io.parent.name)] = int(fields["wchar"])
    return found


@contextmanager
def injected(agent: AgentProcess, *faults: str, threads: Sequence[int] = ()) -> Iterator[Path]:
    """Have system calls of an agent fail, as strace's `inject` says; of some threads, or of all.

    Gives the file in which those calls are listed.
    """
    require("strace")
    assert agent.process is not None
    listed, said = agent.folder / "calls", agent.folder / "strace"
    calls = ",".join(fault.partition(":")[0] for fault in faults)
    targets = [f"--attach={t}" for t in threads] or ["-f", f"--attach={agent.process.pid}"]
    command = ["strace", *targets, "-o", str(listed), f"--trace={calls}"]
    with said.open("wb") as errors:
        tracer = subprocess.Popen(
            [*command, *(f"--inject={fault}" for fault in faults)], stderr=errors
        )
    try:
        poll(lambda: "attached" in said.read_text() or tracer.poll() is not None, "strace")
        if "not permitted" in said.read_text():
            pytest.skip(f"strace is not allowed here: {said.read_text()}")
        assert tracer.poll() is None, said.read_text()
        yield listed
    finally:
        tracer.terminate()
        tracer.wait(30)
