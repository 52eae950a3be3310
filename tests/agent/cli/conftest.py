"""A toy agent for the verbs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_agent import ToyAgent, coherd, serving


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyAgent]:
    """Answers where the command line looks: COHERD_ADDRESS is not needed, `--local` overrides."""
    agent = ToyAgent()
    with serving(agent, tmp_path / "s") as address:
        monkeypatch.setattr("coherd.cli.connection.LOCAL_DEFAULT", address)
        yield agent


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """The directory of a small authority of the domain example.org."""
    assert coherd("pki", "init", tmp_path / "ca", "--trust", "example.org").exit_code == 0
    return tmp_path / "ca"
