"""Redis and Valkey as a cache (floor 2): one namespace of one database of one server.

What the application stores, and what coherd does with it:

* An entry is one Redis key, of any type, named after the *key template*: ``shop:{key}`` or
  ``shop:{key}:v2``. Keys are bytes and never decoded.
* A tag is a set (or a sorted set) named after the *tag template*, ``tag:shop:{tag}``; its members are
  **full Redis keys**, as in ``shop:42``. An entry and its memberships are written in one MULTI:
  an entry that is added to its tag's set only later can be missed in between.
* A tag row drops the members and the set in one step. Where that cannot be done (there is no
  template for tags, or what has the tag's name is no set) the row is widened to the whole namespace:
  invalidating too much is always safe, too little never is.
* A prefix row, a namespace row and a reset drop what SCAN finds. Sets of tags whose names fit the key
  template are dropped together with their members, so no entry outlives its membership.
* One namespace's template must not match another's entries: what matches is taken for its own.
* Redis cannot mark an entry as stale: the effect `stale` drops.

The cursor lives beside the entries, in the hash ``coherd:cursor:{cluster}:{agent}``, one field for each
(namespace, key template, tag template). It is written in the MULTI that carries the last deletes, by
a script that sets it only if the hash still has what this handler read or wrote last. So whatever
replaces the data (an older snapshot, a failover to a replica that lags, FLUSHALL, an eviction, a second
agent of that name) takes the cursor along, and shows as `CursorMoved` or at the next `connect`,
also where the connection itself survived it. An apply of more than one step first puts a
random mark beside its cursor: a copy made before its first delete holds the same cursor, but no mark.

Not for Redis Cluster. The ACL needs ``+ping +select +scan +unlink +multi +exec +eval +hget +hset +type
+smembers +zrange`` on the entries, the tags and ``coherd:cursor:*``, and ``+dbsize`` for a survey.
"""

from __future__ import annotations

import json
import secrets
from bisect import bisect_right
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio

from coherd.errors import HandlerFailed
from coherd.handlers import CursorMoved, Resumption
from coherd.handlers.redis_connection import (
    COMMAND_TIMEOUT,
    CONNECT_TIMEOUT,
    SCAN_COUNT,
    Command,
    RedisConnection,
    understood,
)
from coherd.handlers.redis_names import OWN, Template
from coherd.handlers.redis_survey import survey
from coherd.model import HandlerInfo, Kind, Position

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from coherd.handlers import Survey
    from coherd.model import Batch

UNLINK_KEYS_MAX = 500
"""Keys of one UNLINK: a few tenths of a millisecond of the server's one thread."""
COMMANDS_MAX = 8
"""Commands under way at once, and UNLINKs in the MULTI."""
TAGS_MAX = 32
"""Tags of one script: the server does nothing else while it runs."""
PASSES_MAX = 16
"""Prefixes that get a SCAN each; more of them share one, and are told apart here."""
WARM_WITHIN = 1.0
"""Seconds to look for one entry; after that the cache is taken to be warm, the safe answer."""

# Lua's `unpack` takes some 8,000 values at most, hence the slices.
DROP_TAGS = b"""
local strangers = 0
for _, tag in ipairs(KEYS) do
  local kind, members = redis.call('TYPE', tag)['ok'], nil
  if kind == 'set' then members = redis.call('SMEMBERS', tag)
  elseif kind == 'zset' then members = redis.call('ZRANGE', tag, 0, -1)
  elseif ARGV[1] == 'any' then members = {}
  elseif kind ~= 'none' then strangers = strangers + 1 end
  if members then
    for first = 1, #members, 500 do
      redis.call('UNLINK', unpack(members, first, math.min(first + 499, #members)))
    end
    redis.call('UNLINK', tag)
  end
end
return strangers
"""
"""KEYS: sets of tags. Drops their members and them; returns how many were something else, which is
left alone unless ARGV[1] is 'any'."""

MOVE_CURSOR = b"""
local held = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if held ~= ARGV[2] then return held end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
"""KEYS[1], ARGV[1]: hash and field. Sets ARGV[3] if it holds ARGV[2]; else returns what it holds."""


class Work(NamedTuple):
    """The rows of one apply by what has to be done for them, as full names."""

    keys: list[bytes]
    tags: list[bytes]
    prefixes: list[bytes]


class RedisHandler:
    """Applies the rows of one namespace to one Redis: a `Handler`.

    Whatever is not confirmed raises `HandlerFailed` and leaves the handler unconnected: nothing is
    applied until `connect` has read again where the cache stands. `apply` without rows is the probe
    for quiet times: it finds out whether the cache is there and still holds the cursor.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str,
        key: str,
        tag: str | None,
        cluster: str,
        agent: str,
        connect_timeout: float = CONNECT_TIMEOUT,
        command_timeout: float = COMMAND_TIMEOUT,
    ) -> None:
        """`key` and `tag` are templates. Raises ConfigError for a URL or template that is wrong."""
        self._connection = RedisConnection(
            url, connect_timeout=connect_timeout, command_timeout=command_timeout
        )
        self._another = partial(
            RedisConnection,
            url,
            connect_timeout=connect_timeout,
            command_timeout=command_timeout,
        )
        self._namespace = namespace
        self._key = Template.parse(key, "{key}")
        self._tag = None if tag is None else Template.parse(tag, "{tag}")
        self._hash = OWN + f"{cluster}:{agent}".encode()
        self._field = json.dumps([namespace, key, tag]).encode()
        self._held: bytes | None = None  # in the hash, as far as known; None: not connected

    @property
    def label(self) -> str:
        """Which Redis, without user and password."""
        return self._connection.label

    @property
    def namespace(self) -> str:
        """The namespace whose rows it applies."""
        return self._namespace

    @property
    def info(self) -> HandlerInfo:
        """What other agents are told of it."""
        return HandlerInfo("redis", self._namespace, self._tag is not None)

    async def connect(self) -> Resumption:
        """Open a fresh connection and read where the cache stands."""
        self._held = None
        await self._connection.open()
        with understood(self.label):
            _, held = await self._connection.call([(b"PING",), (b"HGET", self._hash, self._field)])
            cursor = _read_cursor(held or b"")
            warm = await self._is_warm()
        self._held = held or b""
        return Resumption(cursor, warm)

    async def apply(self, batches: Sequence[Batch], cursor: Position) -> None:
        """Drop what the rows name, then store the cursor together with the last of it."""
        held, self._held = self._held, None
        if held is None:
            raise HandlerFailed(f"{self.label}: not connected")
        work = self._sort(batches)
        told = str(cursor).encode()
        if not any(work) and told == held:
            with understood(self.label):
                (found,) = await self._connection.call([(b"HGET", self._hash, self._field)])
                self._expect(found or b"", held)
        else:
            try:
                with understood(self.label):
                    await self._drop_and_commit(work, held, told)
            except CursorMoved:
                raise
            except HandlerFailed:
                # Nothing is confirmed, but what can be dropped is: a server that is out of memory and
                # evicts nothing refuses the cursor and all of a MULTI, and no delete outside of one.
                with suppress(HandlerFailed), understood(self.label):
                    await self._drop(list(_unlinks(work.keys)), work)
                raise
        self._held = told

    async def survey(self) -> Survey:
        """Look at a bounded part of what the database holds, over a connection of its own."""
        async with aclosing(self._another()) as connection:
            with understood(self.label):
                return await survey(connection, self._key, self._tag)

    async def aclose(self) -> None:
        """Close the connection; never raises."""
        self._held = None
        await self._connection.aclose()

    def _sort(self, batches: Sequence[Batch]) -> Work:
        """Turn rows into names. Runs for every row: nothing but one expression for a key."""
        head, tail = self._key
        keys: list[bytes] = []
        others: set[bytes] = set()
        for batch in batches:
            selectors = batch.selectors
            named = [head + s[1:] + tail for s in selectors if s[0] == Kind.KEY]
            keys += named
            if len(named) < len(selectors):
                others.update(s for s in selectors if s[0] != Kind.KEY)
        if OWN.startswith(head):
            keys = [name for name in keys if not name.startswith(OWN)]
        tags: list[bytes] = []
        prefixes: list[bytes] = []
        for selector in others:
            if selector[0] == Kind.PREFIX:
                prefixes.append(head + selector[1:])
            elif selector[0] == Kind.TAG and self._tag is not None:
                tags.append(self._tag.head + selector[1:] + self._tag.tail)
            else:
                prefixes.append(head)
        return Work(keys, tags, _shortest(prefixes))

    async def _drop_and_commit(self, work: Work, held: bytes, told: bytes) -> None:
        unlinks = list(_unlinks(work.keys))
        early, last = unlinks[:-COMMANDS_MAX], unlinks[-COMMANDS_MAX:]
        if early or work.tags or work.prefixes:
            held = await self._mark(held)
            await self._drop(early, work)
        *_, answers = await self._connection.call(
            [(b"MULTI",), *last, self._move(held, told), (b"EXEC",)]
        )
        self._expect(answers[len(last)], 1)

    async def _drop(self, unlinks: Sequence[Command], work: Work) -> None:
        """Drop these keys, what the tags name (everything, where one cannot be followed), prefixes."""
        await self._call_in_turn(unlinks)
        strangers = await self._call_in_turn(list(_scripts(work.tags, b"sets")))
        await self._sweep([self._key.head] if strangers else work.prefixes)

    async def _mark(self, held: bytes) -> bytes:
        """Put a mark beside the cursor that no earlier copy of the data can have."""
        marked = b"%b %b" % (held.partition(b" ")[0], secrets.token_hex(8).encode())
        (answer,) = await self._connection.call([self._move(held, marked)])
        self._expect(answer, 1)
        return marked

    def _move(self, held: bytes, told: bytes) -> Command:
        return (b"EVAL", MOVE_CURSOR, b"1", self._hash, self._field, held, told)

    def _expect(self, answer: bytes | int, expected: bytes | int) -> None:
        if answer != expected:
            found = answer.decode(errors="replace") if isinstance(answer, bytes) else answer
            raise CursorMoved(
                f"{self.label}: holds {repr(found)[:80] if found else 'no cursor'} instead of the cursor "
                "that was written last: restored, flushed, evicted, or another agent of this name"
            )

    async def _call_in_turn(self, commands: Sequence[Command]) -> int:
        """Call a few at a time and give the sum of the answers, which are all counts."""
        total = 0
        for part in _slices(commands, COMMANDS_MAX):
            total += sum(await self._connection.call(part))
        return total

    async def _sweep(self, prefixes: Sequence[bytes]) -> None:
        """Drop the entries whose names begin with one of `prefixes`, as `_shortest` gave them."""
        if len(prefixes) <= PASSES_MAX:
            for prefix in prefixes:
                await self._pass(prefix, ())
        else:
            ends = zip(prefixes[0], prefixes[-1], strict=False)
            alike = next(n for n, (a, b) in enumerate(ends) if a != b)
            await self._pass(prefixes[0][:alike], prefixes)

    async def _pass(self, prefix: bytes, among: Sequence[bytes]) -> None:
        """Go through the database once and drop what begins with `prefix`, and with one of `among`."""
        drops: list[Command] = []
        at = b"0"
        pattern = self._key.pattern(prefix)
        while True:
            *_, (at, names) = await self._connection.call([*drops, _scan(at, pattern)])
            found = [name for name in names if not name.startswith(OWN)]
            if among:
                found = [n for n in found if n.startswith(among[bisect_right(among, n) - 1])]
            sets = [n for n in found if self._tag.fits(n)] if self._tag is not None else []
            if sets:
                found = list(set(found).difference(sets))
            drops = [*_scripts(sets, b"any"), *_unlinks(found)]
            if at == b"0":
                break
        await self._call_in_turn(drops)

    async def _is_warm(self) -> bool:
        """Look for one entry."""
        give_up_at = trio.current_time() + WARM_WITHIN
        at = b"0"
        pattern = self._key.pattern(self._key.head)
        while trio.current_time() < give_up_at:
            ((at, names),) = await self._connection.call([_scan(at, pattern)])
            if any(not name.startswith(OWN) for name in names):
                return True
            if at == b"0":
                return False
        return True


def _read_cursor(held: bytes) -> Position | None:
    try:
        return Position.parse(held.partition(b" ")[0].decode())
    except ValueError:
        return None


def _shortest(prefixes: Iterable[bytes]) -> list[bytes]:
    """Leave out what a shorter one covers; sorted, so that a name's only candidate is the one before it."""
    kept: list[bytes] = []
    for prefix in sorted(prefixes):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return kept


def _slices(items: Sequence[Command], size: int) -> Iterator[Sequence[Command]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _scan(at: bytes, pattern: bytes) -> Command:
    return (b"SCAN", at, b"MATCH", pattern, b"COUNT", SCAN_COUNT)


def _unlinks(names: Sequence[bytes]) -> Iterator[Command]:
    for start in range(0, len(names), UNLINK_KEYS_MAX):
        yield (b"UNLINK", *names[start : start + UNLINK_KEYS_MAX])


def _scripts(tags: Sequence[bytes], which: bytes) -> Iterator[Command]:
    for start in range(0, len(tags), TAGS_MAX):
        part = tags[start : start + TAGS_MAX]
        yield (b"EVAL", DROP_TAGS, b"%d" % len(part), *part, which)
