"""What one message of a liar can do: it is counted and dropped, nobody is evicted, memory stays bounded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from bounds import limit, sizes
from pair import (
    Cores,
    acquainted,
    address,
    changes,
    datagram,
    news,
    section_of,
    sent,
    status,
    swim,
    tell,
)

from coherd_membership import Dropped, EpochNeeded, News, Status, SwimConfig
from coherd_membership import _codec as codec
from coherd_membership._messages import Kind, Meta

LAN = SwimConfig()
YEAR_2100 = 4_102_444_800_000
YEAR_2200 = 7_258_118_400_000
NAMES = [f"m{number}" for number in range(6)]
LIAR = "m5"


def cluster(**changed: object) -> Cores:
    """Six members that have known each other for a while; the last is about to lie."""
    cores = Cores(*NAMES, config=replace(LAN, epoch_max=YEAR_2100, **changed))
    cores.advance(20.0)
    assert cores.is_whole()
    return cores


def lie(cores: Cores, *told: News, to: str = "m0", kind: int = Kind.TELL) -> None:
    word = cores[LIAR].me
    cores.inject(datagram(kind, word, told=told, root=cores[to]._roster.root), address(LIAR), to)


def nobody_died(cores: Cores) -> bool:
    for name in NAMES:
        for other in NAMES:
            if {"died", "left"} & set(changes(cores.events[address(name)], other)):
                return False
    return cores.is_whole()


def newcomer_gets_in(cores: Cores, seconds: float = 10.0) -> bool:
    cores.start("newcomer", [address("m0")])
    cores.advance(seconds)
    return cores.seen("newcomer") == {Status.ALIVE} and cores.is_whole()


HIGHEST = 2**32 - 1
LIES = {
    "the highest incarnation, dead": {"status": Status.DEAD, "incarnation": HIGHEST},
    "the highest incarnation, alive": {"incarnation": HIGHEST},
    "the highest incarnation, suspect": {"status": Status.SUSPECT, "incarnation": HIGHEST},
    "year 2200, alive": {"epoch": YEAR_2200},
    "year 2200, dead": {"epoch": YEAR_2200, "status": Status.DEAD, "accusers": ("m3", "m4")},
    "year 2200, left": {"epoch": YEAR_2200, "status": Status.LEFT},
    "the last epoch": {"epoch": 2**64 - 1},
}
FORGERIES = {
    "a leave": {"status": Status.LEFT},
    "a leave in the highest incarnation": {"status": Status.LEFT, "incarnation": HIGHEST},
    "a restart": {"status": Status.RESTARTING},
    "a restart in a later incarnation": {"status": Status.RESTARTING, "incarnation": 9},
    "a suspicion": {"status": Status.SUSPECT, "accusers": ("m3", "m4")},
    "another address": {"address": "somewhere:1", "epoch": 2},
    "another address in this life": {"address": "somewhere:1"},
    "no such version": {"version": 9},
    "a death without accusers": {"status": Status.DEAD},
    "a later life": {"epoch": 7},
    "a later life that is suspect": {"epoch": 7, "status": Status.SUSPECT},
    "an incarnation ahead": {"incarnation": 60_000},
}


@pytest.mark.parametrize("kind", [Kind.TELL, Kind.ENTRIES], ids=["told", "exchanged"])
@pytest.mark.parametrize("what", LIES)
def test_what_nobody_can_honestly_say_is_counted_and_dropped(what: str, kind: int) -> None:
    cores = cluster()
    before = cores["m0"].members["m2"].news
    for about in ("m2", "m0", "stranger"):
        base = news("stranger") if about == "stranger" else cores[about].me
        lie(cores, base._replace(**LIES[what]), kind=kind)
    assert cores["m0"].statistics()["poison"] == 3
    assert cores["m0"].members["m2"].news == before
    assert status(cores["m0"], "stranger") is None
    dropped = [event for event in cores.happened("m0", Dropped) if event.reason == "poison"]
    assert {event.source for event in dropped} == {LIAR}
    cores.advance(30.0)
    assert nobody_died(cores)
    assert all(core.me.epoch == 1 for core in cores.at.values())
    assert newcomer_gets_in(cores)


@pytest.mark.parametrize("what", FORGERIES)
def test_one_forged_message_evicts_nobody(what: str) -> None:
    cores = cluster()
    lie(cores, cores["m2"].me._replace(**FORGERIES[what]))
    for _ in range(600):
        cores.advance(0.1)
        for place, core in cores.at.items():
            needed = [each for each in cores.events[place] if isinstance(each, EpochNeeded)]
            if needed and needed[-1].epoch >= core.me.epoch:
                core.renew(needed[-1].epoch + 1)
    assert nobody_died(cores)
    assert newcomer_gets_in(cores)
    roots = {core._roster.root for core in cores.at.values()}
    assert len(roots) == 1, "and afterwards all agree"


def test_a_leave_forged_for_every_member_at_every_member_lets_nobody_go() -> None:
    cores = cluster()
    for to in NAMES[:-1]:
        lie(
            cores,
            *(cores[name].me._replace(status=Status.LEFT) for name in NAMES if name != to),
            to=to,
        )
    cores.advance(30.0)
    assert nobody_died(cores)
    assert cores.statistics()["forged_leaves"] >= 20


@pytest.mark.parametrize("heard_by", [("m0",), ("m0", "m1")])
def test_a_leave_in_the_name_of_another_as_its_own_word_counts_for_that_life_only(
    heard_by: tuple[str, ...],
) -> None:
    """Whoever can speak in another's name is that member; told so, it comes back with a new epoch."""
    cores = cluster()
    forged = cores["m2"].me._replace(status=Status.LEFT)
    for to in heard_by:
        cores.inject(datagram(Kind.TELL, forged), address("m2"), to)
    for _ in range(300):
        cores.advance(0.1)
        needed = cores.happened("m2", EpochNeeded)
        if needed and cores["m2"].me.epoch == 1:
            cores["m2"].renew(2)
    assert cores.is_whole()


def test_one_who_raises_an_incarnation_step_by_step_only_forces_a_new_epoch() -> None:
    cores = cluster()
    for step in range(1, 40):
        claim = cores["m2"].me._replace(status=Status.SUSPECT, incarnation=step * 60_000)
        lie(cores, claim)
        lie(cores, claim._replace(status=Status.ALIVE))
    assert cores["m0"].members["m2"].news.incarnation == 60_000
    lie(cores, cores["m2"].me._replace(status=Status.SUSPECT, incarnation=2**16))
    for _ in range(600):
        cores.advance(0.1)
        needed = cores.happened("m2", EpochNeeded)
        if needed and needed[-1].epoch >= cores["m2"].me.epoch:
            cores["m2"].renew(needed[-1].epoch + 1)
    assert nobody_died(cores)


def test_invented_members_cost_nobody_a_place_and_memory_is_bounded() -> None:
    cores = cluster(members_max=1_000)
    count = 0
    for start in range(0, 100_000, 1_000):
        content = b"".join(
            section_of(news(f"ghost{number:06}", address=f"10.0.0.0:{number}"))
            for number in range(start, start + 1_000)
        )
        count += 1_000
        for to in ("m0", "m1"):
            payload = datagram(Kind.TELL, cores[LIAR].me, content=content)
            assert len(payload) <= codec.DATAGRAM_BYTES_MAX
            cores.inject(payload, address(LIAR), to)
    assert count == 100_000
    for name in ("m0", "m1"):
        core = cores[name]
        assert core.statistics()["members"] >= 90_000
        assert len(core.members) <= 1_000
        assert set(NAMES) <= {*core.members, name}
        core.events()
        assert max(sizes(core).values()) <= limit(core)
    cores.advance(60.0)
    assert nobody_died(cores)
    cores.start("newcomer", [address("m0")])
    for _ in range(100):  # the shell has links to those who exist
        for core in cores.at.values():
            core.set_linked({*NAMES, "newcomer"} & core.members.keys())
        cores.advance(1.0)
    assert cores.seen("newcomer") == {Status.ALIVE}
    assert cores.is_whole()
    for core in cores.at.values():
        assert len(core.members) <= 1_000
        core.events()
        assert max(sizes(core).values()) <= limit(core)


def test_who_comes_itself_takes_the_place_of_a_name_that_was_only_told() -> None:
    core = acquainted("a", config=replace(LAN, members_max=3))
    tell(core, "a", news("ghost-1"), news("ghost-2"), news("ghost-3"))
    assert set(core.members) == {"a", "ghost-1", "ghost-2"}
    tell(core, "b")
    tell(core, "c")
    tell(core, "d")
    assert set(core.members) == {"a", "b", "c"}
    assert core.statistics()["members"] == 2


def test_who_is_gone_makes_room_for_who_comes_the_longest_gone_first() -> None:
    """Else a cluster whose hosts come and go would lock its doors some day."""
    core = acquainted("a", "b", "c", config=replace(LAN, members_max=3))
    core._hearing.apply(news("c", Status.DEAD), 5.0)
    core._hearing.apply(news("b", Status.LEFT), 9.0)
    tell(core, "d", now=10.0)
    assert set(core.members) == {"a", "b", "d"}
    tell(core, "e", now=11.0)
    tell(core, "f", now=12.0)
    assert set(core.members) == {"a", "d", "e"}


def test_a_member_at_the_own_address_is_not_taken_in_from_others() -> None:
    core = acquainted("a")
    tell(core, "a", news("x", address=address("me")))
    assert status(core, "x") is None
    assert core.statistics()["own_address"] == 1


def test_nobody_else_is_where_this_member_is_by_its_own_word_either() -> None:
    core = acquainted("a", "b")
    tell(core, news("x", address=address("me")))
    tell(core, news("b", incarnation=2, address=address("me")))
    tell(core, "a", news("b", incarnation=2, address=address("me")))
    assert core.statistics()["own_address"] == 3
    assert set(core.members) == {"a", "b"}
    assert core.members["b"].news.address == address("b")
    assert core.datagrams() == [], "nobody is asked"


@pytest.mark.parametrize("verdict", [Status.SUSPECT, Status.DEAD])
def test_who_speaks_is_neither_silent_nor_dead(verdict: Status) -> None:
    core = acquainted("a", "b", "c")
    before = core.members["b"].news
    tell(core, "b", news("b", verdict, 2, accusers=("a", "c")))
    tell(core, news("b", verdict, 2))
    assert core.members["b"].news == before
    assert core.statistics()["poison"] == 2


def test_a_message_in_the_name_of_another_is_dropped_where_the_transport_knows_who_sends() -> None:
    core = acquainted("a", "b")
    before = core.members["b"].news
    core.receive(datagram(Kind.TELL, news("b", incarnation=2)), address("a"), 1.0, "a")
    assert core.members["b"].news == before
    assert core.statistics()["misnamed"] == 1
    core.receive(datagram(Kind.TELL, news("b", incarnation=2)), address("b"), 1.0, "b")
    assert core.members["b"].news.incarnation == 2


def test_metadata_over_the_limit_is_counted_and_what_was_there_stays() -> None:
    core = acquainted("a", config=replace(LAN, meta_bytes_max=10))
    tell(core, news("a", incarnation=2, version=2))
    for data in (bytes(11), bytes(10)):
        meta = codec.section(codec.METADATA, codec.encode_meta(Meta("a", 1, 2, data)))
        core.receive(
            datagram(Kind.META, news("a", incarnation=2, version=2), content=meta), "a:1", 1.0
        )
        assert core.statistics()["metadata"] == 1
    assert core.members["a"].meta == bytes(10)


def test_accusers_that_nobody_knows_are_not_kept_of_a_stranger() -> None:
    """Else rosters of made-up members would be longer than any message may be."""
    core = acquainted("a", "b")
    tell(core, "a", news("x", Status.SUSPECT, accusers=("b", "n" * 255, "o" * 255)))
    assert core.members["x"].news.accusers == ("b",)


def test_my_name_with_a_later_life_elsewhere_is_counted_once_this_member_has_joined() -> None:
    cores = cluster()
    lie(cores, cores["m0"].me._replace(epoch=5, address="somewhere:1"))
    assert cores["m0"].statistics()["names_taken"] == 1
    assert cores["m0"].me.epoch == 1
    assert not cores.happened("m0", EpochNeeded)


def test_answers_to_nothing_change_nothing() -> None:
    core = acquainted("a", "b")
    before = {name: member.news for name, member in core.members.items()}
    for kind in (Kind.ACK, Kind.NACK, Kind.WRONG_TARGET):
        for target in ("", "b", "me"):
            payload = datagram(kind, "a", sequence=5, target=target, root=core._roster.root)
            core.receive(payload, address("a"), 10.0)
    assert core.statistics()["unexpected"] == 9
    assert {name: member.news for name, member in core.members.items()} == before
    assert core.datagrams() == []


def test_a_replayed_message_changes_nothing() -> None:
    cores = cluster()
    old = [each for each in cores.traffic if each[2].destination == address("m0")][:200]
    cores["m2"].publish(b"new")
    cores.advance(5.0)
    before = {name: member.news for name, member in cores["m0"].members.items()}
    for _, source, each in old:
        cores.inject(each.payload, source, "m0")
    assert {name: member.news for name, member in cores["m0"].members.items()} == before
    cores.advance(20.0)
    assert nobody_died(cores)


def test_an_unasked_full_exchange_is_weighed_like_any_news() -> None:
    core = acquainted("a", "b", "c")
    payload = datagram(
        Kind.ENTRIES, "a", sequence=99, told=[news("b", Status.DEAD, accusers=("a", "c"))]
    )
    core.receive(payload, address("a"), 10.0)
    assert status(core, "b") is Status.SUSPECT


def test_what_others_say_in_another_ones_name_is_bounded_by_what_is_kept_of_a_flood() -> None:
    """Events of dropped news wait for the shell up to a limit; beyond it they are only counted."""
    core = acquainted("a", config=replace(LAN, epoch_max=10))
    item = section_of(news("x", epoch=11)) * 1_000
    for _ in range(105):
        core.receive(datagram(Kind.TELL, "a", content=item), address("a"), 10.0)
    assert core.statistics()["poison"] == 105_000
    assert Counter(type(event) for event in core.events())[Dropped] == 100_000


def test_metadata_of_ghosts_is_not_kept() -> None:
    core = acquainted("a")
    content = b"".join(
        codec.section(codec.METADATA, codec.encode_meta(Meta(f"ghost{number}", 1, 1, b"x" * 100)))
        for number in range(300)
    )
    core.receive(datagram(Kind.META, "a", content=content), address("a"), 10.0)
    assert set(core.members) == {"a"}


def test_very_long_names_hold_up_no_gossip() -> None:
    core = acquainted("a", "b")
    long = ["n" * 254 + str(number) for number in range(4)]
    for name in long:
        tell(core, news(name, address="a" * 255))
    accused = news(long[0], Status.SUSPECT, address="a" * 255, accusers=tuple(long[1:]))
    tell(core, "a", accused)
    core._hearing.apply(news("b", incarnation=2), 0.0)
    core.datagrams()
    for _ in range(3):
        core._outbox.send(Kind.PING, "to:1", target="a")
    told = {item.name for _, message in sent(core) for item in message.news}
    assert {"b", *long[1:]} <= told


def test_a_core_alone_with_a_liar_keeps_its_own_word() -> None:
    core = swim()
    for word in (news("me", Status.DEAD, 3), news("me", Status.LEFT, 3), news("me", epoch=9)):
        tell(core, "liar", word)
    assert (core.me.epoch, core.me.status) == (1, Status.ALIVE)
    assert core.me.incarnation == 4
