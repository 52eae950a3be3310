"""`coherd simulate faults`: let everything go wrong, and look whether anything is wrong then."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coherd.cli.exit_codes import ExitCode
from coherd.cli.output import duration, output_option, print_json, say, table, tell

if TYPE_CHECKING:
    from collections.abc import Iterable
    from functools import partial

    from coherd.sim.faults.plan import Size
    from coherd.sim.faults.run import Outcome

MEMBERS_MAX = 500
MINUTES_MAX = 14 * 24 * 60
LONG_MINUTES = 120
"""From so many on, faults and bursts are rarer for their time: they are drawn for a day."""


@click.command()
@click.option("--members", type=click.IntRange(4, MEMBERS_MAX), default=24, show_default=True)
@click.option("--minutes", type=click.FloatRange(3, MINUTES_MAX), default=20.0, show_default=True,
              help="Of virtual time; the last two are quiet.")  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0), help="Without it one is drawn; it is printed first."
)
@click.option("--seeds", type=click.IntRange(1, 100_000), default=1, show_default=True,
              help="How many histories, from that seed on.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True,
              help="How many at once, each in a process of its own.")  # fmt: skip
@click.option("--resume", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Store there what was found, and do not ask again what it has.")  # fmt: skip
@output_option("text", "json")
def faults(
    *,
    members: int,
    minutes: float,
    seed: int | None,
    seeds: int,
    jobs: int,
    resume: Path | None,
    as_json: bool,
) -> None:
    """Let members crash, stall, lose their disks and each other, and look whether anything is wrong then.

    Ends with 1 when something is. Times are virtual.
    """
    from coherd.cli.simulate import drawn

    size = size_of(members, minutes)
    first = drawn(seed)
    tell(f"seed {first}")
    wanted = range(first, first + seeds)
    known = load(resume, size) if resume is not None else {}
    found = {s: known[s] for s in wanted if s in known}
    if found:
        tell(f"{len(found)} of {seeds} are in {resume}")
    run([s for s in wanted if s not in found], size, jobs, resume, found)
    results = [found[s] for s in wanted]
    if as_json:
        print_json([json_of(each) for each in results] if seeds > 1 else json_of(results[0]))
    elif seeds == 1:
        say_one(results[0])
    else:
        say_all(results)
    if any(each.violations for each in results):
        sys.exit(ExitCode.FAILED)


def size_of(members: int, minutes: float) -> Size:
    """Give how large a history is; long ones have more of everything, but not in proportion."""
    from coherd.sim.faults.plan import Size

    size = Size(members, 60 * minutes)
    return replace(size, faults=(20, 40), bursts=30) if minutes >= LONG_MINUTES else size


def run(
    seeds: Iterable[int], size: Size, jobs: int, store: Path | None, found: dict[int, Outcome]
) -> None:
    """Simulate, store and show what is found."""
    from coherd.cli.simulate import progress
    from coherd.sim.faults.run import outcomes, stored

    left = list(seeds)
    with progress() as show:
        for number, each in enumerate(outcomes(size, left, jobs, timed), 1):
            found[each.seed] = each
            if store is not None:
                with store.open("a") as file:
                    file.write(json.dumps(stored(each)) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            show(f"{number:,} of {len(left):,} histories")
            for violation in each.first_violations:
                tell(f"seed {each.seed}: {violation}")


def timed(ask: partial[Outcome]) -> Outcome:
    """Simulate one history, and put in how long that took."""
    started = time.process_time()
    found = ask()
    return replace(found, cpu_s=time.process_time() - started)


def load(path: Path, size: Size) -> dict[int, Outcome]:
    """Read what is stored of histories of this size; a line that was cut off counts as missing."""
    from coherd.sim.faults.run import Outcome

    found = {}
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                each = Outcome(**json.loads(line))
            except (ValueError, TypeError):
                continue
            if (each.members, each.seconds) == (size.members, size.seconds):
                found[each.seed] = each
        if (text := path.read_text()) and not text.endswith("\n"):
            path.write_text(text + "\n")
    return found


def json_of(found: Outcome) -> dict[str, object]:
    """Give one history for JSON: what is of the machine apart, it is the same everywhere."""
    from coherd.sim.faults.run import stored

    result = stored(found)
    result["cpu_s"] = round(found.cpu_s, 2)
    return result


def say_one(found: Outcome) -> None:
    """Print what befell one cluster, and what was found."""
    say(f"faults: {found.members} members, {duration(found.seconds)}, seed {found.seed}")
    lines = [(f"befell: {kind}", str(count)) for kind, count in found.befell.items()]
    lines += [(f"resets: {cause}", str(count)) for cause, count in found.resets.items()]
    lines += [
        ("calls that invalidated", f"{found.calls:,}"),
        ("taken in as superseded", f"{found.covers:,}"),
        ("taken in as expired", f"{found.blanks:,}"),
        ("eras", f"{found.eras:,}"),
        ("forgotten streams", f"{found.forgotten:,}"),
        ("lost with disks and crashes", f"{found.extinct:,}"),
        ("resets of single readers", f"{found.reader_resets:,}"),
        ("writes that journals refused", f"{found.refused:,}"),
        ("events", f"{found.events:,}"),
        ("trace", found.trace),
        ("violations", f"{found.violations:,}"),
    ]
    for line in table(("", "VALUE"), lines, right=["VALUE"])[1:]:
        say(line)
    say_speed([found])


def say_all(found: list[Outcome]) -> None:
    """Print a line for each kind of fault, and the sums."""
    say(f"faults: {len(found)} histories, {found[0].members} members, {duration(found[0].seconds)}")
    kinds: dict[str, list[int]] = {}
    for each in found:
        for kind, count in each.befell.items():
            row = kinds.setdefault(kind, [0, 0, 0, 0])
            row[0] += 1
            row[1] += count
            row[2] += sum(each.resets.values())
            row[3] += each.violations > 0
    heads = ("FAULT", "HISTORIES", "TIMES", "RESETS IN THEM", "VIOLATED")
    lines = [(kind, *(f"{n:,}" for n in kinds[kind])) for kind in sorted(kinds)]
    for line in table(heads, lines, right=list(heads[1:])):
        say(line)
    wrong = [each.seed for each in found if each.violations]
    resets: dict[str, int] = {}
    for each in found:
        for cause, count in each.resets.items():
            resets[cause] = resets.get(cause, 0) + count
    say(
        f"{sum(each.calls for each in found):,} calls, {sum(each.covers for each in found):,} superseded, "
        f"{sum(each.blanks for each in found):,} expired, {sum(each.extinct for each in found):,} lost; "
        f"resets: {', '.join(f'{count:,} {cause}' for cause, count in sorted(resets.items())) or 'none'}"
    )
    say(f"violated: {', '.join(map(str, wrong)) or 'none'}")
    say_speed(found)


def say_speed(found: list[Outcome]) -> None:
    """Tell how fast it went."""
    spent = sum(each.cpu_s for each in found)
    if spent:
        done = sum(each.members * each.seconds for each in found)
        tell(f"{spent:,.0f} s of a core, {done / spent:,.0f} seconds of a member in each")
