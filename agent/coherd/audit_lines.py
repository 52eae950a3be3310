"""Lines of the audit log (floor 2): who did what, as one JSON object a line, and back.

Texts that came over a wire may hold anything: they are cut, and what is not printable in them is written out
(`\\x1b`, `\\ud800`), so that a line stays one line, is valid UTF-8, and may be shown on a terminal as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coherd.limits import LOG_TEXT_MAX

if TYPE_CHECKING:
    from pathlib import Path

WHO_MAX = 640
"""Characters of who did it: the longest identity has fewer, and its name stands at the end."""
LINE_BYTES_MAX = 16 * 1024
"""More than any line has: seven texts, at most four bytes a character."""
OK = "ok"
DENIED = "denied"
FAILED = "failed: "
"""Outcomes; behind the last stands the code of gRPC with which the call ended."""


class Kind(StrEnum):
    """What sort of event it is."""

    DENIED = "denied"
    """Somebody was refused."""
    ADMIN = "admin"
    """Somebody changed who is in the cluster, or tried to."""
    WIDE = "wide"
    """Somebody invalidated a whole namespace, or by prefix or tag, or tried to."""
    SUPPRESSED = "suppressed"
    """Events that were not written: more came at once than are."""


@dataclass(frozen=True, slots=True)
class Event:
    """Who did what; its fields are the keys of a line, in this order."""

    at_us: int
    """By the wall clock, in microseconds since 1970; of suppressed events when the last of them was."""
    kind: str
    """A `Kind`; what a later version writes is read as it is."""
    who: str = ""
    """The URI of an identity, or "local" with the peer's address."""
    rpc: str = ""
    namespace: str = ""
    what: str = ""
    """How much was asked for, in a few words; never a value."""
    outcome: str = ""
    why: str = ""
    count: int = 1
    """How many events it stands for; written for suppressed ones only."""


_TEXTS = ("kind", "who", "rpc", "namespace", "what", "outcome", "why")


def denied_beside(path: Path) -> Path:
    """Give the file of refusals that is beside the log at `path`: `audit-denied.jsonl`."""
    return path.with_stem(f"{path.stem}-denied")


def encode(event: Event) -> bytes:
    """Give the line of an event, with its newline."""
    fields: dict[str, object] = {"at_us": int(event.at_us)}
    for name in _TEXTS:
        fields[name] = _bounded(getattr(event, name), WHO_MAX if name == "who" else LOG_TEXT_MAX)
    if event.kind == Kind.SUPPRESSED:
        fields["count"] = event.count
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _bounded(text: str, most: int) -> str:
    """Give a text of at most so many characters, all of them printable."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def decode(line: bytes) -> Event | None:
    """Read a line; None for one that is damaged. Keys that later versions may add are ignored."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
        return None
    if not isinstance(fields, dict):
        return None
    at_us, count = fields.get("at_us"), fields.get("count", 1)
    texts = {name: fields.get(name, "") for name in _TEXTS}
    are_texts = all(isinstance(text, str) for text in texts.values())
    if type(at_us) is not int or type(count) is not int or not are_texts or not texts["kind"]:
        return None
    return Event(at_us=at_us, count=count, **texts)
