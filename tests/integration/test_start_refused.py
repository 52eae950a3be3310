"""What an agent must not start on: it says why in one line, ends with 1, and leaves things as they are."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.agents import AgentProcess, lone
from integration.polling import poll


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An agent that runs and is in the way of others."""
    with lone(tmp_path_factory.mktemp("first"), "first") as agent:
        agent.start()
        yield agent
        assert agent.status().ready, "it was not disturbed"
        assert agent.stop() == 0


@pytest.fixture
def second(tmp_path: Path) -> Iterator[AgentProcess]:
    with lone(tmp_path, "second") as agent:
        yield agent


@pytest.mark.bad_input(73)
def test_a_data_directory_that_is_in_use(first: AgentProcess, second: AgentProcess) -> None:
    second.data = first.data
    said = second.refused()
    assert "is in use by agent first, pid" in said
    assert "data_dir" in said


def test_the_very_same_agent_twice(first: AgentProcess, second: AgentProcess) -> None:
    second.name, second.data = first.name, first.data
    second.port, second.socket = first.port, first.socket
    assert "is in use by agent first" in second.refused()
    assert first.status(), "its socket is still its own"


@pytest.mark.bad_input(73)
def test_a_data_directory_that_cannot_be_made(second: AgentProcess) -> None:
    (second.folder / "file").touch()
    second.data = second.folder / "file" / "data"
    said = second.refused()
    assert str(second.data) in said
    assert "data_dir" in said


@pytest.mark.bad_input(68)
def test_a_local_socket_that_answers(first: AgentProcess, second: AgentProcess) -> None:
    second.socket = first.socket
    assert "another agent answers at" in second.refused()
    assert first.socket.is_socket()


@pytest.mark.bad_input(68)
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_something_else_in_the_place_of_the_local_socket(second: AgentProcess, kind: str) -> None:
    precious = second.folder / "precious"
    precious.write_text("precious")
    if kind == "file":
        precious.rename(second.socket)
    elif kind == "directory":
        second.socket.mkdir()
    else:
        second.socket.symlink_to(precious)
    assert "is no socket" in second.refused()
    if kind == "directory":
        assert second.socket.is_dir()
    else:
        assert second.socket.read_text() == "precious"


@pytest.mark.bad_input(68)
def test_a_socket_that_nobody_answers_is_taken_over(second: AgentProcess) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(second.socket))
    second.start()
    mode = stat.S_IMODE(second.socket.stat().st_mode)
    assert oct(mode) == oct(0o660)
    second.kill()
    assert second.socket.is_socket(), "what a killed agent leaves behind"
    second.start()
    assert second.stop() == 0


def test_the_data_directory_is_private(first: AgentProcess) -> None:
    assert oct(stat.S_IMODE(first.data.stat().st_mode)) == oct(0o700)


def test_a_peer_port_that_is_taken(first: AgentProcess, second: AgentProcess) -> None:
    second.port = first.port
    said = second.refused()
    assert str(first.port) in said
    assert "`listen`" in said
    assert not second.socket.exists()


def test_a_local_port_that_is_taken(first: AgentProcess, second: AgentProcess) -> None:
    second.local = f"127.0.0.1:{first.port}"
    said = second.refused()
    assert str(first.port) in said
    assert "`local`" in said


def test_the_journal_of_another_cluster(second: AgentProcess) -> None:
    second.start()
    second.invalidate(keys=[b"a"])
    second.stop()
    second.cluster = "other"
    said = second.refused()
    assert "is the journal of agent 'second' in cluster 'test'" in said
    second.cluster = "test"
    second.start()
    assert second.status().cursor.endswith("/1")


@pytest.mark.parametrize("content", [b"", b"what is this?" * 100])
def test_a_file_that_is_no_journal(second: AgentProcess, content: bytes) -> None:
    second.data.mkdir()
    (second.data / "journal.db").write_bytes(content)
    assert "journal.db" in second.refused()
    assert (second.data / "journal.db").read_bytes() == content


def test_a_setting_that_is_wrong_ends_with_2(second: AgentProcess) -> None:
    second.settings = "jion = []"
    second.spawn()
    assert second.ended() == 2
    assert "jion" in second.log
    assert "join" in second.log
    assert not second.data.exists()


def test_a_held_directory_is_free_again_after_a_kill(second: AgentProcess) -> None:
    second.start()
    second.signal(signal.SIGSTOP)
    with lone(second.folder, "third") as third:
        third.data = second.data
        assert "is in use by agent second" in third.refused(), "also by one that hangs"
    second.kill()
    second.start()
    poll(lambda: second.status().ready, "the agent to be ready")


def test_what_a_refused_agent_says_stays_readable(second: AgentProcess) -> None:
    second.write_config()
    command = [*second.command, "--data-dir", "/proc/\x1b[31mred"]
    said = subprocess.run(command, capture_output=True, check=False)
    assert said.returncode != 0
    assert b"\x1b" not in said.stderr
    assert said.stderr.count(b"\n") == 1
