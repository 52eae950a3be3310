"""How many invalidations a second into one agent of three, journaled and applied on all, beside others?

Start: the publisher's first call. Stop: the last of three processes has applied the last row in-process
(an agent's handler; a subscriber's loop). Rows are keys of 24 bytes. The publisher works as its users
would: coherd in requests of 500 keys, four under way; Redis Pub/Sub pipelined, 500 a round trip; NATS with
a flush every 500; JetStream (a stream in a file, three durable consumers that acknowledge each message)
with 500 publishes under way. Rounds alternate A B C A B C; the agents journal every row
(`durability = "os"`), Redis and NATS keep nothing. With `--all` a publisher at each of the agents shares
the rows of a further round.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from statistics import median
from typing import Any

from agents import agents
from report import finish, show
from senders import Sending
from systems import Burst, coherd, installed, name_of, peer

KNOWN = ("redis", "nats", "jetstream")
WARM_UP = 20_000
WARM_UP_ROUND = 9_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peers", default="redis", help=f"comma-separated; known: {','.join(KNOWN)}"
    )
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--durability", choices=["os", "disk"], default="os")
    parser.add_argument("--lane", choices=["", "urgent", "normal", "bulk"], default="")
    parser.add_argument("--all", action="store_true", help="also into all agents at once")
    parser.add_argument("--quick", action="store_true", help="ends within a minute")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.rounds = 30_000, 5
    peers = installed(arguments.peers, KNOWN)
    rounds = measure(arguments, peers)
    figures = summarize(arguments, rounds)
    rows = [("coherd, applied on all", figures["coherd_per_s"], "")]
    rows.append(("coherd, accepted", figures["coherd_accepted_per_s"], ""))
    if arguments.all:
        rows.append(("coherd, into all at once", figures["coherd_all_per_s"], ""))
    for module in peers:
        name = name_of(module)
        rows.append((module.LABEL, figures[f"{name}_per_s"], f"{figures[f'ratio_{name}']:.2f}"))
    title = f"rows a second, {arguments.agents} receivers"
    show(title, ("", "rows/s", "coherd's in theirs"), rows)
    print(
        f"  CPU µs a row: accepting agent {figures['cpu_us_accepting']}, others {figures['cpu_us_others']}"
    )
    finish(figures)


def measure(arguments: argparse.Namespace, peers: list[Any]) -> dict[str, list[Burst]]:
    """Give the rounds of each system by its name."""
    count, rows, lane = arguments.agents, arguments.rows, arguments.lane
    with ExitStack() as stack:
        running = stack.enter_context(agents(count, arguments.durability))
        ours = stack.enter_context(coherd(running, lane=lane))
        where = running if arguments.all else running[:1]
        senders = [
            stack.enter_context(Sending("coherd_sender", (agent.local, lane))) for agent in where
        ]
        systems = [stack.enter_context(peer(module, count)) for module in peers]
        ours.burst(senders[:1], WARM_UP_ROUND, WARM_UP)
        rounds: dict[str, list[Burst]] = {"coherd": [], "coherd_all": []}
        for round_ in range(arguments.rounds):
            rounds["coherd"].append(ours.burst(senders[:1], round_, rows))
            for system in systems:
                share = int(rows * system.module.SHARE)
                rounds.setdefault(system.name, []).append(system.burst(round_, share))
            if arguments.all:
                rounds["coherd_all"].append(ours.burst(senders, 5_000 + round_, rows))
    return {name: measured for name, measured in rounds.items() if measured}


def summarize(arguments: argparse.Namespace, rounds: dict[str, list[Burst]]) -> dict[str, Any]:
    """Give medians over the rounds; a ratio is the median of the rounds' ratios."""
    ours = rounds["coherd"]
    figures: dict[str, Any] = {
        "agents": arguments.agents,
        "rounds": arguments.rounds,
        "rows": arguments.rows,
        "durability": arguments.durability,
        "coherd_accepted_per_s": round(median(burst.accepted_per_s for burst in ours)),
        "cpu_us_accepting": round(median(burst.cpu_us[0] for burst in ours), 1),
        "cpu_us_others": round(median(us for burst in ours for us in burst.cpu_us[1:]), 1),
    }
    for name, measured in rounds.items():
        figures[f"{name}_per_s"] = round(median(burst.per_s for burst in measured))
        if not name.startswith("coherd"):
            pairs = zip(ours, measured, strict=True)
            figures[f"ratio_{name}"] = round(median(a.per_s / b.per_s for a, b in pairs), 2)
    return figures


if __name__ == "__main__":
    main()
