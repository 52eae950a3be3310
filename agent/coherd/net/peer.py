"""The door to one peer: what agents say to each other, as plain values.

`peer_client` speaks it over gRPC; the agent's own side of it is `cluster.endpoint`. Cores and tasks never
see protobuf.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from coherd.errors import RpcFailed
from coherd.model import EVERY_NAMESPACE
from coherd.replication.answers import Answer
from coherd.replication.intervals import Intervals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from coherd.model import HandlerInfo, Origin, Range, Stream
    from coherd.net.traces import TraceQuestion, TraceReply
    from coherd.replication.parcels import Applied, Arc

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
"""The versions of the protocol between agents that this software speaks."""


class Misnamed(RpcFailed):
    """Another agent has answered than the one that was dialled."""


class StreamRange(NamedTuple):
    """Consecutive rows of one stream: a range of dots."""

    stream: Stream
    numbers: Range


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """An agent as it describes itself."""

    name: str
    epoch: int
    address: str
    """Host and port where peers reach it."""
    region: str
    namespaces: tuple[str, ...] = (EVERY_NAMESPACE,)
    """What it holds."""
    version: str = ""
    protocol_min: int = PROTOCOL_MIN
    protocol_max: int = PROTOCOL_MAX
    handlers: tuple[HandlerInfo, ...] = ()
    """The caches on its host."""
    ready: bool | None = None
    """Whether it can vouch for them; None while that is not known."""

    def holds(self, namespace: str) -> bool:
        """Tell whether it keeps copies of the namespace."""
        return EVERY_NAMESPACE in self.namespaces or namespace in self.namespaces


class ExchangeReply(NamedTuple):
    """What was answered at once to messages about membership."""

    responder: Origin
    """The agent that answered."""
    datagrams: Sequence[bytes]
    wall_us: int
    """Its wall clock, in microseconds since 1970, for people."""


class HaveReply(NamedTuple):
    """How the hearer of a Have stands."""

    quiet: bool
    sum: int
    catching_up: bool
    streams: Sequence[tuple[Stream, Intervals]] = ()
    """To an offer: what it has of the offered streams."""


@dataclass(frozen=True, slots=True)
class Have:
    """What changed in the sender's vector; without changes it is quiet."""

    sender: Origin
    changes: Sequence[tuple[Stream, Intervals]]
    sum: int
    catching_up: bool
    offer: bool = False
    """The sender holds none of these namespaces, and wants to know what the receiver has of its streams."""


class StreamsPage(NamedTuple):
    """A page of streams with everything that the sender has of them."""

    streams: Sequence[tuple[Stream, Intervals]]
    more: bool


class RootReply(NamedTuple):
    """Whether the roots of both are equal, and whether the answering agent is catching up."""

    equal: bool
    catching_up: bool
    eras: Mapping[str, int] = {}
    """Those of the answering agent that are not 0."""


@dataclass(frozen=True, slots=True)
class FetchPart:
    """A part of the answer to a fetch."""

    blocks: Sequence[tuple[bytes, float]] = ()
    """Payloads, each with the age in seconds of its youngest row."""
    answers: Mapping[Stream, Answer] = field(default_factory=dict)
    """In the last parts: what is known beyond the rows."""
    retry_after: float = 0.0
    """Not 0: nothing is served now; ask again after so many seconds."""
    more: bool = False
    """Whether more answers follow; what several say of one stream is to be joined."""


class Parcel(NamedTuple):
    """One payload on its way over one link."""

    sequence: int
    payload: bytes
    age: float
    """Seconds since the rows were accepted at their origin."""
    receipt: bool
    """True when their origin wants to know who has applied them."""
    arcs: tuple[Arc, ...] = ()
    """Whom the receiver is to hand it on to."""


@dataclass(frozen=True, slots=True)
class LinkReply:
    """What the receiver of parcels says back."""

    acknowledged: int = 0
    """Every parcel up to this one was taken."""
    applied: Sequence[Applied] = ()
    """Who has applied which payloads."""


class OutgoingLink(Protocol):
    """One direction of spreading to one peer, while it is open."""

    peer: MemberInfo
    """Who answered."""

    def send_nowait(self, parcels: Sequence[Parcel]) -> None:
        """Send parcels, or with none show that the link lives."""

    async def receive(self) -> Sequence[LinkReply]:
        """Give the replies that wait, at least one; none once the peer has ended the link."""


class Peer(Protocol):
    """What can be asked of one peer; every verb raises `RpcFailed` when it does not answer.

    Those that tell who has answered raise `Misnamed` when it is not who was dialled.
    """

    async def exchange(
        self, me: MemberInfo, datagrams: Sequence[bytes], timeout: float
    ) -> ExchangeReply:
        """Bring it messages about membership, and get what it answers within `timeout` seconds."""

    def link(self, me: MemberInfo, *, urgent: bool) -> AbstractAsyncContextManager[OutgoingLink]:
        """Open a link to it."""

    async def have(self, have: Have) -> HaveReply:
        """Tell it what changed."""

    async def compare_roots(self, sender: Origin, root: int, eras: Mapping[str, int]) -> RootReply:
        """Compare the hashes over everything, and the eras that are not 0."""

    async def compare_buckets(self, sender: Origin, buckets: Sequence[int]) -> Sequence[int]:
        """Give the numbers of the buckets that differ."""

    async def compare_streams(
        self, sender: Origin, wanted: Sequence[int], skip: int
    ) -> StreamsPage:
        """Give the streams of some buckets."""

    def fetch(
        self, sender: Origin, wanted: Mapping[Stream, Intervals]
    ) -> AbstractAsyncContextManager[AsyncIterator[FetchPart]]:
        """Ask for missing rows."""

    async def applied(self, sender: Origin, dots: Sequence[StreamRange], wait: float) -> bool:
        """Ask whether its host has applied rows; it may think about it for `wait` seconds."""

    async def trace(self, sender: Origin, question: TraceQuestion, timeout: float) -> TraceReply:
        """Ask when and how rows came to its host, and who has applied them there."""

    async def aclose(self) -> None:
        """Close the connection."""


Dial: TypeAlias = "Callable[[str, str | None], Peer]"
"""Gives the door to the agent at an address, by its name; with None to whichever agent answers there."""
