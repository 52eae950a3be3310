"""Lines of the audit log: printable and bounded whatever came, and read back unless they are damaged."""

from __future__ import annotations

import json

import pytest

from coherd.audit_lines import LINE_BYTES_MAX, WHO_MAX, Event, Kind, decode, encode
from coherd.limits import LOG_TEXT_MAX

TEXTS = ("who", "rpc", "namespace", "what", "outcome", "why")


def event(**texts: str) -> Event:
    return Event(1_760_000_000_000_000, Kind.DENIED, **texts)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\x00", "a\\nb\\r\\x00"),
        ("\x1b[31m\x7f\x9b", "\\x1b[31m\\x7f\\x9b"),
        ("\ud800x\udcff", "\\ud800x\\udcff"),
        ("\u2028\u202e", "\\u2028\\u202e"),
        ('"}\\', '"}\\'),
        ("Größe 鍵 🔑", "Größe 鍵 🔑"),
    ],
)
def test_a_line_is_printable_and_valid_whatever_came(text: str, shown: str) -> None:
    for name in TEXTS:
        line = encode(event(**{name: text}))
        assert line.decode()[:-1].isprintable()
        assert json.loads(line)[name] == shown
        assert decode(line) == event(**{name: shown})


def test_texts_are_cut_and_the_longest_identity_is_not() -> None:
    longest = f"spiffe://{'t' * 255}/cluster/{'c' * 128}/operator/{'n' * 128}"
    assert len(longest) <= WHO_MAX
    assert json.loads(encode(event(who=longest)))["who"] == longest
    for text in ("k" * 100_000, "\x00" * 100_000, "k" * (LOG_TEXT_MAX + 1)):
        cut = json.loads(encode(event(what=text)))["what"]
        assert len(cut) == LOG_TEXT_MAX
        assert cut.endswith("…")
    assert json.loads(encode(event(what="k" * LOG_TEXT_MAX)))["what"] == "k" * LOG_TEXT_MAX


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"\xff",
        b"[" * 10_000,
        b'{"kind":"denied"}',
        b'{"at_us":1}',
        b'{"at_us":"1","kind":"denied"}',
        b'{"at_us":true,"kind":"denied"}',
        b'{"at_us":1,"kind":"denied","who":7}',
        b'{"at_us":1,"kind":"suppressed","count":"7"}',
    ],
)
def test_a_damaged_line_is_none(line: bytes) -> None:
    assert decode(line) is None


def test_what_later_versions_write_is_read() -> None:
    assert decode(b'{"at_us":1,"kind":"new","more":[2]}') == Event(1, "new")


@pytest.mark.parametrize("text", ["\U0001f511" * 1000, "\\" * 1000, "\x00" * 1000])
def test_no_line_is_longer_than_what_is_read(text: str) -> None:
    line = encode(event(**dict.fromkeys(TEXTS, text)))
    assert len(line) < LINE_BYTES_MAX
