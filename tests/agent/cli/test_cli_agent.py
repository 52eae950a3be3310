"""`coherd agent`: what its flags come to, and how a refusal to start is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from toy_agent import coherd

from coherd.cli import agent as module
from coherd.config import Address, AgentConfig, UnixSocket
from coherd.errors import StartRefused

FILE = 'name = "from-file"\nregion = "r"\njoin = ["x"]\nlisten = "127.0.0.1:1"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "coherd.toml"
    path.write_text(FILE)
    return path


class Ran:
    """What the agent was started with."""

    def __init__(self) -> None:
        self.config = AgentConfig("none")
        self.logs: dict[str, Any] = {}
        self.error: Exception | None = None


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ran]:
    """Run nothing; keep what would have run."""
    from coherd import daemon, logs

    ran = Ran()

    async def run(config: AgentConfig, *, read: Callable[[], AgentConfig] | None) -> None:
        await trio.lowlevel.checkpoint()
        ran.config = config
        assert read is None or read() == config
        if ran.error is not None:
            raise ran.error

    def configure(level: str, *, json: bool | None) -> None:
        ran.logs = {"level": level, "json": json}

    monkeypatch.setattr(daemon, "run", run)
    monkeypatch.setattr(logs, "configure", configure)
    yield ran
    structlog.reset_defaults()


def test_flags_win_over_variables_and_these_over_the_file(ran: Ran, file: Path) -> None:
    arguments = ["--cluster", "c", "--listen", "127.0.0.1:3", "--join", "a,b:1", "--join", "c"]
    arguments += ["--data-dir", "/d", "--local", "unix:/s", "--local", "127.0.0.1:9"]
    variables = {"COHERD_LISTEN": "127.0.0.1:2", "COHERD_NAME": "from-variable"}
    result = coherd("agent", "--config", file, *arguments, env=variables)
    assert (result.exit_code, result.output) == (0, "")
    config = ran.config
    assert (config.name, config.cluster, config.region) == ("from-variable", "c", "r")
    assert config.listen == Address("127.0.0.1", 3)
    assert config.join == (Address("a", 4373), Address("b", 1), Address("c", 4373))
    assert config.data_dir == Path("/d")
    assert config.local == (UnixSocket("/s"), Address("127.0.0.1", 9))
    coherd("agent", "-c", file, "--name", "from-flag")
    assert ran.config.name == "from-flag"


def test_no_file_is_needed_and_variables_of_the_command_line_are_not_the_agents(ran: Ran) -> None:
    variables = {"COHERD_OUTPUT": "json", "COHERD_ADDRESS": "unix:/s"}
    assert coherd("agent", "--name", "a", env=variables).exit_code == 0
    assert ran.config.name == "a"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {"level": "info", "json": None}),
        (["--log-level", "debug", "--log-format", "text"], {"level": "debug", "json": False}),
        (["--log-format", "json"], {"level": "info", "json": True}),
    ],
)
def test_the_log_is_as_asked(ran: Ran, arguments: list[str], expected: dict[str, Any]) -> None:
    assert coherd("agent", "--name", "a", *arguments).exit_code == 0
    assert ran.logs == expected


def test_an_agent_that_must_not_start_says_why_in_a_line(ran: Ran) -> None:
    for error in (StartRefused("taken"), ExceptionGroup("", [StartRefused("taken")])):
        ran.error = error
        result = coherd("agent", "--name", "a")
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", "taken\n")


def test_wrong_settings_are_lines_and_exit_code_2(ran: Ran, file: Path) -> None:
    file.write_text("jion = []\n")
    result = coherd("agent", "--config", file, "--listen", "x")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "--listen: listen: 'x': the port is missing; write \"HOST:PORT\"",
        f"{file}:1: unknown setting 'jion'; did you mean 'join'?",
    ]


def test_only_the_verb_itself_imports_the_agent() -> None:
    assert not {"trio", "daemon"} & set(vars(module))
