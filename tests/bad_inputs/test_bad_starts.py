"""Odd surroundings, wrong settings, seeds and disks: an agent starts all the same, or says why in a line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from integration.agents import AgentProcess, cluster, lone
from integration.polling import poll
from servers import require

from coherd.v1 import cache_service_pb2 as cache


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with lone(tmp_path) as agent:
        yield agent


def said(agent: AgentProcess) -> list[str]:
    """What it said beside its log."""
    return [line for line in agent.log.splitlines() if line[:1] != "{"]


# ---------------------------------------------------------------- settings

SETTINGS = {
    "an unknown key": ("jion = []", r":\d+: unknown setting 'jion'; did you mean 'join'\?"),
    "a wrong type": ("insecure = 1", r":\d+: insecure: expected true or false, got 1"),
    "a duration in floats": (
        '[namespaces.x]\nmax_ttl = "1e9s"',
        r":\d+: namespaces\.x\.max_ttl: expected a duration",
    ),
    "a negative number": (
        "[namespaces.x]\nentries_max = -5",
        r":\d+: namespaces\.x\.entries_max: ",
    ),
    "a key twice": (
        "insecure = false\ninsecure = true",
        r":\d+: not TOML: Cannot overwrite a value",
    ),
    "10 MB": ("#" * 10_000_000, r": larger than 1 MiB; expected a TOML file"),
}


@pytest.mark.bad_input(69)
@pytest.mark.parametrize(("settings", "expected"), SETTINGS.values(), ids=SETTINGS)
def test_a_wrong_setting_ends_with_2_and_its_line(
    agent: AgentProcess, settings: str, expected: str
) -> None:
    agent.settings = settings
    agent.spawn()
    assert agent.ended() == 2
    (line,) = said(agent)
    assert re.search(re.escape(str(agent.config)) + expected, line), line
    assert not agent.data.exists()


# ---------------------------------------------------------------- seeds


@pytest.mark.bad_input(70)
@pytest.mark.parametrize("seeds", ["none", "itself", "itself many times"])
def test_nobody_else_to_ask(agent: AgentProcess, seeds: str) -> None:
    agent.seeds = {
        "none": [],
        "itself": [agent.address],
        "itself many times": [agent.address, f"localhost:{agent.port}", agent.address],
    }[seeds]
    agent.start()
    poll(lambda: agent.status().ready, "the agent to be ready")
    assert agent.states() == {"a": "alive"}
    assert agent.stop() == 0


@pytest.mark.bad_input(70)
def test_one_seed_written_in_many_ways(tmp_path: Path) -> None:
    with cluster(tmp_path, ["a", "b"]) as (one, two):
        two.stop()
        two.seeds = [one.address, f"localhost:{one.port}", one.address, "[fe80::1%lo]:1"]
        two.start()
        poll(lambda: two.is_ready_with(2), "both to be together")
        assert set(one.states()) == {"a", "b"}


@pytest.mark.bad_input(70)
def test_ten_thousand_seeds_of_which_none_answers(agent: AgentProcess) -> None:
    agent.seeds = [f"127.{n >> 8}.{n & 255}.1:1" for n in range(1, 10_001)]
    agent.start()
    (reason,) = agent.status().reasons
    assert reason.startswith("no seed answers: check `join`")
    assert agent.invalidate(keys=[b"k"], wait=cache.WAIT_LOCAL, timeout=5).complete, (
        "it works alone"
    )
    memory = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{agent.process.pid}/status").read_text())
    assert memory
    assert int(memory[1]) < 300_000
    assert agent.stop() == 0


# ---------------------------------------------------------------- disks


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system of its own; skips where nobody may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.bad_input(73)
@pytest.mark.parametrize("options", ["ro", "size=4k", "size=64k"])
def test_a_disk_that_is_read_only_or_full(agent: AgentProcess, options: str) -> None:
    with mounted(agent.data, options):
        line = agent.refused()
        assert str(agent.data) in line
        assert "data_dir" in line or "disk" in line, line


@pytest.mark.bad_input(73)
def test_a_data_directory_behind_a_link(agent: AgentProcess) -> None:
    real = agent.folder / "real"
    real.mkdir()
    agent.data.symlink_to(real)
    agent.start()
    agent.invalidate(keys=[b"k"])
    assert agent.stop() == 0
    assert (real / "journal.db").is_file()
    with lone(agent.folder, "other") as other:
        agent.start()
        other.data = real
        assert "is in use by agent a" in other.refused(), "the same directory by another name"


# ---------------------------------------------------------------- surroundings


def wrapped(agent: AgentProcess, *wrapper: str, **env: str | None) -> AgentProcess:
    """Let the agent be started by another command, and with other variables."""

    class Wrapped(AgentProcess):
        @property
        def command(self) -> list[str]:
            changes = [f"--unset={k}" if v is None else f"{k}={v}" for k, v in env.items()]
            unset = [c for c in changes if c[:2] == "--"]
            return [
                "env",
                *unset,
                *(c for c in changes if c[:2] != "--"),
                *wrapper,
                *super().command,
            ]

    agent.__class__ = Wrapped
    return agent


def works(agent: AgentProcess) -> None:
    agent.start()
    poll(lambda: agent.status().ready, "the agent to be ready")
    assert agent.invalidate(keys=["ключ".encode()], reason="почему").complete
    assert agent.stop() == 0
    assert "Traceback" not in agent.log[agent._log_before :]


@pytest.mark.bad_input(75)
@pytest.mark.parametrize(
    "env",
    [
        {
            "HOME": None, "USER": None, "LOGNAME": None, "LANG": "C", "LC_ALL": "C",
            "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": ":/no/such/zone",
        },
        {"PYTHONOPTIMIZE": "2", "TZ": "Antarctica/Troll", "TERM": None, "COLUMNS": "0"},
    ],
    ids=["no home, another language", "optimized, another time"],
)  # fmt: skip
def test_odd_variables(agent: AgentProcess, env: dict[str, str | None]) -> None:
    works(wrapped(agent, **env))


@pytest.mark.bad_input(75)
def test_closed_standard_streams(agent: AgentProcess) -> None:
    works(wrapped(agent, "sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-'))


@pytest.mark.bad_input(75)
def test_few_open_files(agent: AgentProcess) -> None:
    """Too few to live: it says so and ends."""
    require("prlimit")
    wrapped(agent, "prlimit", "--nofile=16").spawn()
    assert agent.ended() == 1
    assert said(agent)
    assert "Traceback" not in agent.log
    assert "open files" in said(agent)[-1]


@pytest.mark.bad_input(75)
def test_little_memory(agent: AgentProcess) -> None:
    """Too little even to load: whatever the system says, it ends and leaves nothing locked."""
    require("prlimit")
    wrapped(agent, "prlimit", f"--data={32 * 2**20}").spawn()
    assert agent.ended() != 0
    agent.__class__ = AgentProcess
    works(agent)


@pytest.mark.bad_input(75)
def test_as_the_first_process(agent: AgentProcess) -> None:
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespace can be made here")
    wrapped(agent, *unshare).start()
    poll(lambda: agent.status().ready, "the agent to be ready")
    assert agent.process is not None
    children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children").read_text()
    os.kill(int(children), signal.SIGTERM)
    assert agent.ended() == 0


@pytest.mark.bad_input(76)
def test_the_host_is_renamed_while_it_runs(agent: AgentProcess) -> None:
    """The name is read once, and is the agent's for good."""
    if subprocess.run(["unshare", "--uts", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespace can be made here")
    rename = 'hostname first && exec "$0" "$@"'
    wrapped(agent, "unshare", "--uts", "sh", "-c", rename)
    agent.write_config()
    agent.start()
    assert agent.process is not None
    enter = ["nsenter", "--uts", "-t", str(agent.process.pid), "hostname"]
    assert subprocess.run(enter, check=True, capture_output=True).stdout == b"first\n"
    subprocess.run([*enter, "second"], check=True)
    assert agent.invalidate(keys=[b"k"]).complete
    assert agent.status().me.name == agent.name
    assert agent.stop() == 0
