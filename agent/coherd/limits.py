"""The one table of limits on what comes in over a wire (floor 0, below the nouns): nothing else is believed.

`docs/bad-inputs.md` shows the table. Every limit is tested at its value and one over.
"""

from __future__ import annotations

from typing import NamedTuple

REFUSED = "refused"
"""The call ends with INVALID_ARGUMENT, or where it was an answer the peer is taken to have failed; in a
payload, the payload is dropped and counted. Nothing changes."""
TOO_LARGE = "refused as too large"
"""The call ends with RESOURCE_EXHAUSTED. Nothing changes."""


class Limit(NamedTuple):
    """One row of the table."""

    value: int
    unit: str
    beyond: str
    """What happens to more than that."""


LIMITS: dict[str, Limit] = {}
"""The table, by name."""


def _limit(name: str, value: int, unit: str, beyond: str = REFUSED) -> int:
    LIMITS[name] = Limit(value, unit, beyond)
    return value


# ---------------------------------------------------------------- texts

NAMESPACE_MAX = _limit("NAMESPACE_MAX", 64, "characters of a namespace")
NAME_MAX = _limit("NAME_MAX", 128, "characters of the name of an agent, cluster, region or watcher")
SELECTOR_BYTES_MAX = _limit("SELECTOR_BYTES_MAX", 1024, "bytes of a key, tag or prefix")
REASON_MAX = _limit("REASON_MAX", 256, "characters of the reason of an invalidation")
ISSUER_MAX = _limit("ISSUER_MAX", NAME_MAX + 16, "characters of who issued rows: a role and a name")
ADDRESS_MAX = _limit("ADDRESS_MAX", 300, "characters of the address of an agent")
VERSION_MAX = _limit("VERSION_MAX", 64, "characters of the software version of an agent", "cut")
MEMBER_BYTES_MAX = _limit("MEMBER_BYTES_MAX", 4096, "bytes of what an agent says of itself")
LOG_TEXT_MAX = _limit("LOG_TEXT_MAX", 256, "characters of one value in the log", "cut")

# ---------------------------------------------------------------- numbers and times

NUMBER_MAX = _limit("NUMBER_MAX", 2**63 - 1, "as a number, position or version")
"""What SQLite's INTEGER holds."""
NUMBER_AHEAD_MAX = _limit(
    "NUMBER_AHEAD_MAX", 10**12, "numbers of a stream above the highest that is here"
)
"""No agent misses that many: 50,000 rows a second make them in eight months. Whoever was away for less
must be able to learn what it missed, so less than that is no proof of a mistake."""
EPOCH_MAX = _limit("EPOCH_MAX", 4_102_444_800_000, "as an epoch, in ms: the year 2100")
EPOCH_AHEAD_MAX_MS = _limit(
    "EPOCH_AHEAD_MAX_MS", 24 * 3_600_000, "ms of an epoch above the local clock", "taken, an alarm"
)
STAMP_AHEAD_MAX_MS = _limit(
    "STAMP_AHEAD_MAX_MS",
    5_000,
    "ms of a stamp above the local clock",
    "the row is applied, the local clock stays, counted",
)
AGE_MAX_MS = _limit("AGE_MAX_MS", 2**53, "as the age of rows, in ms")
TIMEOUT_MAX = _limit("TIMEOUT_MAX", 3_600, "seconds that a caller may want to wait")
APPLIED_WAIT_MAX = _limit(
    "APPLIED_WAIT_MAX", 60, "seconds that a peer may wait for rows to be applied", "cut"
)

# ---------------------------------------------------------------- rows

BATCH_ROWS_MAX = _limit("BATCH_ROWS_MAX", 1_000, "rows of an Invalidate or of a payload")
BATCH_RANGES_MAX = _limit("BATCH_RANGES_MAX", BATCH_ROWS_MAX // 2, "ranges of a payload's numbers")
"""A payload is a part of rows that were numbered in one go: at worst every other one is left."""
PAYLOAD_BYTES_MAX = _limit("PAYLOAD_BYTES_MAX", 2 * 1024 * 1024, "bytes of a payload")
"""1,000 rows of 1 KiB with their versions, and as much again for what later versions append."""

# ---------------------------------------------------------------- messages

PARCELS_MAX = _limit("PARCELS_MAX", 32_768, "parcels, receipts or payloads of one message")
"""As many of the smallest payloads as one message of a link has."""
ARCS_MAX = _limit("ARCS_MAX", 2, "arcs of one parcel: as many as there are rings")
STREAMS_MAX = _limit("STREAMS_MAX", 10_000, "streams, or origins, of one message")
RANGES_MAX = _limit("RANGES_MAX", 20_000, "ranges of all sets of numbers of one message")
"""Twice what the answer to a Fetch of 10,000 rows can have beside what is retained."""
ERAS_MAX = _limit("ERAS_MAX", 10_000, "eras of one Compare")
ERA_MAX = _limit("ERA_MAX", 100_000, "as an era")
"""At most one begins a day: more is a mistake, and would reset whoever believed it."""
DOTS_MAX = _limit("DOTS_MAX", 10_000, "ranges of rows of one GetReceipt or Applied")
MEMBERS_MAX = _limit("MEMBERS_MAX", 10_000, "members of a cluster that are remembered", "counted")
JOIN_SEEDS_MAX = _limit("JOIN_SEEDS_MAX", 100, "seeds of one `coherd join`")
DATAGRAMS_MAX = _limit("DATAGRAMS_MAX", 1_000, "messages about membership in one Exchange")
BUCKETS = _limit("BUCKETS", 64, "buckets of one Compare")
WATCH_NAMESPACES_MAX = _limit("WATCH_NAMESPACES_MAX", 1_000, "namespaces of one Watch")
TRACE_SELECTORS_MAX = _limit("TRACE_SELECTORS_MAX", 100, "keys, tags and prefixes of one trace")
TRACE_ROWS_MAX = _limit("TRACE_ROWS_MAX", 100, "rows of one trace")
TRACE_READERS_MAX = _limit("TRACE_READERS_MAX", 50, "caches of one row of a trace")
"""An agent with more of them names those that have not applied the row first."""

# ---------------------------------------------------------------- transport

MESSAGE_BYTES_MAX = _limit("MESSAGE_BYTES_MAX", 4 * 1024 * 1024, "bytes from a peer", TOO_LARGE)
"""A link sends up to 1 MiB of payloads and one more; the frames of the smallest weigh as much again."""
REQUEST_BYTES_MAX = _limit(
    "REQUEST_BYTES_MAX", 2 * 1024 * 1024, "bytes from an application", TOO_LARGE
)
METADATA_BYTES_MAX = _limit(
    "METADATA_BYTES_MAX", 8 * 1024, "bytes of the headers of a call, as HTTP/2 counts", TOO_LARGE
)
CALL_STREAMS_MAX = _limit(
    "CALL_STREAMS_MAX", 1_000, "calls under way on one connection", "wait at the client"
)
CALLS_MAX = _limit("CALLS_MAX", 5_000, "calls under way at one server", TOO_LARGE)
IDENTITY_CALLS_MAX = _limit(
    "IDENTITY_CALLS_MAX", 500, "calls under way of one identity at one server", TOO_LARGE
)
IDENTITY_CONNECTIONS_MAX = _limit(
    "IDENTITY_CONNECTIONS_MAX",
    32,
    "connections of one identity that have calls under way",
    TOO_LARGE,
)
CONNECTIONS_MAX = _limit("CONNECTIONS_MAX", 512, "connections to one address", "closed")
"""Half of the descriptors that a process usually has."""
