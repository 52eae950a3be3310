"""A loss of power, older copies, clones: of an agent's data directory and of a Redis, for real.

Each ends without a stale key, without a reset where rows suffice, and a key that nobody invalidated stays
unless Redis itself lost it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis
from integration.agents import wait_until_whole
from integration.disks import boot_again
from integration.hosts import KEPT, Host, hosts, keys, settle, start
from integration.polling import poll
from integration.proxy import Proxy
from integration.watching import dots_of
from servers import RedisServer, redis_server

Two = tuple[Host, Host]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Two hosts that live through all cases."""
    with hosts(tmp_path_factory.mktemp("copies"), "a", "b") as (one, two):
        start([one, two])
        yield one, two


def copy_data(host: Host, to: Path) -> None:
    """Copy the data directory of an agent that runs and is idle."""
    shutil.copytree(host.agent.data, to)


def replace_data(host: Host, copy: Path) -> None:
    shutil.rmtree(host.agent.data)
    copy.rename(host.agent.data)


def assert_nothing_flushed(given: Two) -> None:
    assert [host.left([KEPT]) for host in given] == [{KEPT}] * len(given)
    assert [host.resets for host in given] == [{}] * len(given)


# -------------------------------------------------------------------- power


def test_what_a_loss_of_power_took_comes_back_from_the_others(both: Two, tmp_path: Path) -> None:
    one, two = both
    for host in both:
        host.fill(keys("power", 0, 400))
    one.invalidate(keys("power", 0, 50))
    two.invalidate(keys("power", 50, 100))
    settle(both, keys("power", 0, 100))
    two.cache.save()
    copy_data(two, tmp_path / "copy")
    one.invalidate(keys("power", 100, 150))
    two.invalidate(keys("power", 150, 200))
    settle(both, keys("power", 0, 200))
    two.agent.kill()
    two.server.kill()
    replace_data(two, tmp_path / "copy")  # what the disk had taken
    boot_again(two.agent, "another boot")
    one.invalidate(keys("power", 200, 300))
    two.server.start()
    assert len(two.left(keys("power", 0, 300))) == 200
    two.agent.start()
    settle(both, keys("power", 0, 300))
    assert "what a loss of power may have taken was fetched" in two.agent.log
    assert not two.damages
    assert two.left(keys("power", 300, 400)) == set(keys("power", 300, 400))
    assert_nothing_flushed(both)


def test_where_all_lost_power_only_who_may_have_lost_rows_resets_and_only_once(
    tmp_path: Path,
) -> None:
    with hosts(tmp_path, "a", "b") as (one, two):
        two.set(durability='"disk"')
        start([one, two])
        for host in (one, two):
            host.fill(keys("all", 0, 100))
        two.invalidate(keys("all", 0, 100))
        settle([one, two], keys("all", 0, 100))
        for host in (one, two):
            host.agent.kill()
            boot_again(host.agent, "the second boot")
        start([one, two])
        poll(lambda: one.resets, "the reset")
        settle([one, two], keys("all", 0, 100))
        assert one.resets == {"power-loss": 1}
        assert one.left([KEPT]) == set()
        assert two.resets == {}
        assert two.left([KEPT]) == {KEPT}
        one.fill([])
        one.agent.kill()
        one.agent.start()
        settle([one, two], keys("all", 0, 100))
        assert one.resets == {}
        assert one.left([KEPT]) == {KEPT}


# -------------------------------------------------------------------- data directories


@pytest.mark.parametrize("what", ["deleted", "older"])
def test_a_data_directory_that_is_deleted_or_replaced(both: Two, tmp_path: Path, what: str) -> None:
    one, two = both
    for host in both:
        host.fill(keys(what, 0, 300))
    one.invalidate(keys(what, 0, 20))
    settle(both, keys(what, 0, 20))
    copy_data(two, tmp_path / "copy")
    answered = []
    for key in keys(what, 20, 70):
        answered += dots_of(two.agent.invalidate(keys=[key]).dots)
    settle(both, keys(what, 20, 70))
    two.agent.kill()
    if what == "deleted":
        shutil.rmtree(two.agent.data)
    else:
        replace_data(two, tmp_path / "copy")
    one.invalidate(keys(what, 70, 200))
    two.agent.start()
    for key in keys(what, 200, 280):
        answered += dots_of(two.agent.invalidate(keys=[key]).dots)
    settle(both, keys(what, 0, 280))
    assert len(answered) == len(set(answered)) == 130, "no number is used twice"
    for host in both:
        assert host.left(keys(what, 280, 300)) == set(keys(what, 280, 300))
    assert_nothing_flushed(both)


def test_a_clone_under_the_same_name_ends_and_one_under_another_joins(tmp_path: Path) -> None:
    with hosts(tmp_path, "a", "b", "c", "d") as (one, two, same, other):
        start([one, two])
        for host in (one, two):
            host.fill(keys("clone", 0, 200))
        one.invalidate(keys("clone", 0, 30))
        two.invalidate(keys("clone", 30, 60))
        settle([one, two], keys("clone", 0, 60))
        two.cache.save()
        for clone in (same, other):
            copy_data(two, clone.agent.data)
            clone.server.kill()
            shutil.copy(two.server.dump, clone.server.dump)
            clone.server.start()
        same.agent.name = two.agent.name
        epoch = two.agent.status().me.epoch
        same.agent.spawn()
        two.invalidate(keys("clone", 60, 90))
        one.invalidate(keys("clone", 90, 120))
        said = same.agent.was_refused()
        assert "'b'" in said
        assert two.agent.address in said
        assert [host.agent.status().ready for host in (one, two)] == [True, True]
        other.agent.start()
        three = [one, two, other]
        wait_until_whole([host.agent for host in three])
        settle(three, keys("clone", 0, 120))
        assert two.agent.status().me.epoch == epoch
        for host in three:
            assert host.resets == {}
            assert host.left([KEPT, *keys("clone", 120, 200)]) == {KEPT, *keys("clone", 120, 200)}


# -------------------------------------------------------------------- Redis


@pytest.mark.parametrize("what", ["restored", "flushed", "restarted empty"])
def test_a_redis_that_holds_something_else_than_its_cursor_said(both: Two, what: str) -> None:
    one, two = both
    for host in both:
        host.fill(keys(what, 0, 300))
    one.invalidate(keys(what, 0, 50))
    settle(both, keys(what, 0, 50))
    two.cache.save()
    one.invalidate(keys(what, 50, 150))
    two.invalidate(keys(what, 150, 200))
    settle(both, keys(what, 0, 200))
    if what == "flushed":
        two.cache.flushall()
    else:
        two.server.kill()
        if what == "restarted empty":
            two.server.dump.unlink()
        two.server.start()
    if what != "restored":
        two.fill(keys(what, 0, 300))
    assert len(two.left(keys(what, 0, 200))) >= 150
    one.invalidate(keys(what, 200, 250))
    settle(both, keys(what, 200, 250))
    if what == "restored":
        settle(both, keys(what, 0, 200))
    assert two.left(keys(what, 250, 300)) == set(keys(what, 250, 300))
    assert_nothing_flushed(both)


def follow(replica: RedisServer, port: int) -> None:
    """Make a server a replica of what is at a port, and wait until it has everything."""
    with closing(redis.Redis(port=replica.port)) as client:
        client.replicaof("127.0.0.1", port)
        poll(lambda: client.info("replication")["master_link_status"] == "up", "the replica")
        poll(lambda: client.exists(b"shop:" + KEPT), "what it copies")


def test_a_redis_that_fails_over_to_a_replica_that_lags(tmp_path: Path) -> None:
    with ExitStack() as stack:
        given = stack.enter_context(hosts(tmp_path, "a", "b"))
        one, two = given
        replica = stack.enter_context(redis_server(tmp_path / "replica"))
        primary = two.server
        address, link = Proxy(primary.port, []), Proxy(primary.port, [])
        stack.callback(address.close)
        stack.callback(link.close)
        two.agent.settings = two.agent.settings.replace(str(primary.port), str(address.port))
        start(given)
        for host in given:
            host.fill(keys("lag", 0, 300))
        one.invalidate(keys("lag", 0, 50))
        settle(given, keys("lag", 0, 50))
        follow(replica, link.port)
        link.cut([""])  # whoever it is
        one.invalidate(keys("lag", 50, 150))
        two.invalidate(keys("lag", 150, 200))
        settle(given, keys("lag", 0, 200))
        redis.Redis(port=replica.port).replicaof("NO", "ONE")
        primary.kill()
        two.server = replica
        assert len(two.left(keys("lag", 0, 200))) == 150
        address.target = replica.port
        address.heal()
        one.invalidate(keys("lag", 200, 250))
        settle(given, keys("lag", 0, 250))
        assert two.left(keys("lag", 250, 300)) == set(keys("lag", 250, 300))
        assert_nothing_flushed((one, two))
