"""What only Redis has: templates, databases, sets of tags, its own keys, ways to log in."""

from __future__ import annotations

import pytest
import redis
import trio
from caches import RedisCache, at, batch, key, prefix, tag
from servers import redis_server

from coherd.errors import ConfigError, HandlerFailed
from coherd.handlers import SURVEY_KEYS_MAX, CursorMoved
from coherd.model import EVERYTHING, Position

CURSORS = b"coherd:cursor:test:here"


@pytest.fixture
def cache(cache_of_redis):
    return cache_of_redis


def all_names(cache: RedisCache) -> set[bytes]:
    return set(cache.client.keys("*"))


async def test_other_keys_of_the_database_are_left_alone(cache) -> None:
    others = {b"other:1", b"shopping", b"xshop:1", b"sho", b"coherd:cursor:test:another"}
    for name in others:
        cache.client.set(name, "value")
    cache.put_many(b"%d" % n for n in range(100))
    handler = cache.handler()
    await handler.connect()
    await handler.apply([batch(key(b"1"), prefix(b"2"), tag(b"red"), EVERYTHING)], at(1))
    assert all_names(cache) == others | {CURSORS}
    await handler.aclose()


async def test_text_after_the_key_is_part_of_the_name(cache) -> None:
    entries = RedisCache(cache.server, template="shop:{key}:v[2]*")
    for name in (b"1", b"2", b"21", b"3", b""):
        entries.put(name)
    others = {b"shop:2", b"shop:2:v[2]", b"shop:2:v2", b"shop::v[2]*x", b"shop:v[2]*"}
    for name in others:
        cache.client.set(name, "value")
    handler = entries.handler()
    assert (await handler.connect()).warm
    await handler.apply([batch(key(b"1"), prefix(b"2"))], at(1))
    assert entries.names() == {b"3", b""}
    await handler.apply([batch(*(prefix(b"%d" % n) for n in range(20)), prefix(b":"))], at(2))
    assert entries.names() == {b""}
    await handler.apply([batch(EVERYTHING)], at(3))
    assert all_names(cache) == others | {CURSORS}
    assert await handler.connect() == (at(3), False)
    await handler.aclose()


async def test_the_own_keys_survive_where_every_key_is_an_entry(cache) -> None:
    everything = RedisCache(cache.server, template="{key}")
    neighbour = everything.handler(agent="there")
    await neighbour.connect()
    await neighbour.apply([], at(5))
    handler = everything.handler()
    assert await handler.connect() == (None, False), "the own keys are no entries"
    rows = [EVERYTHING, prefix(b"coherd"), prefix(b"c"), key(CURSORS)]
    rows += [prefix(b"coherd:cursor:%d" % n) for n in range(20)]
    for n, row in enumerate([*rows, None], 1):
        everything.put(b"coherd")
        everything.put(b"coherd:cursor")
        await handler.apply([batch(*rows) if row is None else batch(row)], at(n))
    assert all_names(cache) == {CURSORS, b"coherd:cursor:test:there"}
    assert (await handler.connect()).cursor == at(n)
    assert (await neighbour.connect()).cursor == at(5)
    await handler.aclose()
    await neighbour.aclose()


async def test_a_set_of_a_tag_inside_the_namespace_goes_with_its_members(cache) -> None:
    """Else an entry that SCAN missed would outlive its membership, and the next tag row miss it."""
    handler = cache.handler(tag="shop:tag:{tag}")
    cache.client.sadd("shop:tag:red", "shop:1", "beside")
    cache.client.set("shop:1", "value")
    cache.client.set("beside", "a member that no SCAN of the namespace finds")
    cache.client.set("shop:tag:note", "no set at all")
    await handler.connect()
    await handler.apply([batch(prefix(b"t"))], at(1))
    assert all_names(cache) == {CURSORS}
    await handler.aclose()


@pytest.mark.parametrize("tags", [1, 40, 400])
async def test_many_tags_with_many_members(cache, tags) -> None:
    members = [[b"%d:%d" % (n, m) for m in range(40_000 // tags)] for n in range(tags)]
    for n, names in enumerate(members):
        cache.put_many(names)
        cache.client.sadd(f"tag:shop:{n}", *(b"shop:" + name for name in names))
    cache.put(b"stays")
    handler = cache.handler()
    await handler.connect()
    await handler.apply([batch(*(tag(b"%d" % n) for n in range(tags)))], at(1))
    assert all_names(cache) == {b"shop:stays", CURSORS}
    await handler.aclose()


async def test_a_tag_may_be_a_sorted_set_and_anything_else_widens_to_the_namespace(cache) -> None:
    cache.put(b"1")
    cache.put(b"2")
    cache.client.zadd("tag:shop:red", {"shop:1": 1})
    cache.client.set("tag:shop:blue", "not a set")
    handler = cache.handler()
    await handler.connect()
    await handler.apply([batch(tag(b"red"))], at(1))
    assert all_names(cache) == {b"shop:2", b"tag:shop:blue", CURSORS}
    await handler.apply([batch(tag(b"blue"))], at(2))
    assert all_names(cache) == {b"tag:shop:blue", CURSORS}
    await handler.aclose()


async def test_entries_of_any_type_are_dropped(cache) -> None:
    cache.client.hset("shop:1", "field", "value")
    cache.client.rpush("shop:2", "value")
    handler = cache.handler()
    await handler.connect()
    await handler.apply([batch(key(b"1"), prefix(b"2"))], at(1))
    assert cache.names() == set()
    await handler.aclose()


async def test_two_namespaces_on_one_redis_have_cursors_of_their_own(cache) -> None:
    shop = cache.handler()
    blog = cache.handler(namespace="blog", key="blog:{key}", tag=None)
    await shop.connect()
    await blog.connect()
    await shop.apply([batch(EVERYTHING)], at(3))
    await blog.apply([batch(EVERYTHING)], at(8))
    await shop.apply([], at(4))
    assert (await shop.connect()).cursor == at(4)
    assert (await blog.connect()).cursor == at(8)
    other_template = cache.handler(key="shop:v2:{key}")
    assert (await other_template.connect()).cursor is None, "it never dropped under this template"
    for handler in (shop, blog, other_template):
        await handler.aclose()


async def test_two_agents_of_one_name_notice_each_other(cache) -> None:
    one, two = cache.handler(), cache.handler()
    await one.connect()
    await two.connect()
    await one.apply([], at(1))
    with pytest.raises(CursorMoved, match="another agent of this name"):
        await two.apply([], Position("here", 2, 1))
    await one.aclose()
    await two.aclose()


async def test_a_cursor_that_nobody_can_read_is_none_and_is_written_over(cache) -> None:
    handler = cache.handler()
    await handler.connect()
    await handler.apply([], at(1))
    (field,) = cache.client.hkeys(CURSORS)
    for held in (b"\xff", b"gibberish", b"a/b/c", b" mark"):
        cache.client.hset(CURSORS, field, held)
        assert (await handler.connect()).cursor is None
        await handler.apply([], at(2))
        assert (await handler.connect()).cursor == at(2)
    await handler.aclose()


async def test_a_database_number_is_a_cache_of_its_own(cache) -> None:
    cache.put(b"1")
    for url in (f"{cache.server.url}/3", f"unix://{cache.server.folder}/redis.sock?db=3"):
        handler = cache.handler(url=url)
        with redis.Redis(port=cache.server.port, db=3) as third:
            third.set("shop:1", "value")
            assert (await handler.connect()).warm
            await handler.apply([batch(key(b"1"), prefix(b"1"))], at(1))
            assert third.keys() == [CURSORS]
            third.flushdb()
        await handler.aclose()
    assert cache.names() == {b"1"}
    handler = cache.handler(url=f"{cache.server.url}/99")
    with pytest.raises(HandlerFailed, match=r"redis 127.0.0.1:\d+/99: .*DB index is out of range"):
        await handler.connect()


async def test_a_prefix_of_a_hundred_thousand_keys(cache) -> None:
    for start in range(0, 100_000, 10_000):
        cache.put_many(b"many:%d" % n for n in range(start, start + 10_000))
    cache.put(b"one")
    handler = cache.handler()
    await handler.connect()
    await handler.apply([batch(prefix(b"many:"))], at(1))
    assert cache.names() == {b"one"}
    await handler.aclose()


async def test_a_connection_outlives_the_scope_that_opened_it(cache) -> None:
    handler = cache.handler()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(10):
            await nursery.start(open_it, handler)
        nursery.cancel_scope.cancel()
    await handler.apply([], at(1))
    with trio.CancelScope() as cancelled:
        cancelled.cancel()
        await handler.apply([], at(2))
    assert cancelled.cancelled_caught
    with pytest.raises(HandlerFailed, match="not connected"):
        await handler.apply([], at(2))
    assert (await handler.connect()).cursor in {at(1), at(2)}
    with trio.CancelScope() as cancelled:
        cancelled.cancel()
        await handler.aclose()


async def open_it(handler, task_status) -> None:
    await handler.connect()
    task_status.started()
    await trio.sleep_forever()


async def test_passwords_and_users(tmp_path) -> None:
    acl = (
        "user app on >p%40ss:w/rd ~shop:* ~tag:shop:* ~coherd:cursor:* +ping +select +scan +unlink"
    )
    rules = f"{acl} +multi +exec +eval +hget +hset +type +smembers +zrange".split()
    with redis_server(tmp_path, "--requirepass", "s3cret/#1", "--user", *rules[1:]) as server:
        where = f"127.0.0.1:{server.port}"
        for login in (":s3cret%2F%231", "app:p%2540ss%3Aw%2Frd"):
            cache = RedisCache(server)
            handler = cache.handler(url=f"redis://{login}@{where}")
            await handler.connect()
            rows = [key(b"1"), tag(b"1"), prefix(b"1"), EVERYTHING]
            await handler.apply([batch(*rows)], at(1))
            await handler.apply([], at(1))
            assert handler.label == f"redis {where}"
            await handler.aclose()
        for login, said in (
            (":wr0ng-secret", "the user name or the password is wrong"),
            ("nobody:wr0ng-secret", "the user name or the password is wrong"),
            ("", "it asks for a password and the URL has none"),
        ):
            handler = cache.handler(url=f"redis://{login}@{where}")
            with pytest.raises(HandlerFailed, match=said) as failed:
                await handler.connect()
            assert "secret" not in str(failed.value)
            assert "\n" not in str(failed.value)
        handler = cache.handler(url=f"redis://app:p%2540ss%3Aw%2Frd@{where}", key="blog:{key}")
        await handler.connect()
        with pytest.raises(HandlerFailed, match="its ACL does not let this user"):
            await handler.apply([batch(key(b"1"))], at(2))
        await handler.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://host",
        "redis://",
        "redis://:s3cret@",
        "redis://:s3cret/x@host",
        "redis://:s3cret#x@host",
        "redis://host/one",
        "redis://host/-1",
        "redis://host:port",
        "unix://relative/path",
        "unix://",
        "redis://host?max_connections=3",
        "rediss://host?ssl_cert_reqs=maybe",
        "rediss://host?ssl_check_hostname=perhaps",
    ],
)
def test_a_wrong_url_is_refused_without_being_quoted(cache, url) -> None:
    with pytest.raises(ConfigError) as refused:
        cache.handler(url=url)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "shop"},
        {"key": "{key}{key}"},
        {"key": "shop:{tag}"},
        {"key": "coherd:cursor:{key}"},
        {"tag": "tag"},
        {"tag": "coherd:cursor:{tag}"},
    ],
)
def test_a_wrong_template_is_refused(cache, changes) -> None:
    with pytest.raises(ConfigError, match="the template"):
        cache.handler(**changes)


async def test_a_survey_of_a_large_database_costs_it_little(cache) -> None:
    cache.put_many(b"%d" % n for n in range(5 * SURVEY_KEYS_MAX))
    cache.client.config_resetstat()
    survey = await cache.handler().survey()
    assert (survey.total, survey.seen) == (5 * SURVEY_KEYS_MAX, SURVEY_KEYS_MAX)
    assert cache.client.info("commandstats")["cmdstat_scan"]["calls"] <= 12
