"""An application that fills its cache: stores what is missing, again and again, until its input ends.

A process of its own beside each Redis: `filling.py PORT KEYS RATE SEED`. The server itself writes into
each copy when it stored it, so that a fill that waited in a queue says the truth.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Sequence

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from soak.truth import Selector

KEYS_A_PREFIX = 200
TAGS = 200
BATCHES_A_SECOND = 10
TIMEOUT = 1.0
"""Seconds; a fill that is given up then may still be stored."""

# A filled cache is not overwritten: what is stale stays, until somebody invalidates it again. Nearly all keys
# are there: so the tag of one is found out here, and only of what is missing.
FILL = """
local now = redis.call('TIME')
local at = string.format('%d%06d', now[1], now[2])
local filled = 0
for _, key in ipairs(KEYS) do
  if redis.call('SET', key, at, 'NX') then
    redis.call('SADD', ARGV[1] .. tonumber(key:match('%d+$')) % ARGV[2], key)
    filled = filled + 1
  end
end
return filled
"""
"""KEYS: entries. ARGV: how the names of their tags' sets begin, and how many sets there are. Returns how many
entries were missing and are stored now."""


def key(n: int) -> bytes:
    """Give the key with a number."""
    return b"%03d/%05d" % (n // KEYS_A_PREFIX, n)


def prefix(n: int) -> bytes:
    """Give the prefix of the key with a number."""
    return b"%03d/" % (n // KEYS_A_PREFIX)


def tag(n: int) -> bytes:
    """Give the tag of the key with a number."""
    return b"t%d" % (n % TAGS)


def selectors(n: int) -> tuple[Selector, ...]:
    """Name everything that covers the key with a number."""
    return (Selector("key", key(n)), Selector("prefix", prefix(n)), Selector("tag", tag(n)))


def connect(port: int, timeout: float) -> redis.Redis:
    """Give a client of a Redis on this host that tries everything once, for so many seconds."""
    once = Retry(NoBackoff(), 0)
    return redis.Redis(
        port=port, socket_timeout=timeout, socket_connect_timeout=timeout, retry=once
    )


class Filler:
    """Fills one cache."""

    def __init__(self, client: redis.Redis) -> None:
        self._script = client.register_script(FILL)

    def fill(self, names: Sequence[bytes]) -> None:
        """Store the missing ones of some entries."""
        self._script(keys=names, args=[b"tag:shop:t", TAGS])


def names(keys: int) -> list[bytes]:
    """Give what the entries of so many keys are called in a cache."""
    return [b"shop:" + key(n) for n in range(keys)]


def fill_again_and_again(
    port: int, keys: int, rate: int, source: random.Random, is_over: threading.Event
) -> None:
    """Look at so many keys a second, chosen at random; a Redis that is away is tried again."""
    batch = max(1, rate // BATCHES_A_SECOND)
    known = names(keys)
    with connect(port, TIMEOUT) as client:
        filler = Filler(client)
        while not is_over.wait(1 / BATCHES_A_SECOND):
            try:
                filler.fill(source.choices(known, k=batch))
            except redis.RedisError:
                continue


def main() -> None:
    """Fill until whoever started this process closes its input, or is gone."""
    port, keys, rate, seed = map(int, sys.argv[1:])
    is_over = threading.Event()
    work = (port, keys, rate, random.Random(seed), is_over)
    filler = threading.Thread(target=fill_again_and_again, args=work)
    filler.start()
    sys.stdin.read()
    is_over.set()
    filler.join()


if __name__ == "__main__":
    main()
