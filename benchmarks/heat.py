"""Draw counts by two things as an SVG: panels side by side, the darker the more digits a count has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import log10
from pathlib import Path

CELL_WIDTH, CELL_HEIGHT = 66, 34
LEFT, TOP, GAP, BOTTOM = 64, 66, 40, 46
NONE, LIGHT, DARK = (243, 243, 240), (253, 224, 197), (165, 15, 21)
"""The shades of nothing, of one, and of the most."""


@dataclass(frozen=True)
class Panel:
    """One square of counts."""

    title: str
    counts: Mapping[tuple[float, float], int]
    """By row and column."""


def draw(path: Path, panels: Sequence[Panel], row_label: str, column_label: str) -> None:
    """Write panels, which have the same rows and columns, as a picture."""
    rows = sorted({row for row, _ in panels[0].counts})
    columns = sorted({column for _, column in panels[0].counts})
    most = max(count for panel in panels for count in panel.counts.values())
    each = len(columns) * CELL_WIDTH + GAP
    width, height = LEFT + len(panels) * each, TOP + len(rows) * CELL_HEIGHT + BOTTOM
    middle = TOP + len(rows) * CELL_HEIGHT / 2
    size = f'width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="13" text-anchor="middle">',
        f'<rect {size} fill="#fff"/>',
        _text(0, 0, row_label, f'transform="translate(20 {middle:g}) rotate(-90)"'),
    ]
    for index, row in enumerate(rows):
        y = TOP + (index + 0.5) * CELL_HEIGHT + 4
        parts.append(_text(LEFT - 10, y, f"{row:g}", 'text-anchor="end"'))
    for number, panel in enumerate(panels):
        left = LEFT + number * each
        parts.append(_text(left + (each - GAP) / 2, 28, panel.title, 'font-size="16"'))
        parts.append(_text(left + (each - GAP) / 2, height - 14, column_label))
        for index, column in enumerate(columns):
            parts.append(_text(left + (index + 0.5) * CELL_WIDTH, TOP - 10, f"{column:g}"))
        for (row, column), count in panel.counts.items():
            x = left + columns.index(column) * CELL_WIDTH
            parts += _cell(x, TOP + rows.index(row) * CELL_HEIGHT, count, most)
    path.write_text("\n".join([*parts, "</svg>\n"]))


def _cell(x: float, y: float, count: int, most: int) -> Iterator[str]:
    share = log10(count) / log10(most) if count > 1 else 0.0
    mixed = tuple(round(a + (b - a) * share) for a, b in zip(LIGHT, DARK, strict=True))
    size = f'width="{CELL_WIDTH - 2}" height="{CELL_HEIGHT - 2}"'
    yield f'<rect x="{x:g}" y="{y:g}" {size} rx="3" fill="rgb{mixed if count else NONE}"/>'
    ink = "#fff" if share > 0.6 else "#222" if count else "#999"
    yield _text(x + CELL_WIDTH / 2 - 1, y + CELL_HEIGHT / 2 + 4, f"{count:,}", f'fill="{ink}"')


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" {more}>{escape(text)}</text>'
