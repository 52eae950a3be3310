"""`coherd doctor` against a toy agent, and where no agent answers."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from toy_agent import ToyAgent, coherd

from coherd.data_dir import locked
from coherd.v1 import admin_service_pb2 as pb

FINE = pb.Finding(
    subject="seed", name="10.0.0.11:4373", severity=pb.SEVERITY_OK, text="cache-1, coherd 0.1.0"
)
WARNING = pb.Finding(
    subject="handler",
    name="redis 127.0.0.1:6379 shop",
    severity=pb.SEVERITY_WARNING,
    text="0 of 1,532 keys match shop:{key}; e.g. `prod:shop:17` does not",
    remedy="check `key` of this handler",
)
BROKEN = pb.Finding(
    subject="seed",
    name="cache-2:4373",
    severity=pb.SEVERITY_ERROR,
    text="connection refused\x1b",
    remedy="start the agent there",
)


def diagnose(toy: ToyAgent, *findings: pb.Finding) -> None:
    toy.diagnosis = pb.DiagnoseResponse(findings=findings)


def test_findings_are_a_table_by_subject_with_each_remedy_below(toy: ToyAgent) -> None:
    diagnose(toy, FINE, BROKEN, WARNING)
    result = coherd("doctor")
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.splitlines() == [
        "seed     ok       10.0.0.11:4373             cache-1, coherd 0.1.0",
        "         error    cache-2:4373               connection refused\\x1b",
        "                  -> start the agent there",
        (
            "handler  warning  redis 127.0.0.1:6379 shop  "
            "0 of 1,532 keys match shop:{key}; e.g. `prod:shop:17` does not"
        ),
        "                  -> check `key` of this handler",
        "",
        "1 warning, 1 error",
    ]


def test_the_worst_finding_decides_the_exit_code(toy: ToyAgent) -> None:
    diagnose(toy, FINE)
    well = coherd("doctor")
    assert (well.exit_code, well.stdout.splitlines()[-1]) == (0, "all is well")
    diagnose(toy, FINE, WARNING)
    assert coherd("doctor").exit_code == 3
    diagnose(toy, FINE, pb.Finding(subject="new", severity=9))  # type: ignore[arg-type]
    assert coherd("doctor").exit_code == 1, "what nobody knows is no good news"


def test_as_json_they_are_objects(toy: ToyAgent) -> None:
    diagnose(toy, FINE, WARNING)
    result = coherd("doctor", "-o", "json")
    assert result.exit_code == 3
    fine, warning = json.loads(result.stdout)["findings"]
    assert fine == {
        "subject": "seed",
        "name": "10.0.0.11:4373",
        "severity": "ok",
        "text": "cache-1, coherd 0.1.0",
        "remedy": "",
    }
    assert (warning["severity"], warning["remedy"]) == ("warning", "check `key` of this handler")


def test_a_file_is_checked_too(toy: ToyAgent, tmp_path: Path) -> None:
    diagnose(toy, FINE)
    file = tmp_path / "coherd.toml"
    file.write_text('name = "a"\nlsten = "127.0.0.1:1"\n')
    result = coherd("doctor", "--local", toy.address, "--config", file)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0].startswith("config  error    ")
    assert "lsten" in result.stdout
    assert "cache-1, coherd 0.1.0" in result.stdout, "the agent was asked all the same"
    assert coherd("doctor", "--config", tmp_path / "missing").exit_code == 1


class TestWhereNoAgentAnswers:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "run" / "coherd.sock"

    @pytest.fixture
    def file(self, tmp_path: Path, path: Path) -> Path:
        file = tmp_path / "coherd.toml"
        file.write_text(f'name = "a"\nlocal = ["unix:{path}"]\ndata_dir = "{tmp_path}/data"\n')
        return file

    def test_a_missing_socket(self, path: Path) -> None:
        result = coherd("doctor", "--local", f"unix:{path}")
        assert result.exit_code == 4
        assert "the socket is missing, and so is its directory" in result.stdout
        assert "-> start it with `coherd agent" in result.stdout
        path.parent.mkdir()
        result = coherd("doctor", "--local", f"unix:{path}")
        assert "the socket is missing\n" in result.stdout

    def test_a_socket_that_was_left_over_and_is_found_by_the_settings(
        self, path: Path, file: Path
    ) -> None:
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        path.chmod(0o666)
        result = coherd("doctor", "--config", file, "-o", "json")
        assert result.exit_code == 4
        config, rights, agent, process = json.loads(result.stdout)["findings"]
        assert (config["subject"], config["severity"]) == ("config", "ok")
        assert (rights["severity"], rights["remedy"]) == ("warning", f"chmod o= {path}")
        assert "left over from an agent that was killed" in agent["text"]
        assert (process["severity"], process["text"]) == (
            *("ok", "no agent holds the data directory"),
        )

    def test_an_agent_that_runs_and_does_not_answer_there(self, tmp_path: Path, file: Path) -> None:
        with locked(tmp_path / "data", "a"):
            result = coherd("doctor", "--config", file, "-o", "json")
        *_, process = json.loads(result.stdout)["findings"]
        assert process["severity"] == "error"
        assert process["text"] == f"agent a, pid {os.getpid()} runs, and does not answer"

    def test_a_port(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
            result = coherd("doctor", env={"COHERD_ADDRESS": address})
        assert result.exit_code == 4
        assert "nobody answers (connection refused)" in result.stdout
