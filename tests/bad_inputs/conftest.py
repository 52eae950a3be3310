"""The fixture of most tests here: a whole agent behind real doors."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from doors import Doors, doors


@pytest.fixture
async def agent() -> AsyncIterator[Doors]:
    async with doors() as found:
        yield found
