"""How many healthy members does SWIM declare dead while others stall, and how many with Lifeguard?

Lifeguard's experiment (Dadgar, Phillips, Currey 2017, §V) in virtual time: 128 members; C of them stall for
D seconds and go on for I seconds, over and over for two minutes; one other member crashes. Five variants of
one implementation on the same seeds: SWIM with a suspicion of 5 intervals, each part of Lifeguard alone, and
everything together. Every cell ends the same on every machine, so cells that were finished stand in a file
(`--state`) and are not run again unless the simulator or the library has changed.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import product
from math import log10
from pathlib import Path
from random import Random
from typing import TextIO

from heat import Panel, draw
from report import finish, percentile, show

import coherd.sim
import coherd_membership
from coherd.sim.lifeguard import DURATION, MEMBERS, VARIANTS, Cell, Outcome, Rhythm, run
from coherd.sim.world import Stall

STALLED = (1, 4, 8, 16, 32)
STALLS = (0.5, 2.0, 4.0, 8.0, 16.0)
BETWEEN = (0.064, 1.0, 16.0)
REPEATS = 3
SMALL_STALLED, SMALL_STALL = 8, 4.0
"""Up to here nobody healthy is to be declared dead at all."""
PLOTTED = ("plain", "full")
QUICK = ((4, 2.0, 1.0), (4, 8.0, 1.0), (16, 8.0, 1.0))


@dataclass(frozen=True)
class Done:
    """A finished cell."""

    cell: Cell
    outcome: Outcome


def fingerprint() -> str:
    """Give a word that changes with the code that the outcomes follow from."""
    folders = (Path(str(package.__file__)).parent for package in (coherd.sim, coherd_membership))
    code = blake2b(digest_size=8)
    for path in sorted(path for folder in folders for path in folder.glob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()


def key(cell: Cell) -> str:
    rhythm = cell.rhythm
    return (
        f"{cell.variant} {rhythm.members} {rhythm.stall} {rhythm.between} "
        f"{rhythm.kind.value} {cell.repeat}"
    )


def resume(state: Path, code: str, cells: Iterable[Cell]) -> list[Done]:
    """Give those of the cells that this very code has finished before; a line cut short is passed over."""
    if not state.exists():
        return []
    found: dict[str, Outcome] = {}
    for line in state.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["code"] == code:
            found[entry["cell"]] = Outcome(**entry["outcome"])
    return [Done(cell, found[key(cell)]) for cell in cells if key(cell) in found]


def prepare() -> None:
    """Get a worker ready: what it has is never garbage, and worlds are collected whole."""
    gc.disable()
    gc.freeze()


def work(cell: Cell) -> Done:
    outcome = run(cell)
    gc.collect()
    return Done(cell, outcome)


def finished(cells: list[Cell], workers: int, code: str, log: TextIO) -> Iterator[Done]:
    """Run cells in a random order, so that the estimate is fair, and note each as it ends."""
    started = shown = time.monotonic()
    order = Random(0).sample(cells, len(cells))
    with multiprocessing.Pool(workers, prepare) as pool:
        for count, done in enumerate(pool.imap_unordered(work, order), 1):
            entry = {"code": code, "cell": key(done.cell), "outcome": asdict(done.outcome)}
            log.write(json.dumps(entry) + "\n")
            log.flush()
            now = time.monotonic()
            if now - shown >= 10 or count == len(cells):
                shown = now
                left = (now - started) / count * (len(cells) - count) / 60
                print(f"  {count:,} of {len(cells):,} runs; {left:.0f} min left", flush=True)
            yield done


def figures_of(variant: str, all_done: list[Done]) -> dict[str, float | int]:
    """Give the figures of one variant over all its cells."""
    outcomes = [done.outcome for done in all_done if done.cell.variant == variant]
    first = [o.first_detection for o in outcomes if o.first_detection is not None]
    full = [o.full_dissemination for o in outcomes if o.full_dissemination is not None]
    seconds = len(outcomes) * MEMBERS * DURATION
    found: dict[str, float | int] = {
        f"fp_healthy_{variant}": sum(o.false_deaths_healthy for o in outcomes),
        f"fp_{variant}": sum(o.false_deaths for o in outcomes),
        f"stalled_deaths_healthy_{variant}": sum(o.stalled_deaths_healthy for o in outcomes),
        f"undetected_{variant}": len(outcomes) - len(first),
        f"not_known_to_all_{variant}": len(outcomes) - len(full),
        f"messages_per_member_s_{variant}": round(sum(o.messages for o in outcomes) / seconds, 3),
        f"bytes_per_member_s_{variant}": round(sum(o.bytes for o in outcomes) / seconds, 1),
    }
    for name, values in (("first_detect", first), ("full_dissemination", full)):
        for share in (50, 99):
            if values:
                at = percentile(values, share / 100)
                found[f"{name}_p{share}_{variant}_s"] = round(at, 3)
    return found


def small(all_done: list[Done]) -> dict[str, float | int]:
    """Give what the full variant does where few stall, and not for long."""
    outcomes = [
        done.outcome
        for done in all_done
        if done.cell.variant == "full"
        and done.cell.rhythm.members <= SMALL_STALLED
        and done.cell.rhythm.stall <= SMALL_STALL
    ]
    return {
        "fp_healthy_full_small": sum(o.false_deaths_healthy for o in outcomes),
        "fp_full_small": sum(o.false_deaths for o in outcomes),
        "stalled_deaths_healthy_full_small": sum(o.stalled_deaths_healthy for o in outcomes),
    }


def show_variants(variants: list[str], figures: dict[str, float | int]) -> None:
    plain = figures.get("fp_healthy_plain", 0)
    rows = []
    for variant in variants:
        count = figures[f"fp_healthy_{variant}"]
        times = [
            figures.get(f"{name}_p{share}_{variant}_s", "-")
            for name in ("first_detect", "full_dissemination")
            for share in (50, 99)
        ]
        rows.append(
            (
                variant,
                count,
                f"{100 * count / plain:.2f} %" if plain else "-",
                figures[f"fp_{variant}"],
                figures[f"stalled_deaths_healthy_{variant}"],
                *times,
                figures[f"messages_per_member_s_{variant}"],
                figures[f"bytes_per_member_s_{variant}"],
                "█" * round(6 * log10(1 + count)),
            )
        )
    show(
        "false deaths of healthy members; seconds until the crash was declared and known; cost",
        ("", "at healthy", "of plain", "anywhere", "stalled", "first p50", "p99", "all p50", "p99",
         "messages/s", "bytes/s", "at healthy (six blocks are tenfold)"),
        rows,
    )  # fmt: skip


def grid_of(variant: str, all_done: list[Done]) -> dict[tuple[float, float], int]:
    """Give the false deaths at healthy members by C and D."""
    counts: dict[tuple[float, float], int] = {}
    for done in all_done:
        if done.cell.variant == variant:
            place = done.cell.rhythm.members, done.cell.rhythm.stall
            counts[place] = counts.get(place, 0) + done.outcome.false_deaths_healthy
    return counts


def show_grid(variant: str, all_done: list[Done]) -> None:
    counts = grid_of(variant, all_done)
    stalls = sorted({stall for _, stall in counts})
    rows = [
        (f"C = {members}", *(counts.get((members, stall), "-") for stall in stalls))
        for members in sorted({members for members, _ in counts})
    ]
    show(
        f"{variant}: at healthy members, by how many stall and for how long",
        ("", *(f"D = {stall:g} s" for stall in stalls)),
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=[kind.value for kind in Stall], default="blocked")
    parser.add_argument("--stalled", type=int, nargs="+", default=STALLED, help="C")
    parser.add_argument("--stall", type=float, nargs="+", default=STALLS, help="D in seconds")
    parser.add_argument("--between", type=float, nargs="+", default=BETWEEN, help="I in seconds")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--state", type=Path, help="finished cells; default: in the temporary folder"
    )
    parser.add_argument("--plot", type=Path, help="where to draw false deaths by C and D, as SVG")
    parser.add_argument("--quick", action="store_true", help="ends within a minute")
    arguments = parser.parse_args()
    grid: Iterable[tuple[int, float, float]] = product(
        arguments.stalled, arguments.stall, arguments.between
    )
    if arguments.quick:
        grid, arguments.repeats, arguments.variants = QUICK, 1, ["plain", "full"]
    cells = [
        Cell(variant, Rhythm(stalled, stall, between, Stall(arguments.kind)), repeat)
        for stalled, stall, between in grid
        for repeat in range(arguments.repeats)
        for variant in arguments.variants
    ]
    code = fingerprint()
    state = arguments.state or Path(tempfile.gettempdir()) / "coherd-lifeguard.jsonl"
    all_done = [] if arguments.quick else resume(state, code, cells)
    if all_done:
        print(f"{len(all_done):,} of {len(cells):,} runs were finished before: {state}", flush=True)
    known = {key(done.cell) for done in all_done}
    left = [cell for cell in cells if key(cell) not in known]
    with state.open("a") as log:
        all_done += finished(left, arguments.workers, code, log)
    figures: dict[str, float | int | str] = {"kind": arguments.kind, "runs": len(all_done)}
    by_variant: dict[str, float | int] = {}
    for variant in arguments.variants:
        by_variant |= figures_of(variant, all_done)
    show_variants(arguments.variants, by_variant)
    for variant in arguments.variants:
        show_grid(variant, all_done)
    if arguments.plot:
        panels = [
            Panel(f"{variant}: {sum(counts.values()):,}", counts)
            for variant in PLOTTED
            if (counts := grid_of(variant, all_done))
        ]
        draw(arguments.plot, panels, "C: members that stall", "D: seconds of each stall")
    finish(figures | by_variant | small(all_done))


if __name__ == "__main__":
    main()
