"""`coherd demo`: watch three agents keep their caches coherent, also after one of them was killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING

import click

from coherd.cli.exit_codes import ExitCode
from coherd.cli.output import count_of, output_option, print_json, say, tell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    import trio

    from coherd.cli.demo.script import Result
    from coherd.cli.demo.show import Host, Show
    from coherd.net.bridge import Bridge

NAMES = ("cache-1", "cache-2", "cache-3")
TIME_LIMIT = 30.0
"""Seconds after which the demo gives up."""
TEMPORARY_PATH_MAX = 80
"""Characters of a directory in which unix sockets find room: their paths have at most 107."""
SHOWN_MAX = 3
"""Keys of one line."""


@click.command()
@click.option("--redis", is_flag=True, help="Real redis-servers as the caches.")
@click.option("--keep", is_flag=True, help="Leave it all running afterwards, until Ctrl-C.")
@click.option(
    "--keys",
    type=click.IntRange(100, 20_000),
    default=600,
    show_default=True,
    help="How many keys each cache is filled with.",
)
@output_option("text", "json")
@click.pass_context
def demo(ctx: click.Context, *, redis: bool, keep: bool, keys: int, as_json: bool) -> None:
    """Watch three agents keep their caches coherent, also after one of them was killed.

    They are real processes on this machine, each with a cache: in the memory of the demo itself, or with
    --redis a redis-server each. Nothing else is touched, and nothing is left behind. Takes some ten
    seconds; exits with 0 only if the killed agent caught up and no stale copy was left anywhere.
    """
    began = time.monotonic()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines are none of ours
    import trio

    from coherd import logs
    from coherd.cli.demo.show import PlainShow, Show, TerminalShow

    logs.configure("critical")
    is_live = sys.stdout.isatty() and os.environ.get("TERM") not in {None, "dumb", "unknown"}
    show = Show() if as_json else TerminalShow() if is_live else PlainShow()
    performance = Performance(show, began, keys, is_redis=redis, is_kept=keep, as_json=as_json)
    try:
        trio.run(performance.run)
    except BaseExceptionGroup as group:
        raise _leaf(group) from None
    if performance.stopped_by:
        tell("stopped before the end; nothing is left behind")
        ctx.exit(128 + performance.stopped_by)
    ctx.exit(performance.code)


class Performance:
    """One run of the demo."""

    def __init__(
        self, show: Show, began: float, keys: int, *, is_redis: bool, is_kept: bool, as_json: bool
    ) -> None:
        self._show = show
        self._began = began
        self._keys = keys
        self._is_redis = is_redis
        self._is_kept = is_kept
        self._as_json = as_json
        self.code = int(ExitCode.FAILED)
        self.stopped_by = 0
        """The signal that ended it before it was done."""
        self._is_done = False

    async def run(self) -> None:
        """Run it; whatever it starts and writes is gone at the end, whatever that comes from."""
        import trio

        from coherd.cli.demo.processes import ended
        from coherd.net.bridge import open_bridge

        with _folder() as folder, trio.open_signal_receiver(*_signals()) as signals:
            async with open_bridge() as bridge:
                hosts = self._hosts(bridge, folder)
                children = [c for h in hosts for c in (h.agent.child, *h.cache.children)]
                async with ended(children), trio.open_nursery() as nursery:
                    nursery.start_soon(self._stop_at, signals, nursery.cancel_scope)
                    result = await self._perform(hosts, nursery)
                    self._is_done = True
                    self.code = int(ExitCode.DONE if result.is_good else ExitCode.FAILED)
                    if self._is_kept:
                        self._tell_how_to_talk(hosts)
                        await trio.sleep_forever()
                    nursery.cancel_scope.cancel()

    def _hosts(self, bridge: Bridge, folder: Path) -> list[Host]:
        """Set up three hosts; nothing is started yet. Raises DemoFailed."""
        from coherd.cli.demo.agents import DemoAgent
        from coherd.cli.demo.caches import Cache, MemoryCache, RedisCache
        from coherd.cli.demo.processes import find_redis_server, free_ports
        from coherd.cli.demo.show import Host

        server = find_redis_server() if self._is_redis else ""
        ports = free_ports(2 * len(NAMES))
        hosts = []
        for name in NAMES:
            agent = DemoAgent(bridge, folder, name, ports.pop())
            cache: Cache = MemoryCache(agent)
            if server:
                cache = RedisCache(server, name, folder, ports.pop())
            hosts.append(Host(agent, cache))
        for host in hosts:
            host.agent.configure([other.agent.address for other in hosts], host.cache.handlers)
        return hosts

    async def _perform(self, hosts: list[Host], nursery: trio.Nursery) -> Result:
        """Show everything once, within the time limit. Raises DemoFailed."""
        import trio

        from coherd.cli.demo.processes import DemoFailed, let_a_death_explain
        from coherd.cli.demo.script import Keys, Script, start
        from coherd.errors import RpcFailed, one_failure

        show, keys = self._show, Keys.of(self._keys)
        show.hosts = hosts
        script = Script(hosts, keys, show, nursery)
        try:
            with trio.fail_after(self._began + TIME_LIMIT - time.monotonic()), show.open():
                cache = "a redis-server with" if self._is_redis else "an in-process cache of"
                count = count_of(len(keys.entries), "key")
                show.line((f"Three agents on this machine, beside each {cache} {count}.", "bold"))
                show.line()
                nursery.start_soon(show.run)
                with one_failure():
                    await start(hosts, keys, nursery)
                result = await script.run()
        except trio.TooSlowError:
            raise DemoFailed(
                f"not done after {TIME_LIMIT:.0f} s: is this machine very busy? Try again"
            ) from None
        except RpcFailed as error:
            await let_a_death_explain()
            raise DemoFailed(f"an agent failed: {error}; try again") from None
        result.seconds = time.monotonic() - self._began
        if self._as_json:
            print_json(result.json(), indent=None)
        else:
            show.line()
            show.line(*script.summary())
        return result

    def _tell_how_to_talk(self, hosts: list[Host]) -> None:
        """Say how to talk to the agents that stay, and what happens to the caches meanwhile."""
        from coherd.cli.demo.script import Keys

        key, local = Keys.of(self._keys).kept[0], f"--local {hosts[0].agent.local}"
        put = tell if self._as_json else say
        put("")
        put("Everything goes on until Ctrl-C. In another terminal:")
        for words in (f"invalidate shop {key}", "members", "watch shop"):
            line = f"  {_program()} {words} {local}"
            for part in (
                [line] if len(line) <= 80 else [f"  {_program()} {words} \\", f"      {local}"]
            ):
                put(part)
        if not self._as_json:
            put("")
            for host in hosts:
                host.cache.drops.on_drop = partial(_say_dropped, host.name)

    async def _stop_at(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """End everything at the first signal."""
        async for number in signals:
            if not self._is_done:
                self.stopped_by = number
            scope.cancel()
            return


@contextmanager
def _folder() -> Iterator[Path]:
    """Give a temporary directory with a path short enough for unix sockets."""
    parent = None if len(gettempdir()) < TEMPORARY_PATH_MAX else "/tmp"  # noqa: S108
    with TemporaryDirectory(prefix="coherd-", dir=parent, ignore_cleanup_errors=True) as name:
        yield Path(name)


def _signals() -> list[signal.Signals]:
    """Give the signals that ask for the end; nohup's wish not to be asked is respected."""
    asking = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    return [number for number in asking if signal.getsignal(number) is not signal.SIG_IGN]


def _program() -> str:
    """Give what to type for `coherd`."""
    return "coherd" if which("coherd") else sys.argv[0]


def _say_dropped(name: str, keys: Sequence[str]) -> None:
    """Say which copies a cache has just dropped."""
    more = f" and {len(keys) - SHOWN_MAX} more" if len(keys) > SHOWN_MAX else ""
    say(f"{name} dropped {', '.join(keys[:SHOWN_MAX])}{more}")


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Give what a nursery wrapped; where there is more than one thing, all of them."""
    if len(group.exceptions) > 1:
        return group
    only = group.exceptions[0]
    return _leaf(only) if isinstance(only, BaseExceptionGroup) else only
