"""What must be true of a simulated world, whatever befell it; each finding is a violation.

missing     what was accepted is everywhere in the end, or covered by a reset there
vector      no vector names what was neither applied nor rightly covered
receipt     no receipt names a member that has not applied
reader      readers are shown nothing twice, and nothing is left out in silence
stale       no copy that an accepted row invalidates is left in a cache
reset       no reset without need, and no more than the faults explain
era         no stream that all have forgotten returns, and none is forgotten before all of it was heard of
memory      what is kept is bounded
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from coherd.model import Cause, Effect
from coherd.replication.eras import BEHIND, NEVER
from coherd.replication.intervals import Intervals
from coherd.replication.outlink import LINK_BYTES_MAX
from coherd.replication.repair import REFUSALS_MAX
from coherd.sim.faults.truth import touches

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from coherd.model import Stream
    from coherd.replication.eras import Turn
    from coherd.replication.repair import Adoption
    from coherd.replication.waiting import Waiting
    from coherd.sim.faults.member import Member
    from coherd.sim.faults.readers import Reader
    from coherd.sim.faults.truth import Issued
    from coherd.sim.faults.world import FaultWorld

VIOLATIONS_MAX = 50
"""More are only counted."""
FOUND_WITHIN = 5.0
"""Seconds in which members that are linked find out what the other has, and fetch it."""
SYNCED_WITHIN = 40.0
"""Seconds: where all is quiet, members that have the same find that out every second, one of those that hold
a namespace which few hold more rarely."""
WAITING_MAX = 200
"""Covers of one stream that wait, each of one answer."""


class Violation(NamedTuple):
    """Something that must not be."""

    kind: str
    at: float
    what: str


class Reset(NamedTuple):
    """One reset."""

    at: float
    member: str
    namespace: str
    cause: Cause


class Checks:
    """Looks at what happens, and in the end at everything."""

    def __init__(self, world: FaultWorld) -> None:
        self._world = world
        self.violations: list[Violation] = []
        self.count = 0
        self.resets_made: list[Reset] = []
        self.resets_max = 1_000_000
        """How many are explained for one member and namespace."""
        self.loses_nothing = False
        """Whether no row can be lost, and all that is forgotten has expired for everybody. Then a hole ends
        in a reset only where nobody who holds the row could be reached for long enough."""
        self.blanks = self.covers = self.eras = 0
        self.forgotten: set[Stream] = set()
        """Streams that somebody has forgotten."""
        self.gone: dict[Stream, int] = {}
        """Streams that nobody has any more who is believed: they must not return. With the era in which the
        last forgot them."""
        self._given_up: dict[Stream, Intervals] = {}
        """Numbers that some reset took in: who made it says that it has them, and cannot bring them."""
        self._rightly: dict[str, dict[Stream, Intervals]] = {}
        """Per host what it took in without a row, and not by a reset."""

    def violate(self, kind: str, what: str) -> None:
        """Note a violation."""
        self.count += 1
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(kind, self._world.now, what))

    # ------------------------------------------------------------------ as it happens

    def adopted(self, member: Member, adoption: Adoption) -> None:
        """Look at what repair takes into a vector without a row."""
        stream, numbers, floor = adoption
        truth = self._world.truth
        if floor is None:
            self.covers += len(numbers)
            among = member.justified.get(stream, Intervals())
            for number in numbers:
                if not truth.is_superseded(stream, number, among):
                    self.violate("vector", f"{member.name} covers {stream} {number} with nothing")
        else:
            self.blanks += len(numbers)
            needed = member.needed_ttl(stream.namespace)
            age = self._world.now - truth.youngest(stream, numbers.ranges())
            if age < needed:
                self.violate(
                    "vector",
                    f"{member.name} takes {stream} {numbers} for expired: {age:.0f} s < {needed:.0f} s",
                )
        known = self._rightly.setdefault(member.name, {})
        known.setdefault(stream, Intervals()).update(numbers)

    def resets(
        self, member: Member, namespace: str, cause: Cause, adopted: Mapping[Stream, Intervals]
    ) -> None:
        """Look at a reset that is about to be made."""
        self.resets_made.append(Reset(self._world.now, member.name, namespace, cause))
        for stream in sorted(adopted.keys() & self.gone):
            self.violate("era", f"{member.name} is reset for {stream}, which all had forgotten")
        if cause not in {Cause.TOO_FAR_BEHIND, Cause.LEFT_BEHIND} and all(
            self._is_obtainable(member, stream, number)
            for stream, numbers in adopted.items()
            for number in numbers
        ):
            self.violate("reset", f"{member.name} {namespace} {cause}: all of {adopted} is at hand")
        if (
            self.loses_nothing
            and cause not in {Cause.UNCLAIMED, Cause.LEFT_BEHIND}
            and not self._is_for_want_of_holders(member, adopted)
        ):
            self.violate("reset", f"{member.name} {namespace}: {cause}, but nothing was lost")
        for stream, numbers in adopted.items():
            self._given_up.setdefault(stream, Intervals()).update(numbers)

    def _is_for_want_of_holders(self, member: Member, adopted: Mapping[Stream, Intervals]) -> bool:
        """Tell whether some of what is missing was given up by others, and nobody in reach holds it.

        Who was cut off for long resets, and from then on shows the numbers to those that are cut off with it.
        """
        none = Intervals()
        return any(
            not self._seen_from(member, stream, number)[0]
            for stream, numbers in adopted.items()
            for number in numbers & self._given_up.get(stream, none)
        )

    def _is_obtainable(self, member: Member, stream: Stream, number: int) -> bool:
        held, refusals = self._seen_from(member, stream, number)
        return held and refusals < REFUSALS_MAX

    def _seen_from(self, member: Member, stream: Stream, number: int) -> tuple[bool, int]:
        """Tell whether anybody in reach has held a row for long enough, and how many have it without one.

        The origin does not count among these: it is asked beside them.
        """
        now, refusals, held = self._world.now, 0, False
        for name, since in member.linked_at.items():
            other = self._world.by_name[name]
            state = other.replica.vector.get(stream) if other.is_up else None
            if state is None or number not in state.have:
                continue
            if number not in state.held:
                refusals += name != stream.origin.name
                continue
            awake = max(since, other.awake_since, member.awake_since)
            held |= now - max(awake, other.held_since(stream, number)) >= FOUND_WITHIN
        return held, refusals

    def receipt(self, origin: Member, payload: int, names: Collection[str]) -> None:
        """Look at what an origin was told."""
        issued = self._world.truth.issued[payload]
        stream, numbers = issued.batch.stream, Intervals(issued.batch.numbers)
        for name in names:
            cache = self._world.by_name[name].cache
            left = numbers - cache.seen.get(stream, Intervals())
            left = left - self._rightly.get(name, {}).get(stream, Intervals())
            if left and issued.at > cache.covered_at(stream.namespace):
                self.violate("receipt", f"{origin.name} counts {name}: {stream} {left}")

    def turned(self, member: Member, turn: Turn) -> None:
        """Look at the streams that a member forgets."""
        self.eras = max(self.eras, turn.era.number)
        for stream in turn.dropped:
            had = member.justified.pop(stream, Intervals())
            self.forgotten.add(stream)
            member.dropped.add(stream)
            if not self._is_known(stream, turn.era.number):
                self.gone[stream] = turn.era.number
            for reader in (member.cache, member.watcher):
                reader.may_repeat(stream, member.replica.position)  # until it is gone everywhere
            if member.mending.retiring.is_behind:
                continue  # it is reset
            lacking = self._world.truth.accepted(stream) - had
            for issued in self._world.truth.find(stream, lacking.ranges()):
                if not self._is_excused(member, issued):
                    self.violate("era", f"{member.name} forgets {stream} {lacking} unheard")

    def _is_excused(self, member: Member, issued: Issued) -> bool:
        """Tell whether rows of a stream that somebody has forgotten matter no more to a member."""
        namespace, at = issued.batch.stream.namespace, issued.at
        return self._world.now - at >= member.needed_ttl(namespace) or any(
            reset.at >= at
            for reset in self.resets_made
            if reset[1:] == (member.name, namespace, Cause.LEFT_BEHIND)
        )

    def _is_known(self, stream: Stream, era: int) -> bool:
        """Tell whether anybody who may show a stream has it still."""
        for member in self._world.members:
            if member.is_up:
                state = member.replica.vector.get(stream)
                if state is not None and state.have:
                    return True
            elif stream in member.disk.have:
                then = member.disk.eras.get(stream.namespace, NEVER).number
                if then + BEHIND > era or stream.namespace not in member.holds:
                    return True
        return False

    def _look_for_forgotten(self, member: Member) -> None:
        for stream, era in sorted(self.gone.items()):
            state = member.replica.vector.get(stream)
            if member.mending.retiring.eras.number(stream.namespace) + BEHIND <= era:
                continue  # it is not believed, and is going to drop it
            if state is not None and state.have and not member.mending.retiring.is_behind:
                del self.gone[stream]
                self.violate("era", f"{member.name} knows {stream} {state.have} again")

    def memory(self) -> None:
        """Look at what members keep."""
        world = self._world
        streams, members = len(world.truth.streams), len(world.members)
        for member in world.members:
            if not member.is_up:
                continue
            self._look_for_forgotten(member)
            gaps = member.mending.repair._gaps
            spread = member.spread.statistics()
            config = member.spread.config
            bounds = {
                "gaps": (len(gaps), streams),
                "claims": (max((len(g.claims) for g in gaps.values()), default=0), members),
                "waiting covers": (
                    max((waiting(g.waiting) for g in gaps.values()), default=0),
                    WAITING_MAX,
                ),
                "told": (len(member.mending.told), streams),
                "asked": (len(member.mending.asked), members),
                "remembered": (spread["remembered"], config.remembered_max),
                "receipts": (spread["receipts"], config.receipts_max),
                "links": (spread["links"], 2 * members),
                "queued": (spread["queued_bytes"], spread["links"] * LINK_BYTES_MAX),
            }
            for what, (is_now, most) in bounds.items():
                if is_now > most:
                    self.violate("memory", f"{member.name}: {is_now} {what}, at most {most}")

    # ------------------------------------------------------------------ in the end

    def final(self) -> None:
        """Look at everything, some time after the last fault."""
        self.memory()
        for member in self._world.members:
            if not member.is_up:
                continue
            self.audit(member)
            self._look_at_eras(member)
            self._look_at_vector(member)
            self._look_at_copies(member)
            for reader in (member.cache, member.watcher):
                self._look_at_reader(member, reader)
            freshness = member.mending.freshness
            synced_at = freshness.synced_at
            if freshness.is_catching_up or (
                synced_at is not None and member.now - synced_at > SYNCED_WITHIN
            ):
                self.violate(
                    "fresh", f"{member.name} synced at {synced_at}, it is {member.now:.1f}"
                )
            repair, spread = member.mending.repair, member.spread.statistics()
            if repair.open() or member.mending.asked:
                self.violate("memory", f"{member.name}: {repair.open()} still missing")
            if spread["queued_bytes"]:
                self.violate("memory", f"{member.name}: {spread['queued_bytes']} B still queued")
        self._count_resets()

    def audit(self, member: Member) -> None:
        """Look whether a vector names anything that has no reason."""
        for stream, state in member.replica.vector:
            if wrong := state.have - member.justified.get(stream, Intervals()):
                self.violate("vector", f"{member.name} has {stream} {wrong} without a reason")

    def _look_at_eras(self, member: Member) -> None:
        """Look whether a member was left behind, and never found out."""
        for other in self._world.members:
            if other.is_up:
                theirs = other.mending.retiring.eras.numbers(member.shared(other.name))
                for namespace in member.mending.retiring.eras.left_behind(theirs):
                    self.violate("era", f"{member.name} is left behind in {namespace}")

    def _look_at_vector(self, member: Member) -> None:
        truth = self._world.truth
        for stream in truth.streams:
            if stream.namespace not in member.holds:
                continue
            state = member.replica.vector.get(stream)
            have = state.have if state is not None else Intervals()
            missing = truth.accepted(stream) - have
            if missing and state is None and stream in self.forgotten:
                if stream in member.dropped:
                    continue
                for issued in truth.find(stream, missing.ranges()):
                    if self._is_excused(member, issued):
                        missing = missing - Intervals(issued.batch.numbers)
            if missing:
                self.violate("missing", f"{member.name} lacks {stream} {missing}")

    def _look_at_copies(self, member: Member) -> None:
        now, truth = self._world.now, self._world.truth
        for namespace, copies in member.cache.copies.items():
            alive = {key: copy for key, copy in copies.items() if copy.expires_at > now}
            for issued in truth.issued:
                stream = issued.batch.stream
                if stream.namespace != namespace or not issued.is_committed:
                    continue
                extinct = truth.extinct.get(stream, Intervals())
                for key, copy in alive.items():
                    is_marked = copy.is_stale and issued.batch.effect is Effect.STALE
                    if copy.loaded_at >= issued.at or is_marked:
                        continue
                    for number, selector in enumerate(issued.batch.selectors, issued.first):
                        if touches(selector, key) and number not in extinct:
                            self.violate(
                                "stale", f"{member.name} {namespace} {key!r}: {stream} {number}"
                            )

    def _look_at_reader(self, member: Member, reader: Reader) -> None:
        who = f"{type(reader).__name__.lower()} of {member.name}"
        if reader.repeated:
            self.violate("reader", f"the {who} was shown {reader.repeated} rows twice")
        if reader.position != member.replica.position:
            self.violate("reader", f"the {who} is at {reader.position}")
        truth = self._world.truth
        for stream in truth.streams:
            if stream.namespace not in member.holds:
                continue
            left = truth.accepted(stream) - reader.seen.get(stream, Intervals())
            left = left - self._rightly.get(member.name, {}).get(stream, Intervals())
            if not left:
                continue
            since = reader.covered_at(stream.namespace)
            silent = [i for i in truth.find(stream, left.ranges()) if i.at > since]
            if silent and stream in self.forgotten and member.replica.vector.get(stream) is None:
                silent = [i for i in silent if not self._is_excused(member, i)]
            if silent:
                numbers = [(issued.first, issued.last) for issued in silent]
                self.violate("reader", f"the {who} was not shown {stream} {numbers}")

    def _count_resets(self) -> None:
        counts: Counter[tuple[str, str, bool]] = Counter()
        for _, name, namespace, cause in self.resets_made:
            counts[name, namespace, cause is Cause.LEFT_BEHIND] += 1
        for (name, namespace, _), count in counts.items():
            if count > self.resets_max:
                self.violate(
                    "reset", f"{name} {namespace}: {count} resets, {self.resets_max} explained"
                )


def waiting(covers: Waiting) -> int:
    """Count the answers whose covers wait."""
    return sum(map(len, covers._entries.values())) + len(covers._due)
