"""`coherd simulate`: ask a simulated cluster what a real one of that size would do; no agent is needed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, NamedTuple

import click

from coherd.cli.arguments import Duration
from coherd.cli.output import duration, output_option, print_json, say, size, table, tell
from coherd.cli.simulate_faults import faults

if TYPE_CHECKING:
    from coherd.sim.scenarios import Figure, Setup, Tell
    from coherd.sim.spread_run import SpreadSetup

MEMBERS_MAX = 5_000
"""Memory grows with the square: 1,000 take 0.2 GB."""
SEED_BITS = 32
PROFILES = ("lan", "fast", "wan", "local")
KINDS = ("blocked", "frozen")
LANES = ("urgent", "normal", "bulk")
PARTITION, FLAPPING, STALLS = 3_600.0, 300.0, 120.0
SHARE = click.FloatRange(0, 1, max_open=True)


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


simulate.add_command(faults)


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

    seed = drawn(seed)
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
    say_figures(figures, rate)


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


@simulate.command()
@click.option("--members", type=click.IntRange(2, MEMBERS_MAX), default=1_000, show_default=True)
@click.option("--lane", type=click.Choice(LANES), default="normal", show_default=True)
@click.option("--count", type=click.IntRange(1, 100_000), default=100, show_default=True,
              help="Rows in all.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=20.0, show_default=True,
              metavar="ROWS", help="Rows a second.")  # fmt: skip
@click.option("--size", "size_bytes", type=click.IntRange(1, 2**20), default=100, show_default=True,
              metavar="BYTES", help="Of a payload.")  # fmt: skip
@click.option("--publishers", type=click.IntRange(1), default=16, show_default=True)
@click.option("--receipts", "wants_receipts", is_flag=True,
              help="Wait until everybody says that it has applied a row.")  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0), help="Without it one is drawn; it is printed first."
)
@click.option("--loss", type=SHARE, default=0.0, metavar="SHARE",
              help="Share of segments that TCP has to send again, 200 ms later.")  # fmt: skip
@click.option("--stall", "stalled", type=SHARE, default=0.0, metavar="SHARE",
              help="Share of members that stand still, others every time.")  # fmt: skip
@click.option("--stall-for", "stall", type=Duration(), default="2s", show_default=True, metavar="TIME",
              help="How long each stall is.")  # fmt: skip
@click.option("--late-replies", type=SHARE, default=0.0, metavar="SHARE",
              help="Share of acknowledgements that come 200 ms late.")  # fmt: skip
@click.option("--crash", "crashed", type=SHARE, default=0.0, metavar="SHARE",
              help="Share of members that crash in the middle.")  # fmt: skip
@click.option("--interest", type=click.FloatRange(0, 1, min_open=True), default=1.0, metavar="SHARE",
              help="Share of members that hold the namespace.")  # fmt: skip
@click.option("--differing", type=SHARE, default=0.0, metavar="SHARE",
              help="Share of members that do not know 2 % of the others.")  # fmt: skip
@click.option("--plot", type=click.Path(dir_okay=False, writable=True, path_type=Path), metavar="FILE.svg",
              help="Draw who has it when.")  # fmt: skip
@output_option("text", "json")
def spread(*, seed: int | None, plot: Path | None, as_json: bool, **asked: object) -> None:
    """Ask how soon everybody has a row, in how many copies, and what repair has to do.

    Times are virtual. A hop takes 1.5 ms in the median, each message costs its sender 0.3 ms.
    """
    from coherd.sim import curve, spread_run
    from coherd.sim.scenarios import uncollected

    if plot is not None and plot.suffix != ".svg":
        raise click.UsageError(f"--plot {plot}: only .svg can be drawn")
    seed = drawn(seed)
    setup = spread_setup_of(seed, **asked)  # type: ignore[arg-type]
    tell(f"seed {seed}")
    started = time.perf_counter()
    with progress() as show, uncollected():
        found = spread_run.spreading(setup, show)
    spent = time.perf_counter() - started
    title = f"{setup.region.members:,} members, {asked['lane']} lane, {setup.count:,} rows"
    if plot is not None:
        plot.write_text(curve.svg(found.latencies, title))
    if as_json:
        print_json(asked | {"seed": seed} | {f.key: json_value(f, 6) for f in found.figures})
        return
    say(f"spread: {title}")
    say_figures(found.figures, speed(found.figures, spent))


def spread_setup_of(
    seed: int,
    *,
    members: int,
    lane: str,
    interest: float,
    differing: float,
    loss: float,
    late_replies: float,
    **load: object,
) -> SpreadSetup:
    """Give the region that was asked for, and its load."""
    from coherd.model import Lane
    from coherd.sim.spread_run import SpreadSetup
    from coherd.sim.spread_world import Region
    from coherd.sim.streams import Conditions

    region = Region(
        members,
        interest,
        differing,
        conditions=Conditions(loss=loss, late_replies=late_replies),
    )
    return SpreadSetup(region, seed, Lane[lane.upper()], **load)  # type: ignore[arg-type]


def drawn(seed: int | None) -> int:
    """Give a seed, drawn where none was asked for."""
    return SystemRandom().getrandbits(SEED_BITS) if seed is None else seed


def say_figures(figures: list[Figure], rate: float) -> None:
    """Print a table of figures, and how fast they were found."""
    for line in table(("", "VALUE"), [(f.label, text(f)) for f in figures], right=["VALUE"])[1:]:
        say(line)
    tell(f"{rate:,.0f} events a second")


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


def json_value(figure: Figure, digits: int = 3) -> float | int | bool | None:
    """Give the value for JSON; seconds to the millisecond."""
    return round(figure.value, digits) if isinstance(figure.value, float) else figure.value


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
    if figure.unit:
        return f"{value:,.1f} {figure.unit}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
