"""The hosts of a soak: an agent behind a proxy, a Redis and an application each."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import redis
from integration.agents import AgentProcess, redis_settings, wait_until_whole
from integration.polling import poll
from servers import RedisServer, free_port, redis_server
from soak.filling import Filler, connect, names
from soak.proxying import ProxyProcess, RemoteProxy
from soak.truth import now

HERE = Path(__file__).parent
CACHE_TIMEOUT = 0.5
"""Seconds that a probe waits for a Redis."""
SNAPSHOTS_MAX = 4
KEYS_AT_ONCE = 1_000
START_TIMEOUT = 60.0
FAILURE_CHARACTERS_MAX = 300


class SoakedAgent(AgentProcess):
    """An agent, or with `bug` one of those that the soak must find out."""

    bug = ""
    proxy: RemoteProxy

    @property
    def pid_file(self) -> Path:
        """Where its proxies find the id of its process."""
        return self.folder / "pid"

    def spawn(self) -> None:
        super().spawn()
        assert self.process is not None
        self.pid_file.write_text(str(self.process.pid))

    @property
    def command(self) -> list[str]:
        command = super().command
        if not self.bug:
            return command
        return [sys.executable, str(HERE / "planted_agent.py"), self.bug, *command[3:]]


class Mark(NamedTuple):
    """How a host's Redis was at a moment."""

    data: int
    """Counts the replacements of its data, up by one when each begins and when it is over."""
    away_since: int | None
    """Since when it answers nobody; None while it may answer."""


class Host:
    """One host, and the locks that keep two faults from taking the same part of it."""

    def __init__(self, agent: SoakedAgent, server: RedisServer) -> None:
        self.name = agent.name
        self.agent = agent
        self.server = server
        self.agent_part = threading.Lock()
        self.redis_part = threading.Lock()
        self.calls = threading.Lock()
        """Held during every call of the load, and while none must be under way."""
        self.is_up = threading.Event()
        """Whether the agent runs, as far as the soak knows."""
        self.peak_rss = 0
        """Bytes."""
        self._resets: dict[int, Counter[str]] = {}
        self.cache = connect(server.port, CACHE_TIMEOUT)
        """For probes: they open no connection each time, ports would be short."""
        self._log_read = 0
        self._data = 0
        self._away_since: int | None = None
        self._snapshots: list[Path] = []
        self._copies = 0
        self._copied = agent.folder / "older-data"
        self._filler: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------------ the application

    def start_filling(self, keys: int, rate: int, seed: int) -> None:
        """Fill the cache, and let an application keep it filled from now on."""
        with self.client(timeout=30.0) as client:
            filler, missing = Filler(client), names(keys)
            for start in range(0, keys, KEYS_AT_ONCE):
                filler.fill(missing[start : start + KEYS_AT_ONCE])
        numbers = (self.server.port, keys, rate, seed)
        self._filler = subprocess.Popen(
            [sys.executable, "-m", "soak.filling", *map(str, numbers)],
            stdin=subprocess.PIPE,
            cwd=HERE.parent,
        )

    def stop_filling(self) -> None:
        if self._filler is not None:
            assert self._filler.stdin is not None
            self._filler.stdin.close()
            assert self._filler.wait(30) == 0
            self._filler = None

    # ------------------------------------------------------------------ the agent

    def start_agent(self) -> None:
        """Start the agent and wait until it answers."""
        self.agent.spawn()
        poll(self.agent.answers, f"agent {self.name}", START_TIMEOUT)
        self.is_up.set()

    def end_agent(self, end: Callable[[], object]) -> None:
        """End the agent in the given way; afterwards nobody calls it any more."""
        self.is_up.clear()
        self.note_figures()
        end()

    def note_figures(self) -> None:
        """Remember the resets of this life of the agent, and the most memory that it took."""
        if self.agent.process is None or self.agent.process.poll() is not None:
            return
        lines = Path(f"/proc/{self.agent.process.pid}/status").read_text().splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM"))
        self.peak_rss = max(self.peak_rss, int(peak.split()[1]) * 1024)
        try:
            status = self.agent.status(timeout=1.0)
        except grpc.RpcError:
            return
        resets = self._resets[status.me.epoch] = Counter()
        for namespace in status.namespaces:
            resets.update(namespace.resets)
        resets["cache-cursor"] = sum(handler.resets for handler in status.handlers)

    def failures(self) -> list[str]:
        """Give what the agent's log says since the last time of errors that nobody foresaw."""
        with (self.agent.folder / "log").open() as log:
            log.seek(self._log_read)
            lines = log.readlines()
            self._log_read = log.tell()
        # A traceback in a line of the log, or bare in several: the last of its lines says most.
        return [
            f"the log of {self.name}: {line.strip()[-FAILURE_CHARACTERS_MAX:]}"
            for line in lines
            if '"exception"' in line or not line.startswith("{")
        ]

    @property
    def resets(self) -> Counter[str]:
        """The resets of all lives by cause, those of the last moments of a life perhaps not."""
        return sum(self._resets.values(), Counter())

    def copy_data(self) -> None:
        """Keep a copy of the agent's data directory, while the agent is down."""
        shutil.rmtree(self._copied, ignore_errors=True)
        shutil.copytree(self.agent.data, self._copied)

    @property
    def has_copied_data(self) -> bool:
        return self._copied.exists()

    def delete_data(self) -> None:
        shutil.rmtree(self.agent.data)

    def restore_data(self) -> None:
        """Put the older copy of the data directory in the place of the newest."""
        self.delete_data()
        shutil.copytree(self._copied, self.agent.data)

    # ------------------------------------------------------------------ its Redis

    def client(self, timeout: float) -> redis.Redis:
        """Give a client of its own."""
        return connect(self.server.port, timeout)

    def mark(self) -> Mark:
        return Mark(self._data, self._away_since)

    @contextmanager
    def replacing_data(self) -> Iterator[None]:
        """Note that what is in the Redis is replaced by something else."""
        self._data += 1
        try:
            yield
        finally:
            self._data += 1

    @contextmanager
    def redis_frozen(self) -> Iterator[None]:
        """Let the Redis hang."""
        process = self.server.process
        assert process is not None
        self.server.freeze()
        state = Path(f"/proc/{process.pid}/stat")
        poll(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "it to hang")
        self._away_since = now()
        try:
            yield
        finally:
            self._away_since = None
            self.server.thaw()

    @contextmanager
    def redis_down(self) -> Iterator[None]:
        """Kill the Redis, with what it held; start it with the dump that lies in its folder then."""
        with self.replacing_data():
            self.server.kill()
            self.server.dump.unlink(missing_ok=True)
            self._away_since = now()
            try:
                yield
            finally:
                self._away_since = None
                self.server.start()

    def snapshot(self) -> None:
        """Save what the Redis holds, and keep some of the older dumps."""
        with self.client(timeout=10.0) as client:
            client.save()
        self._copies += 1
        kept = self.server.folder / f"older-{self._copies}.rdb"
        shutil.copy(self.server.dump, kept)
        self._snapshots.append(kept)
        if len(self._snapshots) > SNAPSHOTS_MAX:
            self._snapshots.pop(0).unlink()

    @property
    def snapshots(self) -> Sequence[Path]:
        """Older dumps, the oldest first."""
        return self._snapshots

    def place(self, snapshot: Path) -> None:
        """Lay an older dump where the Redis will load it from."""
        shutil.copy(snapshot, self.server.dump)

    def copies(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Give those of some keys that its Redis holds, each with the time it was filled."""
        found = {}
        with self.client(timeout=30.0) as client:
            for start in range(0, len(keys), KEYS_AT_ONCE):
                part = keys[start : start + KEYS_AT_ONCE]
                values = client.mget([b"shop:" + key for key in part])
                found.update({k: int(v) for k, v in zip(part, values, strict=True) if v})
        return found

    # ------------------------------------------------------------------ the end

    def end(self) -> None:
        """End everything but the Redis, in whatever state it is."""
        self.agent.kill()
        if self._filler is not None:
            self._filler.kill()
            self._filler.communicate()
        self.cache.close()


@contextmanager
def soaked_hosts(
    folder: Path, count: int, settings: str = "", bugs: Sequence[str] = ()
) -> Iterator[list[Host]]:
    """Run hosts that know each other; give them once all are ready. `bugs`: of the first agents."""
    with ExitStack() as stack:
        hosts: list[Host] = []
        agents: list[SoakedAgent] = []
        for n in range(count):
            name = f"cache-{n + 1}"
            server = stack.enter_context(redis_server(folder / f"redis-{n + 1}"))
            agent = SoakedAgent(folder, name, settings + redis_settings(server.url), None)
            agent.bug = bugs[n] if n < len(bugs) else ""
            agent.http = f"127.0.0.1:{free_port()}"
            agents.append(agent)
            host = Host(agent, server)
            stack.callback(host.end)
            hosts.append(host)
        pid_files = {agent.name: agent.pid_file for agent in agents}
        proxying = ProxyProcess([agent.port for agent in agents], pid_files)
        stack.callback(proxying.close)
        for agent, proxy in zip(agents, proxying.proxies, strict=True):
            agent.proxy = proxy
        for agent in agents:
            agent.seeds = [each.address for each in agents]
            agent.spawn()
        for host in hosts:
            poll(host.agent.answers, f"agent {host.name}", START_TIMEOUT)
        wait_until_whole(agents, START_TIMEOUT)
        for host in hosts:
            host.is_up.set()
        yield hosts
