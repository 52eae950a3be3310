"""`coherd simulate`: ask a simulated cluster what a real one of that size would do; no agent is needed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING, NamedTuple

import click

from coherd.cli.arguments import Duration
from coherd.cli.output import duration, output_option, print_json, say, size, table, tell

if TYPE_CHECKING:
    from coherd.sim.scenarios import Figure, Setup, Tell

MEMBERS_MAX = 5_000
"""Memory grows with the square: 1,000 take 0.2 GB."""
SEED_BITS = 32
PROFILES = ("lan", "fast", "wan", "local")
KINDS = ("blocked", "frozen")
PARTITION, FLAPPING, STALLS = 3_600.0, 300.0, 120.0


class Scenario(NamedTuple):
    """A question, and for how many virtual seconds its faults last unless told otherwise."""

    function: str
    """Its name in `coherd.sim.scenarios`."""
    lasts: float | None


SCENARIOS = {
    "detection": Scenario("detection", None),
    "join": Scenario("join_all", None),
    "heal": Scenario("heal", PARTITION),
    "flapping": Scenario("flapping", FLAPPING),
    "lifeguard": Scenario("stalling", STALLS),
}


@click.group()
def simulate() -> None:
    """Ask a simulated cluster; time is virtual, and one seed gives the same answer everywhere."""


@simulate.command()
@click.option("--members", type=click.IntRange(3, MEMBERS_MAX), default=100, show_default=True)
@click.option("--profile", type=click.Choice(PROFILES), default="lan", show_default=True)
@click.option("--plain", is_flag=True, help="SWIM without Lifeguard, to compare.")
@click.option(
    "--scenario", type=click.Choice(list(SCENARIOS)), default="detection", show_default=True
)
@click.option(
    "--seed", type=click.IntRange(0), help="Without it one is drawn; it is printed first."
)
@click.option("--crashes", type=click.IntRange(1, 1_000),
              help="detection: how many, in as many clusters as that needs; else 20 to 200.")  # fmt: skip
@click.option("--lasts", type=Duration(), metavar="TIME",
              help="How long the partition (1h), the flapping (5m), the stalls (2m) last.")  # fmt: skip
@click.option("--loss", type=click.FloatRange(0, 1, max_open=True), default=0.0, metavar="SHARE",
              help="Share of messages that never arrive.")  # fmt: skip
@click.option("--duplication", type=click.FloatRange(0, 1), default=0.0, metavar="SHARE",
              help="Share of messages that arrive twice.")  # fmt: skip
@click.option("--delay", type=Duration(), default="1ms", show_default=True, metavar="TIME",
              help="On the way, in the mean; a message takes half of it to half more.")  # fmt: skip
@click.option("--stalled", type=click.IntRange(0), default=0, metavar="COUNT",
              help="Members that stall over and over.")  # fmt: skip
@click.option("--stall", type=Duration(), default="4s", show_default=True, metavar="TIME",
              help="How long each stall is.")  # fmt: skip
@click.option("--between", type=Duration(), default="1s", show_default=True, metavar="TIME",
              help="From the end of a stall to the next.")  # fmt: skip
@click.option("--stall-kind", type=click.Choice(KINDS), default="blocked", show_default=True,
              help="blocked: only its network stands still; frozen: its timers, too.")  # fmt: skip
@output_option("text", "json")
def membership(*, scenario: str, seed: int | None, crashes: int | None, lasts: float | None,
               as_json: bool, **asked: object) -> None:  # fmt: skip
    """Ask who notices what, and when: crashes, joins, partitions, flapping and stalled members.

    Figures are in virtual seconds and in bytes of payload.
    """
    from coherd.sim import scenarios

    seed = SystemRandom().getrandbits(SEED_BITS) if seed is None else seed
    chosen = SCENARIOS[scenario]
    setup = setup_of(seed, **asked)  # type: ignore[arg-type]
    check(setup)
    tell(f"seed {seed}")
    ask: Callable[..., list[Figure]] = getattr(scenarios, chosen.function)
    if scenario == "detection":
        ask = partial(ask, crashes=crashes)
    elif chosen.lasts is not None:
        ask = partial(ask, duration=chosen.lasts if lasts is None else lasts)
    started = time.perf_counter()
    with progress() as show, scenarios.uncollected():
        figures = ask(setup, show)
    rate = speed(figures, time.perf_counter() - started)
    if as_json:
        about = {"scenario": scenario, "seed": seed, "members": setup.members,
                 "profile": asked["profile"], "plain": asked["plain"]}  # fmt: skip
        print_json(
            about
            | {figure.key: json_value(figure) for figure in figures}
            | {"events_per_s": round(rate)}
        )
        return
    swim = "plain SWIM" if asked["plain"] else "SWIM with Lifeguard"
    say(f"{scenario}: {setup.members:,} members, profile {asked['profile']}, {swim}")
    for line in table(("", "VALUE"), [(f.label, text(f)) for f in figures], right=["VALUE"])[1:]:
        say(line)
    tell(f"{rate:,.0f} events a second")


def setup_of(
    seed: int,
    *,
    members: int,
    profile: str,
    plain: bool,
    loss: float,
    duplication: float,
    delay: float,
    stalled: int,
    stall: float,
    between: float,
    stall_kind: str,
) -> Setup:
    """Give the cluster that was asked for."""
    from coherd.sim.lifeguard import Rhythm
    from coherd.sim.network import Links
    from coherd.sim.scenarios import Setup
    from coherd.sim.world import Stall
    from coherd_membership import SwimConfig

    config = SwimConfig.profile(profile)
    return Setup(
        members,
        config.plain() if plain else config,
        seed,
        Links(delay / 2, delay * 3 / 2, loss, duplication),
        Rhythm(stalled, stall, between, Stall(stall_kind)),
    )


def check(setup: Setup) -> None:
    """Refuse what cannot be simulated. Raises UsageError."""
    rhythm = setup.rhythm
    if 2 * rhythm.members > setup.members:
        raise click.UsageError(
            f"--stalled {rhythm.members}: at most half of the {setup.members} members can stall"
        )
    if rhythm.members and rhythm.stall + rhythm.between <= 0:
        raise click.UsageError("--stall and --between are both 0: make one of them longer")


@contextmanager
def progress() -> Iterator[Tell]:
    """Show on a terminal how far it is."""
    if not sys.stderr.isatty():
        yield lambda _line: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update


def speed(figures: list[Figure], spent: float) -> float:
    """Give the events a second of real time, the building of the clusters included."""
    events = next(figure.value for figure in figures if figure.key == "events")
    return (events or 0) / spent


def json_value(figure: Figure) -> float | int | bool | None:
    """Give the value for JSON, to the millisecond."""
    return round(figure.value, 3) if isinstance(figure.value, float) else figure.value


def text(figure: Figure) -> str:
    """Give the value for people."""
    value = figure.value
    if value is None:
        return "never"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if figure.unit == "s":
        return duration(value)
    if figure.unit in {"B", "B/s"}:
        return size(round(value)) + figure.unit[1:]
    return f"{value:,.1f} {figure.unit}" if figure.unit else f"{value:,}"
