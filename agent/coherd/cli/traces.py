"""Traces as people and scripts see them: one block a row, in it one line a host, and a verdict.

A row is found again on other hosts by its dot. Times are local times of this terminal, each by the clock
of the host that says it; how late a row came was carried with it and compares no clocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from coherd.cli.members import clock_of
from coherd.cli.output import Json, count_of, duration, escaped, json_bytes, mark, table, word
from coherd.cli.receipts import DotsText
from coherd.replication.clock import wall_ms

if TYPE_CHECKING:
    from coherd.v1 import admin_service_pb2 as pb
    from coherd.v1 import types_pb2

KINDS = {"k": "key", "t": "tag", "p": "prefix", "n": "everything"}
READERS_SHOWN_MAX = 3
"""Caches of one host named in a line; JSON has them all."""
CLOCK_SHOWN_US = 5_000
"""A clock that is surely wrong by so much is told beside the times that it gives."""
HEADS = ("", "HOST", "RECEIVED", "PATH", "LATE", "APPLIED", "CLOCK")


class Standing(StrEnum):
    """How a host stands with a row."""

    APPLIED = "applied"
    """It has it, and so has every cache of it."""
    RECEIVED = "received"
    """It has it, and some cache has not applied it yet."""
    MISSING = "missing"
    """It answered, and does not have it."""
    UNKNOWN = "unknown"
    """It did not answer."""


@dataclass(slots=True)
class Traced:
    """A row, or a reset of one host, with what the hosts say of it."""

    row: types_pb2.TracedRow
    """As a host has it that keeps all of it."""
    by_host: dict[str, types_pb2.TracedRow] = field(default_factory=dict)

    @property
    def is_reset(self) -> bool:
        """Whether it is a row of one host alone."""
        return not self.row.HasField("dots")

    @property
    def kind(self) -> str:
        """Give what its selector is."""
        return KINDS.get(self.row.selector[:1].decode(errors="replace"), "unknown")

    @property
    def age(self) -> float:
        """Give the seconds since its acceptance."""
        return min(row.age_ms for row in self.by_host.values()) / 1000

    def concerns(self, hosts: Iterable[pb.HostTrace]) -> list[pb.HostTrace]:
        """Give the hosts that should have it, and those that have."""
        return [h for h in hosts if h.name in self.by_host or (h.holds and not self.is_reset)]

    def standing(self, host: pb.HostTrace) -> Standing:
        """Say how a host stands with it."""
        row = self.by_host.get(host.name)
        if row is None:
            return Standing.UNKNOWN if host.error else Standing.MISSING
        is_applied = all(reader.applied for reader in row.readers)
        return Standing.APPLIED if is_applied else Standing.RECEIVED


class Trace:
    """All that the hosts say."""

    def __init__(self, what: str, asked: Sequence[bytes], hosts: Sequence[pb.HostTrace]) -> None:
        """`what` was asked about, as people write it; `asked` as selectors."""
        self.what = what
        self.hosts = hosts
        self._holders = [host for host in hosts if host.holds]
        self._asked = frozenset(asked)
        self.rows = sorted(merged(hosts), key=lambda traced: traced.age)

    @property
    def is_complete(self) -> bool:
        """Whether every host answered and has applied every row."""
        return not self._lagging()

    def _lagging(self) -> dict[Standing, list[pb.HostTrace]]:
        """Give the hosts that have not applied every row, each with the worst that is known of it."""
        found: dict[Standing, list[pb.HostTrace]] = {}
        for host in self._holders:
            rows = [traced for traced in self.rows if not traced.is_reset]
            standings = {traced.standing(host) for traced in rows}
            if host.error:
                standings.add(Standing.UNKNOWN)
            for standing in (Standing.MISSING, Standing.UNKNOWN, Standing.RECEIVED):
                if standing in standings:
                    found.setdefault(standing, []).append(host)
                    break
        return found

    # ------------------------------------------------------------------ for people

    def lines(self) -> Iterable[str]:
        """Give the blocks, and last the verdict."""
        has_clock = any(is_wrong(host) for host in self.hosts)
        for traced in self.rows:
            yield from self._head(traced)
            hosts = traced.concerns(self.hosts)
            cells = [self._cells(traced, host) for host in hosts]
            heads = HEADS if has_clock else HEADS[:-1]
            head, *rest = table(heads, [row[: len(heads)] for row in cells])
            yield head
            for line, row in zip(rest, cells, strict=True):
                yield mark(line[0], "green" if row[0] == "✓" else "red") + line[1:]
            yield ""
        yield self.verdict()

    def _head(self, traced: Traced) -> Iterable[str]:
        from coherd.v1 import types_pb2

        row = traced.row
        name = f"{traced.kind} {escaped(row.selector[1:])}".rstrip()
        covers = "" if row.selector in self._asked else f"  (covers {self.what})"
        if traced.is_reset:
            yield f"reset: {name}, by one host alone ({escaped(row.cause)}), {ago(traced)}"
            return
        version = f"  version {row.version}" if row.version else ""
        effect = word(types_pb2.Effect, row.effect)
        yield f"{name}  {effect}{version}  {DotsText.of(row.dots)}{covers}"
        at = moment(wall_ms(row.stamp) * 1000)
        asked = f"{escaped(row.issuer)} at " if row.issuer else ""
        issued = f"issued by {asked}{escaped(row.dots.origin.name)}"
        issued += f" at {at:%Y-%m-%d} {clock_time(at)}" if at else ""
        yield f"{issued}, {ago(traced)}" + (f": {escaped(row.reason)}" if row.reason else "")

    def _cells(self, traced: Traced, host: pb.HostTrace) -> tuple[str, ...]:
        standing, row = traced.standing(host), traced.by_host.get(host.name)
        sign = "✓" if standing is Standing.APPLIED else "✗"
        if row is None:
            said = told(host) if standing is Standing.UNKNOWN else "not received"
            return sign, host.name, "-", "-", "-", said, clock(host)
        late = duration(row.late_ms / 1000) if row.HasField("late_ms") else "-"
        return (
            *(sign, host.name, received(row, host, traced.row), row.cause or "-"),
            *("-" if row.cause == "local" else late, applied(row), clock(host)),
        )

    def verdict(self) -> str:
        """Say in one line whether every host has it."""
        count = sum(not traced.is_reset for traced in self.rows)
        lagging = self._lagging()
        if not self.rows:
            text = f"no row that touches {self.what} is remembered: none came, or it was forgotten"
            if silent := lagging.get(Standing.UNKNOWN):
                text += f"; no answer from {', '.join(map(seen, silent))}"
            return f"{mark('✗', 'red')} {text}"
        rows = "it" if count == 1 else f"all {count_of(count, 'row')}"
        if not count:
            rows = "every row that is remembered"
        if not lagging:
            total = len(self._holders)
            who = "the only host has" if total == 1 else f"{total} of {total} hosts have"
            return f"{mark('✓', 'green')} {who} applied {rows}"
        good = len(self._holders) - sum(map(len, lagging.values()))
        text = f"{good} of {len(self._holders)} hosts have applied {rows}"
        for standing, what in (
            (Standing.MISSING, "not received by"),
            (Standing.RECEIVED, "received and not applied by"),
            (Standing.UNKNOWN, "no answer from"),
        ):
            if hosts := lagging.get(standing):
                text += f"; {what} {', '.join(map(seen, hosts))}"
        return f"{mark('✗', 'red')} {text}"

    # ------------------------------------------------------------------ for scripts

    def json(self) -> Json:
        """Give what `-o json` prints."""
        return {
            "rows": [self._row_json(traced) for traced in self.rows],
            "hosts": [host_json(host) for host in self.hosts],
            "complete": self.is_complete,
        }

    def _row_json(self, traced: Traced) -> Json:
        from coherd.v1 import types_pb2

        row = traced.row
        return {
            "dot": None if traced.is_reset else str(DotsText.of(row.dots)),
            "kind": traced.kind,
            "selector": json_bytes(row.selector[1:]) if row.selector[1:] else None,
            "covers": row.selector not in self._asked,
            "effect": word(types_pb2.Effect, row.effect),
            "version": row.version or None,
            "time": iso(wall_ms(row.stamp) * 1000) if row.stamp else None,
            "age_s": traced.age,
            "origin": row.dots.origin.name or None,
            "reason": row.reason or None,
            "issuer": row.issuer or None,
            "hosts": [standing_json(traced, host) for host in traced.concerns(self.hosts)],
        }


def merged(hosts: Iterable[pb.HostTrace]) -> Iterable[Traced]:
    """Bring together what the hosts say of the same rows."""
    found: dict[object, Traced] = {}
    for host in hosts:
        for i, row in enumerate(host.rows):
            key = DotsText.of(row.dots) if row.HasField("dots") else (host.name, i)
            traced = found.setdefault(key, Traced(row))
            traced.by_host[host.name] = row
            if not traced.row.selector:
                traced.row = row
    return found.values()


def ago(traced: Traced) -> str:
    """Say how long ago it was."""
    return f"{duration(traced.age)} ago"


def moment(us: int) -> datetime | None:
    """Give a wall-clock time as local time; None for what no calendar has."""
    try:
        return datetime.fromtimestamp(us / 1_000_000, UTC).astimezone() if us else None
    except (OverflowError, ValueError, OSError):
        return None


def iso(us: int) -> str | None:
    """Give a wall-clock time for JSON."""
    at = moment(us)
    return at.astimezone(UTC).isoformat(timespec="milliseconds") if at else None


def clock_time(at: datetime) -> str:
    """Give the time of day with milliseconds."""
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"


def since(us: int, than: datetime | None) -> str:
    """Give a time of day, with its date where it is another one."""
    at = moment(us)
    if at is None:
        return "?"
    is_same_day = than is not None and at.date() == than.date()
    return clock_time(at) if is_same_day else f"{at:%Y-%m-%d} {clock_time(at)}"


def received(row: types_pb2.TracedRow, host: pb.HostTrace, whole: types_pb2.TracedRow) -> str:
    """Say when a host got a row."""
    than = moment(wall_ms(whole.stamp) * 1000)
    if not row.selector:
        return "yes, kept no more"
    if row.HasField("received_us"):
        return since(row.received_us, than)
    at = since(host.since_us, than).partition(".")[0]
    return f"before {at}" + (" (started then)" if host.since_us == host.started_us else "")


def applied(row: types_pb2.TracedRow) -> str:
    """Say which caches of a host have applied a row, and when."""
    if not row.readers:
        return "no cache here"
    than = moment(row.received_us) or moment(wall_ms(row.stamp) * 1000)
    texts = []
    for reader in row.readers[:READERS_SHOWN_MAX]:
        name = reader.label if reader.kind == "handler" else f"{reader.kind} {reader.label}"
        when = since(reader.applied_us, than) if reader.HasField("applied_us") else "yes"
        texts.append(f"{name} {when if reader.applied else 'not yet'}")
    more = len(row.readers) - READERS_SHOWN_MAX
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def told(host: pb.HostTrace) -> str:
    """Say why a host said nothing."""
    return f"{state_of(host)}: {host.error}"


def state_of(host: pb.HostTrace) -> str:
    """Say how a host is seen, and since when where it is not alive."""
    from coherd.v1 import types_pb2

    state = word(types_pb2.MemberState, host.state)
    return state if state == "alive" else f"{state} for {duration(host.state_age_ms / 1000)}"


def seen(host: pb.HostTrace) -> str:
    """Give a host's name with how it is seen."""
    return f"{escaped(host.name)} ({state_of(host)})"


def is_wrong(host: pb.HostTrace) -> bool:
    """Tell whether a host's clock surely differs from the asked agent's so much that people are misled."""
    low, high = host.clock_offset_min_us, host.clock_offset_max_us
    return low >= CLOCK_SHOWN_US or high <= -CLOCK_SHOWN_US


def clock(host: pb.HostTrace) -> str:
    """Say how far a host's clock is ahead, where that matters."""
    return clock_of(host) if is_wrong(host) else ""


def host_json(host: pb.HostTrace) -> Json:
    """Give a host for JSON."""
    from coherd.v1 import types_pb2

    has_clock = host.HasField("clock_offset_min_us") and host.HasField("clock_offset_max_us")
    return {
        "name": host.name,
        "state": word(types_pb2.MemberState, host.state),
        "state_age_s": host.state_age_ms / 1000,
        "holds": host.holds,
        "error": host.error or None,
        "started": iso(host.started_us),
        "remembers_since": iso(host.since_us),
        "clock_offset_us": [host.clock_offset_min_us, host.clock_offset_max_us]
        if has_clock
        else None,
    }


def standing_json(traced: Traced, host: pb.HostTrace) -> Json:
    """Give for JSON how a host stands with a row."""
    row = traced.by_host.get(host.name)
    return {
        "name": host.name,
        "standing": traced.standing(host).value,
        "received": iso(row.received_us) if row else None,
        "path": (row.cause or None) if row else None,
        "late_s": row.late_ms / 1000 if row and row.HasField("late_ms") else None,
        "caches": [
            {
                "label": reader.label,
                "kind": reader.kind,
                "applied": reader.applied,
                "time": iso(reader.applied_us),
            }
            for reader in (row.readers if row else ())
        ],
    }
