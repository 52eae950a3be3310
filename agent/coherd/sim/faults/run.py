"""One history of faults, and what was found; many of them, each in a process of its own."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from coherd.sim.faults.plan import Plan, Size
from coherd.sim.scenarios import uncollected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found; plain values only, so that it can be stored."""

    seed: int
    members: int
    seconds: float
    befell: dict[str, int]
    """How often each kind of fault was drawn."""
    calls: int
    """That invalidated, and were not refused."""
    events: int
    resets: dict[str, int]
    """By cause."""
    covers: int
    """Numbers that were taken in because later rows supersede them."""
    blanks: int
    """Numbers that were taken in because they had expired."""
    eras: int
    """The highest that was reached."""
    forgotten: int
    """Streams that somebody has forgotten in an era."""
    extinct: int
    """Numbers that were lost for good, with a disk or before they were committed."""
    reader_resets: int
    refused: int
    """Writes that a full journal refused."""
    receipts: int
    """That named somebody."""
    trace: str
    """A checksum of the history."""
    violations: int
    first_violations: list[str]
    cpu_s: float = 0.0
    """What it took; of the machine, not of the seed."""

    @property
    def history(self) -> Outcome:
        """The same without what is of the machine."""
        return replace(self, cpu_s=0.0)


def history(
    size: Size,
    seed: int,
    tell: Callable[[str], None] = lambda _line: None,
    menu: Sequence[str] = (),
) -> Plan:
    """Simulate a history and look at it."""
    with uncollected():
        plan = Plan(size, seed, menu)
        plan.run(tell)
    return plan


def outcome(size: Size, seed: int, tell: Callable[[str], None] = lambda _line: None) -> Outcome:
    """Simulate a history and tell what was found."""
    plan = history(size, seed, tell)
    world, checks = plan.world, plan.world.checks
    readers = [reader for m in world.members for reader in (m.cache, m.watcher)]
    return Outcome(
        seed,
        size.members,
        size.seconds,
        dict(sorted(plan.befell.items())),
        len(world.truth.issued),
        world.events,
        dict(sorted(Counter(reset.cause.value for reset in checks.resets_made).items())),
        checks.covers,
        checks.blanks,
        checks.eras,
        len(checks.forgotten),
        sum(map(len, world.truth.extinct.values())),
        sum(reader.resets for reader in readers),
        world.refused,
        len(world.receipts),
        f"{world.traced & (2**64 - 1):016x}",
        checks.count,
        [f"{v.kind} at {v.at:.1f} s: {v.what}" for v in checks.violations[:5]],
    )


def outcomes(
    size: Size, seeds: Iterable[int], jobs: int, timed: Callable[[partial[Outcome]], Outcome]
) -> Iterator[Outcome]:
    """Simulate many histories, `jobs` at once, and give each as it ends.

    `timed(ask)` calls `ask()` and puts in how long that took: time is none of the simulator's business.
    """
    asks = [partial(outcome, size, seed) for seed in seeds]
    if jobs == 1:
        yield from map(timed, asks)
        return
    with ProcessPoolExecutor(jobs, max_tasks_per_child=1) as pool:
        for done in as_completed([pool.submit(timed, ask) for ask in asks]):
            yield done.result()


def stored(found: Outcome) -> dict[str, object]:
    """Give it for JSON."""
    return asdict(found)
