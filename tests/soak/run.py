"""A soak: phases of random faults under load; after each everything heals, and every copy is looked at."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from integration.polling import poll
from soak.faults import Faults, links_of
from soak.filling import key, selectors
from soak.hosts import Host, soaked_hosts
from soak.load import Client, Pacer
from soak.probing import Findings, Prober
from soak.truth import Clock, Stale, Truth

FILLS_A_ROW = 2
"""Keys that each application looks at, for each row of the load."""
LOOK_EVERY = 0.25
"""Seconds."""
SYNC_AGE = re.compile(r'^coherd_member_sync_age_seconds\{member="([^"]+)"\} (\S+)', re.MULTILINE)
ERROR_CHARACTERS_MAX = 1000
SHOWN_MAX = 5
"""How much is told of each thing that is wrong."""


@dataclass(frozen=True)
class Plan:
    """What a soak does."""

    seed: int
    seconds: float = 1200.0
    """How long it goes on beginning phases; there is always one."""
    agents: int = 5
    rate: int = 1000
    """Rows a second, all agents together."""
    keys: int = 20_000
    phase: tuple[float, float] = (40.0, 70.0)
    """Shortest and longest time of faults, in seconds."""
    overlap: int = 3
    """Faults at once, at most."""
    probers: int = 4
    deadline: float = 60.0
    """Seconds in which everything must be quiet after everything is healed."""
    only: Sequence[str] = ()
    """Kinds of faults; empty is all."""
    settings: str = ""
    """More TOML for every agent."""
    bugs: Sequence[str] = ()
    """Planted into the first agents."""


@dataclass
class Result:
    """What a soak found."""

    seed: int
    seconds: float = 0.0
    loaded_s: float = 0.0
    """How long of it there were load and faults."""
    rows_accepted: int = 0
    rows_perhaps: int = 0
    rows_doubtful: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    heals: int = 0
    checks: int = 0
    """Copies that were looked at."""
    receipts: int = 0
    hosts_counted: int = 0
    hosts_looked_at: int = 0
    stale: int = 0
    resets: Counter[str] = field(default_factory=Counter)
    longest_to_quiet_s: float = 0.0
    peak_rss_mib: int = 0
    violations: list[str] = field(default_factory=list)


class Soak:
    """One soak over running hosts."""

    def __init__(self, plan: Plan, hosts: Sequence[Host], say: Callable[[str], None]) -> None:
        self._plan = plan
        self._hosts = hosts
        self._say = say
        self._random = random.Random(plan.seed)
        self._truth = Truth()
        self._findings = Findings()
        self._result = Result(plan.seed)
        self._runs = threading.Event()
        self._is_over = threading.Event()
        self._disk = threading.Lock()
        self._links = links_of(hosts)
        self._clock = Clock()
        self._names = {key(n): selectors(n) for n in range(plan.keys)}
        pacer = Pacer(plan.rate)
        self._clients = [
            Client(h, plan.keys, pacer, self._truth, self._source(), self._runs, self._is_over)
            for h in hosts
        ]
        self._probers = [
            Prober(n, hosts, self._findings, self._source(), self._runs, self._is_over)
            for n in range(plan.probers)
        ]

    def _source(self) -> random.Random:
        return random.Random(self._random.randrange(2**32))

    def run(self) -> Result:
        """Go through the phases; ends with the one that finds something wrong."""
        plan, result = self._plan, self._result
        started = time.monotonic()
        for host in self._hosts:
            seed = self._random.randrange(2**31)
            host.start_filling(plan.keys, FILLS_A_ROW * plan.rate, seed)
        threads = [*self._clients, *self._probers]
        for thread in threads:
            thread.start()
        try:
            self._phase()
            while not result.violations and time.monotonic() - started < plan.seconds:
                self._phase()
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join(30)
            result.seconds = round(time.monotonic() - started, 1)
        for host in self._hosts:
            host.stop_filling()
            result.resets += host.resets
        return result

    def _phase(self) -> None:
        length = self._random.uniform(*self._plan.phase)
        before = self._result.faults.copy()
        started = time.monotonic()
        self._runs.set()
        failed = self._break_things(length)
        self._runs.clear()
        self._result.loaded_s = round(self._result.loaded_s + time.monotonic() - started, 1)
        for host in self._hosts:  # whoever got the lock finds that nothing runs any more
            with host.calls:
                pass
        for prober in self._probers:
            assert prober.idle.wait(30), "a prober to end its probe"
        assert all(t.is_alive() for t in (*self._clients, *self._probers)), "the load has died"
        if failed:
            self._result.violations += failed
            self._note()
        else:
            self._check(self._result.faults - before)

    def _break_things(self, length: float) -> list[str]:
        """Break things for some seconds; gives what could not be mended, as an agent that does not start."""
        is_over = threading.Event()
        breakers = [
            Faults(
                self._hosts,
                self._links,
                self._truth,
                self._source(),
                is_over,
                self._disk,
                self._result.faults,
                self._plan.only,
            )
            for _ in range(self._plan.overlap)
        ]
        with ThreadPoolExecutor(len(breakers)) as pool:
            running = [pool.submit(breaker.run) for breaker in breakers]
            try:
                is_over.wait(length)
            finally:  # also where the soak is interrupted
                is_over.set()
            failed = [
                f"a fault could not be mended: {str(error)[-ERROR_CHARACTERS_MAX:]}"
                for each in running
                if (error := each.exception())
            ]
        if self._disk.locked():
            self._disk.release()
        return failed

    # ------------------------------------------------------------------ after the faults

    def _check(self, faults: Counter[str]) -> None:
        """Wait until all is quiet, then look at every copy."""
        result, violations = self._result, self._result.violations
        healed_at = time.monotonic()
        last: list[str] = []

        def is_quiet() -> bool:
            self._is_over.wait(LOOK_EVERY)
            found = self._restless(healed_at)
            last[:] = found or last
            return not found

        try:
            poll(is_quiet, "everything to be quiet", self._plan.deadline)
            self._truth.settle_all()
        except AssertionError:
            violations.append(
                f"not quiet {self._plan.deadline:.0f} s after everything was healed: "
                + "; ".join(last[:SHOWN_MAX])
            )
        took = time.monotonic() - healed_at
        result.longest_to_quiet_s = round(max(result.longest_to_quiet_s, took), 1)
        stale, copies = self._stale()
        violations += [str(each) for each in stale[:SHOWN_MAX]]
        violations += self._findings.wrong[:SHOWN_MAX]
        for host in self._hosts:
            violations += host.failures()[:SHOWN_MAX]
        if self._clock.was_set:
            violations.append("the clock of this machine was set: the times cannot be compared")
        result.stale += len(stale)
        result.checks += copies
        result.heals += 1
        self._note()
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items()))
        self._say(
            f"heal {result.heals}: quiet after {took:.1f} s (last: {'; '.join(last[:SHOWN_MAX])}), "
            f"{copies} copies looked at, "
            f"{len(stale)} stale, {len(self._findings.wrong)} wrong receipts of "
            f"{result.receipts}, {result.rows_accepted} rows accepted; {kinds or 'no faults'}"
        )

    def _stale(self) -> tuple[list[Stale], int]:
        found: list[Stale] = []
        total = 0
        for host in self._hosts:
            copies = host.copies(list(self._names))
            total += len(copies)
            found += self._truth.stale(host.name, copies, self._names)
        return found, total

    def _note(self) -> None:
        result, truth, findings = self._result, self._truth, self._findings
        for host in self._hosts:
            host.note_figures()
        result.rows_accepted = truth.accepted
        result.rows_perhaps = truth.perhaps
        result.rows_doubtful = truth.doubtful
        result.receipts = findings.receipts
        result.hosts_counted = findings.counted
        result.hosts_looked_at = findings.looked
        result.peak_rss_mib = max(host.peak_rss for host in self._hosts) >> 20

    def _restless(self, healed_at: float) -> list[str]:
        """Say what is not quiet yet."""
        return [
            f"{host.name} {what}"
            for host in self._hosts
            for what in restless(host, self._hosts, healed_at)
        ]


def restless(host: Host, hosts: Sequence[Host], healed_at: float) -> list[str]:
    """Say what of a host is not quiet yet, or has not been compared with every other host since."""
    healed_ago = time.monotonic() - healed_at
    try:
        status = host.agent.status()
        ages = sync_ages(host)
    except (grpc.RpcError, OSError) as error:
        return [f"does not answer: {error!r}"]
    found = list(status.reasons)
    if status.members_alive != len(hosts):
        found.append(f"sees {status.members_alive} agents")
    found += [f"lacks {each.gaps_open} rows" for each in status.namespaces if each.gaps_open]
    found += [f"{each.label} lags by {each.lag}" for each in status.handlers if each.lag]
    if status.journal.queued_bytes or status.journal.healing:
        found.append("writes to its journal")
    found += [
        f"has not had the same as {other.name} since"
        for other in hosts
        if other is not host and ages.get(other.name, healed_ago) >= healed_ago
    ]
    return found


def sync_ages(host: Host) -> dict[str, float]:
    """Give the seconds since the agent and each other one had the same."""
    _, text = host.agent.get("/metrics")
    return {name: float(age) for name, age in SYNC_AGE.findall(text)}


def soak(plan: Plan, folder: Path, say: Callable[[str], None]) -> Result:
    """Run one in a folder of its own, telling how far it is."""
    with soaked_hosts(folder, plan.agents, plan.settings, plan.bugs) as hosts:
        return Soak(plan, hosts, say).run()


def written(result: Result) -> dict[str, Any]:
    """Give a result as what JSON can hold."""
    return {
        name: dict(value) if isinstance(value, Counter) else value
        for name, value in vars(result).items()
    }
