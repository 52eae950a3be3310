"""Lets every test import the helpers that lie in this folder: `servers`, `integration.polling`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

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
