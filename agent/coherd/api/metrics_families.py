"""Metric families as plain data: cheap to read on the event loop, written out elsewhere."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.metrics_core import Metric

    from coherd.cluster.timing import Histogram

    Sample = tuple[Sequence[str], float]
    """Label values and a number."""


class Figures(NamedTuple):
    """A family whose samples are numbers."""

    kind: type[GaugeMetricFamily | CounterMetricFamily]
    name: str
    text: str
    labels: Sequence[str]
    samples: Sequence[Sample]

    def metric(self) -> Metric:
        """Give it as prometheus_client writes it."""
        family = self.kind(self.name, self.text, labels=self.labels)
        for values, number in self.samples:
            family.add_metric(values, number)
        return family


class Durations(NamedTuple):
    """A family whose samples are histograms."""

    name: str
    text: str
    labels: Sequence[str]
    samples: Sequence[tuple[Sequence[str], Histogram]]

    def metric(self) -> Metric:
        """Give it as prometheus_client writes it."""
        family = HistogramMetricFamily(self.name, self.text, labels=self.labels)
        for values, each in self.samples:
            bounds = [*map(floatToGoString, each.bounds), "+Inf"]
            buckets = list(zip(bounds, accumulate(each.counts), strict=True))
            family.add_metric(values, buckets, each.sum)
        return family


Family = Figures | Durations


def gauge(name: str, text: str, labels: Sequence[str], samples: Iterable[Sample]) -> Family:
    """Give what goes up and down."""
    return Figures(GaugeMetricFamily, name, text, labels, list(samples))


def counter(name: str, text: str, labels: Sequence[str], samples: Iterable[Sample]) -> Family:
    """Give what only goes up; its name ends in _total."""
    return Figures(CounterMetricFamily, name, text, labels, list(samples))


def histogram(
    name: str,
    text: str,
    labels: Sequence[str],
    samples: Iterable[tuple[Sequence[str], Histogram]],
) -> Family:
    """Give how many durations there were up to each bound, as it is now."""
    return Durations(name, text, labels, [(values, each.copy()) for values, each in samples])


def one(number: float | None) -> list[Sample]:
    """Give the samples of a figure without labels; None is left out."""
    return [] if number is None else [((), number)]
