"""Lets every test import the helpers that lie in this folder: `servers`, `integration.polling`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("coherd", deadline=None)  # a busy machine is no failure
settings.load_profile("coherd")


# A run in the background, or under nohup, ignores these, and so would every agent that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    """Say what our own mark means."""
    config.addinivalue_line(
        "markers", "bad_input(id, …): tests inputs of docs/bad-inputs.md, by their ids there"
    )


REAL = ("tests/integration/", "tests/bad_inputs/test_bad_starts.py", "tests/agent/handlers/")
"""Where tests of real processes are, which wait for timeouts."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Run what is real one after the other in one process, and all others wherever there is room."""

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "real" if nodeid.startswith(REAL) else nodeid

    return Scheduling(config, log)
