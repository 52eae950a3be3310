"""How long a suspect has: the numbers of the formula, and how confirmations and a second accuser act."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from pair import Cores, acquainted, address, changes, news, run, sent, status, tell

from coherd_membership import News, Status, SwimConfig
from coherd_membership import _suspicion as suspicion
from coherd_membership._messages import Kind

LAN = SwimConfig()


@pytest.mark.parametrize(
    ("members", "confirmations", "seconds"),
    [
        (1, 0, 4.0),  # nobody else can confirm
        (3, 0, 4.0),
        (4, 0, 24.0),
        (10, 0, 24.0),
        (10, 1, 24 - 20 * 0.6309297535714574),  # ln 2 / ln 3
        (10, 2, 4.0),
        (10, 9, 4.0),
        (100, 0, 48.0),
        (100, 2, 8.0),
        (1_000, 0, 72.0),
        (1_000, 2, 12.0),
    ],
)
def test_the_numbers_of_the_formula(members: int, confirmations: int, seconds: float) -> None:
    assert suspicion.timeout(LAN, members, confirmations) == pytest.approx(seconds)


def test_the_least_and_the_most_stand_in_the_factor_of_the_configuration() -> None:
    assert suspicion.minimum(LAN, 0) == 4.0
    for members in (1, 10, 128, 5_000):
        assert suspicion.maximum(LAN, members) == 6 * suspicion.minimum(LAN, members)


def test_the_first_confirmation_shortens_the_most() -> None:
    config = replace(LAN, confirmations=3)
    waits = [suspicion.timeout(config, 128, count) for count in range(4)]
    steps = [before - after for before, after in pairwise(waits)]
    assert steps == sorted(steps, reverse=True)
    assert waits[-1] == pytest.approx(suspicion.minimum(config, 128))


def test_without_confirmations_wanted_it_is_the_least_from_the_start() -> None:
    plain = LAN.plain()
    assert suspicion.timeout(plain, 128, 0) == pytest.approx(5 * 2.1072099696)


def test_a_suspicion_of_factor_one_is_not_dynamic() -> None:
    config = replace(LAN, suspicion_max_factor=1.0)
    assert {suspicion.timeout(config, 100, count) for count in range(3)} == {8.0}


# ---------------------------------------------------------------------- in a member


def suspect(name: str, *accusers: str) -> News:
    return news(name, Status.SUSPECT, accusers=accusers)


def test_a_suspect_without_a_second_accuser_is_never_declared_dead() -> None:
    core = acquainted("a", "b", "c", "x")
    tell(core, "a", suspect("x", "a"))
    run(core, 1_000.0)
    assert status(core, "x") is Status.SUSPECT


def test_a_second_accuser_lets_the_suspect_die_when_the_shorter_wait_is_over() -> None:
    core = acquainted("a", "b", "c", "x")  # five with this one
    tell(core, "a", suspect("x", "a"), now=10.0)
    tell(core, "b", suspect("x", "b"), now=11.0)
    verdict = 10.0 + suspicion.timeout(LAN, 5, 1)
    run(core, verdict - 0.01)
    assert status(core, "x") is Status.SUSPECT
    run(core, verdict + 0.01)
    assert status(core, "x") is Status.DEAD
    assert core.members["x"].news.accusers == ("a", "b")


def test_two_confirmations_bring_the_wait_to_its_minimum() -> None:
    core = acquainted("a", "b", "c", "x")
    for name in ("a", "b", "c"):
        tell(core, name, suspect("x", name), now=10.0)
    run(core, 10.0 + suspicion.minimum(LAN, 5) + 0.01)
    assert status(core, "x") is Status.DEAD


def test_the_same_accuser_twice_confirms_nothing() -> None:
    core = acquainted("a", "b", "c", "x")
    for teller in ("a", "b", "c"):
        tell(core, teller, suspect("x", "a"))
    assert core.members["x"].news.accusers == ("a",)
    run(core, 500.0)
    assert status(core, "x") is Status.SUSPECT


def test_accusers_that_nobody_knows_do_not_count() -> None:
    core = acquainted("a", "b", "c", "x")
    tell(core, "a", suspect("x", "ghost-1", "ghost-2", "ghost-3"))
    run(core, 500.0)
    assert status(core, "x") is Status.SUSPECT


def test_a_confirmation_is_passed_on_and_the_third_changes_nothing_more() -> None:
    core = acquainted("a", "b", "c", "d", "x")
    for teller in ("a", "b", "c"):
        tell(core, teller, suspect("x", teller))
    assert core.members["x"].news.accusers == ("a", "b", "c")
    core._outbox.rumors.discard("x")
    tell(core, "d", suspect("x", "d"))
    assert core.members["x"].news.accusers == ("a", "b", "c")
    assert "x" not in core._outbox.rumors


def test_where_only_one_other_is_left_one_accuser_is_enough() -> None:
    core = acquainted("x")
    core._hearing.accuse("x", 0.0)
    run(core, suspicion.minimum(LAN, 2) + 0.01)
    assert status(core, "x") is Status.DEAD


def test_a_death_told_with_two_known_accusers_is_believed_and_with_one_it_is_a_suspicion() -> None:
    core = acquainted("a", "b", "x", "y")
    tell(core, "a", news("x", Status.DEAD, accusers=("a", "b")))
    tell(core, "a", news("y", Status.DEAD, accusers=("a",)))
    assert status(core, "x") is Status.DEAD
    assert status(core, "y") is Status.SUSPECT


def test_a_death_learned_from_a_full_exchange_is_a_suspicion() -> None:
    core = acquainted("a", "b", "x")
    tell(core, "a", news("x", Status.DEAD, accusers=("a", "b")), kind=Kind.ENTRIES)
    assert status(core, "x") is Status.SUSPECT


def test_a_crash_is_declared_by_everybody_and_a_healthy_member_by_nobody() -> None:
    names = [f"m{number}" for number in range(8)]
    cores = Cores(*names)
    cores.advance(10.0)
    assert cores.is_whole()
    cores.crash("m3")
    cores.advance(30.0)
    assert cores.seen("m3") == {Status.DEAD}
    assert cores.is_whole()
    for name in set(names) - {"m3"}:
        assert changes(cores.events[address(name)], "m3")[-2:] == ["suspected", "died"]


# ---------------------------------------------------------------------- the buddy rule, and refuting


def test_who_probes_a_suspect_tells_it_so() -> None:
    core = acquainted("x", "a", "b")
    accusation = suspect("x", "a")
    tell(core, "a", accusation)
    core._outbox.rumors.discard("x")
    core.suspect_link("x", 0.0)
    core._prober.begin(0.0)
    ((to, ping),) = sent(core, Kind.PING)
    assert (to, ping.news[0]) == (address("x"), accusation)


def test_who_hears_from_a_suspect_tells_it_so_even_with_nothing_to_answer() -> None:
    core = acquainted("x", "a", "b")
    tell(core, "a", suspect("x", "a"))
    core.datagrams()
    core._outbox.rumors.discard("x")
    tell(core, "x")
    ((to, message),) = sent(core)
    assert (to, message.kind) == (address("x"), Kind.TELL)
    assert message.news[0].status is Status.SUSPECT


def test_without_the_buddy_rule_only_gossip_tells() -> None:
    core = acquainted("x", "a", "b", config=replace(LAN, tells_suspects=False))
    tell(core, "a", suspect("x", "a"))
    core.datagrams()
    core._outbox.rumors.discard("x")
    tell(core, "x")
    assert sent(core) == []


@pytest.mark.parametrize("status_", [Status.SUSPECT, Status.DEAD])
def test_what_is_said_of_me_is_refuted_with_a_higher_incarnation(status_: Status) -> None:
    core = acquainted("a")
    tell(core, "a", news("me", status_, 5, accusers=("a",)))
    assert core.me == news("me", incarnation=6)
    assert core.health == 1
    assert "me" in core._outbox.rumors
    assert core.statistics()["refuted"] == 1


def test_an_old_accusation_is_not_refuted_again() -> None:
    core = acquainted("a")
    for _ in range(3):
        tell(core, "a", news("me", Status.SUSPECT, 1, accusers=("a",)))
    assert core.me.incarnation == 2
    assert core.health == 1


@pytest.mark.parametrize(
    "claim",
    [
        news("me", incarnation=7),
        news("me", version=9),
        news("me", Status.RESTARTING),
        news("me", address="somewhere:1"),
    ],
    ids=["incarnation", "version", "restarting", "address"],
)
def test_whatever_outranks_my_own_word_in_this_life_is_refuted(claim: News) -> None:
    """Else my own word would count for nothing with those who believed it, and sums differ for ever."""
    core = acquainted("a")
    tell(core, "a", claim)
    assert core.me.incarnation == claim.incarnation + 1
    assert core.me.status is Status.ALIVE


def test_a_refutation_ends_the_suspicion_everywhere() -> None:
    cores = Cores("a", "b", "c", "d", "e")
    cores.advance(5.0)
    for liar in ("b", "c"):
        word = cores[liar].me
        lie = cores["a"].me._replace(status=Status.SUSPECT, accusers=("b", "c"))
        tell(cores["d"], word, lie, now=cores.now)
    assert status(cores["d"], "a") is Status.SUSPECT
    cores.advance(5.0)
    assert cores.is_whole()
    assert changes(cores.events[address("d")], "a")[-2:] == ["suspected", "refuted"]
    assert cores["a"].me.incarnation >= 2
