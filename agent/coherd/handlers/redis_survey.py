"""What a Redis really holds (floor 2): how many of its keys are entries and tags of one namespace.

A handler whose template matches nothing does nothing, and nothing fails: the survey shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from coherd.handlers import SURVEY_KEYS_MAX, SURVEY_SECONDS_MAX, Survey
from coherd.handlers.redis_connection import SCAN_COUNT
from coherd.handlers.redis_names import OWN, Template

if TYPE_CHECKING:
    from collections.abc import Collection

    from coherd.handlers.redis_connection import RedisConnection


async def survey(connection: RedisConnection, key: Template, tag: Template | None) -> Survey:
    """Open `connection` and look at a bounded part of the database. Raises HandlerFailed."""
    await connection.open()
    (total,) = await connection.call([(b"DBSIZE",)])
    names: set[bytes] = set()  # SCAN may give a name more than once
    at = b"0"
    give_up_at = trio.current_time() + SURVEY_SECONDS_MAX
    while len(names) < SURVEY_KEYS_MAX and trio.current_time() < give_up_at:
        ((at, found),) = await connection.call([(b"SCAN", at, b"COUNT", SCAN_COUNT)])
        names.update(found[: SURVEY_KEYS_MAX - len(names)])
        if at == b"0":
            break
    return count(total, names, key, tag)


def count(total: int, names: Collection[bytes], key: Template, tag: Template | None) -> Survey:
    """Tell apart what was seen of `total` keys; a set of tags may fit the template of entries too."""
    others = {name for name in names if not name.startswith(OWN)}
    tags = {name for name in others if tag is not None and tag.fits(name)}
    entries = {name for name in others - tags if key.fits(name)}
    return Survey(
        key.spelled("{key}"),
        max(total - (len(names) - len(others)), len(others)),
        len(others),
        len(entries),
        None if tag is None else len(tags),
        min(others - tags - entries, default=None),
    )
