"""Agents as real processes: started, stopped, killed, cut off; and what tests ask them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from integration.polling import poll
from integration.proxy import Proxy
from servers import free_port

from coherd.v1 import admin_service_pb2 as admin
from coherd.v1 import admin_service_pb2_grpc as admin_grpc
from coherd.v1 import cache_service_pb2 as cache
from coherd.v1 import cache_service_pb2_grpc as cache_grpc
from coherd.v1 import types_pb2 as types

CALL_TIMEOUT = 60.0


class AgentProcess:
    """One agent with a folder, a port and a socket that it keeps over restarts."""

    def __init__(self, folder: Path, name: str, settings: str, proxy: Proxy | None) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self.proxy = proxy
        self.process: subprocess.Popen[bytes] | None = None
        self.socket = self.folder / "coherd.sock"
        self.settings = settings
        self.cluster = "test"
        self.data = self.folder / "data"
        self.seeds: list[str] = []
        self.program = [sys.executable, "-m", "coherd"]
        self.wrapper: list[str] = []
        """A command that becomes the agent."""
        self.local = ""
        self.asking_port = 0
        """Where it asks clients for certificates, to be set before it starts; 0: nowhere."""
        self.http = ""
        """An address, to be set before it starts; off, lest agents of other tests be in its way."""
        self._channel: grpc.Channel | None = None
        self._log_before = 0

    @property
    def address(self) -> str:
        """Where peers reach it: through its proxy, if it has one."""
        return f"127.0.0.1:{self.proxy.port if self.proxy else self.port}"

    @property
    def config(self) -> Path:
        return self.folder / "coherd.toml"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def command(self) -> list[str]:
        return [*self.wrapper, *self.program, "agent", "--config", str(self.config)]

    def write_config(self) -> None:
        seeds = ", ".join(f'"{seed}"' for seed in self.seeds)
        local = [f'"{self.local or f"unix:{self.socket}"}"']
        if self.asking_port:
            local.append(f'"0.0.0.0:{self.asking_port}"')
        advertise = f'advertise = "{self.address}"' if self.proxy else ""
        self.config.write_text(
            f'name = "{self.name}"\ncluster = "{self.cluster}"\nlisten = "127.0.0.1:{self.port}"\n'
            f'{advertise}\njoin = [{seeds}]\ndata_dir = "{self.data}"\n'
            f'local = [{", ".join(local)}]\nhttp = "{self.http}"\n{self.settings}\n'
        )

    def spawn(self) -> None:
        """Start it without waiting."""
        self.write_config()
        self._log_before = len(self.log) if (self.folder / "log").exists() else 0
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.spawn()
        poll(self.answers, f"agent {self.name}")

    def refused(self) -> str:
        """Start what must not start: give the one line it says."""
        self.spawn()
        return self.was_refused()

    def was_refused(self) -> str:
        """Wait for its end: give the one line that it said beside its log."""
        code = self.ended()
        said = [line for line in self.log[self._log_before :].splitlines() if line[:1] != "{"]
        assert code == 1, said
        assert len(said) == 1, said
        return said[0]

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            self.status(timeout=1.0)
        except grpc.RpcError:
            self._forget_channel()
            return False
        return True

    def stop(self) -> int:
        """Ask it to stop, and give its exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.ended()

    def ended(self, timeout: float = 30.0) -> int:
        """Wait for its end, and give its exit code."""
        assert self.process is not None
        code = self.process.wait(timeout)
        self.process = None
        self._forget_channel()
        return code

    def _forget_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @property
    def channel(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = grpc.insecure_channel(f"unix:{self.socket}")
        return self._channel

    # ---------------------------------------------------------------- what it is asked

    def invalidate(self, namespace: str = "shop", **fields: Any) -> cache.Receipt:
        """Invalidate; `timeout` in seconds."""
        if isinstance(timeout := fields.get("timeout"), int | float):
            fields["timeout"] = seconds(timeout)
        request = cache.InvalidateRequest(namespace=namespace, **fields)
        stub = cache_grpc.CacheServiceStub(self.channel)
        return stub.Invalidate(request, timeout=CALL_TIMEOUT).receipt

    def receipt(self, dots: Sequence[Any], timeout: float = 5) -> cache.Receipt:
        request = cache.GetReceiptRequest(dots=dots, timeout=seconds(timeout))
        return cache_grpc.CacheServiceStub(self.channel).GetReceipt(request, timeout=30).receipt

    def status(self, timeout: float = 5.0) -> admin.GetStatusResponse:
        stub = admin_grpc.AdminServiceStub(self.channel)
        return stub.GetStatus(admin.GetStatusRequest(), timeout=timeout)

    def members(self) -> list[types.Member]:
        stub = admin_grpc.AdminServiceStub(self.channel)
        return list(stub.ListMembers(admin.ListMembersRequest(), timeout=5).members)

    def member(self, name: str) -> types.Member:
        """How it sees one of them."""
        (found,) = (member for member in self.members() if member.name == name)
        return found

    def states(self) -> dict[str, str]:
        """How it sees everybody it knows, itself included."""
        return {m.name: types.MemberState.Name(m.state)[13:].lower() for m in self.members()}

    def health(self, service: str = "") -> str:
        """What the standard health service says."""
        request = health_pb2.HealthCheckRequest(service=service)
        answer = health_pb2_grpc.HealthStub(self.channel).Check(request, timeout=5)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def namespace(self, name: str = "shop") -> admin.NamespaceStatus:
        found = [each for each in self.status().namespaces if each.namespace == name]
        return found[0] if found else admin.NamespaceStatus()

    def is_ready_with(self, alive: int) -> bool:
        status = self.status()
        return status.ready and status.members_alive == alive

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Ask over HTTP: give the status and the body."""
        connection = HTTPConnection(self.http, timeout=10)
        with closing(connection):
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def watch(self, requests: Iterator[cache.WatchRequest]) -> Any:
        return cache_grpc.CacheServiceStub(self.channel).Watch(requests)


def seconds(number: float) -> Duration:
    """Write a duration."""
    return Duration(seconds=int(number), nanos=int(number % 1 * 1e9))


@contextmanager
def cluster(
    folder: Path,
    names: Sequence[str],
    settings: dict[str, str] | None = None,
    *,
    proxies: bool = False,
    http: bool = False,
    asking: dict[str, int] | None = None,
) -> Iterator[list[AgentProcess]]:
    """Run agents that know each other; give them once everybody is ready and sees everybody.

    `settings`: more TOML for single agents, by name; `asking`: their ports that ask for certificates.
    """
    agents: list[AgentProcess] = []
    try:
        for name in names:
            agent = AgentProcess(folder, name, (settings or {}).get(name, ""), None)
            agent.asking_port = (asking or {}).get(name, 0)
            if http:
                agent.http = f"127.0.0.1:{free_port()}"
            if proxies:
                agent.proxy = Proxy(agent.port, agents)
            agents.append(agent)
        for agent in agents:
            agent.seeds = [other.address for other in agents]
            agent.spawn()
        for agent in agents:
            poll(agent.answers, f"agent {agent.name}")
        wait_until_whole(agents)
        yield agents
    finally:
        for agent in agents:
            agent.kill()
            if agent.proxy is not None:
                agent.proxy.close()


@contextmanager
def lone(folder: Path, name: str = "a", settings: str = "") -> Iterator[AgentProcess]:
    """Give an agent that nobody has started yet; whatever became of it is ended."""
    agent = AgentProcess(folder, name, settings, None)
    try:
        yield agent
    finally:
        agent.kill()


def coherd(agent: AgentProcess, *arguments: str) -> tuple[int, str, str]:
    """Run the command against an agent: exit code, standard output, standard error."""
    command = [sys.executable, "-m", "coherd", *arguments, "--local", f"unix:{agent.socket}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def wait_until_whole(agents: Sequence[AgentProcess], timeout: float = 30.0) -> None:
    """Wait until every agent is ready and sees all the others."""
    for agent in agents:
        poll(
            lambda a=agent: a.is_ready_with(len(agents)),
            f"{agent.name} to be ready among {len(agents)}: {list(agent.status().reasons)}",
            timeout,
        )


def redis_settings(url: str) -> str:
    """Give the settings of a handler for namespace `shop`."""
    return (
        f'[[handlers]]\nkind = "redis"\nurl = "{url}"\nnamespaces = ["shop"]\n'
        'key = "shop:{key}"\ntag = "tag:shop:{tag}"\n'
    )
