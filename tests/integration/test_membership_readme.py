"""The driver in the README of the membership library does what is said there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from integration.polling import poll
from servers import free_port

README = Path(__file__).parents[2] / "membership" / "README.md"


def test_two_members_over_udp_find_each_other_and_one_sees_the_other_die(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    driver = tmp_path / "driver.py"
    driver.write_text(blocks[0])
    ports = [free_port(), free_port()]
    seeds: list[list[str]] = [[], [f"127.0.0.1:{ports[0]}"]]
    running = []
    outputs = [tmp_path / "a", tmp_path / "b"]
    try:
        for name, port, seed, output in zip("ab", ports, seeds, outputs, strict=True):
            with output.open("w") as file:
                command = [sys.executable, str(driver), name, str(port), *seed]
                running.append(subprocess.Popen(command, stdout=file, stderr=file))
        for output, other in zip(outputs, "ba", strict=True):
            poll(
                lambda o=output, n=other: has_seen(o, "joined", n), f"{output.name} to see {other}"
            )
        running[0].send_signal(signal.SIGKILL)
        poll(lambda: has_seen(outputs[1], "died", "a"), "b to see that a died", timeout=60)
    finally:
        for process in running:
            process.kill()
            process.wait()


def has_seen(output: Path, change: str, name: str) -> bool:
    return any(f"'{change}'" in line and f"name='{name}'" in line for line in output.open())
