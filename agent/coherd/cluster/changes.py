"""Which streams' numbers have changed since peers were told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coherd.model import Stream


class Changes:
    """Streams that changed, until somebody takes them."""

    def __init__(self) -> None:
        self._streams: set[Stream] = set()
        self.on_first: Callable[[], None] = lambda: None
        """Called when the first one does since they were taken."""

    def __bool__(self) -> bool:
        return bool(self._streams)

    def note(self, streams: Iterable[Stream]) -> None:
        """Note that numbers of streams have changed."""
        is_first = not self._streams
        self._streams.update(streams)
        if is_first and self._streams:
            self.on_first()

    def take(self) -> set[Stream]:
        """Give the streams that have changed, once."""
        taken, self._streams = self._streams, set()
        return taken
