"""How far ahead of what is here the numbers may lie that others show.

Numbers are counted, never listed, so a claim of any size costs the same; but rows that nobody can have
would be asked for in vain, and end in a reset. What lies further ahead than any stream can have grown
unseen is a mistake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd.errors import MalformedMessage
from coherd.limits import NUMBER_AHEAD_MAX

if TYPE_CHECKING:
    from coherd.model import Stream
    from coherd.replication.vector import Vector


def check_ahead(vector: Vector, stream: Stream, last: int) -> None:
    """Check the highest number that is shown of a stream. Raises MalformedMessage."""
    state = vector.get(stream)
    here = state.have.last if state is not None else 0
    if last - here > NUMBER_AHEAD_MAX:
        raise MalformedMessage(f"number {last} of a stream that has reached {here} here")
