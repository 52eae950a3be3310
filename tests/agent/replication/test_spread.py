"""One member hands on what it is asked to, once; whoever does not take it loses its arc to the next."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from region import NAMESPACE, Region, payload

from coherd.model import Lane
from coherd.replication import outlink
from coherd.replication.outlink import MESSAGES_MAX, TIMEOUT_MIN
from coherd.replication.parcels import Applied, Arc, Arrived, LinkSilent, Parcel, Parcels, Reply
from coherd.replication.ring import CIRCLE, View, hash64
from coherd.replication.spread import Spread
from coherd.replication.spread_config import SpreadConfig

MEMBERS = 60
CONFIG = SpreadConfig()


def parcels(core: Spread) -> list[tuple[str, Parcel]]:
    """Take what a member hands on."""
    return [
        (target, parcel)
        for target, message in core.messages()
        if isinstance(message, Parcels)
        for parcel in message.parcels
    ]


def acknowledge(core: Spread, sent: list[tuple[str, Parcel]], now: float) -> None:
    """Let everybody take the first parcel that was handed on."""
    for name, _ in sent:
        core.receive(Reply(False, 1), name, now)


def widest(region: Region, name: str = "m0") -> str:
    """Name the delegate with most to reach, for a payload of the normal lane that begins at `name`."""
    ring = region[name]._ring
    return region.view.rings[ring].delegates(hash64(ring, name), 1, CIRCLE, NAMESPACE)[0].name


# ---------------------------------------------------------------------- handing on


@pytest.mark.parametrize(("lane", "most"), [(Lane.URGENT, 2), (Lane.NORMAL, 1), (Lane.BULK, 1)])
def test_everybody_gets_it_once_and_an_urgent_one_at_most_twice(lane: Lane, most: int) -> None:
    region = Region(MEMBERS)
    region.originate("m0", payload(lane=lane))
    region.run(1)
    assert region.arrived.keys() == region.cores.keys() - {"m0"}
    assert max(region.arrived.values()) == most
    assert sum(region.arrived.values()) <= most * (MEMBERS - 1)
    assert (region.counted("redelegated"), region.counted("queued_bytes")) == (0, 0)


def test_in_a_small_region_an_urgent_one_goes_to_each_once_with_an_arc_of_each_ring() -> None:
    region = Region(17)
    region["m0"].originate(payload(lane=Lane.URGENT), 0)
    sent = parcels(region["m0"])
    assert len(sent) == 16
    assert all({arc.ring for arc in parcel.arcs} == {0, 1} for _, parcel in sent)


def test_what_is_not_urgent_takes_the_ring_of_its_origin() -> None:
    view = View({f"m{index}": ("*",) for index in range(40)})
    for origin in (6, 7):
        core = Spread("m0", origin, view)
        core.originate(payload(), 0)
        assert {arc.ring for _, parcel in parcels(core) for arc in parcel.arcs} == {origin % 2}


def test_only_holders_are_handed_a_payload_and_a_publisher_need_not_be_one() -> None:
    region = Region(MEMBERS, held=lambda index: (NAMESPACE,) if index % 3 else ("other",))
    region.originate("m0", payload(lane=Lane.URGENT))
    region.run(1)
    assert set(region.arrived) == {f"m{i}" for i in range(MEMBERS) if i % 3}


def test_an_arc_is_forwarded_once_within_two_seconds_and_again_after() -> None:
    region = Region(MEMBERS)
    core = region["m0"]
    message = Parcels(False, 1, (Parcel(payload(), (Arc(0, hash64(0, "m0") - 1),)),))
    core.receive(message, "m1", 0)
    first = parcels(core)
    assert first
    acknowledge(core, first, 0.001)
    core.receive(message, "m2", 1.9)
    assert parcels(core) == []
    assert core.statistics()["repeated"] == 1
    assert [event for event in core.events() if isinstance(event, Arrived)] == [
        Arrived(payload(), "m1")
    ]
    core.receive(message, "m2", CONFIG.remembered_for)
    assert [name for name, _ in parcels(core)] == [name for name, _ in first]


def test_of_a_wider_arc_only_the_difference_is_forwarded() -> None:
    region = Region(MEMBERS)
    core, view = region["m0"], region.view.rings[0]
    around = list(view.successors("m0", hash64(0, "m0") - 1, NAMESPACE))
    reached = []
    for number, cut in enumerate((20, 40, 30, 59), 1):
        end = hash64(0, around[cut]) if cut < 59 else hash64(0, "m0") - 1
        core.receive(Parcels(False, number, (Parcel(payload(), (Arc(0, end % CIRCLE),)),)), "m1", 0)
        before = len(reached)
        for name, parcel in parcels(core):
            reached += [name, *view.successors(name, parcel.arcs[0].end, NAMESPACE)]
        if cut == 30:
            assert len(reached) == before, "that was inside of the one before"
    assert sorted(reached) == sorted(around)


@pytest.mark.parametrize("remembered_for", [CONFIG.remembered_for, 0.0])
def test_what_comes_twice_is_forwarded_once_and_without_memory_it_is_not(
    remembered_for: float,
) -> None:
    region = Region(MEMBERS, replace(CONFIG, remembered_for=remembered_for))
    region.times = 2
    region.originate("m0", payload())
    region.run(1)
    forwards_once = sum(region.arrived.values()) == 2 * (MEMBERS - 1)
    assert forwards_once == (remembered_for > 0)


def test_an_arc_to_oneself_is_nobody_but_at_the_origin() -> None:
    core = Region(MEMBERS)["m0"]
    core.receive(Parcels(False, 1, (Parcel(payload(), (Arc(0, hash64(0, "m0")),)),)), "m1", 0)
    assert parcels(core) == []


def test_not_more_payloads_are_remembered_than_are_allowed() -> None:
    core = Region(20, SpreadConfig(remembered_max=5))["m0"]
    for number in range(12):
        core.originate(payload(number), 0)
    assert core.statistics()["remembered"] == 5
    assert core.statistics()["forgotten_early"] == 7
    core.originate(payload(99), 10)
    assert core.statistics()["remembered"] == 1


# ---------------------------------------------------------------------- links


def test_a_lone_message_is_acknowledged_a_little_later() -> None:
    core = Region(MEMBERS)["m0"]
    core.receive(Parcels(False, 1, (Parcel(payload(1), ()),)), "m1", 0)
    assert core.next_timer() == CONFIG.acknowledge_lone_after
    core.handle_timer(CONFIG.acknowledge_lone_after)
    assert core.messages() == [("m1", Reply(False, 1))]
    assert core.next_timer() is None


def test_parcels_are_acknowledged_within_two_milliseconds_of_the_second_and_together() -> None:
    core = Region(MEMBERS)["m0"]
    for number in (1, 2, 3):
        core.receive(Parcels(False, number, (Parcel(payload(number), ()),)), "m1", 0.0005 * number)
    assert core.next_timer() == pytest.approx(0.001 + CONFIG.acknowledge_after)
    core.handle_timer(0.003)
    assert core.messages() == [("m1", Reply(False, 3))]
    core.handle_timer(1.0)
    assert core.messages() == []


def test_on_a_busy_link_what_is_not_urgent_gathers_and_what_is_urgent_leaves() -> None:
    core = Region(2)["m0"]
    sizes = []
    for lane in (Lane.NORMAL, Lane.URGENT):
        for number in range(MESSAGES_MAX + 3):
            core.originate(payload(100 * lane + number, lane), 0)
            sizes.append(len(core.messages()))
    assert sizes == [1] * MESSAGES_MAX + [0] * 3 + [1] * (MESSAGES_MAX + 3)
    core.receive(Reply(False, 1), "m1", 0.01)
    assert [len(m.parcels) for _, m in core.messages() if isinstance(m, Parcels)] == [3]


def test_the_urgent_go_first() -> None:
    core = Region(2)["m0"]
    core.originate(payload(1), 0)
    core.originate(payload(2, Lane.URGENT), 0)
    assert [parcel.payload.id for _, parcel in parcels(core)] == [2, 1]


def test_a_full_link_drops_counts_and_gives_the_arc_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outlink, "LINK_BYTES_MAX", 1_000)
    region = Region(MEMBERS)
    core, delegate = region["m0"], widest(region)
    core.originate(payload(1, size_bytes=900), 0)
    first = dict(parcels(core))
    for link in list(core._out.values()):
        if link.name != delegate:
            link.acknowledge(1, 0.001)
    core.originate(payload(2, size_bytes=900), 0.01)
    second = dict(parcels(core))
    assert delegate not in second
    assert core.statistics()["dropped"] == 1
    assert core.statistics()["queued_bytes"] <= 1_000 * len(core._out)
    assert first[delegate].arcs in [parcel.arcs for parcel in second.values()]


def test_a_connection_that_breaks_gives_its_arcs_away_and_begins_anew() -> None:
    region = Region(MEMBERS)
    core, delegate = region["m0"], widest(region)
    core.originate(payload(1), 0)
    arcs = dict(parcels(core))[delegate].arcs
    core.closed_out(delegate, 0.01)
    assert [parcel.arcs for _, parcel in parcels(core)] == [arcs]
    for name, _ in core._out:
        core.receive(Reply(False, 1), name, 0.015)
    core.originate(payload(2), 0.02)
    numbers = {name: m.last for name, m in core.messages() if isinstance(m, Parcels)}
    assert numbers[delegate] == 1
    assert max(numbers.values()) == 2
    region.view.remove(delegate)
    core.closed_out(delegate, 0.03)
    core.forget(delegate)
    assert all(name != delegate for name, _ in core._out)


# ---------------------------------------------------------------------- who does not take it


def test_an_arc_that_is_not_acknowledged_goes_to_the_next_holder_and_a_hint_is_given() -> None:
    region = Region(MEMBERS)
    silent = widest(region)
    region.deaf.add(silent)
    region.originate("m0", payload())
    region.run(TIMEOUT_MIN - 0.001)
    assert len(region.arrived) < MEMBERS - 2
    region["m0"].handle_timer(TIMEOUT_MIN)
    assert LinkSilent(silent, False) in region["m0"].events()
    region.flush("m0")
    region.run(0.2)
    assert region.arrived.keys() == region.cores.keys() - {"m0", silent}
    assert region.counted("redelegated") == 1


def test_a_silent_delegate_gets_later_payloads_alone_until_it_answers() -> None:
    region = Region(MEMBERS)
    silent = widest(region)
    region.deaf.add(silent)
    region.originate("m0", payload(1))
    region.run(0.2)
    spent = region.counted("redelegated")
    region.originate("m0", payload(2))
    region.run(0.21)
    assert region.counted("redelegated") == spent
    assert region["m0"].statistics()["bypassed"] == 1
    assert sum(region.arrived.values()) == 2 * (MEMBERS - 2)
    region.deaf.clear()
    for entry in region.kept:
        region.deliver(*entry)
    region.run(0.5)
    assert region.arrived[silent] == 2
    assert region["m0"].statistics()["links_silent"] == 0


def test_silent_ones_that_are_passed_over_get_the_payload_alone() -> None:
    """They stand between the delegate and its heir: nobody else would be asked to reach them."""
    region = Region(MEMBERS)
    ring = region["m0"]._ring
    first, end, _ = region.view.rings[ring].delegates(hash64(ring, "m0"), 1, CIRCLE, NAMESPACE)[0]
    second = next(region.view.rings[ring].successors(first, end, NAMESPACE))
    core = region["m0"]
    for name in (first, second):
        link = core._out[name, False] = outlink.OutLink(name, urgent=False)
        link.offer(Parcel(payload(2), ()), -1)
        link.take()
        link.take_overdue(0)
    core.originate(payload(1), 0)
    sent = dict(parcels(core))
    for name in (first, second):
        assert sent[name].arcs == (Arc.nobody(ring, name),)
    reached = {first, second}
    for name, parcel in sent.items():
        for arc in parcel.arcs:
            reached |= {name, *region.view.rings[ring].successors(name, arc.end, NAMESPACE)}
    assert reached == region.cores.keys() - {"m0"}


def test_parcels_that_wait_lose_their_arcs_when_others_get_them() -> None:
    core = Region(MEMBERS)["m0"]
    for number in range(1, MESSAGES_MAX + 2):
        core.originate(payload(number), 0)
        core.messages()
    core.handle_timer(TIMEOUT_MIN)
    core.messages()
    (name, _), link = next((k, v) for k, v in core._out.items() if v._waiting)
    core.receive(Reply(False, MESSAGES_MAX), name, TIMEOUT_MIN + 0.001)
    late = [m for target, m in core.messages() if target == name and isinstance(m, Parcels)]
    alone = Arc.nobody(core._ring, name)
    assert [parcel.arcs for m in late for parcel in m.parcels] == [(alone,)]
    assert link.is_silent
    core.receive(Reply(False, MESSAGES_MAX + 1), name, 1)
    assert not link.is_silent


def test_redelegation_is_paid_from_what_was_sent() -> None:
    """Nobody ever acknowledges: then it stays within the burst and the share."""
    config = replace(CONFIG, redelegated_burst=2.0)
    core = Region(MEMBERS, config)["m0"]
    now = 0.0
    for number in range(200):
        core.originate(payload(number), now)
        core.messages()
        now += 0.01
        while (due := core.next_timer()) is not None and due <= now:
            core.handle_timer(due)
            core.messages()
            later = core.next_timer()
            assert later is None or later > due
    counts = core.statistics()
    assert 0 < counts["redelegated"] <= 2 + config.redelegated_share * counts["sent"]


def test_an_empty_bucket_is_counted_and_one_without_bottom_spends_on_everybody() -> None:
    for share, burst in ((0.0, 0.0), (1.0, inf)):
        core = Region(MEMBERS, replace(CONFIG, redelegated_share=share, redelegated_burst=burst))[
            "m0"
        ]
        core.originate(payload(), 0)
        core.messages()
        core.handle_timer(TIMEOUT_MIN)
        counts = core.statistics()
        assert (counts["redelegated"] > 0, counts["unpaid"] > 0) == (burst > 0, burst == 0)


def test_who_is_late_itself_takes_nobodys_arc_for_a_while() -> None:
    core = Region(MEMBERS)["m0"]
    core.originate(payload(), 0)
    core.messages()
    woken = TIMEOUT_MIN + 2 * CONFIG.late_after
    core.handle_timer(woken)
    assert (core.statistics()["redelegated"], core.statistics()["late"]) == (0, 1)
    due = core.next_timer()
    assert due == woken + TIMEOUT_MIN
    core.handle_timer(due)
    assert core.statistics()["redelegated"] > 0


# ---------------------------------------------------------------------- whatever comes


@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),
            st.integers(-3, 4),
            st.integers(-1, 2**70),
            st.booleans(),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_nothing_that_a_peer_sends_raises_or_runs_for_ever(
    messages: list[tuple[int, int, int, bool, bool]],
) -> None:
    core = Region(20)["m0"]
    for step, (number, ring, end, urgent, is_reply) in enumerate(messages):
        what = payload(number, Lane.URGENT if urgent else Lane.NORMAL, wants_receipt=True)
        if is_reply:
            core.receive(
                Reply(urgent, end, (Applied(number, ring, ("x",)),)), "stranger", step / 100
            )
        else:
            core.receive(Parcels(urgent, end, (Parcel(what, (Arc(ring, end),)),)), "m1", step / 100)
        core.messages()
    for _ in range(200):
        due = core.next_timer()
        if due is None:
            break
        core.handle_timer(due)
        core.messages()


def test_neighbours_are_the_fingers_of_both_rings_and_statistics_name_what_there_is() -> None:
    region = Region(MEMBERS)
    core = region["m0"]
    fingers = {name for ring in region.view.rings for name in ring.fingers_of("m0")}
    assert set(core.neighbours()) == fingers
    assert set(core.statistics().values()) == {0}
