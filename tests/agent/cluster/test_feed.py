"""Readers get every arrival once and in order, from memory or from the journal, or are reset."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from math import inf
from random import Random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from coherd.clock import ManualClock
from coherd.cluster import feed as feed_module
from coherd.cluster.delivery import QUESTIONS_MAX, Delivery, Follower, Question
from coherd.cluster.feed import Feed, Reader
from coherd.cluster.ingest import Ingest
from coherd.cluster.tail import StreamTail
from coherd.errors import JournalDamaged, NotDurable, Overloaded
from coherd.journal import Block, Write
from coherd.journal.base import QUEUE_BYTES_MAX
from coherd.journal.memory import MemoryJournal
from coherd.model import Batch, Cause, Effect, Lane, Origin, Position, Stream
from coherd.replication.clock import HybridClock
from coherd.replication.intervals import Intervals
from coherd.replication.repair import Repair
from coherd.replication.replica import Replica
from coherd.wire import encode_batch


class Parts:
    """The parts behind a feed."""

    def __init__(self, horizon: float = inf, **journal: object) -> None:
        self.clock = ManualClock(1000.0)
        self.journal = MemoryJournal(now=self.clock.now, **journal)  # type: ignore[arg-type]
        assert not list(self.journal.blocks())
        self.replica = Replica()
        self.repair = Repair(self.replica.vector, Random(1), lambda *_: horizon)
        self.feed = Feed(self.replica, self.journal, self.clock, lambda *_: horizon)
        self.ingest = Ingest(
            self.replica, self.repair, self.journal, self.feed, self.clock, HybridClock(), "a"
        )
        self.ingest.begin_life(7)
        self.feed.on_damage = self.ingest.damaged

    def accept(self, key: bytes, namespace: str = "shop") -> None:
        self.ingest.accept(namespace, Lane.NORMAL, [b"k" + key], Effect.DROP, None, "")

    async def read(self, reader: Reader, upto: int) -> list[bytes]:
        """Read until a position; give the selectors, and the cause where it is a reset."""
        result: list[bytes] = []
        while reader.position < upto:
            for arrival in (await reader.next()).arrivals:
                mark = arrival.cause.value.encode() if arrival.cause.is_reset else b""
                result += [mark or selector[1:] for selector in arrival.batch.selectors]
        return result


@pytest.fixture
def small_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "TAIL_BYTES_MAX", 1000)


KEYS = [b"key-%02d" % n for n in range(60)]


async def test_payloads_of_one_answer_are_kept_each_as_it_is_whatever_comes_between() -> None:
    parts = Parts()
    streams = [Stream("shop", Origin(name, 3), Lane.NORMAL) for name in ("b", "c")]
    kept: list[bytes] = []
    for n in range(1, 31):
        effect = Effect.STALE if n % 7 == 0 else Effect.DROP
        numbers = ((3 * n, 3 * n),)
        kept.append(encode_batch(Batch(streams[n // 10 % 2], numbers, [b"k%d" % n], effect)))
    twice = [(payload, 1.0) for payload in [*kept[:5], *kept]]
    parts.ingest.receive([*twice, (b"no payload", 0.0)], Cause.REPAIR)
    assert [entry.payload for entry in parts.feed._entries] == kept
    assert [entry.arrival.position for entry in parts.feed._entries] == list(range(1, 31))
    assert len({entry.ticket for entry in parts.feed._entries}) == 1
    assert parts.ingest.malformed == 1
    assert parts.ingest.counts["shop"].repaired == 30
    assert sum(parts.ingest.rows.values()) == 30
    assert parts.ingest.changes.take() == set(streams)
    assert parts.repair.has_gaps


async def test_a_slow_reader_gets_everything_from_the_journal(small_tail: None) -> None:
    parts = Parts()
    reader = Reader(parts.feed, {"shop"}, 0)
    for key in KEYS:
        parts.accept(key)
        parts.accept(key, "other")
        await trio.testing.wait_all_tasks_blocked()
    assert parts.feed._start > 0, "the tail does not reach back to the start"
    assert await parts.read(reader, 120) == KEYS


async def test_what_is_not_committed_stays_in_the_tail(small_tail: None) -> None:
    parts = Parts(automatic=False)
    for key in KEYS:
        parts.accept(key)
    assert parts.feed._start == 0
    assert await parts.read(Reader(parts.feed, {"shop"}, 0), 60) == KEYS


async def test_an_arrival_is_found_by_any_of_its_positions(small_tail: None) -> None:
    parts = Parts()
    for n in range(20):
        keys = [b"k" + key for key in KEYS[3 * n : 3 * n + 3]]
        parts.ingest.accept("shop", Lane.NORMAL, keys, Effect.DROP, None, "")
        await trio.testing.wait_all_tasks_blocked()
    assert 0 < parts.feed._start < 60, "some are in the tail, some are not"
    for position in range(1, 61):
        arrival = await parts.feed.at(position)
        assert arrival is not None
        assert arrival.batch.selectors[position - arrival.position] == b"k" + KEYS[position - 1]
    assert await parts.feed.at(61) is None


async def test_an_arrival_that_is_damaged_is_not_found_and_given_up(
    small_tail: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts()
    for key in KEYS:
        parts.accept(key)
        await trio.testing.wait_all_tasks_blocked()

    async def read(*_: object) -> list[Block]:
        raise JournalDamaged("position 1", "shop", (1, 1))

    with monkeypatch.context() as patch:
        patch.setattr(parts.journal, "read", read)
        assert await parts.feed.at(1) is None
    assert parts.replica.floors["shop"].n >= 1
    assert await parts.feed.at(2) is not None


async def test_rows_that_the_journal_refused_are_given_up_and_late_readers_are_reset(
    small_tail: None,
) -> None:
    parts = Parts()
    early, late = (Reader(parts.feed, {"shop"}, 0) for _ in range(2))
    parts.journal.fail_next()
    parts.accept(b"first")
    with pytest.raises(NotDurable):
        await parts.journal.committed(2)
    other = Parts()
    other.ingest.begin_life(8)
    for key in KEYS:
        other.accept(key)
    payloads = [entry.payload for entry in other.feed._entries]
    for payload in payloads[:3]:
        parts.ingest.receive([(payload, 0.0)], Cause.LINK)
    assert await parts.read(early, 4) == [b"first", *KEYS[:3]]
    for payload in payloads[3:]:
        parts.ingest.receive([(payload, 0.0)], Cause.LINK)
    assert parts.replica.floors["shop"].n > 0
    assert b"cursor" in await parts.read(late, 61)
    assert late.position == 61


async def test_a_reader_behind_the_tail_does_not_skip_what_the_journal_refused(
    small_tail: None,
) -> None:
    parts = Parts()
    late = Reader(parts.feed, {"shop"}, 0)
    for key in KEYS[:20]:
        parts.accept(key)
        await trio.testing.wait_all_tasks_blocked()
    assert parts.feed._start > 0
    other = Parts()
    other.ingest.begin_life(8)
    other.accept(b"refused")
    other.accept(b"taken")
    refused, taken = (entry.payload for entry in other.feed._entries)
    size, parts.journal._queue_bytes_max = parts.journal._queue_bytes_max, 0
    parts.journal._bytes += 1  # something waits, so the queue is full
    parts.ingest.receive([(refused, 0.0)], Cause.LINK)
    parts.journal._bytes -= 1
    parts.journal._queue_bytes_max = size
    parts.ingest.receive([(taken, 0.0)], Cause.LINK)
    await trio.testing.wait_all_tasks_blocked()
    assert parts.feed._entries[-2].ticket == 0
    assert await parts.read(late, 22) == [*KEYS[:20], b"refused", b"taken"]


async def test_a_reader_below_a_floor_goes_on_when_what_was_forgotten_is_old(
    small_tail: None,
) -> None:
    parts = Parts(horizon=100.0)
    for key in KEYS[:2]:
        parts.accept(key)
    parts.replica.forget(parts.feed._entries[0].arrival)
    parts.feed._start = 2
    assert parts.feed.resume("shop", 0) is None
    parts.clock.time += 100.0
    assert parts.feed.resume("shop", 0) == 1


@pytest.mark.parametrize("namespace", ["shop", None], ids=["a block", "all of it"])
async def test_a_reader_of_what_the_journal_cannot_read_any_more_is_reset_and_goes_on(
    small_tail: None, monkeypatch: pytest.MonkeyPatch, namespace: str | None
) -> None:
    parts = Parts()
    for key in KEYS:
        parts.accept(key)
        await trio.testing.wait_all_tasks_blocked()
    start, read = parts.feed._start, parts.journal.read
    lost = start if namespace is None else 3

    async def read_damaged(after: int, bytes_max: int) -> Sequence[Block]:
        if after < lost:
            raise JournalDamaged("table blocks, position 1", namespace, (after + 1, lost))
        return await read(after, bytes_max)

    monkeypatch.setattr(parts.journal, "read", read_damaged)
    assert await parts.read(Reader(parts.feed, {"shop"}, 0), 60) == [b"cursor", *KEYS[lost:]]
    assert parts.replica.floors["shop"].n == lost
    await trio.testing.wait_all_tasks_blocked()
    assert parts.journal._state.namespace_floors["shop"].n == lost


async def test_positions_written_outside_are_read_as_the_last_one_the_journal_has() -> None:
    parts = Parts()
    for key in KEYS[:5]:
        parts.accept(key)
    parts.ingest.confirm_life()
    parts.ingest.begin_life(9)
    for key in KEYS[:5]:
        parts.accept(key)
    locate = parts.ingest.locate
    assert str(parts.ingest.write_out(5)) == "a/7/5"
    assert str(parts.ingest.write_out(6)) == "a/9/6"
    assert locate(Position("a", 7, 3)) == 3
    assert locate(Position("a", 7, 900)) == 5, "lost in a crash"
    assert locate(Position("a", 8, 7)) == 5, "a life that never wrote here"
    assert locate(Position("a", 9, 900)) == 10
    assert locate(Position("a", 10, 900)) == 5, "of before the disk was lost, or of a later copy"
    assert locate(Position("a", 6, 3)) == 0, "before everything that the journal has"
    assert locate(Position("b", 9, 3)) is None


def delivery_of(parts: Parts, nursery: trio.Nursery) -> Delivery:
    return Delivery(
        parts.feed,
        parts.ingest.locate,
        parts.ingest.write_out,
        Random(1),
        nursery,
        lambda _namespace: 30.0,
        parts.ingest.remember_watcher,
    )


async def test_applied_means_that_every_cache_reached_what_was_newest_when_asked(
    nursery: trio.Nursery,
) -> None:
    parts = Parts()
    delivery = delivery_of(parts, nursery)
    shop, other, passive = (
        Follower("one", ["shop"], 0),
        Follower("two", ["other"], 0),
        Follower("three", ["shop"], 0, acknowledges=False),
    )
    answers: list[str] = []
    delivery.ask(["shop"], lambda: answers.append("nobody follows"))
    assert answers == ["nobody follows"]
    with delivery.watching(shop), delivery.watching(other), delivery.watching(passive):
        parts.accept(b"x")
        delivery.ask(["shop"], lambda: answers.append("first"))
        parts.accept(b"y")
        delivery.ask(["shop", "other"], lambda: answers.append("both"))
        shop.reached(1)
        assert answers[1:] == ["first"]
        shop.reached(2)
        assert answers[1:] == ["first"]
        other.reached(2)
        assert answers[1:] == ["first", "both"]


def test_questions_to_a_cache_that_is_down_for_long_are_bounded() -> None:
    follower = Follower("one", ["shop"], 0)
    answers: list[int] = []
    for n in range(QUESTIONS_MAX + 5):
        follower.ask(n, Question(1, lambda n=n: answers.append(n)))  # type: ignore[misc]
    follower.reached(QUESTIONS_MAX + 5)
    assert answers == list(range(5, QUESTIONS_MAX + 5)), "the oldest are given up, not answered"


async def test_a_watcher_that_comes_back_under_its_name_answers_for_itself(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    parts = Parts()
    delivery = delivery_of(parts, nursery)
    with delivery.watching(Follower("one", ["shop"], 0)):
        pass
    parts.accept(b"x")
    answers: list[float] = []
    delivery.ask(["shop"], lambda: answers.append(trio.current_time()))
    back = Follower("one", ["shop"], 0)
    start = trio.current_time()
    with delivery.watching(back):
        assert not answers
        back.reached(1)
        assert answers == [start]
    nursery.cancel_scope.cancel()


async def test_a_watcher_counts_as_missing_also_after_a_restart_of_the_agent(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    parts = Parts()
    delivery = delivery_of(parts, nursery)
    with delivery.watching(Follower("one", ["shop", "other"], 0)):
        await parts.journal.committed(2)
    journal = parts.journal.reopen()
    assert {k: p.n for k, p in journal.contents.cursors.items()} == {"one other,shop": 0}
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(31):
        await trio.sleep_forever()
    await parts.journal.committed(3)
    assert not parts.journal.reopen().contents.cursors, "it does not count any more"
    nursery.cancel_scope.cancel()


async def test_floors_that_waited_for_room_do_not_lower_those_stored_meanwhile() -> None:
    """Else a later life would call covered what it adopted without a row, and peers believe it."""
    parts = Parts(automatic=False)
    parts.journal.commit()
    stream = Stream("shop", Origin("b", 3), Lane.NORMAL)
    batch = Batch(stream, ((1, 10),), [b"kx"] * 10)
    parts.ingest.receive([(encode_batch(batch), 0.0)], Cause.LINK)
    parts.journal.commit()
    for size in (QUEUE_BYTES_MAX // 2, 1000, 1):
        with suppress(Overloaded):
            while True:
                parts.journal.append_nowait(Write(members={"x": bytes(size)}))
    parts.ingest.lose_rows(stream, Intervals([(1, 10)]))
    parts.journal.commit()
    parts.repair.claim("b", [(stream, Intervals([(1, 300)]))])
    assert parts.ingest.reset(["shop"], Cause.BELOW_FLOOR)
    parts.ingest.forget()
    parts.journal.commit()
    contents = parts.journal.crash().contents
    assert contents.vector[stream] == ((1, 300),)
    assert contents.stream_floors[stream].n == 300


async def test_a_position_in_another_journal_is_none_of_what_a_cloned_one_holds() -> None:
    parts = Parts()
    for key in KEYS:
        parts.accept(key)
    await trio.testing.wait_all_tasks_blocked()
    ingest = Ingest(
        parts.replica, parts.repair, parts.journal.crash(), parts.feed, parts.clock, HybridClock(), "b"
    )  # fmt: skip
    assert not list(ingest._journal.blocks())[60:]
    ingest.begin_life(9)
    assert ingest.locate(Position("a", 7, 30)) is None
    assert ingest.locate(Position("b", 8, 30)) == 0
    assert [ingest.locate(ingest.write_out(n)) for n in (0, 1, 30, 60)] == [0, 1, 30, 60]


RANGES = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5)), min_size=1, max_size=3)


@given(st.lists(RANGES, max_size=15), RANGES, st.integers(0, 15))
def test_a_tail_finds_by_numbers_what_a_look_at_all_of_it_finds(
    batches: list[list[tuple[int, int]]], asked: list[tuple[int, int]], kept_from: int
) -> None:
    tail: StreamTail[int] = StreamTail()
    sets = [Intervals((low, low + more) for low, more in each) for each in batches]
    for at, each in enumerate(sets):
        tail.add(each.ranges(), at)
    wanted = Intervals((low, low + more) for low, more in asked)
    assert sorted(tail.find(wanted)) == [at for at, each in enumerate(sets) if each & wanted]
    firsts = [sets[at].first for at in tail.find(wanted)]
    assert firsts == sorted(firsts)
    assert tail.keep(lambda at: at >= kept_from) == (kept_from < len(sets))
    assert sorted(tail.find(wanted)) == [
        at for at, each in enumerate(sets) if each & wanted and at >= kept_from
    ]
