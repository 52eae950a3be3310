"""How long from a call to `invalidate` until the last of N agents has applied it, beside others?

Start: just before the call on a warm client (blocking gRPC stub over the unix socket; PUBLISH with redis-py;
publish and flush with nats-py; a JetStream publish with its acknowledgement; a user event over Serf's RPC;
kinship's broadcast). Stop: when the last of N processes has the key (an agent's in-process handler; a
subscriber's loop). One key of 24 bytes at a time; alone, or over a background of other rows that are
published in the same place every 10 ms (of coherd: into the same agent, in requests of as many rows). Rounds
alternate A B C A B C; all systems run all the time, and those whose turn it is not are at rest.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from statistics import median
from typing import Any

from agents import agents
from report import finish, over_rounds, percentile, show, times
from systems import PEERS, Coherd, Paced, Peer, coherd, installed, name_of, peer

WARM_UP = 20
WARM_UP_ROUND = 9_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument(
        "--peers", default="redis", help=f"comma-separated; known: {','.join(PEERS)}"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--events", type=int, default=60)
    parser.add_argument("--rate", type=float, default=20.0, help="events a second")
    parser.add_argument("--lane", choices=["urgent", "normal"], default="normal")
    parser.add_argument(
        "--background", type=float, default=0.0, help="other rows a second meanwhile"
    )
    parser.add_argument("--background-lane", choices=["bulk", "normal"], default="normal")
    parser.add_argument("--quick", action="store_true", help="ends within a minute")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.events = 5, 16
    peers = installed(arguments.peers)
    if arguments.background:
        for module in peers:
            if not module.IS_BROKER:
                print(f"left out: {name_of(module)} (gossip is not made for such a background)")
        peers = [module for module in peers if module.IS_BROKER]
    rounds = measure(arguments, peers)
    figures = summarize(arguments, rounds)
    show_figures(arguments, figures, peers)
    finish(figures)


def measure(arguments: argparse.Namespace, peers: list[Any]) -> dict[str, list[Paced]]:
    """Give the rounds of each system by its name."""
    count, background = arguments.agents, arguments.background or None
    with ExitStack() as stack:
        running = stack.enter_context(agents(count))
        ours = coherd(
            running,
            lane=arguments.lane,
            background_lane=arguments.background_lane if background else None,
        )
        systems: dict[str, Coherd | Peer] = {"coherd": stack.enter_context(ours)}
        for module in peers:
            theirs = stack.enter_context(peer(module, count, background=bool(background)))
            systems[theirs.name] = theirs
        for system in systems.values():
            system.paced(WARM_UP_ROUND, WARM_UP, 2 * arguments.rate, None)
        rounds: dict[str, list[Paced]] = {name: [] for name in systems}
        for round_ in range(arguments.rounds):
            for name, system in systems.items():
                paced = system.paced(round_, arguments.events, arguments.rate, background)
                rounds[name].append(paced)
    return rounds


def summarize(arguments: argparse.Namespace, rounds: dict[str, list[Paced]]) -> dict[str, Any]:
    """Give percentiles as medians over the rounds, and ratios as medians of each round's ratio of medians."""
    figures: dict[str, Any] = {
        "agents": arguments.agents,
        "rounds": arguments.rounds,
        "rate": arguments.rate,
        "lane": arguments.lane,
        "background": arguments.background,
    }
    if arguments.background:
        figures["background_lane"] = arguments.background_lane
    ours = rounds["coherd"]
    for name, measured in rounds.items():
        whole = [paced for paced in measured if paced.called]
        if not whole:
            print(f"{name}: nothing reached everybody")
            continue
        called = [paced.called for paced in whole]
        figures[f"{name}_last_p50_ms"] = round(over_rounds(called, 0.5), 3)
        figures[f"{name}_last_p99_ms"] = round(over_rounds(called, 0.99), 3)
        if lost := sum(paced.lost for paced in measured):
            figures[f"{name}_lost"] = lost
        if arguments.background:
            per_s = median(paced.background_per_s for paced in measured)
            figures[f"{name}_background_per_s"] = round(per_s)
        if name == "coherd":
            accepted = [paced.accepted for paced in whole]
            figures["coherd_accepted_last_p50_ms"] = round(over_rounds(accepted, 0.5), 3)
            figures["coherd_accepted_last_p99_ms"] = round(over_rounds(accepted, 0.99), 3)
            continue
        pairs = [(a, b.called) for a, b in zip(ours, measured, strict=True) if b.called]
        for kind in ("called", "accepted"):
            ratio = median(percentile(getattr(a, kind), 0.5) / percentile(b, 0.5) for a, b in pairs)
            figures[f"ratio_{kind}_{name}"] = round(ratio, 5)
    return figures


def show_figures(arguments: argparse.Namespace, figures: dict[str, Any], peers: list[Any]) -> None:
    """Print the table."""
    lines = [
        ("coherd, from the call", "coherd_last", "", ""),
        ("coherd, from acceptance", "coherd_accepted_last", "", ""),
    ]
    for module in peers:
        name = name_of(module)
        lines.append(
            (module.LABEL, f"{name}_last", f"ratio_called_{name}", f"ratio_accepted_{name}")
        )
    rows = [
        (
            label,
            figures[f"{key}_p50_ms"],
            figures[f"{key}_p99_ms"],
            *(times(figures[ratio]) if ratio else "" for ratio in ratios),
        )
        for label, key, *ratios in lines
        if f"{key}_p50_ms" in figures
    ]
    title = f"to the last of {arguments.agents}, ms, lane {arguments.lane}"
    if arguments.background:
        title += f", over {arguments.background:,.0f} rows/s"
    header = ("", "p50", "p99", "coherd's p50 in theirs: from the call", "from acceptance")
    show(title, header, rows)


if __name__ == "__main__":
    main()
