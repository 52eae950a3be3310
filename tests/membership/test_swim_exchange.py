"""Full exchanges: joining, differing sums, pages, metadata; and seeds and the down list for ever."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from pair import Cores, acquainted, address, datagram, news, run, sent, status, swim, tell

from coherd_membership import MetaChanged, Status, Swim, SwimConfig
from coherd_membership import _codec as codec
from coherd_membership._exchange import WANT_MAX
from coherd_membership._messages import Kind, Meta

LAN = SwimConfig()
DAY = 24 * 3600.0


def exchange(one: Swim, other: Swim, now: float = 0.0) -> int:
    """Let one ask the other once; gives how many datagrams went to and fro."""
    one.datagrams()
    other.datagrams()
    one._exchanger.ask(other.me.name, now)
    count = 0
    ends = {one.me.address: one, other.me.address: other}
    waiting = one.datagrams()
    while waiting:
        each = waiting.pop(0)
        if each.destination in ends:
            count += 1
            source = other if ends[each.destination] is one else one
            ends[each.destination].receive(each.payload, source.me.address, now)
            waiting += ends[each.destination].datagrams()
    return count


def full(name: str, others: int, first: int = 0, **more: object) -> Swim:
    core = swim(name, **more)
    core.introduce((news(f"m{number:05}") for number in range(first, first + others)), 0.0)
    return core


def test_two_that_join_through_a_third_know_each_other() -> None:
    cores = Cores("seed", "a", "b")
    cores.advance(2.0)
    assert cores.is_whole()
    assert all(core.has_joined for core in cores.at.values())


def test_fifty_join_at_once_through_one_seed() -> None:
    names = [f"m{number:02}" for number in range(50)]
    cores = Cores(*names)
    cores.advance(15.0)
    assert cores.is_whole()


def test_rosters_that_differ_are_equal_after_one_exchange() -> None:
    one, other = full("one", 300), full("other", 300, first=200)
    tell(one, "other")
    exchange(one, other)
    assert one._roster.root == other._roster.root
    assert len(one.members) == len(other.members) == 501


def test_rosters_that_differ_in_one_member_exchange_one_bucket() -> None:
    one, other = full("one", 640), full("other", 640)
    tell(one, "other")
    tell(other, "one")
    other.introduce([news("new")], 0.0)
    one.datagrams()
    one._exchanger.ask("other", 0.0)
    (question,) = one.datagrams()
    other.datagrams()
    other.receive(question.payload, address("one"), 0.0)
    ((_, entries),) = sent(other, Kind.ENTRIES)
    assert entries.mask.bit_count() == 1
    assert len(entries.news) < 40
    assert entries.wants_back


def test_equal_rosters_answer_with_nothing_and_ask_for_nothing() -> None:
    one, other = full("one", 100), full("other", 100)
    tell(one, "other")
    tell(other, "one")
    assert exchange(one, other) == 2


def test_a_large_roster_comes_in_several_datagrams_of_bounded_size() -> None:
    one, other = swim("one"), full("other", 3_000)
    tell(one, "other")
    one.datagrams()
    one._exchanger.ask("other", 0.0)
    (question,) = [each for each in one.datagrams() if codec.decode(each.payload).buckets]
    other.receive(question.payload, address("one"), 0.0)
    pages = [each for each in other.datagrams() if codec.decode(each.payload).kind == Kind.ENTRIES]
    assert len(pages) > 2
    assert max(len(each.payload) for each in pages) < LAN.exchange_bytes_max + 1_200
    assert [codec.decode(each.payload).wants_back for each in pages] == [
        *[False] * (len(pages) - 1), True,
    ]  # fmt: skip
    for each in pages:
        one.receive(each.payload, address("other"), 0.0)
    assert len(one.members) == 3_001


def test_a_difference_is_asked_about_once_an_interval_and_five_at_once() -> None:
    names = [f"m{number}" for number in range(20)]
    core = acquainted(*names)
    for name in names:
        core._exchanger.compare(name, 10.0)
    assert len(sent(core, Kind.DIGEST)) == 1
    core = acquainted(*names, config=replace(LAN, probe_interval=0.001))
    run(core, 1.0)
    for step, name in enumerate(names):
        core._exchanger.compare(name, 10.0 + step)
    assert len(sent(core, Kind.DIGEST)) == LAN.exchanges_max


def test_a_question_that_is_not_answered_makes_room_for_another() -> None:
    core = acquainted("a")
    core._exchanger.compare("a", 10.0)
    run(core, 11.0)
    assert core._exchanger._under_way == set()
    core._exchanger.compare("a", 12.0)
    assert len(sent(core, Kind.DIGEST)) == 2


def test_a_message_with_another_sum_is_followed_by_a_question() -> None:
    core = acquainted("a")
    core.receive(datagram(Kind.TELL, "a", root=core._roster.root), address("a"), 10.0)
    assert sent(core) == []
    core.receive(datagram(Kind.TELL, "a", root=1), address("a"), 10.0)
    ((to, message),) = sent(core)
    assert (to, message.kind) == (address("a"), Kind.DIGEST)


@pytest.mark.parametrize(("members", "rounds"), [(1, 1), (32, 1), (33, 2), (100, 3), (1_000, 6)])
def test_the_interval_grows_with_the_logarithm(members: int, rounds: int) -> None:
    core = full("me", members - 1)
    assert core._exchanger._interval() == LAN.exchange_interval * rounds


# ---------------------------------------------------------------------- metadata


def test_metadata_arrives_and_its_next_version_is_pulled_when_it_changes() -> None:
    cores = Cores("a", "b", "c")
    cores.start("d", [address("a")], meta=b"first")
    cores.advance(5.0)
    assert {cores[name].members["d"].meta for name in "abc"} == {b"first"}
    cores["d"].publish(b"second")
    cores["d"].publish(b"second")
    cores.advance(5.0)
    assert {cores[name].members["d"].meta for name in "abc"} == {b"second"}
    told = [event.meta for event in cores.happened("b", MetaChanged)]
    assert told == [b"first", b"second"]


def test_metadata_over_the_limit_is_refused_here_and_from_others() -> None:
    core = acquainted("a")
    with pytest.raises(ValueError, match="5000 bytes"):
        core.publish(bytes(5_000))
    with pytest.raises(ValueError, match="5000 bytes"):
        swim(meta=bytes(5_000))
    tell(core, news("a", incarnation=2, version=2))
    for size in (5_000, 4_096):
        meta = codec.section(codec.METADATA, codec.encode_meta(Meta("a", 1, 2, bytes(size))))
        core.receive(datagram(Kind.META, news("a", incarnation=2, version=2), content=meta), "a", 0)
        assert (core.members["a"].meta is None) == (size == 5_000)


@pytest.mark.parametrize(
    "meta", [Meta("a", 1, 1, b"x"), Meta("a", 2, 2, b"x"), Meta("b", 1, 2, b"")]
)
def test_metadata_of_another_version_life_or_stranger_is_passed_over(meta: Meta) -> None:
    word = news("a", incarnation=2, version=2)
    core = acquainted("a")
    tell(core, word)
    content = codec.section(codec.METADATA, codec.encode_meta(meta))
    core.receive(datagram(Kind.META, word, content=content), address("a"), 0.0)
    assert core.members["a"].meta is None


def test_a_question_for_metadata_gets_no_more_than_an_honest_one_would_ask_for() -> None:
    core = swim(meta=bytes(4_096))
    tell(core, "a")
    core.datagrams()
    for names in (["me"] * 20_000, [*map(str, range(20_000)), "me"], ["me"]):
        asked = codec.section(codec.NAMES, codec.encode_texts(names)[:65_000])
        core.receive(datagram(Kind.WANT_META, "a", content=asked, root=core._roster.root), "a:1", 0)
        metas = [meta for _, message in sent(core, Kind.META) for meta in message.metas]
        assert len(metas) <= 1
    assert [meta.name for meta in metas] == ["me"]
    assert WANT_MAX * (LAN.meta_bytes_max + 300) < 300_000


# ---------------------------------------------------------------------- for ever


def test_seeds_are_asked_in_doubling_pauses_until_one_answers() -> None:
    core = swim()
    core.start(["seed:1", "seed:2", address("me")], 0.0)
    moments = []
    while (due := core.next_timer()) is not None and due < 120.0:
        if any(to == "seed:1" for to, _ in sent(core, Kind.DIGEST)):
            moments.append(due)
        core.handle_timer(due)
    pauses = [after - before for before, after in pairwise(moments)]
    assert pauses[0] < 1.0
    assert 4.0 < max(pauses) < 10.1
    assert {to for to, _ in sent(core)} <= {"seed:1", "seed:2"}


def test_seeds_are_asked_every_minute_for_ever_after_joining() -> None:
    core = acquainted("a")
    core.start(["seed:1"], 0.0)
    tell(core, "a", kind=Kind.ENTRIES)
    asked = 0
    core._hearing.apply(news("a", Status.LEFT), 0.0)
    for hour in range(1, 49):
        run(core, hour * 3600.0)
        asked_now = len([to for to, _ in sent(core, Kind.DIGEST) if to == "seed:1"])
        assert 60 <= asked_now <= 130
        asked += asked_now
    assert asked > 48 * 60


def test_seeds_may_be_added() -> None:
    core = swim()
    core.start(["seed:1"], 0.0)
    core.datagrams()
    core.join(["seed:2", "seed:1"], 1.0)
    assert [to for to, _ in sent(core, Kind.DIGEST)] == ["seed:1", "seed:2"]


def test_who_is_down_is_asked_for_a_day_two_at_a_time() -> None:
    names = ["a", "b", "c"]
    core = acquainted(*names)
    core.start((), 0.0)
    for name in names:
        core._hearing.apply(news(name, Status.DEAD), 0.0)
    core.datagrams()
    run(core, DAY)
    asked = [to for to, _ in sent(core, Kind.DIGEST)]
    assert set(asked) == {address(name) for name in names}
    assert len(asked) == pytest.approx(2 * DAY / LAN.down_interval, rel=0.05)
    run(core, DAY + 600.0)
    core.datagrams()
    run(core, 2 * DAY)
    assert sent(core, Kind.DIGEST) == []


def test_an_hour_in_two_halves_heals_without_seeds() -> None:
    names = [f"m{number}" for number in range(8)]
    cores = Cores(*names)
    cores.advance(10.0)
    for core in cores.at.values():
        core._exchanger.seeds = ()
    cores.split(names[:4], names[4:])
    cores.advance(600.0)
    assert cores.seen("m0") == {Status.ALIVE, Status.DEAD}
    cores.advance(3_000.0)
    cores.heal()
    cores.advance(180.0)
    assert cores.is_whole()


def test_a_partition_of_a_week_heals_through_the_seeds() -> None:
    cores = Cores("a", "b", "c", "d")
    cores.advance(10.0)
    cores.split("ab", "cd")
    cores.advance(60.0)
    for core in cores.at.values():
        for member in core.members.values():
            member.since -= 7 * DAY
    cores.heal()
    cores.advance(90.0)
    assert cores.is_whole()


def test_a_member_that_was_down_and_alone_comes_back_by_itself() -> None:
    cores = Cores("a", "b", "c", "d", "e")
    cores.advance(10.0)
    cores.stall("e")
    cores.advance(60.0)
    assert cores.seen("e") == {Status.DEAD}
    cores.resume("e")
    cores.advance(20.0)
    assert cores.is_whole()
    assert status(cores["e"], "a") is Status.ALIVE
