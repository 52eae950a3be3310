"""Every question one after another; the figures go to a file, a JSON object a line.

Each line holds the question, its command, the seconds it took, and the last line that it printed: its
figures, or what went wrong. The first line says on what machine. A question that takes too long is ended, and
none is begun after the limit; both are said. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "build" / "benchmarks.jsonl"
BROKERS = "redis,nats,jetstream"
GOSSIP = "serf,kinship"
ALL = f"{BROKERS},{GOSSIP}"
QUESTIONS = {
    "propagation-3": f"propagation.py --agents 3 --peers {ALL}",
    "propagation-16": f"propagation.py --agents 16 --peers {BROKERS} --rounds 5 --events 60",
    "propagation-16-gossip": f"propagation.py --agents 16 --peers {GOSSIP} --rounds 5 --events 40",
    "propagation-urgent": "propagation.py --lane urgent --peers redis --rounds 5",
    "background-normal": f"propagation.py --background 10000 --peers {BROKERS} --rounds 5 --events 40",
    "background-bulk": "propagation.py --background 10000 --background-lane bulk --lane urgent"
    " --peers redis --rounds 5 --events 40",
    "throughput": f"throughput.py --peers {BROKERS} --all",
    "throughput-disk": "throughput.py --peers redis --durability disk",
    "memory": "memory.py --rounds 1",
    "idle-3": "idle.py --seconds 40",
    "idle-16": "idle.py --agents 16 --seconds 40",
    "tls-3": "tls.py",
    "tls-16": "tls.py --agents 16 --rows 0",
    "idle-16-tls": "idle.py --agents 16 --seconds 30 --tls",
    "flood": "flood.py",
    "catchup-10": "catchup.py --missing 10",
    "catchup-1000": "catchup.py --missing 1000",
    "catchup-100000": "catchup.py --missing 100000",
    "catchup-among": "catchup.py --missing 100000 --among 1000000 --rounds 3",
    "gaps-reset": "catchup.py --gaps 30",
    "gaps-silent": "catchup.py --gaps 15 --cut silent",
    "lossy-1": "lossy.py --loss 1 --delay 20 --events 100",
    "lossy-5": "lossy.py --loss 5 --delay 20 --events 100",
}
LIMIT = 25 * 60.0
QUESTION_MAX = 300.0
"""Seconds for one question."""
STOP_TIMEOUT = 30.0


@dataclass
class Outcome:
    """What became of one question."""

    took_s: float
    figures: dict[str, Any] | None
    error: str


def run(command: list[str], timeout: float) -> Outcome:
    """Run one script, show what it prints, and give what it found."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    error = ""
    try:
        printed, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        error = f"took more than {timeout:.0f} s"
        process.send_signal(signal.SIGINT)  # so that it ends what it started
        try:
            printed, _ = process.communicate(timeout=STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            printed, _ = process.communicate()
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.wait(STOP_TIMEOUT)
        raise
    print(printed, flush=True)
    if process.returncode and not error:
        error = f"exit code {process.returncode}"
    figures = None if error else last_line(printed)
    if figures is None and not error:
        error = "its last line is no JSON object"
    return Outcome(round(time.monotonic() - began, 1), figures, error)


def last_line(printed: str) -> dict[str, Any] | None:
    """Give the JSON object of the last line; None when it is none."""
    lines = printed.strip().splitlines()
    try:
        found = json.loads(lines[-1])
    except (IndexError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def machine() -> dict[str, Any]:
    """Say on what is measured."""
    versions = {}
    for program, option in (("redis-server", "--version"), ("nats-server", "--version")):
        if shutil.which(program):
            said = subprocess.run([program, option], capture_output=True, text=True, check=False)
            versions[program] = said.stdout.strip()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "question": "machine",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit.stdout.strip(),
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "kernel": platform.release(),
        "versions": versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help=f"comma-separated, of {', '.join(QUESTIONS)}")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--quick", action="store_true", help="each question with smaller numbers")
    arguments = parser.parse_args()
    chosen = [name for name in QUESTIONS if any(part in name for part in arguments.only.split(","))]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w") as output:
        write(output, machine())
        ask_all(chosen, output, quick=arguments.quick)
    print(f"written to {arguments.output}")


def ask_all(names: list[str], output: TextIO, *, quick: bool) -> None:
    began = time.monotonic()
    for number, name in enumerate(names, 1):
        left = LIMIT - (time.monotonic() - began)
        line: dict[str, Any] = {"question": name, "command": f"benchmarks/{QUESTIONS[name]}"}
        if quick:
            line["command"] += " --quick"
        print(f"--- {number}/{len(names)} {name}: {line['command']}", flush=True)
        if left < 10:
            outcome = Outcome(0.0, None, f"not begun: {LIMIT:.0f} s are over")
        else:
            command = [sys.executable, *line["command"].split()]
            outcome = run(command, min(QUESTION_MAX, left))
        line["took_s"] = outcome.took_s
        if outcome.error:
            print(f"    {outcome.error}", flush=True)
            line["error"] = outcome.error
        else:
            line["figures"] = outcome.figures
        write(output, line)


def write(output: TextIO, line: dict[str, Any]) -> None:
    output.write(json.dumps(line) + "\n")
    output.flush()


if __name__ == "__main__":
    main()
