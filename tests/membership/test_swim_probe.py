"""Whom a member asks, how it asks others to ask, and which answers count."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from pair import Cores, address, datagram, news, run, sent, status, swim, tell

from coherd_membership import Status, Swim, SwimConfig
from coherd_membership._messages import Kind, Message
from coherd_membership._probe import ANY_EVERY, RELAYS_MAX

LAN = SwimConfig()
OTHERS = ("a", "b", "c", "d", "e")


def prober(*names: str, config: SwimConfig = LAN, seed: int = 0) -> Swim:
    """A core that knows these members and has begun to probe; the first period is not over yet."""
    core = swim(config=config, seed=seed)
    core.introduce(map(news, names), 0.0)
    core.start((), 0.0)
    core.datagrams()
    return core


def begin(core: Swim, now: float = 0.0) -> tuple[str, Message]:
    """Let the next probe begin; gives whom it asks, by name, and the question."""
    core._prober.begin(now)
    ((to, ping),) = sent(core, Kind.PING)
    assert to == address(ping.target)
    return ping.target, ping


def answer(core: Swim, ping: Message, now: float = 0.1, sender: str = "") -> None:
    payload = datagram(Kind.ACK, sender or ping.target, sequence=ping.sequence)
    core.receive(payload, address(sender or ping.target), now)


def probed(core: Swim, count: int) -> list[str]:
    """Let some probes succeed; gives whom they asked."""
    names = []
    for step in range(count):
        name, ping = begin(core, float(step))
        answer(core, ping, step + 0.1)
        names.append(name)
    core.datagrams()
    return names


# ---------------------------------------------------------------------- whom


@pytest.mark.parametrize("seed", range(5))
def test_every_round_visits_everybody_once_in_another_order(seed: int) -> None:
    core = prober(*OTHERS, seed=seed)
    rounds = [tuple(probed(core, len(OTHERS))) for _ in range(8)]
    assert {tuple(sorted(each)) for each in rounds} == {OTHERS}
    assert len(set(rounds)) > 4


def test_a_new_member_enters_the_round_at_a_random_place() -> None:
    places = Counter[int]()
    for seed in range(60):
        core = prober(*OTHERS, seed=seed)
        probed(core, 1)
        tell(core, "new", now=1.0)
        places[probed(core, len(OTHERS)).index("new")] += 1
    assert set(places) == set(range(len(OTHERS)))


def test_who_is_down_gone_or_restarting_is_not_probed() -> None:
    core = prober(*OTHERS)
    for name, how in (("a", Status.DEAD), ("b", Status.LEFT), ("c", Status.RESTARTING)):
        core._hearing.apply(news(name, how), 0.0)
    core._hearing.apply(news("d", Status.SUSPECT, accusers=("e",)), 0.0)
    assert set(probed(core, 10)) == {"d", "e"}


def test_a_member_that_comes_and_goes_does_not_fill_the_round() -> None:
    core = prober(*OTHERS)
    for step in range(1_000):
        tell(core, news("a", Status.RESTARTING, 2 * step + 1))
        tell(core, news("a", incarnation=2 * step + 2))
        tell(core, news("b", Status.LEFT, epoch=step + 1))
        tell(core, news("b", epoch=step + 2))
    assert len(core._prober._round) <= len(OTHERS)


def test_seven_of_eight_go_to_members_with_an_open_link_above_the_limit() -> None:
    names = [f"m{number:03}" for number in range(100)]
    core = prober(*names)
    linked = names[:10]
    core.set_linked(linked)
    asked = probed(core, 100 * ANY_EVERY)
    counts = Counter(asked)
    assert all(counts[name] > 50 for name in linked)
    assert set(counts) == set(names), "every eighth goes round over everybody"
    assert sum(counts[name] for name in set(names) - set(linked)) <= 100


def test_in_a_small_cluster_links_do_not_matter() -> None:
    core = prober(*OTHERS)
    core.set_linked(["a"])
    assert set(probed(core, len(OTHERS))) == set(OTHERS)


def test_links_to_nobody_that_is_there_do_not_stop_the_probes() -> None:
    names = [f"m{number}" for number in range(40)]
    core = prober(*names)
    core.set_linked(["stranger"])
    assert set(probed(core, 40)) == set(names)


def test_a_hint_is_probed_next_and_at_once_when_no_probe_is_under_way() -> None:
    core = prober(*OTHERS)
    _, ping = begin(core)
    answer(core, ping)
    core.suspect_link("d", 0.3)
    assert core._timers.at(("period", None)) == 0.3
    run(core, 0.3)
    ((_, ping),) = sent(core, Kind.PING)
    assert ping.target == "d"


def test_a_hint_waits_for_the_probe_under_way_and_strangers_are_not_probed() -> None:
    core = prober(*OTHERS)
    name, ping = begin(core)
    other = next(each for each in OTHERS if each != name)
    core.suspect_link(other, 0.1)
    core.suspect_link(other, 0.1)
    core.suspect_link("stranger", 0.1)
    assert core._timers.at(("period", None)) == 1.0
    answer(core, ping, 0.2)
    assert core._timers.at(("period", None)) == 0.2
    assert core._prober._next == [other]


# ---------------------------------------------------------------------- answers


def test_an_answer_ends_the_probe_and_tells_the_round_trip() -> None:
    core = prober(*OTHERS)
    name, ping = begin(core, 10.0)
    answer(core, ping, 10.25)
    assert core.members[name].round_trip == 0.25
    run(core, 10.9)
    assert sent(core, Kind.PING_REQUEST) == []


def test_a_ping_is_answered_with_its_number_and_a_name_that_is_not_mine_is_told_so() -> None:
    core = prober("a")
    for target, kind in (("me", Kind.ACK), ("other", Kind.WRONG_TARGET)):
        core.receive(datagram(Kind.PING, "a", sequence=77, target=target), "way-back", 0.0)
        ((to, message),) = [each for each in sent(core) if each[1].kind != Kind.DIGEST]
        assert (to, message.kind, message.sequence) == ("way-back", kind, 77)


def test_late_foreign_and_duplicate_answers_are_counted_and_change_nothing() -> None:
    core = prober(*OTHERS)
    name, ping = begin(core)
    other = next(each for each in OTHERS if each != name)
    answer(core, ping, sender=other)
    answer(core, ping._replace(sequence=ping.sequence - 1))
    relayed = datagram(Kind.ACK, other, sequence=ping.sequence, target=name)
    core.receive(relayed, address(other), 0.1)  # it was not asked to help
    core.receive(
        datagram(Kind.NACK, other, sequence=ping.sequence, target=name), address(other), 0.1
    )
    assert core.statistics()["unexpected"] == 4
    assert core._prober._probe is not None
    answer(core, ping)
    answer(core, ping)
    assert core.statistics()["unexpected"] == 5
    core._prober.begin(1.0)
    answer(core, ping, 1.1)
    assert core.statistics()["unexpected"] == 6
    assert core._prober._probe is not None


def test_somebody_else_at_the_address_is_a_failed_probe() -> None:
    core = prober(*OTHERS)
    name, ping = begin(core)
    core.receive(datagram(Kind.WRONG_TARGET, "stranger", sequence=ping.sequence), "s:1", 0.1)
    assert status(core, name) is Status.SUSPECT
    assert core.health == 0, "this member can hear well"
    core.receive(datagram(Kind.WRONG_TARGET, "stranger", sequence=ping.sequence), "s:1", 0.1)
    assert core.statistics()["unexpected"] == 1


# ---------------------------------------------------------------------- helpers


def asked_helpers(core: Swim, now: float = 0.5) -> list[tuple[str, Message]]:
    run(core, now)
    return sent(core, Kind.PING_REQUEST)


def test_without_an_answer_in_time_three_others_are_asked_to_ask() -> None:
    core = prober(*OTHERS)
    name, ping = begin(core)
    assert asked_helpers(core, 0.49) == []
    asked = asked_helpers(core)
    assert len({to for to, _ in asked}) == 3
    assert address(name) not in {to for to, _ in asked}
    for _, message in asked:
        assert (message.target, message.address) == (name, address(name))
        assert message.sequence == ping.sequence


def test_the_answer_of_a_helper_counts_and_says_nothing_of_the_round_trip() -> None:
    core = prober(*OTHERS)
    name, ping = begin(core)
    helper = asked_helpers(core)[0][0]
    payload = datagram(Kind.ACK, helper.partition(":")[0], sequence=ping.sequence, target=name)
    core.receive(payload, helper, 0.6)
    assert core._prober._probe is None
    assert core.members[name].round_trip is None
    assert status(core, name) is Status.ALIVE


def test_the_probe_has_failed_when_the_last_helper_has_heard_nothing_either() -> None:
    core = prober(*OTHERS)
    name, ping = begin(core)
    for to, _ in asked_helpers(core):
        assert status(core, name) is Status.ALIVE
        payload = datagram(Kind.NACK, to.partition(":")[0], sequence=ping.sequence, target=name)
        core.receive(payload, to, 0.9)
    assert status(core, name) is Status.SUSPECT
    assert core.health == 1


def test_a_message_that_cannot_be_sent_lets_the_helpers_be_asked_at_once_and_once() -> None:
    core = prober(*OTHERS)
    name, _ = begin(core)
    core.failed_to_send("nobody:1", 0.01)
    assert sent(core) == []
    core.failed_to_send(address(name), 0.01)
    assert len(sent(core, Kind.PING_REQUEST)) == 3
    core.failed_to_send(address(name), 0.02)
    assert asked_helpers(core, 0.9) == []


@pytest.mark.parametrize("helpers_asked", [False, True])
def test_a_member_that_makes_room_for_another_is_asked_nothing_further(
    helpers_asked: bool,
) -> None:
    core = swim(config=replace(LAN, members_max=3))
    tell(core, "a")
    tell(core, "b")
    core.introduce([news("told")], 0.0)
    core.start((), 0.0)
    core.suspect_link("told", 0.0)
    core.datagrams()
    name, ping = begin(core)
    asked = asked_helpers(core) if helpers_asked else []
    tell(core, "new", now=0.6)
    assert (name, status(core, name)) == ("told", None)
    for to, _ in asked:
        helper = to.partition(":")[0]
        payload = datagram(Kind.ACK, helper, sequence=ping.sequence, target=name)
        core.receive(payload, to, 0.7)
    run(core, 5.0)
    assert set(core.members) == {"a", "b", "new"}


def relay(core: Swim, sequence: int = 5, now: float = 0.0) -> Message | None:
    """Ask a core to ask `b` on behalf of `a`; gives its question."""
    core.receive(
        datagram(Kind.PING_REQUEST, "a", sequence=sequence, target="b", at=address("b")), "a:1", now
    )
    pings = sent(core, Kind.PING)
    assert {to for to, _ in pings} <= {address("b")}
    return pings[0][1] if pings else None


def test_a_helper_asks_and_passes_the_answer_on_once() -> None:
    core = swim()
    ping = relay(core)
    assert ping is not None
    for _ in range(2):
        core.receive(datagram(Kind.ACK, "b", sequence=ping.sequence), address("b"), 0.1)
    ((to, ack),) = sent(core, Kind.ACK)
    assert (to, ack.sequence, ack.target) == ("a:1", 5, "b")
    assert core.statistics()["unexpected"] == 1
    run(core, 5.0)
    assert sent(core, Kind.NACK) == []


def test_a_helper_that_hears_nothing_says_so_at_four_fifths_of_the_timeout() -> None:
    core = swim()
    relay(core)
    run(core, 0.39)
    assert sent(core) == []
    run(core, 0.4)
    ((to, nack),) = sent(core, Kind.NACK)
    assert (to, nack.sequence, nack.target) == ("a:1", 5, "b")


def test_an_answer_after_the_nack_is_passed_on_until_the_question_is_forgotten() -> None:
    core = swim()
    ping = relay(core)
    assert ping is not None
    run(core, 0.5)
    core.datagrams()
    core.receive(datagram(Kind.ACK, "b", sequence=ping.sequence), address("b"), 0.6)
    assert len(sent(core, Kind.ACK)) == 1
    ping = relay(core, now=1.0)
    assert ping is not None
    run(core, 2.0)
    core.datagrams()
    core.receive(datagram(Kind.ACK, "b", sequence=ping.sequence), address("b"), 2.0)
    assert sent(core, Kind.ACK) == []
    assert core._prober._relays == {}


def test_a_helper_without_nacks_stays_silent() -> None:
    core = swim(config=replace(LAN, nack_after=0.0))
    relay(core)
    run(core, 5.0)
    assert sent(core) == []
    assert core._prober._relays == {}


def test_a_helper_asks_for_so_many_at_once_and_nobody_at_no_address() -> None:
    core = swim()
    for sequence in range(RELAYS_MAX):
        assert relay(core, sequence) is not None
    assert relay(core, RELAYS_MAX) is None
    assert len(core._prober._relays) == RELAYS_MAX
    run(core, 2.0)
    assert core._prober._relays == {}
    core.datagrams()
    core.receive(datagram(Kind.PING_REQUEST, "a", sequence=1, target="b"), "a:1", 3.0)
    assert sent(core, Kind.PING) == []


def test_a_one_way_cut_between_two_is_bridged_by_helpers() -> None:
    cores = Cores("a", "b", "c", "d")
    cores.advance(10.0)
    cores.cut("a", "b", both=False)
    cores.advance(60.0)
    assert cores.is_whole()
    assert cores["a"].health <= 2


@pytest.mark.parametrize("loss", [0.1, 0.2])
def test_loss_alone_kills_nobody(loss: float) -> None:
    cores = Cores("a", "b", "c", "d", "e", "f")
    cores.advance(10.0)
    cores.loss = loss
    cores.advance(120.0)
    died = [
        event
        for name in "abcdef"
        for event in cores.events[address(name)]
        if getattr(event, "change", None) == "died"
    ]
    assert died == []
