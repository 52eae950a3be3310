"""What does an agent at rest cost: processor, memory, bytes on the wire?

The agents run in a network namespace of their own, where there is nothing but loopback: what its counter
says is what they sent to each other, IP and TCP headers included, and nothing else. Applications talk to
them over unix sockets, and nobody does meanwhile. The agents first settle; then each one's processor time,
the bytes, and at the end resident memory. All figures are an agent's: means, and the greatest of them.
Without root there is no namespace; then the bytes are left out.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from statistics import mean
from typing import Any

import networks
from agents import agents
from report import finish, show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--settle", type=float, default=10.0, help="seconds before")
    parser.add_argument("--tls", action="store_true", help="agents with certificates")
    parser.add_argument("--quick", action="store_true", help="ends within a minute")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.settle = 20.0, 5.0
    figures = measure(arguments.agents, arguments.seconds, arguments.settle, tls=arguments.tls)
    rows = [
        ("processor, % of a core", figures["cpu_percent"], figures["cpu_percent_max"]),
        ("resident, MB", figures["rss_mb"], figures["rss_mb_max"]),
    ]
    if "bytes_per_s" in figures:
        rows.append(("sent, bytes/s", figures["bytes_per_s"], ""))
        rows.append(("sent, packets/s", figures["packets_per_s"], ""))
    show(f"one of {arguments.agents} agents at rest", ("", "mean", "greatest"), rows)
    finish(figures)


def measure(count: int, seconds: float, settle: float, *, tls: bool) -> dict[str, Any]:
    with ExitStack() as stack:
        space = stack.enter_context(networks.counted())
        running = stack.enter_context(agents(count, space=space, tls=tls))
        time.sleep(settle)
        before = [agent.ask("cpu") for agent in running]
        bytes_before, packets_before = networks.loopback(space) if space else (0, 0)
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        sent, packets = networks.loopback(space) if space else (0, 0)
        cpu = [
            100 * (agent.ask("cpu") - cpu) / took
            for agent, cpu in zip(running, before, strict=True)
        ]
        rss = [agent.rss_mb() for agent in running]
    figures: dict[str, Any] = {
        "agents": count,
        "seconds": round(took, 1),
        "cpu_percent": round(mean(cpu), 2),
        "cpu_percent_max": round(max(cpu), 2),
        "rss_mb": round(mean(rss), 1),
        "rss_mb_max": round(max(rss), 1),
    }
    if space:
        figures["bytes_per_s"] = round((sent - bytes_before) / count / took)
        figures["packets_per_s"] = round((packets - packets_before) / count / took, 1)
    return figures


if __name__ == "__main__":
    main()
