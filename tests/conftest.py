"""Lets every test import the helpers that lie in this folder: `servers`, `integration.polling`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("coherd", deadline=None)  # a busy machine is no failure
settings.load_profile("coherd")


def pytest_configure(config: pytest.Config) -> None:
    """Say what our own mark means."""
    config.addinivalue_line(
        "markers", "bad_input(id, …): tests inputs of docs/bad-inputs.md, by their ids there"
    )
