"""What has happened waits until it is fetched; what was dropped is counted for ever and kept bounded."""

from __future__ import annotations

from coherd_membership import Dropped, NameTaken
from coherd_membership._events import EVENTS_MAX, EventLog


def test_events_are_given_once_in_their_order() -> None:
    log = EventLog()
    log.add(NameTaken("x"))
    log.drop("poison", "a", "b")
    assert log.take() == [NameTaken("x"), Dropped("poison", "a", "b")]
    assert log.take() == []


def test_a_flood_of_dropped_news_is_counted_and_not_kept() -> None:
    log = EventLog()
    for _ in range(EVENTS_MAX + 5):
        log.drop("poison", "a", "b")
    log.add(NameTaken("x"))
    assert log.counts["poison"] == EVENTS_MAX + 5
    assert len(log.take()) == EVENTS_MAX + 1
