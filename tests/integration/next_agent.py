"""An agent of a build that does not exist yet: it speaks one version of the protocol more than this one, and
says in every message something that this one does not know. Arguments as of `coherd`.
"""

from __future__ import annotations

from typing import Any

import msgpack

from coherd.__main__ import main
from coherd.api import peer_service
from coherd.cluster import ingest
from coherd.net import peer, peer_client, peer_codec
from coherd_membership import _codec, _outbox, _swim

NEXT = peer.PROTOCOL_MAX + 1
UNKNOWN_FIELD = bytes((0xC2, 0x3E, 5)) + b"later"
"""Field 1000 of a message, with five bytes."""
UNKNOWN_SECTION = _codec.section(77, b"later")


class Later:
    """A module of messages whose messages say more than they should."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        return Extended(found) if hasattr(found, "DESCRIPTOR") and callable(found) else found


class Extended:
    """A message class of the next version."""

    def __init__(self, message_class: Any) -> None:
        self._class = message_class

    def __call__(self, **fields: Any) -> Any:
        if "protocol_max" in fields:
            fields["protocol_max"] = NEXT
        message = self._class(**fields)
        message.MergeFromString(UNKNOWN_FIELD)
        return message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._class, name)


def extend() -> None:
    """Let everything that goes to a peer be of the next version."""
    for module, names in (
        (peer_client, ("pb", "types_pb2")),
        (peer_service, ("pb",)),
        (peer_codec, ("peer_pb", "types_pb2")),
    ):
        for name in names:
            setattr(module, name, Later(getattr(module, name)))
    head, encode_batch = _outbox.head, ingest.encode_batch

    def longer_head(*arguments: Any) -> bytes:
        return head(*arguments) + UNKNOWN_SECTION

    def longer_batch(batch: Any) -> bytes:
        columns = msgpack.unpackb(encode_batch(batch))
        packed: bytes = msgpack.packb([*columns, {"later": 1}])
        return packed

    _outbox.head = longer_head
    ingest.encode_batch = longer_batch
    _codec.PROTOCOL_MAX = _swim.PROTOCOL_MAX = NEXT


if __name__ == "__main__":
    extend()
    main()
