"""What an agent exports, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from coherd.api.metrics import Exporter
from coherd.cluster.agent import Agent
from coherd.cluster.lateness import Lateness


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {each.name: each for each in text_string_to_metric_families(text)}
        """By name, as the parser gives it: a counter's without _total."""

    def __getitem__(self, name: str) -> dict[tuple[str, ...], float]:
        """Give the samples of a name by their label values, in the order of the labels' names."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name
        }

    def one(self, name: str) -> float:
        """Give the only sample of a name."""
        (value,) = self[name].values()
        return value


class Scraper:
    """Reads one agent, again and again."""

    def __init__(self, agent: Agent) -> None:
        self.lateness = Lateness()
        self.read = Exporter(agent, self.lateness).read

    def __call__(self) -> Scrape:
        return Scrape(generate_latest(self.read()).decode())
