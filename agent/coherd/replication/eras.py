"""Eras: how a namespace with very many streams lets go of those that are dead.

The entry of a stream outlives its rows, and that of a life outlives the life: whoever comes back must find
out what it missed. Where there are more than `STREAMS_MAX` entries a new *era* begins, at most one a day: a
number, merged by maximum, taken over when a sync completes. An entry that is *quiet* (its life is over, no
row of it is held, nothing of it is missing) goes three steps, one an era, if it is quiet all the time:

* it is marked, and still shown to everybody for an era;
* it is retired: known, but shown only to who is in an earlier era. Who is in the same one has it, or would
  show it; then it is shown again by all;
* it is dropped.

So who is one era behind is shown whatever it may lack. Who is two behind may lack what nobody knows any
more: it is reset, drops what the others do not know and issues the rows of it again as its own. Nobody
believes what it says of streams that were dropped, or everybody would be reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from coherd.model import Origin, Stream
    from coherd.replication.intervals import Intervals
    from coherd.replication.vector import StreamState, Vector

STREAMS_MAX = 10_000
"""Entries of a namespace that may stay without an era."""
ERA_LASTS_MIN = 86_400.0
"""Seconds from one era to the next, at least."""
SHOWN_MIN = 3_600.0
"""Seconds for which a marked entry must have been shown here: whoever takes an era over late looks longer."""
BEHIND = 2
"""Eras behind from which there may be something that nobody knows any more."""


class Era(NamedTuple):
    """The era of one namespace, as it is stored."""

    number: int
    since: float
    """Running time in seconds at which it was taken over here."""
    marked: frozenset[Stream]
    retired: frozenset[Stream]


NEVER = Era(0, 0.0, frozenset(), frozenset())


class Turn(NamedTuple):
    """A change of era: what is to be stored with it."""

    namespace: str
    era: Era
    dropped: frozenset[Stream]


class Eras:
    """The eras of all namespaces, as one agent sees them."""

    def __init__(
        self,
        vector: Vector,
        is_open: Callable[[Stream], bool],
        is_dead: Callable[[Origin], bool],
        known: Mapping[str, Era],
    ) -> None:
        """`is_open(stream)`: something of it is missing. `is_dead(life)`: it is over. `known`: as stored."""
        self._vector = vector
        self._is_open = is_open
        self._is_dead = is_dead
        self._eras = dict(known)
        self._heard: dict[str, int] = {}
        """The highest eras that are begun, or that others are in."""
        for namespace, era in known.items():
            vector.set_era(namespace, era.number)
            for stream in era.retired:
                state = vector.get(stream)
                if state is not None and not state.held:
                    vector.retire(stream, retired=True)

    def number(self, namespace: str) -> int:
        """Give the era that a namespace is in."""
        return self._eras.get(namespace, NEVER).number

    def numbers(self, namespaces: Iterable[str]) -> dict[str, int]:
        """Give the eras of namespaces, where they are not 0."""
        return {name: number for name in namespaces if (number := self.number(name))}

    # ------------------------------------------------------------------ who is where

    def hear(self, theirs: Mapping[str, int]) -> None:
        """Note the eras that another agent is in."""
        for namespace, number in theirs.items():
            if number > self._heard.get(namespace, 0):
                self._heard[namespace] = number

    def shown_whole(self, theirs: Mapping[str, int], shared: Iterable[str]) -> frozenset[str]:
        """Give the namespaces of which an agent in these eras is shown everything: those it is behind in.

        Who is ahead knew what is retired here; it may have dropped it by now.
        """
        return frozenset(n for n in shared if theirs.get(n, 0) < self.number(n))

    def left_behind(self, theirs: Mapping[str, int]) -> list[str]:
        """Give the namespaces in which this agent may lack what the other does not know any more."""
        return [n for n, number in theirs.items() if number >= self.number(n) + BEHIND]

    def believed(
        self,
        theirs: Mapping[str, int],
        shown: Iterable[tuple[Stream, Intervals]],
        publisher: str = "",
    ) -> list[tuple[Stream, Intervals]]:
        """Give what may be believed of the streams that an agent in these eras shows.

        A retired one that is shown by somebody in the same era is shown again. Whoever is in a later one
        shows everything to who is behind, what is retired there, too. `publisher`: who offers rows of its own
        that it does not hold is in no era; nobody else may have them.
        """
        result = []
        for stream, numbers in shown:
            state = self._vector.get(stream)
            mine, other = self.number(stream.namespace), theirs.get(stream.namespace, 0)
            is_unknown = state is None or not state.have
            is_late = other + BEHIND <= mine and stream.origin.name != publisher
            if is_unknown and is_late and self._is_dead(stream.origin):
                continue  # it was dropped; what there is of it is going to be issued again
            if state is not None and state.is_retired and other == mine:
                self._vector.retire(stream, retired=False)
            result.append((stream, numbers))
        return result

    # ------------------------------------------------------------------ on to the next

    def begin_due(self, now: float) -> list[str]:
        """Begin an era wherever there are too many entries; gives the namespaces."""
        begun = []
        for namespace in self._vector.namespaces():
            era = self._eras.get(namespace, NEVER)
            is_old = not era.number or now - era.since >= ERA_LASTS_MIN
            if (
                is_old
                and len(self._vector.streams(namespace)) > STREAMS_MAX
                and self._heard.get(namespace, 0) <= era.number
            ):
                self._heard[namespace] = era.number + 1
                begun.append(namespace)
        return begun

    def take_over(self, held: Callable[[str], bool], now: float) -> list[Turn]:
        """A sync has completed: go on to the eras that were begun. Gives what is to be stored."""
        turns = []
        for namespace, heard in self._heard.items():
            mine = self.number(namespace)
            if held(namespace) and mine < heard < mine + BEHIND:
                turns.append(self._turn(namespace, heard, now))
        for namespace in self._vector.shown_again - {turn.namespace for turn in turns}:
            era = self._eras[namespace] = self._looked_over(namespace)
            turns.append(Turn(namespace, era, frozenset()))
        self._vector.shown_again.clear()
        return turns

    def _looked_over(self, namespace: str) -> Era:
        """Give an era as it is now: what was retired and is shown again counts as marked.

        Whoever shows it has it marked: in the next era all retire it, or it would be shown again for ever.
        """
        era = self._eras.get(namespace, NEVER)
        shown = frozenset(stream for stream in era.retired if not self._is_retired(stream))
        return era._replace(marked=era.marked | shown, retired=era.retired - shown)

    def _turn(self, namespace: str, number: int, now: float) -> Turn:
        vector = self._vector
        before = self._looked_over(namespace)
        quiet = {s for s, state in vector.streams(namespace).items() if self._is_quiet(s, state)}
        retired = set(before.retired)
        shown_long = now - before.since >= SHOWN_MIN
        dropped = retired & quiet if shown_long else set()
        retired -= dropped
        if shown_long:
            retired |= before.marked & quiet - dropped
        for stream in dropped:
            vector.drop(stream)
        return self._set(namespace, number, now, quiet - retired - dropped, retired, dropped)

    def catch_up(
        self, namespace: str, number: int, dropped: Collection[Stream], now: float
    ) -> Turn:
        """Go to an era two or more ahead, together with a reset, and drop what nobody there knows."""
        for stream in dropped:
            self._vector.drop(stream)
        streams = self._vector.streams(namespace)
        retired = {stream for stream, state in streams.items() if self._is_quiet(stream, state)}
        return self._set(namespace, number, now, set(), retired, dropped)

    def _set(
        self,
        namespace: str,
        number: int,
        now: float,
        marked: Collection[Stream],
        retired: Collection[Stream],
        dropped: Collection[Stream],
    ) -> Turn:
        vector = self._vector
        for stream, state in vector.streams(namespace).items():
            if state.is_retired != (stream in retired):
                vector.retire(stream, retired=stream in retired)
        era = self._eras[namespace] = Era(number, now, frozenset(marked), frozenset(retired))
        vector.set_era(namespace, number)
        return Turn(namespace, era, frozenset(dropped))

    def _is_retired(self, stream: Stream) -> bool:
        state = self._vector.get(stream)
        return state is not None and state.is_retired

    def _is_quiet(self, stream: Stream, state: StreamState) -> bool:
        return not state.held and self._is_dead(stream.origin) and not self._is_open(stream)
