"""A toy agent for the verbs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_agent import ToyAgent, serving


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyAgent]:
    """Answers where the command line looks: COHERD_ADDRESS is not needed, `--local` overrides."""
    agent = ToyAgent()
    with serving(agent, tmp_path / "s") as address:
        monkeypatch.setattr("coherd.cli.connection.LOCAL_DEFAULT", address)
        yield agent
