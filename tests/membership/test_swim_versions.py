"""A build of the next version of the protocol beside this one, both ways; and one that is too new."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from pair import LABEL, Cores, acquainted, address, datagram, news, status, swim

from coherd_membership import PROTOCOL_MAX, Status, Swim
from coherd_membership import _codec as codec
from coherd_membership._messages import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

UNKNOWN_TAG = 77
UNKNOWN_KIND = 99
UNKNOWN_STATUS = 9
FUTURE_BYTES = b"what a later version says of a member"


def raw(status: int, name: str) -> bytes:
    fixed = struct.pack("!BBQII", status, 0, 1, 1, 0)
    return fixed + codec.encode_texts([name, address(name)]) + FUTURE_BYTES


def future(low: int) -> Callable[[bytes], bytes]:
    """Give what the next version would send in the place of a datagram of ours."""

    def alter(payload: bytes) -> bytes:
        message = codec.decode(payload)
        word = codec.encode_news(message.sender) + FUTURE_BYTES
        parts = [
            codec.head(message.kind, message.cluster, message.root, message.sequence, word, message.target),
            codec.section(UNKNOWN_TAG, b"unknown"),
            codec.section(codec.NEWS, raw(UNKNOWN_STATUS, "of-another-kind")),
        ]  # fmt: skip
        word_there = codec.encode_news(message.sender)
        at = codec._HEAD.size + len(word_there) + 1 + len(message.target.encode())
        for tag, content in sections(payload, at):
            parts.append(codec.section(tag, content + FUTURE_BYTES * (tag == codec.NEWS)))
        parts.append(codec.section(UNKNOWN_TAG + 1, b""))
        changed = b"".join(parts)
        return changed[:2] + bytes((low, PROTOCOL_MAX + 1)) + changed[4:]

    return alter


def sections(payload: bytes, at: int) -> list[tuple[int, bytes]]:
    found = []
    while at < len(payload):
        tag, length = struct.unpack_from("!BH", payload, at)
        found.append((tag, payload[at + 3 : at + 3 + length]))
        at += 3 + length
    return found


def test_a_future_datagram_differs_and_says_the_same() -> None:
    payload = datagram(Kind.TELL, "a", told=[news("b")], target="c")
    changed = future(1)(payload)
    assert len(changed) > len(payload) + 3 * len(FUTURE_BYTES) - 20
    ours = codec.decode(payload)
    assert codec.decode(changed) == ours._replace(protocol_max=PROTOCOL_MAX + 1)


def test_the_next_version_and_this_one_live_together_whoever_is_the_seed() -> None:
    for newer in ("a", "b", "c"):
        cores = Cores()
        cores.alters[address(newer)] = future(1)
        for name in "abcd":
            cores.start(name, [address("a")], meta=name.encode())
        cores.advance(10.0)
        assert cores.is_whole()
        for core in cores.at.values():
            assert {name: member.meta for name, member in core.members.items()} == {
                name: name.encode() for name in "abcd" if name != core.me.name
            }
        cores["d"].publish(b"again")
        cores[newer].publish(b"newer")
        cores.advance(10.0)
        for name in set("abc") - {newer}:
            assert cores[name].members["d"].meta == b"again"
            assert cores[name].members[newer].meta == b"newer"
        cores.crash("d")
        cores.advance(40.0)
        assert cores.seen("d") == {Status.DEAD}
        assert cores.is_whole()
        counts = cores.statistics()
        assert not counts["malformed"] + counts["incompatible"] + counts["foreign"]


def test_one_that_speaks_only_the_next_version_is_counted_and_kept_out() -> None:
    cores = Cores("a", "b")
    cores.alters[address("c")] = future(PROTOCOL_MAX + 1)
    cores.start("c", [address("a")])
    cores.advance(30.0)
    assert status(cores["a"], "c") is None
    assert cores["a"].statistics()["incompatible"] > 1
    assert cores.is_whole() is False
    assert status(cores["a"], "b") is Status.ALIVE


def test_an_unknown_kind_is_read_for_its_news_and_for_who_sent_it() -> None:
    core = swim()
    core.receive(datagram(UNKNOWN_KIND, "a", told=[news("b")]), address("a"), 0.0)
    assert set(core.members) == {"a", "b"}


def test_news_with_a_status_that_is_not_known_here_is_passed_over_alone() -> None:
    core = acquainted("a")
    content = codec.section(codec.NEWS, raw(UNKNOWN_STATUS, "a"))
    core.receive(datagram(Kind.TELL, "a", content=content, told=[news("b")]), address("a"), 0.0)
    assert status(core, "a") is Status.ALIVE
    assert status(core, "b") is Status.ALIVE


def test_a_sender_in_a_status_that_is_not_known_here_says_nothing() -> None:
    core = swim()
    core.receive(codec.head(Kind.TELL, LABEL, 0, 0, raw(UNKNOWN_STATUS, "a")), "a:1", 0.0)
    assert core.statistics()["malformed"] == 1


@pytest.mark.parametrize(
    ("low", "high", "is_heard"),
    [(1, 1, True), (0, 1, True), (1, 255, True), (0, 0, False), (2, 2, False), (200, 255, False)],
)
def test_ranges_that_touch_ours_are_heard(low: int, high: int, is_heard: bool) -> None:
    core: Swim = swim()
    payload = datagram(Kind.TELL, "a")
    core.receive(payload[:2] + bytes((low, high)) + payload[4:], address("a"), 0.0)
    assert (status(core, "a") is Status.ALIVE) == is_heard
    assert core.statistics().get("incompatible", 0) == (not is_heard)
