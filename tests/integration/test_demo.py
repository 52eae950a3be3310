"""`coherd demo` as people and scripts run it: what it says, how it ends, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from integration.polling import poll
from servers import require

from coherd.cli.demo.script import Keys, Result

COHERD = [sys.executable, "-m", "coherd"]
DEMO = [*COHERD, "demo"]
FIELDS = ["hosts", "invalidations", "repaired", "stale_left", "resets", "seconds"]
TIMEOUT = 60


class Place:
    """A folder that the demo runs in and keeps its files in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "tmp"
        self.files.mkdir()
        self.environment = {**os.environ, "TMPDIR": str(self.files)}

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*DEMO, *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [*DEMO, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as demo:
            try:
                yield demo
            finally:
                demo.kill()
                for pid in self.processes():
                    os.kill(pid, signal.SIGKILL)

    def processes(self, name: str = "") -> list[int]:
        """Give what runs in the folder, by what its command line names."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                is_here = (entry / "cwd").readlink().is_relative_to(self.folder)
                if is_here and name in (entry / "cmdline").read_bytes().decode():
                    found.append(int(entry.name))
        return found

    def assert_nothing_is_left(self) -> None:
        assert self.processes() == []
        assert list(self.files.iterdir()) == []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def read_until(demo: subprocess.Popen[str], text: str) -> str:
    """Read lines of its output up to one that contains `text`."""
    assert demo.stdout is not None
    seen = ""
    for line in demo.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"ended without {text!r}:\n{seen}\n{demo.communicate()[1]}")


def assert_good(output: str, invalidations: int = 378, repaired: int = 300) -> None:
    result = json.loads(output)
    assert list(result) == FIELDS
    assert result["hosts"] == 3
    assert result["invalidations"] == invalidations
    assert result["repaired"] >= repaired  # what was not committed at the kill is fetched again
    assert result["stale_left"] == result["resets"] == 0
    assert 0 < result["seconds"] < 30


def test_a_script_gets_one_object_and_nothing_else(place: Place) -> None:
    done = place.run("-o", "json", COHERD_NAME="another", COHERD_JOIN="192.0.2.1:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert_good(done.stdout)
    place.assert_nothing_is_left()


@pytest.mark.parametrize("arguments", [[], ["--redis", "--keys", "20000"]])
def test_people_get_calm_lines_of_at_most_80_columns(place: Place, arguments: list[str]) -> None:
    if arguments:
        require("redis-server")
    done = place.run(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    text = done.stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    missed = "10,000" if arguments else "300"
    for line in (
        r"  key user:42 +cache-1 +[0-9.]+ ms ✓ +[0-9.]+ ms ✓ +[0-9.]+ ms ✓",
        r"  tag vip, [0-9,]+ keys +cache-2 +[0-9.]+ ms ✓ +[0-9.]+ ms ✓ +[0-9.]+ ms ✓",
        r"  prefix cart:, [0-9,]+ keys +cache-3 +[0-9.]+ ms ✓ +[0-9.]+ ms ✓ +[0-9.]+ ms ✓",
        r"  [0-9]+ single keys, median +cache-1 +[0-9.]+ ms ✓ +[0-9.]+ ms ✓ +[0-9.]+ ms ✓",
        r"kill -9 cache-3: its agent is gone, its cache serves on\.",
        r"  receipt … applied by cache-1, cache-2; missing: cache-3( \((?:suspect|dead)\))?",
        rf"  cache-3 still holds {missed} stale copies\.",
        rf"  cache-3  ● killed .* copies, {missed} stale",
        r"  after [0-9.]+ m?s  [0-9,]+ rows fetched from the others, the last stale copy is gone",
        r"  receipt ✓ applied by cache-1, cache-2, cache-3",
        r"✓ 3 hosts, [0-9,]+ invalidations, [0-9,]+ repaired, 0 stale left, 0 resets, .* s",
    ):
        assert re.search(f"^{line}$", text, re.MULTILINE), line
    place.assert_nothing_is_left()


def test_redis_servers_are_emptied_and_ended(place: Place) -> None:
    require("redis-server")
    done = place.run("--redis", "-o", "json", "--keys", "100")
    assert (done.returncode, done.stderr) == (0, "")
    assert_good(done.stdout, invalidations=65, repaired=50)
    place.assert_nothing_is_left()


def test_a_missing_redis_server_is_one_line_with_the_remedy(place: Place) -> None:
    done = place.run("--redis", "-o", "json", PATH="/nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "apt-get install redis-server" in done.stderr
    place.assert_nothing_is_left()


def test_a_terminal_shows_the_hosts_live(place: Place) -> None:
    master, slave = pty.openpty()
    environment = place.environment | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "40"}
    demo = subprocess.Popen(
        DEMO, cwd=place.folder, env=environment, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    text = b""
    with suppress(OSError):  # what reading gives once nobody writes any more
        while data := os.read(master, 65536):
            text += data
    os.close(master)
    assert demo.wait(timeout=TIMEOUT) == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())
    assert "● starting" in shown
    assert "copies, 300 stale" in shown
    assert "0 stale left" in shown
    assert text.endswith(b"\n")
    assert text.rindex(b"\x1b[?25h") > text.rindex(b"\x1b[?25l"), "the cursor is visible again"
    place.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("number", "after"),
    [(signal.SIGINT, "Three agents"), (signal.SIGTERM, "kill -9"), (signal.SIGHUP, "key user:42")],
)
def test_a_signal_ends_everything(place: Place, number: signal.Signals, after: str) -> None:
    with place.running() as demo:
        read_until(demo, after)
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=TIMEOUT)
        assert demo.returncode == 128 + number
        assert errors == "stopped before the end; nothing is left behind\n"
        place.assert_nothing_is_left()


def test_an_agent_that_dies_is_named_with_the_end_of_its_log(place: Place) -> None:
    with place.running("--keep") as demo:
        read_until(demo, "Ctrl-C")
        (pid,) = place.processes("cache-2.d")
        os.kill(pid, signal.SIGKILL)
        _, errors = demo.communicate(timeout=TIMEOUT)
        assert demo.returncode == 1
        first, *log, last = errors.splitlines()
        assert first == "the last lines of the log of cache-2:"
        assert log
        assert all(line.startswith('  {"') for line in log)
        assert last.startswith("cache-2 was ended by signal 9: ")
        place.assert_nothing_is_left()


def test_what_is_kept_can_be_talked_to_until_ctrl_c(place: Place) -> None:
    with place.running("--keep") as demo:
        text = read_until(demo, "watch shop")
        read_until(demo, "--local")
        (address,) = set(re.findall(r"unix:\S+", text))
        (key,) = re.findall(r"invalidate shop (\S+)", text)
        command = ["invalidate", "shop", key, "--wait", "region", "--local", address]
        done = subprocess.run([*COHERD, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        told = {demo.stdout.readline() for _ in range(4)} if demo.stdout else set()
        assert told == {"\n", *(f"cache-{n} dropped {key}\n" for n in (1, 2, 3))}
        demo.send_signal(signal.SIGINT)
        assert demo.communicate(timeout=TIMEOUT) == ("", "")
        assert demo.returncode == 0
        place.assert_nothing_is_left()


def test_a_copy_that_stays_stale_is_counted_and_is_a_failure(place: Place) -> None:
    program = """
from coherd.__main__ import main
from coherd.cli.demo import caches, script
script.REPAIR_PATIENCE = 1.0
apply = caches.MemoryCache._apply
def forgetful(self, changes):
    kept = "user:1" in self._entries and self._agent.name == "cache-3"
    apply(self, changes)
    if kept:
        self._entries["user:1"] = frozenset()
        self.drops.at.pop("user:1", None)
caches.MemoryCache._apply = forgetful
main()
"""
    for form, said in (("json", '"stale_left": 1,'), ("text", "✗ 3 hosts, 378 invalidations, ")):
        done = subprocess.run(
            [sys.executable, "-c", program, "demo", "-o", form],
            cwd=place.folder,
            env=place.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, "")
        assert said in done.stdout
    assert "1 stale left" in done.stdout
    place.assert_nothing_is_left()


def test_a_reader_that_goes_away_ends_it(place: Place) -> None:
    with place.running() as demo:
        read_until(demo, "Three agents")
        assert demo.stdout is not None
        demo.stdout.close()
        assert demo.wait(timeout=TIMEOUT) == 1
        assert demo.stderr is not None
        assert "Traceback" not in demo.stderr.read()
        poll(lambda: not place.processes(), "everything to be ended")
        place.assert_nothing_is_left()


@pytest.mark.parametrize("count", [100, 101, 117, 600, 999, 20_000])
def test_every_key_has_one_part_to_play(count: int) -> None:
    keys = Keys.of(count)
    parts = [[keys.key], keys.tagged, keys.prefixed, keys.burst, keys.missed, keys.kept]
    assert all(parts)
    assert len(keys.entries) == count
    assert sorted(key for part in parts for key in part) == sorted(keys.entries)
    assert len(keys.missed) == count // 2
    assert {key for key, tags in keys.entries.items() if tags} == set(keys.tagged)
    assert all(key.startswith(keys.prefix) for key in keys.prefixed)


@pytest.mark.parametrize(
    ("repaired", "stale", "good"), [(1, 0, True), (0, 0, False), (1, 1, False)]
)
def test_only_a_repair_that_left_nothing_stale_is_good(
    repaired: int, stale: int, good: bool
) -> None:
    assert Result(3, repaired=repaired, stale_left=stale).is_good == good
