"""A delivery curve as an SVG file: which share of the members has a row after which time.

Written by hand, so that nothing has to be installed. Time is logarithmic: the last percent is what matters.
"""

from __future__ import annotations

from bisect import bisect_right
from html import escape
from math import ceil, floor, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 50, 56
POINTS = 400


def svg(latencies: Sequence[float], title: str) -> str:
    """Draw ascending latencies in seconds, at least one of them above 0."""
    positive = [value for value in latencies if value > 0]
    first, last = floor(log10(positive[0])), ceil(log10(positive[-1]))
    decades = max(1, last - first)

    def x(power: float) -> float:
        return LEFT + (power - first) / decades * (WIDTH - LEFT - RIGHT)

    def y(share: float) -> float:
        return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)

    def lines() -> Iterator[str]:
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="sans-serif" font-size="12">'
        )
        yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        yield f'<text x="{LEFT}" y="26" font-size="15">{escape(title)}</text>'
        for percent in range(0, 101, 20):
            level = y(percent / 100)
            yield f'<path d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            yield f'<text x="{LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{percent} %</text>'
        for power in range(first, first + decades + 1):
            at = x(power)
            yield f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>'
            yield (
                f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
                f"{10.0 ** (power + 3):g} ms</text>"
            )
        points = []
        for step in range(POINTS + 1):
            exponent = first + decades * step / POINTS
            share = bisect_right(latencies, 10.0**exponent) / len(latencies)
            points.append(f"{x(exponent):.1f},{y(share):.1f}")
        yield f'<polyline points="{" ".join(points)}" fill="none" stroke="#0060a0" stroke-width="2"/>'
        yield (
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">'
            "from the call until a member has the row</text>"
        )
        yield "</svg>"

    return "\n".join(lines()) + "\n"
