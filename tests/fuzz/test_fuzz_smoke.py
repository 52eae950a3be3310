"""A minute of coverage-guided fuzzing finds nothing; and it finds a bug where there is one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="atheris is made for Linux alone")

pytestmark = pytest.mark.slow


def fuzz(folder: Path, seconds: int, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer; it ends with an error as soon as it finds something."""
    corpus = folder / "corpus"
    corpus.mkdir()
    script = Path(__file__).parent / "fuzz_decoders.py"
    return subprocess.run(
        [
            sys.executable, str(script), str(corpus), f"-max_total_time={seconds}", "-max_len=65536",
            "-print_final_stats=1", "-timeout=10", f"-artifact_prefix={folder}/", *more,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds + 120,
        check=False,
    )  # fmt: skip


@pytest.mark.bad_input(23)
def test_nothing_is_found_in_a_minute(tmp_path: Path) -> None:
    done = fuzz(tmp_path, 60)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    (runs,) = re.findall(r"stat::number_of_executed_units:\s+(\d+)", done.stderr)
    assert int(runs) > 10_000


def test_a_planted_bug_is_found(tmp_path: Path) -> None:
    done = fuzz(tmp_path, 60, "--planted")
    assert done.returncode != 0
    assert "the planted bug" in done.stdout + done.stderr
    assert list(tmp_path.glob("crash-*"))
