"""What every handler promises: the same suite on the twin in memory and on a real Redis."""

from __future__ import annotations

from random import Random

import pytest
from caches import at, batch, key, prefix, tag

from coherd.errors import HandlerFailed
from coherd.handlers import SURVEY_KEYS_MAX, CursorMoved
from coherd.model import EVERYTHING, Effect, Kind

ODD_NAMES = [
    b"",
    b"plain",
    b"a*b",
    b"a?b",
    b"[ab]",
    b"[^a-z]",
    b"back\\slash",
    b"a\\*",
    b"\x00nul\x00",
    b"new\nline\r\n",
    b"\xff\xfe not UTF-8",
    "schlüssel".encode(),
    b"with space {key}",
]


async def test_an_empty_cache_is_cold_and_holds_no_cursor(cache) -> None:
    handler = cache.handler()
    assert await handler.connect() == (None, False)
    assert handler.namespace == "shop"
    assert handler.label
    await handler.aclose()


async def test_a_cache_with_an_entry_is_warm(cache) -> None:
    cache.put(b"1")
    handler = cache.handler()
    assert await handler.connect() == (None, True)
    await handler.apply([batch(key(b"1"))], at(1))
    assert await handler.connect() == (at(1), False)
    await handler.aclose()


async def test_a_key_row_drops_that_entry_and_no_other(cache) -> None:
    handler = cache.handler()
    await handler.connect()
    for n, name in enumerate(ODD_NAMES):
        for other in ODD_NAMES:
            cache.put(other)
        await handler.apply([batch(key(name))], at(n + 1))
        assert cache.names() == set(ODD_NAMES) - {name}
    await handler.aclose()


async def test_a_prefix_row_drops_what_begins_with_these_bytes_and_nothing_else(cache) -> None:
    handler = cache.handler()
    await handler.connect()
    for n, start in enumerate(ODD_NAMES[1:]):
        names = {start, start + b"tail", start + b"\x00", start[:-1], start[:-1] + b"#", *ODD_NAMES}
        for name in names:
            cache.put(name)
        await handler.apply([batch(prefix(start))], at(n + 1))
        assert cache.names() == {name for name in names if not name.startswith(start)}
        await handler.apply([batch(EVERYTHING)], at(n + 1, epoch=2))
    await handler.aclose()


async def test_a_tag_row_drops_the_tagged_entries(cache) -> None:
    cache.put(b"1", tags=[b"red", b"big"])
    cache.put(b"2", tags=[b"red"])
    cache.put(b"3", tags=[b"big"])
    cache.put(b"4")
    handler = cache.handler()
    await handler.connect()
    await handler.apply([batch(tag(b"red"), tag(b"unknown"))], at(1))
    assert cache.names() == {b"3", b"4"}
    await handler.apply([batch(tag(b"big"))], at(2))
    assert cache.names() == {b"4"}
    await handler.aclose()


@pytest.mark.parametrize("name", ODD_NAMES, ids=repr)
async def test_tags_are_bytes(cache, name) -> None:
    cache.put(b"1", tags=[name])
    cache.put(b"2", tags=[name + b"x"])
    handler = cache.handler()
    await handler.connect()
    await handler.apply([batch(tag(name))], at(1))
    assert cache.names() == {b"2"}
    await handler.aclose()


async def test_a_tag_row_drops_everything_where_no_tags_are_kept(untagged) -> None:
    untagged.put(b"1")
    handler = untagged.handler()
    await handler.connect()
    await handler.apply([batch(tag(b"red"))], at(1))
    assert untagged.names() == set()
    await handler.aclose()


async def test_an_unknown_kind_of_row_drops_everything(cache) -> None:
    cache.put(b"1")
    handler = cache.handler()
    await handler.connect()
    await handler.apply([batch(b"?1")], at(1))
    assert cache.names() == set()
    await handler.aclose()


async def test_a_namespace_row_drops_everything_but_the_cursor(cache) -> None:
    for name in ODD_NAMES:
        cache.put(name, tags=[b"red"])
    handler = cache.handler()
    await handler.connect()
    await handler.apply([batch(EVERYTHING)], at(1))
    assert cache.names() == set()
    assert await handler.connect() == (at(1), False)
    await handler.aclose()


async def test_stale_is_drop_where_nothing_can_be_marked(cache) -> None:
    cache.put(b"1")
    handler = cache.handler()
    await handler.connect()
    await handler.apply([batch(key(b"1"), effect=Effect.STALE)], at(1))
    assert cache.names() == set()
    await handler.aclose()


async def test_rows_of_all_kinds_in_many_batches_drop_what_they_name(cache) -> None:
    random = Random(1)
    alphabet = b"a*?[]\\^-\x00\n\xff"

    def name() -> bytes:
        return bytes(random.choices(alphabet, k=random.randrange(4)))

    handler = cache.handler()
    await handler.connect()
    for n in range(100):
        tags_of = {name(): {name() for _ in range(random.randrange(3))} for _ in range(30)}
        for entry, tags in tags_of.items():
            cache.put(entry, tags)
        kinds = random.choices(list(Kind), weights=[20, 5, 5, 0.2], k=random.randrange(50))
        rows = [EVERYTHING if k == Kind.NAMESPACE else bytes([k]) + (name() or b"a") for k in kinds]
        half = len(rows) // 2
        await handler.apply([batch(*rows[:half]), batch(*rows[half:]), batch()], at(n + 1))
        assert cache.names() == {
            entry
            for entry, tags in tags_of.items()
            if key(entry) not in rows
            and EVERYTHING not in rows
            and not any(tag(t) in rows for t in tags)
            and not any(entry.startswith(r[1:]) for r in rows if r[0] == Kind.PREFIX)
        }
        await handler.apply(
            [batch(EVERYTHING, *map(tag, set().union(*tags_of.values())))], at(n + 1)
        )
    await handler.aclose()


async def test_more_prefixes_than_get_a_pass_each_drop_what_they_name(cache) -> None:
    starts = [b"p%d:" % n for n in range(0, 200, 2)]
    names = {b"p%d:%d" % (n, m) for n in range(200) for m in range(3)} | {b"", b"a", b"z", b"p"}
    for entry in names:
        cache.put(entry)
    handler = cache.handler()
    await handler.connect()
    await handler.apply(
        [batch(*map(prefix, [*starts, *starts, b"p0:1", b"p"[:0] + b"p4:2"]))], at(1)
    )
    assert cache.names() == {name for name in names if not name.startswith(tuple(starts))}
    await handler.aclose()


async def test_the_cursor_is_read_again_by_who_connects_next(cache) -> None:
    first = cache.handler()
    await first.connect()
    await first.apply([batch(key(b"1"))], at(7))
    await first.apply([], at(9))
    await first.aclose()
    second = cache.handler()
    assert await second.connect() == (at(9), False)
    await second.apply([batch(key(b"1"))], at(10))
    assert (await second.connect()).cursor == at(10)
    await second.aclose()


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [batch(key(b"new"))],
        [batch(prefix(b"new"), tag(b"red"), key(b"1"))],
        [batch(EVERYTHING)],
    ],
    ids=["none", "keys", "wide", "everything"],
)
async def test_a_cache_that_was_replaced_is_noticed_and_resumed_from_where_it_is(
    cache, rows
) -> None:
    handler = cache.handler()
    await handler.connect()
    await handler.apply([], at(1))
    cache.put(b"old")
    older = cache.copy()
    await handler.apply([batch(key(b"old"))], at(2))
    cache.restore(older)
    with pytest.raises(CursorMoved):
        await handler.apply(rows, at(2) if not rows else at(3))
    with pytest.raises(HandlerFailed):
        await handler.apply(rows, at(3))
    cache.put(b"old")
    assert await handler.connect() == (at(1), True)
    await handler.apply([batch(key(b"old"))], at(3))
    assert await handler.connect() == (at(3), False)
    await handler.aclose()


async def test_a_cache_that_was_wiped_holds_no_cursor(cache) -> None:
    handler = cache.handler()
    await handler.connect()
    await handler.apply([], at(1))
    cache.wipe()
    with pytest.raises(CursorMoved):
        await handler.apply([], at(1))
    assert await handler.connect() == (None, False)
    await handler.apply([], at(2))
    await handler.aclose()


async def test_nothing_is_applied_without_a_connection(cache) -> None:
    cache.put(b"1")
    handler = cache.handler()
    with pytest.raises(HandlerFailed):
        await handler.apply([batch(key(b"1"))], at(1))
    await handler.connect()
    await handler.aclose()
    await handler.aclose()
    with pytest.raises(HandlerFailed):
        await handler.apply([batch(key(b"1"))], at(1))
    assert cache.names() == {b"1"}


async def test_ten_thousand_rows_in_one_call(cache) -> None:
    names = [b"%d" % n for n in range(10_000)]
    for n in range(0, 10_000, 100):
        cache.put(names[n])
    cache.put(b"stays")
    handler = cache.handler()
    await handler.connect()
    await handler.apply(
        [batch(*map(key, names[:5_000])), batch(*map(key, names[5_000:]))], at(10_000)
    )
    assert cache.names() == {b"stays"}
    assert (await handler.connect()).cursor == at(10_000)
    await handler.aclose()


async def test_a_survey_of_an_empty_cache_finds_nothing(cache) -> None:
    survey = await cache.handler().survey()
    assert survey[1:] == (0, 0, 0, 0, None)
    assert "{key}" in survey.template


async def test_a_survey_counts_entries_tags_and_what_is_neither(cache) -> None:
    handler = cache.handler()
    await handler.connect()
    await handler.apply([], at(1))
    for name in ODD_NAMES:
        cache.put(name, tags=[b"red", b"blue"])
    cache.put_stranger(b"prod:shop:17\xff")
    count = len(ODD_NAMES)
    assert (await handler.survey())[1:] == (count + 3, count + 3, count, 2, b"prod:shop:17\xff")
    await handler.apply([batch(EVERYTHING)], at(2))
    assert (await handler.survey()).entries == 0, "the connection of apply was left alone"
    await handler.aclose()


async def test_a_survey_looks_at_a_part_of_a_large_cache(cache) -> None:
    cache.put_many(b"%d" % n for n in range(SURVEY_KEYS_MAX + 500))
    survey = await cache.handler().survey()
    assert survey.total == SURVEY_KEYS_MAX + 500
    assert survey.seen == survey.entries == SURVEY_KEYS_MAX


async def test_without_a_template_a_survey_knows_of_no_tags(untagged) -> None:
    untagged.put(b"1")
    survey = await untagged.handler().survey()
    assert (survey.entries, survey.tags) == (1, None)
