"""How long does an agent that was away take to have all again, and what does that cost its peers?

One of three agents is stopped; so many rows (keys of 24 bytes, all different) are accepted by another,
perhaps beside a million that all three have; it is started again on its data. Start: it answers its first
GetStatus. Stop: it is ready, knows of no gap, and remembers as many rows as its peers. Processor time of each
peer over the same seconds; bytes are those between all three from its start on, IP headers included
(loopback of a network namespace; needs root, else left out). Several rounds on the same data, medians.

With `--gaps K`: three hosts (network namespaces, needs root). The link between the first and the third is
cut, both ways, without a word to either; the first accepts a row. With `--cut reset` both ends of the
connections are then ended and the link is mended; with `--cut silent` it is mended once the third has the
row. From the call until the third knows that it misses the row (GetStatus, every 5 ms; at the latest when it
has it), and from then until its handler has applied it. Rows that came by spreading after all, through the
second host, were no gaps and are counted apart.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from statistics import median
from typing import Any

import gaps
import networks
from agents import MeasuredAgent, agents
from processes import wait_until
from report import finish, show
from senders import Sending, keys

from coherd.v1 import admin_service_pb2 as admin

COUNT = 3
ENTRIES_MAX_LEAST = 1_000_000
TIMEOUT = 300.0
POLL = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missing", type=int, default=100_000)
    parser.add_argument("--among", type=int, default=0, help="rows that all have before")
    parser.add_argument(
        "--alone", action="store_true", help="rows were accepted one by one, a payload each"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gaps", type=int, default=0, help="measure so many lone gaps instead")
    parser.add_argument("--cut", choices=gaps.KINDS, default="reset", help="how a gap comes")
    parser.add_argument("--quick", action="store_true", help="ends within a minute")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.missing = min(arguments.missing, 20_000)
        arguments.among = min(arguments.among, 50_000)
        arguments.rounds = 3
        arguments.gaps = min(arguments.gaps, 10)
    if arguments.gaps:
        gaps.report(arguments.gaps, arguments.cut)
        return
    figures = measure(arguments.missing, arguments.among, arguments.rounds, alone=arguments.alone)
    rows = [
        ("until it has all, s", figures["seconds"], figures["seconds_max"]),
        ("from the start of its process, s", figures["seconds_from_start"], ""),
        ("the one that was away, s of processor", figures["own_cpu_s"], ""),
        (
            "the busiest peer, % of a core",
            figures["peer_cpu_percent"],
            figures["peer_cpu_percent_max"],
        ),
        ("the busiest peer, s of processor", figures["peer_cpu_s"], ""),
    ]
    if "bytes" in figures:
        rows.append(("bytes between all", figures["bytes"], ""))
    title = f"{arguments.missing:,} missing, among {arguments.among:,} that all have"
    if arguments.alone:
        title += ", accepted one by one"
    show(title, ("", "median", "greatest"), rows)
    finish(figures)


def measure(missing: int, among: int, rounds: int, *, alone: bool = False) -> dict[str, Any]:
    entries_max = max(ENTRIES_MAX_LEAST, 2 * (among + missing * rounds))
    settings = f"[namespaces.default]\nentries_max = {entries_max}\n"
    with ExitStack() as stack:
        space = stack.enter_context(networks.counted())
        running = stack.enter_context(agents(COUNT, settings=settings, space=space))
        sender = stack.enter_context(Sending("coherd_sender", (running[0].local, "")))
        rows = among
        if among:
            _accept(sender, 9_000, among)
            wait_until(lambda: all(has(agent, rows) for agent in running), TIMEOUT, 0.1)
        results = []
        for round_ in range(rounds):
            running[-1].stop()
            if alone:
                running[0].ask(keys(round_, 0, missing), TIMEOUT)
            else:
                _accept(sender, round_, missing)
            rows += missing
            wait_until(lambda n=rows: all(has(agent, n) for agent in running[:-1]), TIMEOUT, 0.1)
            time.sleep(1.0)  # the peers have written their journals
            results.append(_bring_back(running, rows, space))
    return _summarize(missing, among, results, alone=alone)


def _accept(sender: Sending, round_: int, rows: int) -> None:
    sender.prepare_burst(round_, 0, rows)
    sender.start()
    sender.burst_times()


def _bring_back(running: list[MeasuredAgent], rows: int, space: str) -> dict[str, float]:
    """Start the last agent, and give seconds, CPU seconds of the busiest peer, and bytes."""
    *peers, back = running
    bytes_before = networks.loopback(space)[0] if space else 0
    started = time.monotonic()
    back.start()
    wait_until(lambda: back.status() is not None, TIMEOUT, POLL)
    began = time.monotonic()
    before = [peer.ask("cpu") for peer in peers]
    own_before = back.ask("cpu")
    stub = back.admin()
    wait_until(
        lambda: is_whole(stub.GetStatus(admin.GetStatusRequest(), timeout=30), rows), TIMEOUT, POLL
    )
    ended = time.monotonic()
    own = back.ask("cpu")
    cpu = max(peer.ask("cpu") - cpu for peer, cpu in zip(peers, before, strict=True))
    sent = networks.loopback(space)[0] - bytes_before if space else 0
    return {
        "seconds": ended - began,
        "from_start": ended - started,
        "cpu": cpu,
        "own_cpu": own - own_before,
        "bytes": sent,
    }


def has(agent: MeasuredAgent, rows: int) -> bool:
    """Tell whether an agent remembers so many rows and knows of no gap."""
    status = agent.status()
    return status is not None and is_whole(status, rows)


def is_whole(status: admin.GetStatusResponse, rows: int) -> bool:
    """Tell whether an agent is ready, lacks nothing it knows of, and remembers so many rows."""
    if any(namespace.resets for namespace in status.namespaces):
        raise SystemExit("a namespace was reset: nothing was caught up")
    remembered = sum(namespace.remembered for namespace in status.namespaces)
    return (
        bool(status.ready)
        and not any(namespace.gaps_open for namespace in status.namespaces)
        and not any(handler.lag for handler in status.handlers)
        and remembered >= rows
    )


def _summarize(
    missing: int, among: int, results: list[dict[str, float]], *, alone: bool
) -> dict[str, Any]:
    percents = [100 * each["cpu"] / each["seconds"] for each in results]
    figures: dict[str, Any] = {
        "missing": missing,
        "alone": alone,
        "among": among,
        "rounds": len(results),
        "seconds": round(median(each["seconds"] for each in results), 3),
        "seconds_max": round(max(each["seconds"] for each in results), 3),
        "seconds_from_start": round(median(each["from_start"] for each in results), 3),
        "own_cpu_s": round(median(each["own_cpu"] for each in results), 3),
        "peer_cpu_percent": round(median(percents), 1),
        "peer_cpu_percent_max": round(max(percents), 1),
        "peer_cpu_s": round(median(each["cpu"] for each in results), 3),
    }
    if sent := median(each["bytes"] for each in results):
        figures["bytes"] = round(sent)
        figures["bytes_per_row"] = round(sent / missing, 1)
    return figures


if __name__ == "__main__":
    main()
