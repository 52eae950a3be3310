"""Receipts as people and scripts see them: who has applied rows, who has not, and how to ask again.

The rows of a receipt are written NAMESPACE/ORIGIN/EPOCH/LANE/FIRST-LAST, one text for each run of
consecutive rows: what `coherd invalidate` prints is what `coherd receipt` takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coherd.cli.output import Json, escaped, mark, word
from coherd.errors import InvalidRequest
from coherd.limits import NUMBER_MAX
from coherd.model import NAME_PATTERN, NAMESPACE_PATTERN, Lane

if TYPE_CHECKING:
    from coherd.v1 import cache_service_pb2 as pb
    from coherd.v1 import types_pb2

SHOWN_MAX = 3
"""Texts of one receipt shown to people; JSON has them all."""

_LANES = "|".join(lane.name.lower() for lane in Lane)
_DOTS = re.compile(
    rf"(?P<namespace>{NAMESPACE_PATTERN.pattern})/(?P<name>{NAME_PATTERN.pattern})"
    rf"/(?P<epoch>[0-9]{{1,19}})/(?P<lane>{_LANES})/(?P<first>[0-9]{{1,19}})(?:-(?P<last>[0-9]{{1,19}}))?"
)


@dataclass(frozen=True, slots=True, order=True)
class DotsText:
    """Consecutive rows of one stream."""

    namespace: str
    name: str
    epoch: int
    lane: str
    first: int
    last: int

    def __str__(self) -> str:
        stream = f"{self.namespace}/{self.name}/{self.epoch}/{self.lane}"
        return f"{stream}/{self.first}-{self.last}"

    @classmethod
    def parse(cls, text: str) -> DotsText:
        """Read what `str` wrote; a single number stands for itself. Raises InvalidRequest."""
        match = _DOTS.fullmatch(text)
        if match is None:
            raise InvalidRequest(
                f"{escaped(text)[:200]!r} names no rows: NAMESPACE/ORIGIN/EPOCH/LANE/FIRST-LAST is due, "
                "as `coherd invalidate` prints it"
            )
        first = int(match["first"])
        dots = cls(
            match["namespace"],
            match["name"],
            int(match["epoch"]),
            match["lane"],
            first,
            int(match["last"] or first),
        )
        if not 1 <= dots.first <= dots.last <= NUMBER_MAX:
            raise InvalidRequest(
                f"{escaped(text)!r} names no rows: FIRST is at least 1, LAST no less"
            )
        return dots

    @classmethod
    def of(cls, dots: types_pb2.Dots) -> DotsText:
        """Read what an agent said."""
        from coherd.v1 import types_pb2

        lane = word(types_pb2.Lane, dots.lane)
        origin = dots.origin
        return cls(dots.namespace, origin.name, origin.epoch, lane, dots.first, dots.last)

    def message(self) -> types_pb2.Dots:
        """Write them for an agent."""
        from coherd.v1 import types_pb2

        return types_pb2.Dots(
            namespace=self.namespace,
            origin=types_pb2.Origin(name=self.name, epoch=self.epoch),
            lane=types_pb2.Lane.Value(f"LANE_{self.lane.upper()}"),
            first=self.first,
            last=self.last,
        )


@dataclass(slots=True)
class Summary:
    """What one or more receipts say together."""

    dots: list[DotsText] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    """Who has applied all of the rows."""
    missing: dict[str, str] = field(default_factory=dict)
    """Who lacks some of them, and its state."""
    durable: str | None = None
    """What the rows survive at the agent that accepted them: os or disk."""
    everybody: bool = True
    """All that were waited for have applied the rows."""
    stopped: bool = False
    """There were more rows, and they were not accepted."""
    count: int = 0
    """How many receipts."""

    def add(self, receipt: pb.Receipt) -> None:
        """Take in the receipt of further rows."""
        from coherd.v1 import types_pb2

        self.dots = joined([*self.dots, *map(DotsText.of, receipt.dots)])
        for missing in receipt.missing:
            self.missing[missing.name] = word(types_pb2.MemberState, missing.state)
        applied = set(self.applied) if self.count else set(receipt.applied)
        self.applied = sorted(applied.intersection(receipt.applied) - self.missing.keys())
        if receipt.durability:
            self.durable = word(types_pb2.Durability, receipt.durability)
        self.everybody = self.everybody and receipt.complete
        self.count += 1

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to wait for."""
        return self.everybody and not self.stopped

    def json(self) -> Json:
        """Give what `-o json` prints."""
        return {
            "dots": [str(dots) for dots in self.dots],
            "durable": self.durable,
            "applied": self.applied,
            "missing": [
                {"name": name, "state": state} for name, state in sorted(self.missing.items())
            ],
            "complete": self.is_complete,
        }

    def text(self, what: str) -> str:
        """Give the beginning of a line about `what`: who has applied it and who has not."""
        sign = mark("✓", "green") if self.is_complete else mark("…", "yellow")
        total = len(self.applied) + len(self.missing)
        if not total:
            return f"{sign} {what}  accepted"
        text = f"{sign} {what}  applied by {len(self.applied)} of {total}"
        if self.applied:
            text += ": " + " ".join(map(escaped, self.applied))
        if self.missing:
            gone = (f"{escaped(name)} ({state})" for name, state in sorted(self.missing.items()))
            text += "; missing: " + " ".join(gone)
        elif not self.everybody:
            text += "; more agents were waited for than hold copies"
        return text

    def tokens(self) -> str:
        """Give the texts to ask again with, as many as people can read."""
        shown = " ".join(str(dots) for dots in self.dots[:SHOWN_MAX])
        more = len(self.dots) - SHOWN_MAX
        return f"{shown} and {more} more (-o json has them all)" if more > 0 else shown


def joined(dots: Iterable[DotsText]) -> list[DotsText]:
    """Give the same rows in as few texts as possible."""
    result: list[DotsText] = []
    for entry in sorted(dots):
        before = result[-1] if result else None
        if before and _stream(before) == _stream(entry) and entry.first <= before.last + 1:
            last = max(before.last, entry.last)
            result[-1] = DotsText(*_stream(entry), before.first, last)
        else:
            result.append(entry)
    return result


def _stream(dots: DotsText) -> tuple[str, str, int, str]:
    return dots.namespace, dots.name, dots.epoch, dots.lane


def parse_all(texts: Sequence[str]) -> list[DotsText]:
    """Read the arguments of `coherd receipt`. Raises InvalidRequest."""
    return joined(DotsText.parse(text) for text in texts)
