"""The machine as a whole: its verbs, what it refuses, late timers, and that it is a function of its seed."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pair import Cores, acquainted, address, datagram, news, run, sent, status, swim, tell

import coherd_membership
from coherd_membership import Datagram, Status, SwimConfig
from coherd_membership import _codec as codec
from coherd_membership._messages import Kind

LIBRARY = Path(coherd_membership.__file__).parent
LAN = SwimConfig()


def test_what_is_no_message_foreign_or_too_new_is_counted_and_dropped() -> None:
    core = swim()
    valid = datagram(Kind.PING, "a", target="me", told=[news("b")])
    future = valid[:2] + b"\x02\x09" + valid[4:]
    past = valid[:2] + b"\x00\x00" + valid[4:]
    foreign = datagram(Kind.PING, "a", target="me", label=1)
    for payload in (b"", valid[:-1], foreign, future, past):
        core.receive(payload, "a:1", 0.0)
    counts = core.statistics()
    assert (counts["malformed"], counts["foreign"], counts["incompatible"]) == (2, 1, 2)
    assert (core.datagrams(), core.events(), dict(core.members)) == ([], [], {})


@pytest.mark.parametrize("text", ["", "x" * 256, "é" * 128])
def test_names_and_addresses_have_to_fit(text: str) -> None:
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        swim(text, address="a:1")
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        swim("a", address=text)


def test_nothing_is_due_before_it_starts_and_nothing_happens_before_it_is_due() -> None:
    core = swim()
    assert core.next_timer() is None
    core.handle_timer(5.0)
    core.start((), 5.0)
    due = core.next_timer()
    assert due is not None
    assert 5.0 <= due <= 6.0
    core.datagrams()
    core.handle_timer(due - 1e-6)
    assert (core.next_timer(), core.datagrams()) == (due, [])


def test_what_is_taken_is_gone() -> None:
    core = swim()
    core.start(["seed:1"], 0.0)
    tell(core, "a")
    assert core.datagrams()
    assert core.events()
    assert (core.datagrams(), core.events()) == ([], [])


def test_a_member_alone_probes_nobody_and_has_not_joined() -> None:
    core = swim()
    core.start([address("me")], 0.0)
    run(core, 600.0)
    assert core.datagrams() == []
    assert (core.has_joined, core.health, dict(core.members)) == (False, 0, {})


def test_its_own_messages_do_not_confuse_it() -> None:
    core = acquainted("a")
    core.start(["alias:1"], 0.0)
    for each in core.datagrams():
        core.receive(each.payload, "alias:1", 0.1)
    assert core.datagrams() == []
    assert set(core.members) == {"a"}


def test_a_cluster_that_is_introduced_is_whole_at_once_and_stays_so() -> None:
    names = [f"m{number}" for number in range(6)]
    cores = Cores(*names)
    everybody = [core.me for core in cores.at.values()]
    for core in cores.at.values():
        core.introduce(everybody, 0.0)
    assert cores.is_whole()
    cores.advance(60.0)
    assert cores.is_whole()


def test_a_name_that_moved_nowhere_keeps_its_round_trip() -> None:
    cores = Cores("a", "b")
    cores.advance(5.0)
    assert cores["a"].members["b"].round_trip == pytest.approx(0.002)


# ---------------------------------------------------------------------- late timers


def test_after_a_late_timer_a_verdict_waits_once_for_what_has_come_in() -> None:
    core = acquainted("a", "b", "c", "x")
    for name in ("a", "b", "c"):
        tell(core, name, news("x", Status.SUSPECT, accusers=(name,)), now=10.0)
    due = core._timers.at(("suspicion", "x"))
    assert due is not None
    core.handle_timer(due + 60.0)
    assert status(core, "x") is Status.SUSPECT
    assert core._timers.at(("suspicion", "x")) == due + 60.0 + LAN.probe_timeout
    core.handle_timer(due + 120.0)
    assert status(core, "x") is Status.DEAD
    assert core.health == 2


def test_what_came_in_meanwhile_is_heard_before_the_verdict() -> None:
    core = acquainted("a", "b", "c", "x")
    for name in ("a", "b", "c"):
        tell(core, name, news("x", Status.SUSPECT, accusers=(name,)), now=10.0)
    core.handle_timer(100.0)
    tell(core, news("x", incarnation=2), now=100.0)
    run(core, 200.0)
    assert status(core, "x") is Status.ALIVE


def test_the_probe_under_way_gets_more_time_after_a_late_timer() -> None:
    core = swim()
    core.introduce([news("a"), news("b")], 0.0)
    core.start((), 0.0)
    run(core, 1.0)
    ((to, ping),) = sent(core, Kind.PING)
    core.handle_timer(60.0)
    assert sent(core, Kind.PING_REQUEST) == []
    payload = datagram(Kind.ACK, ping.target, sequence=ping.sequence)
    core.receive(payload, to, 60.0)
    run(core, 61.0)
    assert {member.news.status for member in core.members.values()} == {Status.ALIVE}


def test_without_lifeguard_a_late_timer_is_as_any_other() -> None:
    core = acquainted("a", "b", config=LAN.plain())
    tell(core, "a", news("b", Status.SUSPECT, accusers=("a",)))
    core.handle_timer(1_000.0)
    assert status(core, "b") is Status.DEAD
    assert (core.health, core.statistics().get("late")) == (0, None)


def test_the_shell_may_say_that_it_is_late() -> None:
    core = acquainted("a")
    core.note_late(0.0)
    assert (core.health, core.statistics()["late"]) == (1, 1)


@pytest.mark.parametrize("stall", [3.0, 60.0])
def test_a_member_that_was_stopped_blames_nobody_when_it_goes_on(stall: float) -> None:
    names = [f"m{number}" for number in range(10)]
    cores = Cores(*names)
    cores.advance(10.0)
    cores.stall("m4")
    cores.advance(stall)
    cores.resume("m4")
    for _ in range(100):
        cores.advance(0.2)
        for name in set(names) - {"m4"}:
            assert status(cores["m4"], name) is not Status.DEAD
    cores.advance(20.0)
    assert cores.is_whole()


# ---------------------------------------------------------------------- a function of its seed


def life(seed: int) -> str:
    """Give the hash of everything that a small cluster sends in a troubled minute."""
    names = [f"m{number}" for number in range(9)]
    cores = Cores(*names, seed=seed, config=replace(LAN, linked_above=4))
    for core in cores.at.values():
        core.set_linked(names[:3])
    cores.loss = 0.2
    cores.advance(10.0)
    cores["m1"].publish(b"new")
    cores.crash("m2")
    cores.stall("m3")
    cores.advance(20.0)
    cores.resume("m3")
    cores["m4"].leave()
    cores.advance(30.0)
    return hashlib.sha256(repr(cores.traffic).encode()).hexdigest()


def test_the_same_seed_gives_the_same_datagrams_in_every_process() -> None:
    here = Path(__file__).parent
    script = (
        f"import sys; sys.path.insert(0, {str(here)!r}); import test_swim; print(test_swim.life(7))"
    )
    ends = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for hash_seed in ("0", "1", "12345")
    }  # fmt: skip
    assert ends == {life(7)}
    assert life(8) not in ends


# ---------------------------------------------------------------------- the library and its tests


def does_something(path: Path) -> bool:
    tree = ast.parse(path.read_text())
    return any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))


def test_every_module_that_does_something_has_its_tests() -> None:
    modules = [path for path in LIBRARY.glob("_[!_]*.py") if does_something(path)]
    assert len(modules) > 10
    expected = {
        "test_swim.py" if path.stem == "_swim" else f"test_swim{path.stem}.py" for path in modules
    }
    here = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    assert expected <= here


def test_every_public_name_is_there_and_documented() -> None:
    for name in coherd_membership.__all__:
        thing = getattr(coherd_membership, name)
        assert isinstance(thing, int) or thing.__doc__ or thing is coherd_membership.Event


def test_a_datagram_is_its_destination_and_its_bytes() -> None:
    core = swim()
    core.start(["seed:1"], 0.0)
    (each,) = core.datagrams()
    assert isinstance(each, Datagram)
    assert each.destination == "seed:1"
    assert codec.decode(each.payload).kind == Kind.DIGEST
