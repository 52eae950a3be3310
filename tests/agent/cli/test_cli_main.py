"""`coherd` as such: fast help, nearest verbs, errors as lines, exit codes, a base install."""

from __future__ import annotations

import json
import subprocess
import sys
import types

import click
import pytest
from click.testing import CliRunner

from coherd import __version__
from coherd.cli.exit_codes import PARTS_MISSING, ExitCode, exit_code
from coherd.cli.main import VERBS, cli
from coherd.config import ConfigProblems
from coherd.errors import (
    CoherdError,
    ConfigError,
    HandlerFailed,
    InvalidRequest,
    Overloaded,
    RpcFailed,
    StartRefused,
)

HEAVY = {"asyncio", "coredis", "google", "grpc", "pydantic", "rich", "sqlite3", "structlog", "trio"}


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def verb(monkeypatch: pytest.MonkeyPatch, function: object) -> None:
    """Let `coherd status` be `function`."""
    module = types.ModuleType("coherd.cli.status")
    module.status = click.command()(function)  # type: ignore
    monkeypatch.setitem(sys.modules, "coherd.cli.status", module)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["config", "example"],
        *([name, "--help"] for name in VERBS if name != "demo"),
    ],
    ids=" ".join,
)
def test_what_needs_no_agent_imports_nothing_heavy(arguments: list[str]) -> None:
    program = f"""
import json, sys
from coherd.__main__ import main
sys.argv = ["coherd", *{arguments}]
try:
    main()
except SystemExit as stop:
    names = {{name.partition(".")[0] for name in sys.modules}}
    print(json.dumps([stop.code, *names]), file=sys.stderr)
"""
    code, *modules = json.loads(python(program).stderr)
    assert code == 0
    assert "click" in modules
    assert HEAVY.isdisjoint(modules)


def test_help_lists_every_verb_and_exit_code() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    for name, entry in VERBS.items():
        assert f"{name} " in result.stdout
        assert entry.help in result.stdout
    for code in ExitCode:
        assert f"{code.value} {code.name.lower().replace('_', ' ')}" in " ".join(
            result.stdout.split()
        )


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(cli, ["--version"]).stdout == f"coherd, version {__version__}\n"


def test_an_unknown_verb_names_the_nearest() -> None:
    result = CliRunner().invoke(cli, ["memebrs"])
    assert result.exit_code == 2
    assert "No such verb: 'memebrs'. Did you mean 'members'?" in result.stderr


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coherd", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"coherd, version {__version__}\n")


@pytest.mark.parametrize("missing", ["click", "pydantic"])
def test_a_base_install_says_what_to_install(missing: str) -> None:
    done = python(
        f"import sys; sys.modules[{missing!r}] = None\n"
        "sys.argv = ['coherd', 'config', 'check', '/dev/null']\n"
        "from coherd.__main__ import main; main()"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", PARTS_MISSING + "\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (InvalidRequest("x"), 2),
        (StartRefused("x"), 1),
        (Overloaded("x"), 1),
        (RpcFailed("UNAVAILABLE"), 4),
        (RpcFailed("DEADLINE_EXCEEDED"), 3),
        (RpcFailed("PERMISSION_DENIED"), 5),
        (RpcFailed("UNAUTHENTICATED"), 5),
        (RpcFailed("NOT_FOUND"), 6),
        (RpcFailed("INTERNAL"), 1),
    ],
)
def test_an_error_of_a_verb_is_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: CoherdError, code: int
) -> None:
    def fails() -> None:
        raise error

    verb(monkeypatch, fails)
    result = CliRunner().invoke(cli, ["status"])
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"{error}\n")
    assert exit_code(error) == code


def test_what_another_side_sent_stays_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RpcFailed("INTERNAL", "a\nb\x1b[31m")

    verb(monkeypatch, fails)
    assert CliRunner().invoke(cli, ["status"]).stderr == "INTERNAL: a\\nb\\x1b[31m\n"


def test_errors_that_leave_a_nursery_are_told_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        inner = ExceptionGroup("", [RpcFailed("UNAVAILABLE", "a"), HandlerFailed("b")])
        raise ExceptionGroup("", [inner, ConfigProblems(["c", "d"])])

    verb(monkeypatch, fails)
    result = CliRunner().invoke(cli, ["status"])
    assert (result.exit_code, result.stderr) == (4, "UNAVAILABLE: a\nb\nc\nd\n")


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a bug"),
        ExceptionGroup("", [ConfigError("x"), KeyError("a bug")]),
        ModuleNotFoundError("a bug", name="coherd.nothing"),
    ],
)
def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails() -> None:
        raise error

    verb(monkeypatch, fails)
    assert CliRunner().invoke(cli, ["status"]).exception is error
