"""What members say to each other while they mend what spreading missed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from coherd.model import Batch, Stream
    from coherd.replication.answers import Answer
    from coherd.replication.intervals import Intervals

Claims: TypeAlias = "tuple[tuple[Stream, Intervals], ...]"


class Have(NamedTuple):
    """What changed, and the sum over the namespaces that both hold."""

    changes: Claims
    sum: int
    catching_up: bool


class HaveReply(NamedTuple):
    """The other side's sum."""

    sum: int
    is_quiet: bool
    catching_up: bool
    had_changes: bool
    """Whether the Have that it answers carried any."""


class Compare(NamedTuple):
    """Asks for the streams of all namespaces that both hold, unless the sums are equal."""

    sum: int
    eras: Mapping[str, int]


class Compared(NamedTuple):
    """All streams; none where the sums are equal."""

    is_equal: bool
    streams: Claims
    catching_up: bool
    eras: Mapping[str, int]


class Fetch(NamedTuple):
    """Asks for rows."""

    number: int
    wanted: Mapping[Stream, Intervals]


class Fetched(NamedTuple):
    """Rows, each batch with its age, and what is known of the others; or a wish to be asked later."""

    number: int
    batches: tuple[tuple[Batch, float], ...]
    answers: Mapping[Stream, Answer]
    retry_after: float


class Offer(NamedTuple):
    """What a member has issued in a namespace that it does not hold."""

    streams: Claims


class OfferReply(NamedTuple):
    """What the holder has of it."""

    streams: Claims


Message: TypeAlias = Have | HaveReply | Compare | Compared | Fetch | Fetched | Offer | OfferReply
