"""How many bytes two agents exchange that have nothing new to tell each other."""

from __future__ import annotations

from coherd.model import Lane, Origin, Stream
from coherd.net.eras_codec import decode_have_reply, encode_have_reply
from coherd.net.peer import Have, HaveReply
from coherd.net.peer_codec import decode_have, encode_have
from coherd.replication.intervals import Intervals

IDLE_BYTES_MAX = 100
NAME = "cache-0123.eu-central-1.prod.example"


def test_an_idle_sync_is_a_hundred_bytes_at_most() -> None:
    have = Have(Origin(NAME, 1_790_000_000_000), [], 2**64 - 1, catching_up=True)
    reply = HaveReply(True, 2**64 - 1, True)
    sizes = encode_have(have).ByteSize(), encode_have_reply(reply).ByteSize()
    assert sum(sizes) <= IDLE_BYTES_MAX, sizes


def test_an_offer_and_its_answer_are_read_as_they_were_written() -> None:
    stream = Stream("shop", Origin(NAME, 7), Lane.BULK)
    shown = [(stream, Intervals([(1, 5), (9, 9)]))]
    have = Have(Origin(NAME, 8), shown, 0, catching_up=False, offer=True)
    assert decode_have(encode_have(have)) == have
    reply = HaveReply(False, 0, True, shown)
    assert decode_have_reply(encode_have_reply(reply)) == reply
