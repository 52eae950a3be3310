"""What does it cost that agents know each other by certificates, and encrypt what they say?

Two clusters on loopback, one with certificates and one without, take turns: how long from a call until the
last agent has applied the key, as `propagation.py` measures it, and how many rows a second one agent takes,
as `throughput.py` does. The cluster whose turn it is not is at rest. What certificates cost at rest tells
`idle.py --tls`.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from statistics import median
from typing import Any

from agents import agents
from report import finish, over_rounds, percentile, show
from senders import Sending
from systems import Burst, Coherd, Paced, coherd

KINDS = ("plain", "tls")
WARM_UP = 20
WARM_UP_ROUND = 9_000
BURST_WARM_UP = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=60)
    parser.add_argument("--rate", type=float, default=20.0, help="events a second")
    parser.add_argument("--rows", type=int, default=100_000, help="of a burst; 0: none")
    parser.add_argument("--quick", action="store_true", help="ends within a minute")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.events, arguments.rows = 3, 30, 30_000
    paced, bursts = measure(arguments)
    figures = summarize(arguments, paced, bursts)
    rows: list[tuple[object, ...]] = [
        ("to the last, p50 ms", *(figures[f"{kind}_last_p50_ms"] for kind in KINDS)),
        ("to the last, p99 ms", *(figures[f"{kind}_last_p99_ms"] for kind in KINDS)),
    ]
    if arguments.rows:
        rows.append(("rows/s", *(figures[f"{kind}_per_s"] for kind in KINDS)))
    show(f"{arguments.agents} agents", ("", "without", "with certificates"), rows)
    finish(figures)


def measure(
    arguments: argparse.Namespace,
) -> tuple[dict[str, list[Paced]], dict[str, list[Burst]]]:
    """Give the rounds of both clusters."""
    paced: dict[str, list[Paced]] = {kind: [] for kind in KINDS}
    bursts: dict[str, list[Burst]] = {kind: [] for kind in KINDS}
    with ExitStack() as stack:
        clusters: dict[str, Coherd] = {}
        senders: dict[str, Sending] = {}
        for kind in KINDS:
            running = stack.enter_context(agents(arguments.agents, tls=kind == "tls"))
            clusters[kind] = stack.enter_context(coherd(running, lane="normal"))
            sending = Sending("coherd_sender", (running[0].local, ""))
            senders[kind] = stack.enter_context(sending)
        for system in clusters.values():
            system.paced(WARM_UP_ROUND, WARM_UP, 2 * arguments.rate, None)
        for round_ in range(arguments.rounds):
            for kind, system in clusters.items():
                paced[kind].append(system.paced(round_, arguments.events, arguments.rate, None))
        if arguments.rows:
            for kind, system in clusters.items():
                system.burst([senders[kind]], WARM_UP_ROUND + 1, BURST_WARM_UP)
            for round_ in range(arguments.rounds):
                for kind, system in clusters.items():
                    number = arguments.rounds + round_
                    bursts[kind].append(system.burst([senders[kind]], number, arguments.rows))
    return paced, bursts


def summarize(
    arguments: argparse.Namespace,
    paced: dict[str, list[Paced]],
    bursts: dict[str, list[Burst]],
) -> dict[str, Any]:
    """Give medians over the rounds; a ratio is the median of the rounds' ratios."""
    figures: dict[str, Any] = {"agents": arguments.agents, "rounds": arguments.rounds}
    for kind in KINDS:
        called = [each.called for each in paced[kind]]
        figures[f"{kind}_last_p50_ms"] = round(over_rounds(called, 0.5), 3)
        figures[f"{kind}_last_p99_ms"] = round(over_rounds(called, 0.99), 3)
        if arguments.rows:
            figures[f"{kind}_per_s"] = round(median(each.per_s for each in bursts[kind]))
    pairs = zip(paced["tls"], paced["plain"], strict=True)
    figures["ratio_last"] = round(
        median(percentile(a.called, 0.5) / percentile(b.called, 0.5) for a, b in pairs), 3
    )
    if arguments.rows:
        both = zip(bursts["tls"], bursts["plain"], strict=True)
        figures["ratio_per_s"] = round(median(a.per_s / b.per_s for a, b in both), 3)
    return figures


if __name__ == "__main__":
    main()
