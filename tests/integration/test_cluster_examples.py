"""Every folder of cluster-examples has a README, settings that are right, and a `run` that ends well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers import require

from coherd.config import load

EXAMPLES = sorted(
    p for p in (Path(__file__).parents[2] / "cluster-examples").iterdir() if p.is_dir()
)


SHOWN = {
    "three-hosts": "copies left in the three Redis servers: 0",
    "mtls-three-hosts": "refused: 9 of 9",
}
"""What each of them comes to."""


def test_there_are_examples() -> None:
    assert {example.name for example in EXAMPLES} == {*SHOWN}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_and_says_what_it_shows(example: Path) -> None:
    require("redis-server")
    assert (example / "README.md").read_text().startswith("# ")
    for settings in example.glob("*.toml"):
        load(settings, {}, {})
    coherd = str(Path(sys.executable).parent / "coherd")
    done = subprocess.run(
        [example / "run"],
        env={**os.environ, "COHERD": coherd},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert SHOWN[example.name] in done.stdout
