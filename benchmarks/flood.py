"""Does a flood of bulk rows hold up an urgent invalidation?

Urgent rows, one key of 24 bytes at a time, 20 a second, from the call on a warm client until the last of
three agents has applied the key: alone, and while another client of the same agent invalidates keys in the
lane `bulk` as fast as it goes (requests of 500, four under way). Rounds alternate: alone, flood, alone,
flood. Percentiles are medians over the rounds, the ratio the median of the rounds' ratios of p99.
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

from agents import agents
from report import finish, over_rounds, percentile, show
from systems import Paced, coherd

WARM_UP = 20
WARM_UP_ROUND = 9_000
FLOOD_ROUNDS = 5_000
"""The number of the first round with a flood."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--rate", type=float, default=20.0, help="urgent events a second")
    parser.add_argument("--quick", action="store_true", help="ends within a minute")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.events = 5, 40
    alone, flooded = measure(arguments)
    figures = summarize(arguments, alone, flooded)
    rows = [
        (label, figures[f"urgent_p50_{key}_ms"], figures[f"urgent_p99_{key}_ms"])
        for label, key in (("alone", "idle"), ("in a flood", "flood"))
    ]
    show(f"urgent, to the last of {arguments.agents}, ms", ("", "p50", "p99"), rows)
    print(
        f"  the flood: {figures['flood_rows_per_s']:,} rows/s; ratio of p99 {figures['ratio_p99']}"
    )
    finish(figures)


def measure(arguments: argparse.Namespace) -> tuple[list[Paced], list[Paced]]:
    events, rate = arguments.events, arguments.rate
    with (
        agents(arguments.agents) as running,
        coherd(running, lane="urgent", background_lane="bulk") as system,
    ):
        system.paced(WARM_UP_ROUND, WARM_UP, rate, None)
        alone, flooded = [], []
        for round_ in range(arguments.rounds):
            alone.append(system.paced(round_, events, rate, None))
            flooded.append(system.paced(FLOOD_ROUNDS + round_, events, rate, 0.0))
    return alone, flooded


def summarize(
    arguments: argparse.Namespace, alone: list[Paced], flooded: list[Paced]
) -> dict[str, Any]:
    figures: dict[str, Any] = {"agents": arguments.agents, "rounds": arguments.rounds}
    for key, rounds in (("idle", alone), ("flood", flooded)):
        called = [paced.called for paced in rounds]
        figures[f"urgent_p50_{key}_ms"] = round(over_rounds(called, 0.5), 3)
        figures[f"urgent_p99_{key}_ms"] = round(over_rounds(called, 0.99), 3)
    ratios = [
        percentile(b.called, 0.99) / percentile(a.called, 0.99)
        for a, b in zip(alone, flooded, strict=True)
    ]
    figures["ratio_p99"] = round(median(ratios), 2)
    figures["flood_rows_per_s"] = round(median(paced.background_per_s for paced in flooded))
    return figures


if __name__ == "__main__":
    main()
