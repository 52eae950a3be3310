"""A link waits as long for an acknowledgement as its peer usually takes, and no longer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from region import payload

from coherd.replication.outlink import TIMEOUT_MIN, OutLink
from coherd.replication.parcels import Parcel


def test_a_slow_peer_is_waited_for_four_round_trips_and_a_lost_segment_is_not() -> None:
    link = OutLink("b", urgent=True)
    for number in range(1, 40):
        link.offer(Parcel(payload(number), ()), number)
        link.take()
        link.acknowledge(number, number + 0.030)
    assert link.timeout == pytest.approx(0.120)
    quick = OutLink("b", urgent=True)
    for number in range(1, 40):
        quick.offer(Parcel(payload(number), ()), number)
        quick.take()
        quick.acknowledge(number, number + (0.205 if number % 10 == 0 else 0.005))
    assert quick.timeout == TIMEOUT_MIN


@pytest.mark.parametrize(("travel", "timeout"), [(0.005, TIMEOUT_MIN), (0.030, 0.130)])
def test_what_a_peer_holds_back_on_purpose_counts_once(travel: float, timeout: float) -> None:
    link = OutLink("b", urgent=True, held_back=0.010)
    for number in range(1, 80):
        link.offer(Parcel(payload(number), ()), number)
        link.take()
        link.acknowledge(number, number + travel + 0.010)
    assert link.timeout == pytest.approx(timeout)


@given(st.floats(0, 1e6), st.floats(0.001, 0.3))
def test_what_is_due_is_overdue_at_that_very_moment(at: float, round_trip: float) -> None:
    """Computed in two ways, rounding could make a timer that never ends."""
    link = OutLink("b", urgent=True)
    link.round_trip = round_trip
    link.offer(Parcel(payload(), ()), at)
    link.take()
    due = link.due
    assert due is not None
    assert link.take_overdue(due)
