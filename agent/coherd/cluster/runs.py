"""Payloads that can be taken in together: many small ones of one stream come in one answer to a fetch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd.limits import BATCH_ROWS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from coherd.model import Batch


def runs(
    read: Iterable[tuple[bytes, float, Batch | None]],
) -> Iterator[list[tuple[bytes, float, Batch]]]:
    """Divide payloads that could be read where the stream or the effect changes, and after many rows."""
    run: list[tuple[bytes, float, Batch]] = []
    rows = 0
    for payload, age, batch in read:
        if batch is None:
            continue
        if run:
            last = run[-1][2]
            is_other = last.stream != batch.stream or last.effect is not batch.effect
            if is_other or rows + len(batch.selectors) > BATCH_ROWS_MAX:
                yield run
                run, rows = [], 0
        run.append((payload, age, batch))
        rows += len(batch.selectors)
    if run:
        yield run
