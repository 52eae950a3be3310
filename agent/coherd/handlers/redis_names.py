"""How things are named in a Redis (floor 2): coherd's own keys, and the templates of entries and tags."""

from __future__ import annotations

import re
from typing import NamedTuple

from coherd.errors import ConfigError

OWN = b"coherd:cursor:"
"""What the names of coherd's own keys begin with; they are no entries, whatever the template."""


class Template(NamedTuple):
    """How an entry or a tag is named: what stands before and after it."""

    head: bytes
    tail: bytes

    @classmethod
    def parse(cls, text: str, placeholder: str) -> Template:
        """Split at the placeholder. Raises ConfigError."""
        head, *tails = text.split(placeholder)
        if len(tails) != 1:
            raise ConfigError(f"the template {text!r} must contain {placeholder} once")
        if text.encode().startswith(OWN):
            raise ConfigError(f"the template {text!r}: {OWN.decode()}… is coherd's own")
        return cls(head.encode(), tails[0].encode())

    def fits(self, name: bytes) -> bool:
        """Whether something of this template may have that name."""
        return name.startswith(self.head) and name.endswith(self.tail)

    def pattern(self, prefix: bytes) -> bytes:
        """Give the glob for names that begin with `prefix` (the head included)."""
        return b"%b*%b" % (_escape(prefix), _escape(self.tail))

    def spelled(self, placeholder: str) -> str:
        """Give the template as it was parsed."""
        return f"{self.head.decode()}{placeholder}{self.tail.decode()}"


def _escape(text: bytes) -> bytes:
    return re.sub(rb"[*?\[\]\\^-]", rb"\\\g<0>", text)
