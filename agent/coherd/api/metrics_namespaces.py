"""The figures of single namespaces, for so many of them that a scrape stays small; the rest as one."""

from __future__ import annotations

from collections import Counter
from math import isinf
from typing import TYPE_CHECKING

from coherd.api.metrics_families import counter, gauge, histogram
from coherd.cluster.counts import NamespaceCounts
from coherd.cluster.timing import APPLY_BOUNDS, ApplyTimes, Histogram
from coherd.config import DEFAULTS
from coherd.model import EVERY_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from coherd.api.metrics_families import Family
    from coherd.cluster.agent import Agent
    from coherd.model import Cause, Lane

NAMED_MAX = 100
"""Namespaces with figures of their own."""
OTHER = "_other"
"""Stands for all further ones."""
ROW_LABELS = ("namespace", "lane", "path")


class NamespaceFigures:
    """Reads the figures of the namespaces of one agent.

    Which of them are named does not change while the agent runs, lest a count that moved to the rest look
    as if it had begun anew.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._times = ApplyTimes(agent.clock)
        agent.delivery.on_applied = self._times.applied
        self._named: dict[str, None] = {}
        handled = [state.handler.namespace for state in agent.delivery.handlers]
        for name in (*sorted(agent.config.namespaces), *sorted(handled)):
            if name != DEFAULTS:
                self._label(name)

    def read(self) -> Iterator[Family]:
        """Read everything."""
        yield from self._rows()
        yield from self._repair()
        yield from self._memory()

    def _rows(self) -> Iterator[Family]:
        agent = self._agent
        rows: Counter[tuple[str, str, str]] = Counter()
        for (name, lane, path), number in agent.ingest.rows.items():
            if not path.is_reset:
                rows[self._row_labels(name, lane, path)] += number
        yield counter(
            "coherd_rows_total",
            "Rows that were new here, by the path on which they came.",
            ROW_LABELS,
            rows.items(),
        )
        times: dict[tuple[str, str, str], Histogram] = {}
        for (name, lane, path), each in self._times.histograms.items():
            labels = self._row_labels(name, lane, path)
            times.setdefault(labels, Histogram(APPLY_BOUNDS)).add(each)
        yield histogram(
            "coherd_apply_seconds",
            "From the acceptance of a row at its origin until a handler here had applied it.",
            ROW_LABELS,
            times.items(),
        )
        yield from self._refused()

    def _refused(self) -> Iterator[Family]:
        """What applications asked for and what never became a row."""
        agent = self._agent
        refused: Counter[tuple[str, str]] = Counter()
        for (name, urgent), number in agent.budgeting.refused.items():
            label = OTHER if name == EVERY_NAMESPACE else self._label(name)
            refused[label, "urgent" if urgent else "rest"] += number
        yield counter(
            "coherd_rows_over_budget_total",
            "Rows that were refused because a client had used up its budget.",
            ("namespace", "lanes"),
            refused.items(),
        )
        coalesced: Counter[tuple[str]] = Counter()
        for name, number in agent.invalidating.batching.coalesced.items():
            coalesced[(self._label(name),)] += number
        yield counter(
            "coherd_rows_coalesced_total",
            "Rows of the lane bulk that others stood for, so that they were not sent.",
            ("namespace",),
            coalesced.items(),
        )

    def _repair(self) -> Iterator[Family]:
        agent = self._agent
        now = agent.clock.now()
        yield self._gauge("coherd_gaps_open", "Rows known to be missing here.", agent.repair.open)
        yield self._gauge(
            "coherd_gap_age_seconds",
            "Age of the oldest of them; 0 when there is none.",
            lambda name: agent.repair.oldest(name, now),
            max,
        )
        steps: Counter[tuple[str, str]] = Counter()
        for name, counts in agent.ingest.counts.items():
            label = self._label(name)
            steps[label, "replay"] += counts.repaired
            steps[label, "cover"] += counts.covered
            steps[label, "blank"] += counts.blank
            steps[label, "reset"] += counts.flushed
        yield counter(
            "coherd_repaired_rows_total",
            "Missing rows that were made good, by how.",
            ("namespace", "step"),
            steps.items(),
        )
        resets: Counter[tuple[str, str]] = Counter()
        for name, counts in agent.ingest.counts.items():
            for cause, number in counts.resets.items():
                resets[self._label(name), cause] += number
        yield counter(
            "coherd_resets_total",
            "Times that every copy of the namespace was dropped here, by cause.",
            ("namespace", "cause"),
            resets.items(),
        )

    def _memory(self) -> Iterator[Family]:
        agent = self._agent
        now = agent.clock.now()
        counts, ledgers = agent.ingest.counts, agent.replica.ledgers

        def floor_age(name: str) -> float | None:
            age = agent.replica.floor(name).age(now)
            return None if isinf(age) else age

        yield self._gauge(
            "coherd_floor_age_seconds",
            "Least age of a row that was forgotten; absent while none was.",
            floor_age,
            min,
        )
        yield self._gauge(
            "coherd_max_ttl_seconds",
            "The setting max_ttl; absent where it is none.",
            lambda name: agent.config.namespace(name).max_ttl,
            min,
        )
        forgotten: Counter[tuple[str]] = Counter()
        for name in self._names():
            forgotten[(self._label(name),)] += counts.get(name, NamespaceCounts()).forgotten
        yield counter(
            "coherd_rows_forgotten_total",
            "Rows that were forgotten.",
            ("namespace",),
            forgotten.items(),
        )
        yield self._gauge(
            "coherd_selectors_remembered",
            "Keys, tags and prefixes remembered.",
            lambda name: len(ledgers[name]) if name in ledgers else 0,
        )
        yield self._gauge(
            "coherd_era",
            "How often streams of lives that are over were let go of, at most once a day.",
            agent.retiring.eras.number,
            max,
        )
        yield self._gauge(
            "coherd_streams",
            "Streams known, one for each life of each origin and lane.",
            lambda name: len(agent.replica.vector.streams(name)),
        )

    def _gauge(
        self,
        name: str,
        text: str,
        read: Callable[[str], float | None],
        merge: Callable[[Iterable[float]], float] = sum,
    ) -> Family:
        """Read a figure of every namespace; None is left out. `merge` makes one of those of the rest."""
        figures: dict[str, list[float]] = {}
        for namespace in self._names():
            figure = read(namespace)
            if figure is not None:
                figures.setdefault(self._label(namespace), []).append(figure)
        samples = (((label,), merge(found)) for label, found in figures.items())
        return gauge(name, text, ("namespace",), samples)

    def _names(self) -> list[str]:
        agent = self._agent
        known = {*agent.ingest.counts, *agent.replica.vector.namespaces(), *agent.replica.ledgers}
        return [*self._named, *sorted(known - self._named.keys())]

    def _row_labels(self, namespace: str, lane: Lane, path: Cause) -> tuple[str, str, str]:
        return self._label(namespace), lane.name.lower(), path.value

    def _label(self, namespace: str) -> str:
        if namespace in self._named:
            return namespace
        if len(self._named) >= NAMED_MAX:
            return OTHER
        self._named[namespace] = None
        return namespace
