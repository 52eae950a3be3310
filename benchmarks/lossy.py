"""How long until the last of three hosts has it where links are slow and lose packets, beside brokers?

Three hosts in network namespaces of their own; their only way out is a relay that holds each packet for
`--delay` milliseconds one way and drops a share of `--loss` of them, both ways, drawn by a generator with a
seed. coherd: an agent on each host, the client beside the first. Redis, NATS: the server and the publisher
on the first host, a subscriber on each. All use the same links; each has its turn, A B C A B C. One key of
24 bytes at a time, from the call until the last of the three has it. What tells the systems apart is how
many deliveries wait for a packet that TCP has to send again. Needs root.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from statistics import median
from typing import Any

import networks
from agents import agents
from report import finish, percentile, show
from systems import Coherd, Paced, Peer, coherd, installed, name_of, peer

KNOWN = ("redis", "nats", "jetstream")
COUNT = 3
WARM_UP = 10
WARM_UP_ROUND = 9_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peers", default="redis,nats", help=f"comma-separated; known: {','.join(KNOWN)}"
    )
    parser.add_argument("--loss", type=float, default=1.0, help="percent of the packets, each way")
    parser.add_argument("--delay", type=float, default=20.0, help="milliseconds one way")
    parser.add_argument("--lane", choices=["urgent", "normal"], default="urgent")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20.0, help="events a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="ends within a minute")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.events = 5, 40
    if reason := networks.missing():
        print(f"not measured: {reason}")
        finish({"loss": arguments.loss, "delay": arguments.delay, "skipped": reason})
        return
    peers = installed(arguments.peers, KNOWN)
    rounds, passed, dropped = measure(arguments, peers)
    figures = summarize(arguments, rounds)
    figures["dropped_percent"] = round(100 * dropped / max(1, passed + dropped), 2)
    labels = {"coherd": "coherd", **{name_of(module): module.LABEL for module in peers}}
    rows = [
        (labels[name], *(figures[f"{name}_last_{p}_ms"] for p in ("p50", "p90", "p99", "max")))
        for name in rounds
    ]
    title = f"to the last of {COUNT} hosts, ms: {arguments.loss:g} % loss, {arguments.delay:g} ms one way"
    show(title, ("", "p50", "p90", "p99", "longest"), rows)
    finish(figures)


def measure(
    arguments: argparse.Namespace, peers: list[Any]
) -> tuple[dict[str, list[Paced]], int, int]:
    """Give the rounds of each system, and how many packets passed and were dropped."""
    loss, delay = arguments.loss / 100, arguments.delay / 1000
    with ExitStack() as stack:
        net = stack.enter_context(networks.network(COUNT, loss, delay, arguments.seed))
        running = stack.enter_context(agents(COUNT, places=net.hosts))
        space = net.hosts[0].space
        ours = stack.enter_context(coherd(running, lane=arguments.lane, space=space))
        systems: dict[str, Coherd | Peer] = {"coherd": ours}
        for module in peers:
            theirs = stack.enter_context(peer(module, COUNT, places=net.hosts))
            systems[theirs.name] = theirs
        for system in systems.values():
            system.paced(WARM_UP_ROUND, WARM_UP, arguments.rate, None)
        passed, dropped = net.cut()
        rounds: dict[str, list[Paced]] = {name: [] for name in systems}
        for round_ in range(arguments.rounds):
            for name, system in systems.items():
                paced = system.paced(round_, arguments.events, arguments.rate, None)
                rounds[name].append(paced)
        passed_after, dropped_after = net.cut()
    return rounds, passed_after - passed, dropped_after - dropped


def summarize(arguments: argparse.Namespace, rounds: dict[str, list[Paced]]) -> dict[str, Any]:
    """Give percentiles over all events of all rounds (losses are few), ratios as medians over the rounds."""
    figures: dict[str, Any] = {
        "loss_percent": arguments.loss,
        "delay_ms": arguments.delay,
        "lane": arguments.lane,
        "rounds": arguments.rounds,
        "events": arguments.rounds * arguments.events,
    }
    for name, measured in rounds.items():
        every = [ms for paced in measured for ms in paced.called]
        for key, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
            figures[f"{name}_last_{key}_ms"] = round(percentile(every, share), 2)
        if lost := sum(paced.lost for paced in measured):
            figures[f"{name}_lost"] = lost
        if name != "coherd":
            pairs = zip(rounds["coherd"], measured, strict=True)
            ratios = [percentile(a.called, 0.99) / percentile(b.called, 0.99) for a, b in pairs]
            figures[f"ratio_p99_{name}"] = round(median(ratios), 3)
    return figures


if __name__ == "__main__":
    main()
