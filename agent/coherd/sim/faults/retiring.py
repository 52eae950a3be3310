"""When a simulated member lets go of streams of lives that are over: the rules of `cluster.retiring`.

Eras are shorter here, and begin with fewer streams, than those of agents: a history must see many of them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from coherd.model import EVERYTHING, Cause, Effect
from coherd.replication import eras as core
from coherd.replication.eras import BEHIND, Eras
from coherd.sim.faults.disk import Write

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from coherd.model import Lane, Origin, Selector, Stream
    from coherd.replication.eras import Turn
    from coherd.replication.intervals import Intervals
    from coherd.replication.repair import Repair
    from coherd.sim.faults.member import Member
    from coherd.sim.faults.messages import Claims


SHOWN = 3
"""So much shorter than an era is what must have been shown: long beside a sync, as an hour is for agents."""


class Short(NamedTuple):
    """How eras are in a history."""

    streams_max: int
    lasts: float
    """Seconds from one to the next, at least."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let eras be so."""
        before = core.STREAMS_MAX, core.ERA_LASTS_MIN, core.SHOWN_MIN
        shown = self.lasts / SHOWN
        core.STREAMS_MAX, core.ERA_LASTS_MIN, core.SHOWN_MIN = self.streams_max, self.lasts, shown
        try:
            yield
        finally:
            core.STREAMS_MAX, core.ERA_LASTS_MIN, core.SHOWN_MIN = before


class Call(NamedTuple):
    """Rows that are to be issued again."""

    lane: Lane
    selectors: Sequence[Selector]
    effect: Effect
    versions: Sequence[int] | None
    done: tuple[Stream, Intervals] | None = None
    """The last of a stream: the numbers of it that were issued again then."""


class CatchingUp:
    """On the way to an era two or more ahead."""

    def __init__(self, namespace: str, number: int, unknown: Collection[Stream]) -> None:
        self.namespace = namespace
        self.number = number
        self.unknown = unknown
        self.calls: list[Call] = []
        self.position = 0
        """Of the last row that was issued again."""


class Retiring:
    """The eras of one life of one member."""

    def __init__(self, member: Member, repair: Repair) -> None:
        self._member = member
        self._repair = repair
        self.eras = Eras(
            member.replica.vector,
            repair.is_open,
            self._is_dead,
            member.disk.eras,
        )
        self._theirs: dict[str, Mapping[str, int]] = {}
        self._unstored: list[Turn] = []
        self._behind: dict[str, CatchingUp] = {}

    @property
    def is_behind(self) -> bool:
        """Whether this member is on the way to an era two or more ahead."""
        return bool(self._behind)

    def _is_held(self, namespace: str) -> bool:
        return namespace in self._member.holds

    def _is_dead(self, origin: Origin) -> bool:
        """Tell whether a life is over: a later one of its name is known."""
        member = self._member
        if origin.name == member.name:
            return origin.epoch != member.epoch
        return origin.epoch < member.epochs.get(origin.name, 0)

    # ------------------------------------------------------------------ what is said

    def numbers(self, name: str) -> dict[str, int]:
        """Give the eras of what another member holds, too."""
        return self.eras.numbers(self._member.shared(name))

    def heard(self, name: str, eras: Mapping[str, int]) -> list[str]:
        """Note the eras that a member is in; gives the namespaces that are two or more ahead there."""
        theirs = {n: era for n, era in eras.items() if self._is_held(n)}
        self._theirs[name] = theirs
        self.eras.hear(theirs)
        return self.eras.left_behind(theirs)

    def shown(self, name: str, theirs: Mapping[str, int], *, equal: bool) -> Claims:
        """Give the streams that a member in these eras is shown."""
        shared = self._member.shared(name)
        whole = self.eras.shown_whole(theirs, shared)
        if equal and not any(self.eras.number(n) >= theirs.get(n, 0) + BEHIND for n in whole):
            return ()
        streams = self._member.replica.vector.streams
        return tuple(
            (stream, state.have.copy())
            for namespace in shared
            for stream, state in streams(namespace).items()
            if state.have and (not state.is_retired or namespace in whole)
        )

    def believed(self, name: str, shown: Claims, *, offered: bool = False) -> Claims:
        """Give what may be believed of the streams that a member shows, or offers."""
        theirs = self._theirs.get(name, {})
        found = tuple(self.eras.believed(theirs, shown, name if offered else ""))
        if self._member.replica.vector.shown_again:
            self._member.mending.forget_sums()
        return found

    # ------------------------------------------------------------------ on to the next

    def synced(self) -> None:
        """A sync has completed: take over the eras that were begun."""
        turns = self.eras.take_over(self._is_held, self._member.now)
        for turn in turns:
            for stream in turn.dropped:
                self._repair.drop(stream)
            self._turned(turn)
        self._unstored += turns
        while self._unstored and self._store(self._unstored[0]):
            del self._unstored[0]

    def _turned(self, turn: Turn) -> None:
        self._member.mending.forget_sums()
        self._member.world.checks.turned(self._member, turn)

    def _store(self, turn: Turn) -> bool:
        return self._member.write(Write(eras={turn.namespace: turn.era}, dropped=turn.dropped))

    # ------------------------------------------------------------------ left behind

    def catch_up(self, namespace: str, number: int, shown: Claims) -> None:
        """Go to an era two or more ahead, where `shown` is all that is known of the namespace."""
        member, vector = self._member, self._member.replica.vector
        if number < self.eras.number(namespace) + BEHIND or namespace in self._behind:
            return
        known = {stream for stream, _ in shown}
        streams = vector.streams(namespace)
        unknown = [s for s in streams if s not in known and self._is_dead(s.origin)]
        behind = self._behind[namespace] = CatchingUp(namespace, number, unknown)
        for stream in unknown:
            state = vector.state(stream)
            whole = self._repair.is_open(stream) or bool(state.have.holes())
            calls = [
                Call(stream.lane, batch.selectors, batch.effect, batch.versions)
                for batch, _ in member.rows(stream, state.held)
            ]
            if whole:
                calls.append(Call(stream.lane, [EVERYTHING], Effect.DROP, None))
            again = state.have.copy() if whole else state.have.above(state.floor.n) | state.held
            if calls:
                calls[-1] = calls[-1]._replace(done=(stream, again))
            behind.calls += calls
        self.look()

    def look(self) -> None:
        """Issue again what has to be, and once that is stored reset and go on."""
        member = self._member
        for namespace, behind in list(self._behind.items()):
            while behind.calls:
                call = behind.calls[0]
                if not member.world.invalidate(
                    member, namespace, call.lane, call.selectors, call.effect, call.versions
                ):
                    break
                behind.position = member.replica.position
                if call.done is not None:
                    member.world.truth.issue_again(*call.done)
                del behind.calls[0]
            is_stored = member.disk.position >= behind.position
            if not behind.calls and is_stored and not member.journal.is_full:
                self._go_on(behind)
                del self._behind[namespace]

    def _go_on(self, behind: CatchingUp) -> None:
        member = self._member
        for stream in behind.unknown:
            self._repair.drop(stream)
        member.reset(
            behind.namespace,
            Cause.LEFT_BEHIND,
            lambda: self._caught_up(behind),
        )

    def _caught_up(self, behind: CatchingUp) -> Turn:
        turn = self.eras.catch_up(behind.namespace, behind.number, behind.unknown, self._member.now)
        self._turned(turn)
        return turn
