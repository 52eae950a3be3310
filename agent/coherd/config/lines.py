"""On which line of a TOML text each key was written (floor 2).

tomllib gives values without places. This walks the tokens of a text that tomllib has already
accepted, so it checks nothing: it only counts lines, and follows headers, dotted keys, arrays and
inline tables without recursion.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

Key = tuple[str | int, ...]
"""A way into a document: ("handlers", 0, "url")."""

_TOKEN = re.compile(
    r'''(?P<space>[ \t]+|\#[^\n]*)
      | (?P<newline>\n)
      | (?P<string>"""(?:\\[\s\S]|[^\\])*?"""(?:"{0,2})
                 | \'\'\'[\s\S]*?\'\'\'(?:'{0,2})
                 | "(?:\\.|[^"\\\n])*"
                 | '[^'\n]*')
      | (?P<mark>[=\[\]{},.])
      | (?P<bare>[^\s=\[\]{},.\#"']+)''',
    re.VERBOSE,
)


def lines_of(text: str) -> dict[Key, int]:
    """Give the line (from 1) of every key and array entry; `text` must be valid TOML."""
    return _Walk(text).run()


class _Walk:
    """One pass over the tokens: (kind, text, line), a mark's kind being the mark itself."""

    def __init__(self, text: str) -> None:
        self._tokens = self._scan(text.replace("\r\n", "\n"))
        self._lines: dict[Key, int] = {}
        self._counts: dict[Key, int] = {}
        """Tables so far of each array of tables."""
        self._table: Key = ()
        self._open: list[tuple[bool, Key, int]] = []
        """Unclosed brackets: whether it is an array, its key, the entries before."""

    @staticmethod
    def _scan(text: str) -> Iterator[tuple[str, str, int]]:
        line = 1
        for match in _TOKEN.finditer(text):
            kind, token = match.lastgroup or "", match.group()
            if kind != "space":
                yield token if kind == "mark" else kind, token, line
            line += token.count("\n")

    def run(self) -> dict[Key, int]:
        for kind, token, line in self._tokens:
            if kind == "newline":
                continue
            if self._open and self._open[-1][0]:
                self._entry(kind, line)
            elif kind in {",", "}"}:
                if kind == "}":
                    self._open.pop()
            elif kind == "[":
                self._header(line)
            else:
                self._assignment(kind, token, line)
        return self._lines

    def _header(self, line: int) -> None:
        """Enter [a.b] or, when a second bracket follows, [[a.b]]."""
        kind, token, _ = next(self._tokens)
        many = kind == "["
        if many:
            kind, token, _ = next(self._tokens)
        parts = self._key(kind, token, "]")
        key: Key = ()
        for depth, part in enumerate(parts):
            key = (*key, part)
            self._lines.setdefault(key, line)
            if many and depth == len(parts) - 1:
                self._counts[key] = self._counts.get(key, 0) + 1
            if key in self._counts:
                key = (*key, self._counts[key] - 1)
                self._lines.setdefault(key, line)
        self._table = key
        if many:
            next(self._tokens)

    def _assignment(self, kind: str, token: str, line: int) -> None:
        """Take KEY = and its value."""
        key = self._open[-1][1] if self._open else self._table
        for part in self._key(kind, token, "="):
            key = (*key, part)
            self._lines.setdefault(key, line)
        kind, _, _ = next(self._tokens)
        self._value(key, kind)

    def _entry(self, kind: str, line: int) -> None:
        """Take what stands in an array: an entry, a comma or the end."""
        _, key, count = self._open[-1]
        if kind == ",":
            return
        if kind == "]":
            self._open.pop()
            return
        self._open[-1] = (True, key, count + 1)
        self._lines[*key, count] = line
        self._value((*key, count), kind)

    def _value(self, key: Key, kind: str) -> None:
        """Open an array or inline table, or pass over a plain value."""
        if kind in {"[", "{"}:
            self._open.append((kind == "[", key, 0))
        elif kind == "bare":
            self._rest_of_scalar()

    def _rest_of_scalar(self) -> None:
        """Pass over the rest of 1.5 or 1979-05-27 07:32:00 and what ends it."""
        for kind, _, _ in self._tokens:
            if kind in {"newline", ","}:
                return
            if kind in {"]", "}"}:
                self._open.pop()
                return

    def _key(self, kind: str, token: str, end: str) -> list[str]:
        """Read the parts of a dotted key up to `end`."""
        parts = []
        while kind != end:
            if kind != ".":
                parts.append(self._part(kind, token))
            kind, token, _ = next(self._tokens)
        return parts

    @staticmethod
    def _part(kind: str, token: str) -> str:
        if kind == "string":
            return str(tomllib.loads(f"key = {token}")["key"])
        return token
