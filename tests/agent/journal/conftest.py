"""Both journals, for the suite that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from journal_twins import MemoryTwin, SqliteTwin, Twin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "memory"])
async def twin(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Twin]:
    twin = SqliteTwin(tmp_path) if request.param == "sqlite" else MemoryTwin()
    yield twin
    await twin.aclose()


@pytest.fixture
async def sqlite_twin(tmp_path: Path) -> AsyncIterator[SqliteTwin]:
    twin = SqliteTwin(tmp_path)
    yield twin
    await twin.aclose()
