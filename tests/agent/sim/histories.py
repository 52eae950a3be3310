"""What a script that simulates prints in a process of its own, with hashes of strings of its own."""

from __future__ import annotations

import os
import subprocess
import sys


def history(script: str, seed: int, hash_seed: int) -> str:
    """Run a script that is given a seed."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(seed)],
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
