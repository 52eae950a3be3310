"""What happens in `coherd demo`: invalidations everywhere, one agent killed, and how it catches up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import trio

from coherd.cli.demo.processes import POLL_INTERVAL, START_TIMEOUT, DemoFailed
from coherd.cli.demo.show import Host, Part, Row, Show, now
from coherd.cli.output import Json, count_of, duration, word
from coherd.v1 import cache_service_pb2 as pb
from coherd.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from coherd.cli.demo.caches import Cache

PATIENCE = 5.0
"""Seconds after which an invalidation that has not arrived is shown as such."""
REPAIR_PATIENCE = 12.0
"""Seconds that the agent that was away is given to catch up."""
RECEIPT_TIMEOUT = 0.5
"""Seconds that the agents have to say that they have applied rows."""
BURST = 100
"""Single keys that are invalidated one after the other."""
BATCH = 100
"""Keys of one call while an agent is away."""
SOON = 0.05
"""Seconds between two questions for a receipt."""
SHORT, LONG = 0.4, 1.2
"""Seconds of a pause in which people can follow."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What every cache is filled with, and what of it is invalidated when; each key at most once."""

    entries: dict[str, list[str]]
    """Keys with their tags."""
    key: str
    tag: str
    tagged: list[str]
    prefix: str
    prefixed: list[str]
    burst: list[str]
    missed: list[str]
    """Invalidated while an agent is away."""
    kept: list[str]
    """Never invalidated."""

    @classmethod
    def of(cls, count: int) -> Keys:
        """Deal out so many keys."""
        users = [f"user:{n}" for n in range(1, count * 6 // 10 + 1)]
        carts = [f"cart:{n}" for n in range(1, count * 15 // 100 + 1)]
        pages = [f"page:{n}" for n in range(1, count - len(users) - len(carts) + 1)]
        tagged = users[9::10]
        free = sorted(set(users) - {"user:42", *tagged}, key=lambda key: int(key[5:]))
        missed = free[: count // 2]
        burst = pages[-min(BURST, len(pages) // 2) :]
        entries: dict[str, list[str]] = {key: [] for key in (*users, *carts, *pages)}
        entries.update((key, ["vip"]) for key in tagged)
        used = {"user:42", *tagged, *carts, *burst, *missed}
        kept = [key for key in (*pages, *users) if key not in used]
        return cls(entries, "user:42", "vip", tagged, "cart:", carts, burst, missed, kept)


@dataclass(slots=True)
class Result:
    """What `-o json` prints."""

    hosts: int
    invalidations: int = 0
    """Rows: keys, tags and prefixes."""
    repaired: int = 0
    """Rows that the agent that was away fetched from others."""
    stale_left: int = 0
    """Copies that are still in a cache although they were invalidated."""
    resets: int = 0
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether the demo showed what it is there to show."""
        return self.stale_left == 0 and self.repaired > 0

    def json(self) -> Json:
        """Give it as one object."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


async def start(hosts: Sequence[Host], keys: Keys, nursery: trio.Nursery) -> None:
    """Start everything, and fill the caches once all agents see each other. Raises DemoFailed."""

    async def start_one(host: Host) -> None:
        await host.cache.start(nursery)
        await host.agent.start(nursery)
        await nursery.start(host.cache.follow)
        await _become_whole(host, len(hosts))

    async with trio.open_nursery() as starting:
        for host in hosts:
            starting.start_soon(start_one, host)
    for host in hosts:
        await host.cache.fill(keys.entries)


async def _become_whole(host: Host, members: int) -> None:
    """Wait until an agent is ready and sees all the others."""
    status = await host.agent.status()
    with trio.move_on_after(START_TIMEOUT):
        while not (status.ready and status.members_alive == members):
            await trio.sleep(POLL_INTERVAL)
            status = await host.agent.status()
        host.state = "alive"
        return
    sees = f"sees {status.members_alive} of {members} agents"
    why = "; ".join([sees, *status.reasons])
    raise DemoFailed(f"{host.name} was not ready after {START_TIMEOUT:.0f} s ({why}): try again")


class Script:
    """Runs the demo on hosts that are filled and ready."""

    def __init__(
        self, hosts: Sequence[Host], keys: Keys, show: Show, nursery: trio.Nursery
    ) -> None:
        self._hosts = hosts
        self._keys = keys
        self._show = show
        self._nursery = nursery
        self._invalidated: set[str] = set()
        self.result = Result(len(hosts))
        for host in hosts:
            host.stale = partial(self._stale_in, host.cache)

    async def run(self) -> Result:
        """Tell the whole story."""
        await self._reach_everybody()
        away = self._hosts[-1]
        dots = await self._miss(away)
        await self._come_back(away, dots)
        await self._look_at_everything()
        return self.result

    # ------------------------------------------------------------------ everybody is there

    async def _reach_everybody(self) -> None:
        keys, (one, two, three) = self._keys, self._hosts
        good = (self._show.glyphs.good, "green")
        self._show.line(
            "Invalidations, and the time from each call until each cache had dropped its"
        )
        self._show.line("copies (", good, ": the receipt says that this host has applied it)")
        self._show.line()
        self._show.line(*self._show.head())
        await self._invalidate(f"key {keys.key}", one, [keys.key], keys=[keys.key.encode()])
        await self._invalidate(
            f"tag {keys.tag}, {count_of(len(keys.tagged), 'key')}",
            two,
            keys.tagged,
            tags=[keys.tag.encode()],
        )
        await self._invalidate(
            f"prefix {keys.prefix}, {count_of(len(keys.prefixed), 'key')}",
            three,
            keys.prefixed,
            prefixes=[keys.prefix.encode()],
        )
        await self._invalidate_one_by_one(one, keys.burst)

    async def _invalidate(self, label: str, at: Host, gone: list[str], **rows: list[bytes]) -> None:
        """Invalidate with one call, and wait until the copies are gone everywhere."""
        self._invalidated.update(gone)
        row = Row(label, at.name, dict.fromkeys(gone, now()))
        with self._show.row(row):
            receipt = await at.agent.invalidate(pb.WAIT_REGION, PATIENCE, **rows)
            self.result.invalidations += sum(map(len, rows.values()))
            row.applied = set(receipt.applied)
            await self._gone(self._hosts, gone, PATIENCE)
        await self._show.pause(SHORT)

    async def _invalidate_one_by_one(self, at: Host, keys: list[str]) -> None:
        """Invalidate with a call each; the median of the times is shown."""
        applied = {host.name for host in self._hosts}
        starts: dict[str, float] = {}
        row = Row(f"{len(keys)} single keys, median", at.name, starts, median)
        for key in keys:
            self._invalidated.add(key)
            starts[key] = now()
            receipt = await at.agent.invalidate(pb.WAIT_REGION, PATIENCE, keys=[key.encode()])
            self.result.invalidations += 1
            applied &= set(receipt.applied)
        row.applied = applied
        await self._gone(self._hosts, keys, PATIENCE)
        with self._show.row(row):
            pass
        await self._show.pause(SHORT)

    # ------------------------------------------------------------------ one is away

    async def _miss(self, away: Host) -> list[types_pb2.Dots]:
        """Kill an agent, and invalidate meanwhile; gives what it missed."""
        show, one, keys = self._show, self._hosts[0], self._keys.missed
        show.line()
        await away.agent.kill()
        away.state = "killed"
        show.line((f"kill -9 {away.name}", "bold"), ": its agent is gone, its cache serves on.")
        await show.pause(SHORT)
        dots: list[types_pb2.Dots] = []
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            self._invalidated.update(batch)
            rows = [key.encode() for key in batch]
            dots += (await one.agent.invalidate(pb.WAIT_ACCEPTED, keys=rows)).dots
            self.result.invalidations += len(batch)
        await self._gone(self._hosts[:-1], keys, PATIENCE)
        show.line(f"  {count_of(len(keys), 'key')} were invalidated at {one.name} meanwhile.")
        self._show_receipt(await one.agent.receipt(dots, RECEIPT_TIMEOUT))
        stale = len(await away.cache.held() & self._invalidated)
        show.line(f"  {away.name} still holds ", (count_of(stale, "stale copy"), "red"), ".")
        show.gauges()
        await show.pause(LONG)
        return dots

    async def _come_back(self, away: Host, dots: list[types_pb2.Dots]) -> None:
        """Start the agent again, and wait until its cache has caught up and the receipt says so."""
        show, keys = self._show, self._keys.missed
        show.line()
        show.line((f"{away.name} is started again", "bold"), ".")
        start = now()
        away.state = "starting"
        await away.agent.start(self._nursery)
        answered = now()
        away.state = "alive"
        show.line(f"  after {duration(answered - start)}  its agent answers")
        await self._gone([away], keys, REPAIR_PATIENCE)
        for namespace in (await away.agent.status()).namespaces:
            self.result.repaired += namespace.repaired
        at = away.cache.drops.at
        left = sum(key not in at for key in keys)
        if left:
            text = f"{count_of(left, 'stale copy')} left"
        else:
            took = duration(max(at[key] for key in keys) - start)
            rows = count_of(self.result.repaired, "row")
            text = f"after {took}  {rows} fetched from the others, the last stale copy is gone"
        show.line(f"  {text}")
        receipt = await self._complete(dots)
        self._show_receipt(receipt)

    async def _complete(self, dots: list[types_pb2.Dots]) -> pb.Receipt:
        """Ask for a receipt until it is complete, or for too long."""
        one = self._hosts[0].agent
        deadline = trio.current_time() + PATIENCE
        while True:
            receipt = await one.receipt(dots, RECEIPT_TIMEOUT)
            if receipt.complete or trio.current_time() > deadline:
                return receipt
            await trio.sleep(SOON)  # the agents may not be linked again yet

    async def _look_at_everything(self) -> None:
        """Count what is stale in truth, and what was reset."""
        show, kept = self._show, set(self._keys.kept)
        whole = 0
        for host in self._hosts:
            held = await host.cache.held()
            self.result.stale_left += len(held & self._invalidated)
            whole += kept <= held
            status = await host.agent.status()
            self.result.resets += host.cache.resets
            self.result.resets += sum(sum(each.resets.values()) for each in status.namespaces)
            self.result.resets += sum(handler.resets for handler in status.handlers)
        show.gauges()
        if whole == len(self._hosts):
            show.line(
                f"  {count_of(len(kept), 'key')} were never invalidated: every cache has them."
            )

    def summary(self) -> list[Part]:
        """Give the last line."""
        result = self.result
        sign = (
            (self._show.glyphs.good, "green") if result.is_good else (self._show.glyphs.bad, "red")
        )
        counts = (
            count_of(result.hosts, "host"),
            count_of(result.invalidations, "invalidation"),
            f"{result.repaired:,} repaired",
            f"{result.stale_left:,} stale left",
            count_of(result.resets, "reset"),
            duration(result.seconds),
        )
        return [sign, (f" {', '.join(counts)}", "bold")]

    # ------------------------------------------------------------------ small things

    def _stale_in(self, cache: Cache) -> int:
        return len(cache.copies & self._invalidated)

    async def _gone(self, hosts: Iterable[Host], keys: Collection[str], patience: float) -> None:
        """Wait until the caches have dropped their copies, but not for ever."""
        with trio.move_on_after(patience):
            for host in hosts:
                await host.cache.drops.wait(keys)

    def _show_receipt(self, receipt: pb.Receipt) -> None:
        """Say who has applied rows and who has not."""
        glyphs = self._show.glyphs
        mark = (glyphs.good, "green") if receipt.complete else (glyphs.pending, "yellow")
        parts: list[Part] = ["  receipt ", mark, f" applied by {', '.join(receipt.applied)}"]
        if receipt.missing:
            names = ", ".join(map(_missing, receipt.missing))
            parts += ["; ", (f"missing: {names}", "yellow")]
        self._show.line(*parts)


def _missing(missing: pb.Missing) -> str:
    """Name who has not applied rows; an agent that just died may still pass for alive."""
    state = word(types_pb2.MemberState, missing.state)
    return missing.name if state == "alive" else f"{missing.name} ({state})"
