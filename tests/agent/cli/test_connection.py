"""Where the command line looks for the agent, and what it says when a call fails."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import grpc
import pytest
from certificates import Authority, identity
from toy_agent import ToyAgent, coherd, serving

from coherd.cli.connection import connect, failure, find
from coherd.config import Address
from coherd.errors import ConfigError

REMEDY = (
    "Is it running? Start it with `coherd agent --config FILE`, or say where it is with --local\n"
)


def test_a_flag_wins_over_the_variable_and_that_over_the_default(
    tmp_path: Path, toy: ToyAgent
) -> None:
    others = [ToyAgent(), ToyAgent()]
    with serving(others[0], tmp_path / "0") as zero, serving(others[1], tmp_path / "1") as one:
        coherd("members")
        coherd("members", env={"COHERD_ADDRESS": ""})
        coherd("members", env={"COHERD_ADDRESS": zero})
        coherd("members", "--local", one, env={"COHERD_ADDRESS": zero})
    assert [len(agent.asked) for agent in (toy, *others)] == [2, 1, 1]


def test_the_default_is_where_agents_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COHERD_ADDRESS", raising=False)
    assert str(find(None)) == "unix:/run/coherd/coherd.sock"
    assert find("localhost:80") == Address("localhost", 80)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("/run/x", '--local: write "unix:/run/x" for a unix socket\n'),
        ("localhost", "--local: 'localhost': the port is missing; write \"HOST:PORT\"\n"),
        ("localhost:0", "--local: port 0 cannot be dialled; write the port of the agent\n"),
    ],
)
def test_an_address_that_is_none_is_told_with_its_source(address: str, text: str) -> None:
    result = coherd("status", "--local", address)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", text)
    result = coherd("status", env={"COHERD_ADDRESS": address})
    assert result.stderr == text.replace("--local", "COHERD_ADDRESS", 1)


@pytest.mark.parametrize(
    "arguments", [("status",), ("members",), ("invalidate", "shop", "k"), ("watch", "shop")]
)
def test_no_agent_is_one_line_with_the_reason_and_exit_code_4(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    address = f"unix:{tmp_path}/s"
    result = coherd(
        *arguments,
        "-o",
        "jsonl" if arguments[0] == "watch" else "json",
        env={"COHERD_ADDRESS": address},
    )
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == f"no agent answers at {address} (no such file). {REMEDY}"


def test_the_reason_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as tcp:
        unix.bind(str(tmp_path / "stale"))
        tcp.bind(("127.0.0.1", 0))
        places = {
            f"unix:{tmp_path}/file": "it is no socket",
            f"unix:{tmp_path}/stale": "connection refused",
            f"127.0.0.1:{tcp.getsockname()[1]}": "connection refused",
        }
        for address, reason in places.items():
            result = coherd("members", "--local", address)
            assert result.exit_code == 4
            assert result.stderr == f"no agent answers at {address} ({reason}). {REMEDY}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_socket_of_others_is_denied(tmp_path: Path, toy: ToyAgent) -> None:
    (tmp_path / "s").chmod(0)
    result = coherd("members")
    assert result.exit_code == 5
    assert "may not be opened (permission denied): use an account of the socket's group" in (
        result.stderr
    )


@pytest.mark.parametrize(
    ("code", "exit_code", "text"),
    [
        ("INVALID_ARGUMENT", 2, "refused: because"),
        ("NOT_FOUND", 6, "not found: because"),
        ("PERMISSION_DENIED", 5, "the agent at {} does not allow this: because"),
        ("UNAUTHENTICATED", 5, "the agent at {} does not know who asks: because"),
        (
            "UNAVAILABLE",
            4,
            (
                "the agent at {} ended the call (because); it may be stopping: try again. "
                "Does it ask for a certificate? Name yours with --cert"
            ),
        ),
        (
            "DEADLINE_EXCEEDED",
            3,
            "the agent at {} did not answer in time; its log may say why: try again",
        ),
        ("INTERNAL", 1, "the agent at {} failed: INTERNAL: because; its log may say more"),
    ],
)
def test_a_status_is_a_line_with_the_remedy(
    toy: ToyAgent, code: str, exit_code: int, text: str
) -> None:
    toy.refusals = [(grpc.StatusCode[code], "because")]
    result = coherd("members")
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr == text.format(toy.address) + "\n"


def test_what_does_not_know_the_call_is_no_agent_or_an_older_one() -> None:
    text = str(failure(Address("a", 1), "UNIMPLEMENTED", "Method not found!"))
    assert text.startswith("what answers at a:1 does not know this call")


def test_what_an_agent_says_stays_on_one_line(toy: ToyAgent) -> None:
    toy.refusals = [(grpc.StatusCode.NOT_FOUND, "a\nb\x1b[31m")]
    assert coherd("members").stderr == "not found: a\\nb\\x1b[31m\n"


@pytest.mark.parametrize(
    ("address", "with_certificate", "is_sent"),
    [
        ("127.0.0.1:1", False, True),
        ("localhost:1", False, True),
        ("[::1]:1", False, True),
        ("192.0.2.1:1", True, True),
        ("192.0.2.1:1", False, False),
        ("cache-1.example.org:1", False, False),
    ],
)
def test_the_secret_goes_nowhere_in_clear(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    *,
    with_certificate: bool,
    is_sent: bool,
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef")
    monkeypatch.setenv("COHERD_TOKEN_FILE", str(secret))
    if with_certificate:
        files = Authority(tmp_path).issue(identity("operator/ann"))
        for name, path in (("CERT", files.cert), ("CA", files.ca), ("KEY", files.key)):
            monkeypatch.setenv(f"COHERD_{name}", str(path))
    carried: list[grpc.Channel] = []

    def carry(channel: grpc.Channel, *_interceptors: object) -> grpc.Channel:
        carried.append(channel)
        return channel

    monkeypatch.setattr(grpc, "intercept_channel", carry)
    if is_sent:
        with connect(address):
            assert len(carried) == 1
    else:
        refused = pytest.raises(ConfigError, match=r"COHERD_TOKEN_FILE: .* in clear: .* --cert")
        with refused, connect(address):
            pass
        assert not carried
        monkeypatch.setenv("COHERD_TOKEN_FILE", "")
        with connect(address):
            assert not carried
