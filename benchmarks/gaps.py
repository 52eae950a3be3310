"""Lone gaps for `catchup.py --gaps`: one row at a time is missed by one host, because a link was cut.

Two kinds of cut. `reset`: packets are dropped until the row is on the way and the second host has it; then
the connections between the first and the third are ended at both ends, as by a firewall that forgets them,
and new ones pass. `silent`: packets are dropped, and nobody is told, until the third has the row.
"""

from __future__ import annotations

import subprocess
import time
from random import Random
from typing import Any, NamedTuple

import networks
from agents import MeasuredAgent, agents
from processes import wait_until
from report import finish, percentile, show
from senders import Sending, keys, prefix

from coherd.v1 import admin_service_pb2 as admin

COUNT = 3
CUT = ((1, 3), (3, 1))
"""The pairs of hosts between which nothing passes, while the link is cut."""
KINDS = ("reset", "silent")
POLL = 0.005
TIMEOUT = 60.0
REST_MIN, REST_MAX = 0.5, 1.5
"""Seconds between two gaps, at random: they come at any moment of the agents' rounds."""
TRIES = 4
"""Tries for each gap that is wanted: some rows are no gaps."""


class Gap(NamedTuple):
    """How one row that was missed came after all."""

    found_ms: float
    repaired_ms: float
    by_repair: bool


def report(wanted: int, kind: str) -> None:
    """Measure so many gaps, print the table and the figures."""
    if reason := networks.missing():
        print(f"not measured: {reason}")
        finish({"gaps": 0, "skipped": reason})
        return
    found = measure(wanted, kind)
    figures = {"cut": kind, **summarize(found)}
    rows = [
        ("found", figures.get("found_p50_ms", "-"), figures.get("found_p99_ms", "-")),
        (
            "repaired after",
            figures.get("repaired_p50_ms", "-"),
            figures.get("repaired_p99_ms", "-"),
        ),
        ("call to applied, all", figures["applied_p50_ms"], figures["applied_p99_ms"]),
    ]
    show(f"{figures['gaps']} gaps, cut {kind}, ms", ("", "p50", "p99"), rows)
    print(f"  no gap, because spreading brought it round: {figures['by_spreading']}")
    finish(figures)


def measure(wanted: int, kind: str) -> list[Gap]:
    """Make rows that are missed until so many of them were repaired."""
    random = Random(1)
    found: list[Gap] = []
    with (
        networks.network(COUNT) as net,
        agents(COUNT, places=net.hosts) as running,
        Sending("coherd_sender", (running[0].local, "")) as sender,
    ):
        _, second, last = running
        stub = last.admin()
        for round_ in range(wanted * TRIES):
            wait_until(lambda: all(agent.is_ready(COUNT) for agent in running), TIMEOUT, 0.05)
            time.sleep(random.uniform(REST_MIN, REST_MAX))
            net.cut(*CUT)
            try:
                repaired = _repaired(_status(stub))
                ((_, called),) = sender.paced(round_, 1, 1000)
                wait_until(lambda: second.ask("rows"), TIMEOUT, POLL)
                if kind == "reset":
                    _reset(net)
                found.append(_arrival(last, stub, round_, called, repaired))
                second.ask(prefix(round_))  # forget
            finally:
                net.cut()
            if sum(gap.by_repair for gap in found) >= wanted:
                break
    return found


def _reset(net: networks.Network) -> None:
    """End the connections over the link at both ends, unheard by the other, and mend the link."""
    first, _, third = net.hosts
    for here, there in ((first, third), (third, first)):
        command = [*networks.inside(here.space), "ss", "--kill", "--tcp", "dst", there.address]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    net.cut()


def _arrival(last: MeasuredAgent, stub: Any, round_: int, called: int, repaired: int) -> Gap:
    """Wait until the row is applied, and give how it came."""
    known = 0
    deadline = time.monotonic() + TIMEOUT
    while not last.ask("rows"):
        if time.monotonic() > deadline:
            raise SystemExit(f"a row was not repaired within {TIMEOUT:.0f} s")
        if not known and any(each.gaps_open for each in _status(stub).namespaces):
            known = time.monotonic_ns()
        time.sleep(POLL)
    times, _ = last.ask(prefix(round_))
    applied = times[keys(round_, 0, 1)[0]]
    known = min(known or applied, applied)
    by_repair = _repaired(_status(stub)) > repaired
    return Gap((known - called) / 1e6, (applied - known) / 1e6, by_repair)


def _status(stub: Any) -> admin.GetStatusResponse:
    status: admin.GetStatusResponse = stub.GetStatus(admin.GetStatusRequest(), timeout=30)
    return status


def _repaired(status: admin.GetStatusResponse) -> int:
    return sum(each.repaired for each in status.namespaces)


def summarize(found: list[Gap]) -> dict[str, Any]:
    """Give percentiles of the gaps, and of the time until it was applied over all rows."""
    repaired = [gap for gap in found if gap.by_repair]
    figures: dict[str, Any] = {
        "gaps": len(repaired),
        "by_spreading": len(found) - len(repaired),
    }
    columns = {
        "found": [gap.found_ms for gap in repaired],
        "repaired": [gap.repaired_ms for gap in repaired],
        "applied": [gap.found_ms + gap.repaired_ms for gap in found],
    }
    for name, values in columns.items():
        for key, share in (("p50", 0.5), ("p99", 0.99)):
            if values:
                figures[f"{name}_{key}_ms"] = round(percentile(values, share), 2)
    return figures
