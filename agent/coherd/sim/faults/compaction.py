"""Which rows later ones make needless: agents do not compact yet, so the simulator does it for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd.replication.intervals import Intervals
from coherd.replication.ledger import supersedes

if TYPE_CHECKING:
    from coherd.model import Effect, Selector, Stream
    from coherd.sim.faults.truth import Truth


def superseded(truth: Truth, stream: Stream, stored: Intervals) -> Intervals:
    """Give those of the stored rows of a stream for which a later one of them may stand."""
    gone = Intervals()
    newest: dict[Selector, list[tuple[Effect, int]]] = {}
    for number in reversed([*stored]):
        selector, effect, version = truth.row(stream, number)
        later = newest.setdefault(selector, [])
        if any(supersedes(other, (effect, version)) for other in later):
            gone.add(number, number)
        else:
            later.append((effect, version))
    return gone
