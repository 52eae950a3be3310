"""The benchmarks start, and what they compute by themselves is right; nothing is measured here."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(p.name for p in BENCHMARKS.glob("*.py") if '"__main__"' in p.read_text())
ASK_ALL_FOR_HELP = """
import runpy, sys
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code, script
    else:
        raise AssertionError(f"{script} went on after --help")
"""


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The part that makes networks; others are imported beside it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("networks")


def test_every_script_says_how_it_is_used() -> None:
    run = subprocess.run(
        [sys.executable, "-c", ASK_ALL_FOR_HELP, *(str(BENCHMARKS / name) for name in SCRIPTS)],
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("--quick") >= len(SCRIPTS)


def test_every_question_is_one_of_the_scripts_and_documented(benchmark: ModuleType) -> None:
    questions = importlib.import_module("run_all").QUESTIONS
    docs = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text()
    for command in questions.values():
        script = command.split()[0]
        assert script in SCRIPTS
        assert f"`benchmarks/{script}`" in docs


def test_figures_are_medians_over_rounds_and_ratios_are_of_the_same_round(
    benchmark: ModuleType,
) -> None:
    propagation, systems = (importlib.import_module(name) for name in ("propagation", "systems"))

    def rounds(*medians: float) -> list[object]:
        return [systems.Paced([ms] * 9 + [10 * ms], [ms / 2] * 10) for ms in medians]

    measured = {"coherd": rounds(1, 8, 2), "redis": rounds(2, 2, 4), "serf": rounds(90, 80, 100)}
    measured["serf"][1].lost = 3
    arguments = argparse.Namespace(agents=3, rounds=3, rate=20.0, lane="normal", background=0.0)
    figures = propagation.summarize(arguments, measured)
    assert figures["coherd_last_p50_ms"] == 2
    assert figures["coherd_accepted_last_p50_ms"] == 1
    assert figures["redis_last_p50_ms"] == 2
    assert figures["ratio_called_redis"] == 0.5
    assert figures["serf_lost"] == 3
    assert "redis_lost" not in figures


@pytest.mark.parametrize(("ratio", "written"), [(3.456, "3.46"), (1.0, "1.00"), (0.025, "1/40")])
def test_small_ratios_can_be_read(benchmark: ModuleType, ratio: float, written: str) -> None:
    assert importlib.import_module("report").times(ratio) == written


def packet(source: int, target: int) -> bytes:
    return bytes([0x45, *([0] * 11), 198, 18, 0, source, 198, 18, 0, target])


def test_a_link_delays_packets_and_keeps_their_order(benchmark: ModuleType) -> None:
    link = benchmark.Link(0.0, 0.020, seed=1)
    first, second = packet(1, 2), packet(1, 3)
    link.take(first, 10.0)
    link.take(second, 10.005)
    assert list(link.due(10.0199)) == []
    assert link.wait(10.0) == pytest.approx(0.020)
    assert list(link.due(10.0201)) == [(2, first)]
    assert list(link.due(10.1)) == [(3, second)]
    assert link.wait(10.1) is None


def test_a_link_loses_the_share_it_is_told_to(benchmark: ModuleType) -> None:
    link = benchmark.Link(0.05, 0.0, seed=1)
    for _ in range(20_000):
        link.take(packet(1, 2), 0.0)
    assert 0.045 < link.dropped / 20_000 < 0.055
    assert len(list(link.due(0.0))) == link.passed == 20_000 - link.dropped


def test_a_cut_is_one_way_and_ends(benchmark: ModuleType) -> None:
    link = benchmark.Link(0.0, 0.0, seed=1)
    link.cuts = {(1, 2)}
    link.take(packet(1, 2), 0.0)
    link.take(packet(2, 1), 0.0)
    assert list(link.due(0.0)) == [(1, packet(2, 1))]
    link.cuts = set()
    link.take(packet(1, 2), 0.0)
    assert list(link.due(0.0)) == [(2, packet(1, 2))]


def test_what_is_no_ipv4_packet_is_noise(benchmark: ModuleType) -> None:
    link = benchmark.Link(0.0, 0.0, seed=1)
    for noise in (b"", b"\x45", b"\x60" + bytes(39)):
        link.take(noise, 0.0)
    assert list(link.due(0.0)) == []


def test_what_was_sent_is_that_of_the_device(benchmark: ModuleType) -> None:
    table = (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n"
        "    lo:     111       2    0    0    0     0          0         0      333       4    0\n"
        "  tun0: 5 1 0 0 0 0 0 0 7 1 0\n"
    )
    assert benchmark.sent(table, "lo") == (333, 4)
    assert benchmark.sent(table, "tun0") == (7, 1)
    with pytest.raises(LookupError):
        benchmark.sent(table, "eth0")


def test_keys_of_all_kinds_have_24_bytes_and_rounds_do_not_mix(benchmark: ModuleType) -> None:
    senders = importlib.import_module("senders")
    made = senders.keys(7, 0, 3) + senders.background_keys(0, 3)
    assert {len(key) for key in made} == {24}
    assert [key.startswith(senders.prefix(7)) for key in made] == [True] * 3 + [False] * 3
    assert not senders.keys(70, 0, 1)[0].startswith(senders.prefix(7))


def test_the_last_line_counts_when_it_is_an_object(benchmark: ModuleType) -> None:
    last_line = importlib.import_module("run_all").last_line
    assert last_line("a table\n" + json.dumps({"a": 1}) + "\n") == {"a": 1}
    assert last_line("a table\n") is None
    assert last_line("[1]") is None
    assert last_line("") is None
