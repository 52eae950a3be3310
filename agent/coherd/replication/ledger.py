"""What was invalidated last, per selector: answers "is this copy still good?".

Only positions are kept, one int a selector in the common case: the last drop's and, where there is one,
the last stale row's and the highest version, in maps of their own. Tag, prefix and namespace rows are
entries like keys: a check looks at the key, each of its tags, one prefix a length in use and the whole
namespace, and never scans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from coherd.model import EVERYTHING, Effect, Kind, Selector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PREFIX_LENGTHS_MAX = 16
"""Different prefix lengths a ledger looks up; one more is widened to the next shorter."""


class Standing(NamedTuple):
    """The newest rows that touch a copy, as positions; 0 where there is none."""

    drop: int
    stale: int
    version: int
    """Highest source version invalidated for the key itself; 0 when none was named."""


class Ledger:
    """The newest positions of one namespace's selectors."""

    def __init__(self) -> None:
        self._drops: dict[Selector, int] = {}
        self._stales: dict[Selector, int] = {}
        self._versions: dict[Selector, int] = {}
        self._prefix_lengths: list[int] = []

    def __len__(self) -> int:
        """Count the selectors remembered."""
        return len(self._drops) + sum(1 for selector in self._stales if selector not in self._drops)

    def record(
        self,
        selectors: Sequence[Selector],
        effect: Effect,
        versions: Sequence[int] | None,
        position: int,
    ) -> None:
        """Enter rows that arrived at `position` and after; a later arrival always counts as newer."""
        entries = self._drops if effect is Effect.DROP else self._stales
        entries.update(zip(selectors, range(position, position + len(selectors)), strict=True))
        for offset, selector in enumerate(selectors):
            if selector[0] == Kind.PREFIX:
                self._widen(selector, effect, position + offset)
        if versions is not None:
            known = self._versions
            for selector, version in zip(selectors, versions, strict=True):
                if version > known.get(selector, 0):
                    known[selector] = version

    def position(self, selector: Selector) -> int:
        """Give the position of the newest row of `selector`, whatever its effect."""
        return max(self._drops.get(selector, 0), self._stales.get(selector, 0))

    def check(self, key: bytes, tags: Iterable[bytes] = ()) -> Standing:
        """Give the newest rows that touch a copy of `key` that carries `tags`."""
        selectors = list(self._selectors(key, tags))
        return Standing(
            max(self._drops.get(selector, 0) for selector in selectors),
            max(self._stales.get(selector, 0) for selector in selectors),
            self._versions.get(selectors[0], 0),
        )

    def forget(self, position: int) -> int:
        """Drop the entries at or below `position`; give how many there were.

        A check for a token at or below the namespace's floor must then answer unknown.
        """
        before = len(self._drops) + len(self._stales)
        for entries in (self._drops, self._stales):
            for selector in [s for s, p in entries.items() if p <= position]:
                del entries[selector]
        for selector in [s for s in self._versions if not self.position(s)]:
            del self._versions[selector]
        return before - len(self._drops) - len(self._stales)

    def _selectors(self, key: bytes, tags: Iterable[bytes]) -> Iterator[Selector]:
        yield b"k" + key
        for tag in tags:
            yield b"t" + tag
        for length in self._prefix_lengths:
            if length <= len(key):
                yield b"p" + key[:length]
        yield EVERYTHING

    def _widen(self, selector: Selector, effect: Effect, position: int) -> None:
        """Make sure that checks look at this prefix, or at one that contains it."""
        length = len(selector) - 1
        lengths = self._prefix_lengths
        if length in lengths:
            return
        if len(lengths) < PREFIX_LENGTHS_MAX:
            lengths.append(length)
            return
        shorter = max((known for known in lengths if known < length), default=None)
        wide = EVERYTHING if shorter is None else selector[: shorter + 1]
        entries = self._drops if effect is Effect.DROP else self._stales
        entries[wide] = position


def supersedes(newer: tuple[Effect, int], older: tuple[Effect, int]) -> bool:
    """Tell whether a later row (effect, version) of a stream and selector makes an earlier one needless.

    Only a row that is at least as strong and not older may stand for another: otherwise a member that
    is repaired would see "may be served" where "must not" was said.
    """
    return newer[0] >= older[0] and newer[1] >= older[1]
