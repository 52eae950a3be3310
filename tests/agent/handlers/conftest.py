"""Fixtures: a cache of each sort, empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from caches import MemoryCache, RedisCache
from servers import RedisServer, redis_server


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def cache_of_redis(shared_server: RedisServer) -> Iterator[RedisCache]:
    cache = RedisCache(shared_server)
    cache.client.flushall()
    yield cache
    cache.client.close()


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> MemoryCache | RedisCache:
    if request.param == "memory":
        return MemoryCache()
    return request.getfixturevalue("cache_of_redis")


@pytest.fixture(params=["memory", "redis"])
def untagged(request: pytest.FixtureRequest) -> MemoryCache | RedisCache:
    """A cache whose handler knows of no tags."""
    if request.param == "memory":
        return MemoryCache(tagged=False)
    cache = request.getfixturevalue("cache_of_redis")
    cache.tagged = False
    return cache
