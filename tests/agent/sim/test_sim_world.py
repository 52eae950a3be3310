"""Every fault does what it says, seen from the members that it befalls and from the others."""

from __future__ import annotations

import pytest

from coherd.sim.network import Links
from coherd.sim.world import Node, Stall, World
from coherd_membership import Change, Status, SwimConfig

LAN = SwimConfig.profile("lan")
MEMBERS = 10


def world(seed: int = 1, config: SwimConfig = LAN, links: Links = Links()) -> World:  # noqa: B008
    joined = World(config, MEMBERS, seed, links)
    joined.start_joined()
    joined.run(5)
    assert joined.is_whole()
    return joined


def counted(node: Node, what: str) -> int:
    return node.swim.statistics().get(what, 0)


def died(seen_in: World) -> set[tuple[str, str]]:
    return {(seen.observer, seen.name) for seen in seen_in.seen if seen.change is Change.DIED}


def status(observer: Node, other: Node) -> Status:
    return observer.swim.members[other.name].news.status


@pytest.mark.parametrize("kind", Stall)
def test_a_stalled_member_neither_sends_nor_receives_and_its_input_comes_at_once(
    kind: Stall,
) -> None:
    cluster = world()
    node, other = cluster.nodes[:2]
    before, said = counted(node, "received"), counted(node, "sent")
    heard = sum(counted(each, "received") for each in cluster.nodes[1:])
    cluster.stall(node, 3.0, kind)
    cluster.network.cut("the others", range(1, MEMBERS), range(1, MEMBERS))
    cluster.run(7.9)
    waiting = len(node.inbox)
    assert waiting > 0
    assert counted(node, "received") == before
    assert sum(counted(each, "received") for each in cluster.nodes[1:]) == heard
    assert status(other, node) in {Status.ALIVE, Status.SUSPECT}
    # what is blocked goes on thinking, what is frozen does not
    assert (counted(node, "sent") > said) == (kind is Stall.BLOCKED)
    assert bool(node.held) == (kind is Stall.BLOCKED)
    cluster.run(8.0001)
    assert counted(node, "received") >= before + waiting
    assert (node.inbox, node.held, node.stall) == ([], [], None)


def test_only_a_frozen_member_finds_its_timers_late() -> None:
    late = []
    for kind in Stall:
        cluster = world()
        cluster.stall(cluster.nodes[0], 3.0, kind)
        cluster.run(8.5)
        late.append(counted(cluster.nodes[0], "late"))
    assert late == [0, 1]


def test_of_two_stalls_the_longer_counts() -> None:
    cluster = world()
    node = cluster.nodes[0]
    cluster.stall(node, 3.0)
    cluster.stall(node, 1.0)
    cluster.run(7.0)
    assert node.stall is not None
    cluster.run(8.1)
    assert node.stall is None


def test_stalls_come_again_in_their_rhythm_until_their_end() -> None:
    cluster = world()
    node = cluster.nodes[0]
    cluster.stall_often(node, 2.0, 1.0, 10.0, Stall.BLOCKED)
    stalled = []
    for tenth in range(51, 140, 10):
        cluster.run(tenth / 10)
        stalled.append(node.stall is not None)
    assert stalled == [True, True, False, True, True, False, False, False, False]


def test_a_crashed_member_says_nothing_more_and_everybody_finds_out() -> None:
    cluster = world()
    gone = cluster.nodes[0]
    said = counted(gone, "sent")
    cluster.crash(gone)
    cluster.run(60)
    assert counted(gone, "sent") == said
    assert died(cluster) == {(node.name, gone.name) for node in cluster.nodes[1:]}
    assert not any(seen.is_false_death for seen in cluster.seen)
    assert cluster.is_whole()


@pytest.mark.parametrize("knows", [False, True])
def test_a_member_that_comes_back_has_a_new_life_and_knows_what_it_should(*, knows: bool) -> None:
    cluster = world()
    node = cluster.nodes[0]
    epoch = node.epoch
    cluster.crash(node)
    cluster.run(30)
    for other in cluster.nodes[1:]:
        cluster.crash(other)
    cluster.start(node, knows=knows)
    assert node.epoch > epoch
    assert len(node.swim.members) == (MEMBERS - 1 if knows else 0)
    for other in cluster.nodes[1:]:
        cluster.start(other, knows=knows)
    cluster.run(60)
    assert cluster.is_whole()


def test_a_member_that_leaves_is_not_declared_dead() -> None:
    cluster = world()
    for node, leaving in zip(cluster.nodes[:2], (True, False), strict=True):
        cluster.stop(node, leaving=leaving)
    cluster.run(7)
    leaver, restarting = cluster.nodes[:2]
    assert {status(other, leaver) for other in cluster.nodes[2:]} == {Status.LEFT}
    assert {status(other, restarting) for other in cluster.nodes[2:]} == {Status.RESTARTING}


def test_halves_that_hear_nothing_of_each_other_are_two_clusters() -> None:
    cluster = world()
    ours, theirs = range(MEMBERS // 2), range(MEMBERS // 2, MEMBERS)
    cluster.network.cut("there", ours, theirs)
    cluster.network.cut("back", theirs, ours)
    cluster.run(60)
    assert len(died(cluster)) == MEMBERS * MEMBERS // 2
    assert all(seen.is_false_death for seen in cluster.seen if seen.change is Change.DIED)
    for half in (ours, theirs):
        assert cluster.is_whole([cluster.nodes[index] for index in half])
    assert not cluster.is_whole()
    cluster.network.mend("there")
    cluster.network.mend("back")
    cluster.run(180)
    assert cluster.is_whole()


def test_a_member_that_cannot_send_is_declared_dead_and_one_that_others_reach_around_a_cut_not() -> (
    None
):
    mute = world()
    mute.network.cut("mute", {0}, range(1, MEMBERS))
    mute.run(60)
    assert {name for observer, name in died(mute) if observer != "member-0"} == {"member-0"}
    partial = world()
    partial.network.cut("there", {0}, {1, 2})
    partial.network.cut("back", {1, 2}, {0})
    partial.run(60)
    assert died(partial) == set()
    assert partial.network.lost > 0


def test_loss_and_duplicates_kill_nobody_and_duplicates_arrive() -> None:
    doubled = world(links=Links(duplication=1.0))
    arrived = sum(counted(node, "received") for node in doubled.nodes)
    assert arrived > 1.9 * doubled.messages
    lossy = world()
    for source in range(MEMBERS):
        lossy.network.lose(source, 0, 0.3)
    for cluster in (doubled, lossy):
        cluster.run(120)
        assert died(cluster) == set()


def test_everybody_joins_at_once_and_without_seeds_that_answer_nobody() -> None:
    cluster = World(LAN, MEMBERS, 1)
    cluster.start_all()
    assert not cluster.is_whole()
    cluster.run(5)
    assert cluster.is_whole()
    assert {len(node.swim.members) for node in cluster.nodes} == {MEMBERS - 1}
    cut = World(LAN, MEMBERS, 1)
    cut.network.cut("seeds", range(3), range(3, MEMBERS))
    cut.start_all()
    cut.run(5)
    assert not cut.is_whole()
    assert not cut.is_whole(cut.nodes[3:])


def test_timers_that_were_set_anew_do_not_multiply() -> None:
    cluster = world()
    cluster.network.cut("there", range(5), range(5, MEMBERS))
    cluster.network.cut("back", range(5, MEMBERS), range(5))
    cluster.run(300)
    events = cluster.events
    cluster.run(600)
    assert cluster.events - events < 300 * MEMBERS * 6, "a probe, its answer, and a timer or two"


def test_all_that_is_sent_is_counted() -> None:
    cluster = world()
    assert cluster.messages == sum(counted(node, "sent") for node in cluster.nodes)
    assert cluster.bytes == sum(counted(node, "sent_bytes") for node in cluster.nodes)
