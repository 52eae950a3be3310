"""Disks that fail under a real agent: full, read-only, an fsync or a write that fails, one that stalls.

The agent with the bad disk says so and takes no rows; those of its peer still reach both caches. Once the
disk is good again it catches up, and nothing is reset.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from integration.agents import wait_until_whole
from integration.disks import (
    as_root,
    failing_disk,
    injected,
    journal_thread,
    small_disk,
)
from integration.hosts import KEPT, Host, hosts, keys, settle
from integration.polling import poll
from servers import free_port

from coherd.v1 import cache_service_pb2 as cache

Two = tuple[Host, Host]
MEGABYTE = 1 << 20
BIG = 900
"""Bytes of a key of which a few thousand fill a disk."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Two hosts; only the agent of the first is started."""
    with hosts(tmp_path_factory.mktemp("disks"), "a", "b") as (one, two):
        one.agent.start()
        two.agent.http = f"127.0.0.1:{free_port()}"
        yield one, two


@pytest.fixture
def pair(both: Two, tmp_path: Path) -> Iterator[Two]:
    """Two hosts of which the second has no disk yet, and is to be started."""
    _, two = both
    two.set()
    two.agent.data = tmp_path / "data"
    yield both
    two.agent.kill()
    two.cache.flushall()


def invalidate_until_refused(host: Host, big: list[bytes]) -> str:
    """Invalidate some at a time until the disk refuses; give what was said to that call."""
    refused = None
    parts = (big[at : at + 100] for at in range(0, len(big), 100))
    while refused is None:
        refused = refusal(host, next(parts))
    assert refused.code() is grpc.StatusCode.UNAVAILABLE
    return str(refused.details())


def refusal(host: Host, rows: list[bytes]) -> grpc.RpcError | None:
    """Invalidate, and give the error if there is one."""
    try:
        host.agent.invalidate(keys=rows)
    except grpc.RpcError as error:
        return error
    return None


def big_keys(case: str, count: int) -> list[bytes]:
    return [key.ljust(BIG, b".") for key in keys(case, 0, count)]


def check_goes_on_without_a_journal(one: Host, two: Host, case: str, reason: str) -> None:
    """The second says what is wrong and takes no rows; those of the first reach both caches."""
    assert re.search(f'"error": ".*({reason}).*"event": "journal closed"', two.agent.log)
    status = two.agent.status()
    assert not status.ready
    assert re.search(f"the journal is closed: .*({reason})", " ".join(status.reasons))
    assert re.search(reason, status.journal.error)
    code, body = two.agent.get("/readyz")
    assert code == 503
    assert "the journal is closed" in body
    both = [one, two]
    for host in both:
        host.fill(keys(case, 0, 50))
    refused = refusal(two, keys(case, 0, 50))
    assert refused is not None
    assert refused.code() is grpc.StatusCode.UNAVAILABLE
    assert "the journal is closed" in str(refused.details())
    assert [len(host.left(keys(case, 0, 50))) for host in both] == [50, 50], "nothing changed"
    receipt = one.agent.invalidate(keys=keys(case, 0, 50), wait=cache.WAIT_REGION)
    assert list(receipt.applied) == ["a", "b"]
    assert [host.left(keys(case, 0, 50)) for host in both] == [set(), set()]


def check_catches_up(one: Host, two: Host, gone: list[bytes]) -> None:
    """Started on a good disk, the second has everything again, and nothing is reset anywhere."""
    two.agent.start()
    settle([one, two], gone)
    assert not two.damages
    for host in (one, two):
        assert host.resets == {}
        assert host.left([KEPT]) == {KEPT}
    dots = one.agent.invalidate(keys=[b"afterwards"], wait=cache.WAIT_REGION)
    assert list(dots.applied) == ["a", "b"]


def test_a_disk_that_is_full(pair: Two, tmp_path: Path) -> None:
    one, two = pair
    with small_disk(tmp_path / "disk", 1 * MEGABYTE) as disk:
        two.agent.data = disk / "data"
        two.agent.start()
        settle(pair, [])
        big = big_keys("full", 3000)
        for host in pair:
            host.fill(big)
        said = invalidate_until_refused(two, big)
        assert re.match("not durable, may have been applied: .*full", said)
        check_goes_on_without_a_journal(one, two, "on", "full")
        two.agent.kill()
        (disk / "more").write_bytes(bytes(free_bytes(disk)))
        said = two.agent.refused()
        assert str(disk) in said
        assert "look at its permissions and its disk" in said
        one.invalidate(keys("away", 0, 20))
        as_root("mount", "-o", "remount,size=64m", str(disk))
        sent = set(big) - one.left(big)
        assert 0 < len(sent) < len(big)
        check_catches_up(one, two, [*sent, *keys("on", 0, 50)])


def free_bytes(folder: Path) -> int:
    done = as_root("stat", "--file-system", "--format=%a %S", str(folder))
    blocks, size = map(int, done.split())
    return blocks * size


def test_a_disk_that_becomes_read_only(pair: Two, tmp_path: Path) -> None:
    one, two = pair
    with failing_disk(tmp_path / "disk") as disk:
        two.agent.data = disk.folder / "data"
        two.agent.start()
        settle(pair, [])
        for host in pair:
            host.fill(keys("ro", 0, 200))
        two.invalidate(keys("ro", 0, 100))
        settle(pair, keys("ro", 0, 100))
        disk.fail()
        said = invalidate_until_refused(two, keys("ro", 100, 200))
        assert said.startswith("not durable, may have been applied: ")
        check_goes_on_without_a_journal(one, two, "on", "read-?only|I/O")
        two.agent.kill()
        said = two.agent.refused()
        assert str(disk.folder) in said
        assert "data_dir" in said
        one.invalidate(keys("ro", 100, 200))
        disk.mount_again()
        check_catches_up(one, two, keys("ro", 0, 200))
        two.agent.kill()  # it is in the way of the unmounting


def test_an_fsync_that_fails_once_is_not_tried_again(pair: Two) -> None:
    one, two = pair
    two.set(durability='"disk"')
    two.agent.start()
    settle(pair, [])
    for host in pair:
        host.fill(keys("fsync", 0, 200))
    two.invalidate(keys("fsync", 0, 100))
    settle(pair, keys("fsync", 0, 100))
    poll(lambda: not two.agent.status().journal.queued_bytes, "what is queued to be stored")
    fault = "error=EIO:when=1"
    with injected(two.agent, f"fdatasync:{fault}", f"fsync:{fault}") as calls:
        said = invalidate_until_refused(two, keys("fsync", 100, 110))
        assert said.startswith("not durable, may have been applied: ")
        check_goes_on_without_a_journal(one, two, "on", "I/O")
        poll(lambda: not two.left(keys("fsync", 0, 110)), "what was sent before the disk failed")
        assert two.agent.stop() == 0
        assert calls.read_text().count("sync(") == 1
    one.invalidate(keys("fsync", 110, 200))
    check_catches_up(one, two, keys("fsync", 0, 200))


@pytest.mark.slow
def test_a_write_that_is_interrupted_goes_on(pair: Two) -> None:
    one, two = pair
    two.agent.start()
    settle(pair, [])
    for host in pair:
        host.fill(keys("eintr", 0, 100))
    thread = journal_thread(two.agent)
    with injected(two.agent, "pwrite64:error=EINTR:when=1..9+3", threads=[thread]) as calls:
        two.invalidate(keys("eintr", 0, 100))
        assert "EINTR" in calls.read_text()
    assert two.agent.status().ready
    two.agent.kill()
    check_catches_up(one, two, keys("eintr", 0, 100))
    assert two.agent.namespace().repaired == 0, "all of it was stored"


def test_a_write_that_is_cut_short_closes_the_journal(pair: Two) -> None:
    one, two = pair
    two.agent.start()
    settle(pair, [])
    for host in pair:
        host.fill(keys("short", 0, 200))
    two.invalidate(keys("short", 0, 100))
    settle(pair, keys("short", 0, 100))
    log = two.agent.data / "journal.db-wal"
    assert two.agent.process is not None
    limit = log.stat().st_size + 6000  # in the middle of the second page
    resource.prlimit(two.agent.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    said = invalidate_until_refused(two, keys("short", 100, 200))
    assert said.startswith("not durable, may have been applied: ")
    assert log.stat().st_size == limit
    check_goes_on_without_a_journal(one, two, "on", "full|I/O")
    two.agent.kill()
    one.invalidate(keys("short", 100, 200))
    check_catches_up(one, two, keys("short", 0, 200))


def test_a_disk_that_loses_a_part_of_a_write(pair: Two) -> None:
    two = pair[1]
    two.agent.start()
    settle(pair, [])
    for host in pair:
        host.fill(keys("lie", 0, 200))
    two.invalidate(keys("lie", 0, 100))
    thread = journal_thread(two.agent)
    with injected(two.agent, "pwrite64:retval=1000:when=2", threads=[thread]):
        two.agent.invalidate(keys=keys("lie", 100, 110))
    two.agent.invalidate(keys=keys("lie", 110, 200))
    settle(pair, keys("lie", 0, 200))
    two.agent.kill()
    two.agent.start()
    assert "too soon" in two.damages
    settle(pair, keys("lie", 0, 200))
    assert two.agent.namespace().repaired >= 90
    for host in pair:
        assert host.resets == {}
        assert host.left([KEPT]) == {KEPT}
    wait_until_whole([host.agent for host in pair])
