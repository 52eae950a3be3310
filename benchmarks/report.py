"""What every benchmark prints: a table for people, and as its last line one JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value below which `share` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[int((len(ordered) - 1) * share)]


def over_rounds(rounds: Sequence[Sequence[float]], share: float) -> float:
    """Give the median over the rounds of one percentile: one noisy round does not count."""
    return median(percentile(values, share) for values in rounds)


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    print(f"\n{title}")
    for line in (header, *texts):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def times(ratio: float) -> str:
    """Write a ratio so that a small one can be read: 1/40."""
    return f"{ratio:.2f}" if ratio > 0.5 else f"1/{1 / ratio:.0f}"


def finish(figures: dict[str, float | int | str]) -> None:
    """Print the figures as the last line."""
    print(json.dumps(figures), flush=True)


def _text(cell: object) -> str:
    return (
        f"{cell:,.2f}"
        if isinstance(cell, float)
        else f"{cell:,}"
        if isinstance(cell, int)
        else str(cell)
    )
