"""Questions where rows got to, and their answers, survive the wire."""

from __future__ import annotations

from coherd.limits import LOG_TEXT_MAX, REASON_MAX
from coherd.model import EVERYTHING, Effect, Lane, Origin, Stream
from coherd.net.peer import StreamRange
from coherd.net.trace_codec import (
    decode_question,
    decode_reply,
    decode_row,
    encode_question,
    encode_reply,
    encode_row,
)
from coherd.net.traces import TracedReader, TracedRow, TraceQuestion, TraceReply

ORIGIN = Origin("a", 5)
DOT = StreamRange(Stream("shop", ORIGIN, Lane.BULK), (7, 7))
ROW = TracedRow(
    dot=DOT,
    selector=b"kkey",
    effect=Effect.STALE,
    version=3,
    stamp=9,
    cause="repair",
    reason="price",
    age=5.25,
    late=0.5,
    received_us=1_790_000_000_000_000,
    readers=[
        TracedReader("redis", "handler", True, 1_790_000_000_000_001),
        TracedReader("app", "watcher", False, None),
    ],
)
RESET = TracedRow(dot=None, selector=EVERYTHING, cause="unclaimed")
HAD = TracedRow(dot=DOT)


def test_a_question_and_an_answer() -> None:
    question = TraceQuestion("shop", [b"kkey", EVERYTHING], 5, [DOT])
    assert decode_question(encode_question(ORIGIN, question)) == question
    reply = TraceReply([ROW, RESET, HAD], 17, 19)
    found = decode_reply(encode_reply(reply), "shop")
    assert found.rows == [ROW, *(decode_row(encode_row(row), "shop") for row in (RESET, HAD))]
    assert found[1:] == reply[1:]
    assert [row.dot for row in found.rows] == [DOT, None, DOT]


def test_long_texts_are_cut() -> None:
    long = "x" * 1000
    row = TracedRow(
        dot=None,
        selector=EVERYTHING,
        cause=long,
        reason=long,
        readers=[TracedReader(long, long, True, None)],
    )
    found = decode_row(encode_row(row), "shop")
    assert (len(found.cause), len(found.reason)) == (LOG_TEXT_MAX, REASON_MAX)
    assert [len(found.readers[0].label), len(found.readers[0].kind)] == [LOG_TEXT_MAX] * 2
