"""`make soak`: random faults on real agents under load, for minutes; exit code 1 on whatever was wrong."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from soak.faults import KINDS
from soak.run import Plan, soak, written


def main() -> None:
    """Run one soak, and keep its folder if it found something."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--agents", type=int, default=5)
    parser.add_argument("--rate", type=int, default=1000, help="rows a second, all together")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", nargs="*", choices=sorted(KINDS), default=[], metavar="KIND")
    parser.add_argument("--quick", action="store_true", help="one phase of ten seconds")
    arguments = parser.parse_args()
    plan = Plan(
        arguments.seed,
        seconds=1.0 if arguments.quick else arguments.minutes * 60,
        agents=arguments.agents,
        rate=arguments.rate,
        phase=(10.0, 10.0) if arguments.quick else Plan.phase,
        only=arguments.only,
    )
    started = time.monotonic()
    # As Ctrl-C does, so that no agent and no Redis outlives it.
    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, signal.default_int_handler)

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {line}", flush=True)

    folder = Path(tempfile.mkdtemp(prefix="coherd-soak-"))
    say(f"seed {plan.seed}: {plan.agents} agents, {plan.rate} rows/s; files in {folder}")
    result = soak(plan, folder, say)
    for name, value in written(result).items():
        if name != "violations":
            say(f"{name}: {value}")
    for violation in result.violations:
        say(f"WRONG: {violation}")
    if result.violations:
        say(f"seed {plan.seed}; logs, journals and dumps are kept in {folder}")
    else:
        shutil.rmtree(folder)
    print(json.dumps(written(result)))
    sys.exit(1 if result.violations else 0)


if __name__ == "__main__":
    main()
