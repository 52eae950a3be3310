"""What members say to each other: plain values, complete when built."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from coherd_membership._member import News

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
"""The versions of this protocol that are spoken here; every message carries the range."""


class Kind(IntEnum):
    """What a message wants. One that is not known here is only read for its news."""

    PING = 1
    """Are you `target`? Answered by ACK, or by WRONG_TARGET."""
    PING_REQUEST = 2
    """Ask `target` at `address`, and pass its answer on; or say NACK."""
    ACK = 3
    """It is me; or, from a helper: `target` has answered."""
    NACK = 4
    """From a helper: I am here, and `target` has not answered yet."""
    WRONG_TARGET = 5
    """I am somebody else."""
    TELL = 6
    """News alone."""
    DIGEST = 7
    """`buckets` say what I know of everybody; tell me what differs. Answered by ENTRIES."""
    ENTRIES = 8
    """News of everybody in the buckets of `mask`; `wants_back` asks for the same in return."""
    WANT_META = 9
    """What do `names` publish? Answered by META."""
    META = 10
    TAKEN = 11
    """Your name belongs to another live member, at `address`."""


class Meta(NamedTuple):
    """What a member publishes of itself, in one version."""

    name: str
    epoch: int
    version: int
    data: bytes


class Message(NamedTuple):
    """One message; fields that its kind does not use are empty."""

    kind: int
    protocol_min: int
    protocol_max: int
    cluster: int
    """The label of the cluster, from its name."""
    root: int
    """Hash of all that the sender knows of members for good (not of suspicions)."""
    sequence: int
    """Of the question; an answer repeats it."""
    sender: News
    """The sender's own word about itself."""
    target: str = ""
    address: str = ""
    mask: int = 0
    wants_back: bool = False
    buckets: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    news: tuple[News, ...] = ()
    metas: tuple[Meta, ...] = ()


class Datagram(NamedTuple):
    """Bytes for one destination: an address, or the `source` of what is answered."""

    destination: str
    payload: bytes
