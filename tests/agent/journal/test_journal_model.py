"""Both journals against a plain model, over arbitrary lives of one: writes, reads, crashes, restarts."""

from __future__ import annotations

import tempfile
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_twins import MINE, PLENTY, THEIRS, MemoryTwin, SqliteTwin, Twin

from coherd.journal import Block, Era, Floor, Write
from coherd.model import Cause, Origin, Position, Range, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coherd.journal.base import BaseJournal

STREAMS = [MINE, THEIRS, MINE._replace(namespace="other")]
NAMESPACES = ["products", "other", "any"]
NAMES = ["x", "y", "z"]

number = st.integers(1, 60)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[Range, ...]:
    """Ascending ranges that do not touch."""
    numbers = sorted(draw(st.sets(number, min_size=1, max_size=8)))
    result: list[Range] = []
    for n in numbers:
        if result and result[-1][1] == n - 1:
            result[-1] = (result[-1][0], n)
        else:
            result.append((n, n))
    return tuple(result)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """A block whose position is the distance to the one before it."""
    stream = draw(st.none() | st.sampled_from(STREAMS))
    numbers = () if stream is None else draw(ranges())
    return Block(
        position=draw(st.integers(1, 3)),
        rows=sum(high - low + 1 for low, high in numbers) or 1,
        namespace="any" if stream is None else stream.namespace,
        stream=stream,
        numbers=numbers,
        accepted_at=draw(st.floats(0, 1e9)),
        cause=Cause.UNCLAIMED
        if stream is None
        else draw(st.sampled_from([Cause.LOCAL, Cause.LINK])),
        payload=b"" if stream is None else draw(st.binary(max_size=300)),
    )


floors = st.builds(Floor, number, st.floats(0, 1e9))
writes = st.builds(
    Write,
    blocks=st.lists(blocks(), max_size=3),
    adopted=st.dictionaries(st.sampled_from(STREAMS), ranges(), max_size=1),
    stream_floors=st.dictionaries(st.sampled_from(STREAMS), floors, max_size=1),
    namespace_floors=st.dictionaries(st.sampled_from(NAMESPACES), floors, max_size=1),
    cursors=st.dictionaries(
        st.sampled_from(NAMES), st.none() | st.builds(Position, st.just("a"), number, number)
    ),
    members=st.dictionaries(st.sampled_from(NAMES), st.none() | st.binary(max_size=9)),
    forgotten=st.dictionaries(st.sampled_from(NAMESPACES), st.integers(0, 300), max_size=1),
    max_ttls=st.dictionaries(
        st.sampled_from(NAMESPACES),
        st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, inf)), max_size=3),
        max_size=1,
    ),
    eras=st.dictionaries(
        st.sampled_from(NAMESPACES),
        st.builds(Era, number, st.floats(0, 1e9), st.just(frozenset()), st.just(frozenset())),
        max_size=1,
    ),
    dropped=st.lists(st.sampled_from(STREAMS), max_size=1),
    life=st.none() | st.builds(Origin, st.just("a"), number),
    healed=st.booleans(),
)
steps = st.one_of(
    st.tuples(st.just("write"), st.lists(writes, min_size=1, max_size=4)),
    st.tuples(st.just("read"), st.tuples(st.integers(0, 60), st.integers(1, 1000))),
    st.tuples(st.just("fetch"), st.tuples(st.sampled_from(STREAMS), ranges())),
    st.tuples(st.just("damage"), st.integers(0, 60)),
    st.tuples(st.just("end"), st.tuples(st.booleans(), st.booleans())),
)


class Model:
    """What a journal should hold, in the plainest words."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.position = 0
        self.numbers: dict[Stream, set[int]] = {}
        self.stream_floors: dict[Stream, Floor] = {}
        self.namespace_floors: dict[str, Floor] = {}
        self.cursors: dict[str, Position] = {}
        self.members: dict[str, bytes] = {}
        self.lives: list[tuple[Origin, int]] = []
        self.max_ttls: dict[str, list[tuple[float, float]]] = {}
        self.eras: dict[str, Era] = {}
        self.forgotten: dict[str, int] = {}
        self.damages: dict[str, int] = {}
        self.clean = True

    def place(self, write: Write) -> Write:
        """Turn the distances of a write's blocks into positions, and take the write in."""
        if write.life is not None:
            self.lives.append((write.life, self.position + 1))
        placed = []
        for block in write.blocks:
            position = self.position + block.position
            placed.append(block._replace(position=position))
            self.position = position + block.rows - 1
            if block.stream is not None:
                self.add(block.stream, block.numbers)
        self.blocks += placed
        for stream, taken in write.adopted.items():
            self.add(stream, taken)
        self.stream_floors |= write.stream_floors
        for stream in write.dropped:
            self.numbers.pop(stream, None)
            self.stream_floors.pop(stream, None)
        self.eras |= write.eras
        self.namespace_floors |= write.namespace_floors
        cursors = self.cursors | write.cursors
        self.cursors = {reader: at for reader, at in cursors.items() if at is not None}
        members = self.members | write.members
        self.members = {name: entry for name, entry in members.items() if entry is not None}
        histories = self.max_ttls | write.max_ttls
        self.max_ttls = {name: history for name, history in histories.items() if history}
        for name, position in write.forgotten.items():
            self.forgotten[name] = max(position, self.forgotten.get(name, 0))
        for name, floor in write.namespace_floors.items():
            if floor.n >= self.damages.get(name, inf):
                del self.damages[name]
        self.clean = self.clean or write.healed
        return write._replace(blocks=placed)

    def add(self, stream: Stream, taken: tuple[Range, ...]) -> None:
        for low, high in taken:
            self.numbers.setdefault(stream, set()).update(range(low, high + 1))

    def may_be_gone(self, block: Block) -> bool:
        return block.position + block.rows - 1 <= self.forgotten.get(block.namespace, 0)

    def agree(self, found: Sequence[Block], expected: Sequence[Block]) -> None:
        """What is found is what is expected, but for blocks that may be gone: the oldest."""
        positions = {block.position for block in found}
        kept: set[str] = set()
        for block in expected:
            if block.position in positions:
                kept.add(block.namespace)
            else:
                assert self.may_be_gone(block)
                assert block.namespace not in kept
        assert list(found) == [block for block in expected if block.position in positions]

    def damage(self, block: Block) -> None:
        """Lose a block."""
        of_it = [b.position - 1 for b in self.blocks if b.namespace == block.namespace]
        end = min((end for end in of_it if end >= block.position), default=self.end(block))
        self.damages[block.namespace] = max(end, self.damages.get(block.namespace, 0))
        self.blocks.remove(block)

    def end(self, last: Block) -> int:
        return last.position + last.rows - 1

    def check(self, twin: Twin, journal: BaseJournal) -> None:
        contents = journal.contents
        self.agree(twin.loaded, self.blocks)
        self.blocks = list(twin.loaded)
        damages = {damage.namespace: damage.position for damage in journal.damages}
        assert damages.keys() == self.damages.keys()
        assert all(self.damages[name or ""] <= n <= self.position for name, n in damages.items())
        self.damages = {name or "": n for name, n in damages.items()}
        assert contents.position == self.position
        assert {
            stream: {n for low, high in taken for n in range(low, high + 1)}
            for stream, taken in contents.vector.items()
        } == self.numbers
        assert contents.stream_floors == self.stream_floors
        assert contents.namespace_floors == self.namespace_floors
        assert contents.cursors == self.cursors
        assert contents.members == self.members
        assert {name: list(h) for name, h in contents.max_ttls.items()} == self.max_ttls
        assert contents.eras == self.eras
        assert list(contents.lives) == self.lives
        assert contents.clean is self.clean


async def live(twin: Twin, course: list[tuple[str, tuple]]) -> None:
    model, journal = Model(), twin.open()
    for verb, argument in course:
        if verb == "write":
            tickets = [journal.append_nowait(model.place(write)) for write in argument]
            await journal.committed(tickets[-1])
        elif verb == "read":
            await read(model, journal, *argument)
        elif verb == "fetch":
            await fetch(model, journal, *argument)
        elif verb == "damage":
            await journal.aclose()
            journal = twin.open()
            model.check(twin, journal)
            await journal.aclose()
            if model.blocks:
                block = model.blocks[argument % len(model.blocks)]
                twin.damage(block.position)
                model.damage(block)
            journal = twin.open()
            model.check(twin, journal)
        else:
            in_order, same_boot = argument
            if in_order:
                await journal.aclose()
            else:
                twin.crash(journal)
                await journal.aclose()
                model.clean = model.clean and same_boot
            twin.boot_id += "" if same_boot else "x"
            journal = twin.open()
            model.check(twin, journal)
    await journal.aclose()


async def read(model: Model, journal: BaseJournal, after: int, bytes_max: int) -> None:
    page = await journal.read(after, bytes_max)
    rest = [b for b in model.blocks if b.position + b.rows - 1 > after]
    last = page[-1].position if page else inf
    model.agree(page, [b for b in rest if b.position <= last])
    assert len(page) < 2 or sum(len(b.payload) for b in page) <= bytes_max
    model.agree(await journal.read(after, PLENTY), rest)


async def fetch(
    model: Model, journal: BaseJournal, stream: Stream, wanted: tuple[Range, ...]
) -> None:
    found = await journal.fetch(stream, wanted, PLENTY)
    asked = {n for low, high in wanted for n in range(low, high + 1)}
    model.agree(
        sorted(found, key=lambda b: b.position),
        [
            b
            for b in model.blocks
            if b.stream == stream
            and any(n in asked for low, high in b.numbers for n in range(low, high + 1))
        ],
    )
    page = await journal.fetch(stream, wanted, 400)
    left = [b for b in found if b in page or not model.may_be_gone(b)]
    assert page == left[: len(page)]


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=12))
def test_in_memory(course: list[tuple[str, tuple]]) -> None:
    trio.run(live, MemoryTwin(), course)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=12))
def test_in_sqlite(course: list[tuple[str, tuple]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(live, SqliteTwin(Path(folder)), course)


def test_the_model_is_tried_with_something_to_hold() -> None:
    model = Model()
    placed = model.place(
        Write(blocks=[Block(1, 2, "products", MINE, ((1, 2),), 0, Cause.LOCAL, b"")])
    )
    assert placed.blocks[0].position == 1
    assert model.position == 2
    assert model.numbers == {MINE: {1, 2}}
