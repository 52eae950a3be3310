"""Reading settings from a text, for the tests of what is read and of what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from coherd.config import AgentConfig, ConfigProblems, load

HANDLER = '[[handlers]]\nkind = "redis"\nnamespaces = ["shop"]\nkey = "shop:{key}"\n'


def read(
    file: Path, text: str | bytes, env: dict[str, str] | None = None, **flags: object
) -> AgentConfig:
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(file, env or {}, flags)


def problems(
    file: Path, text: str | bytes, env: dict[str, str] | None = None, **flags: object
) -> list[str]:
    with pytest.raises(ConfigProblems) as caught:
        read(file, text, env, **flags)
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert all(problem.isprintable() for problem in caught.value.problems)
    return [problem.replace(f"{file}", "FILE") for problem in caught.value.problems]
