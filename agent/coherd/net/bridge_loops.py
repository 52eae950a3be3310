"""Two event loops, trio's and an asyncio loop in a thread of its own, and the queues between them.

Work crosses as calls: a function and its arguments, run by the other loop in the order in which they
were handed over. A queue is woken once for all that waits in it, and a drain takes only what waited
when it began, so that neither loop can starve the other's timers and sockets. Waking costs a system
call and some microseconds; an entry in a queue that is already woken costs next to nothing.

Whoever hands over leaves first the entry and then looks at the flag; whoever drains first clears the
flag and then counts the entries. So an entry is either counted or causes another wake.

Functions that are named or described as *asyncio's side* run in the thread, all others under trio.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import traceback
from collections import deque
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, TypeVarTuple

import grpc.aio
import structlog
import trio
import uvloop

from coherd.errors import RpcFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    Entry = tuple[Callable[..., object], tuple[Any, ...]]

Arguments = ParamSpec("Arguments")
Positional = TypeVarTuple("Positional")
Result = TypeVar("Result")

JOIN_TIMEOUT = 10.0
"""Longest wait for the thread to end, in seconds; one that hangs is left behind and logged."""

SETTLE_DELAY = 0.05
"""Seconds for which gRPC may tell that what was cancelled has ended."""

log = structlog.get_logger()

_one_at_a_time = threading.Lock()


class Loops:
    """Trio's loop, asyncio's loop in its thread, and the way from each to the other."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._to_trio: deque[Entry] = deque()
        self._to_aio: deque[Entry] = deque()
        self._trio_woken = False
        self._aio_woken = False
        self._aio: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._started = trio.Event()
        self._ended = trio.Event()
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._thread_main, name="coherd-bridge", daemon=True)

    async def start(self) -> None:
        """Start the thread and its loop."""
        if not _one_at_a_time.acquire(blocking=False):
            raise RuntimeError("a bridge is open already in this process")
        self._thread.start()
        with trio.CancelScope(shield=True):
            await self._started.wait()
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """End every task of the other loop, then the loop and its thread; what runs fails."""
        self.call_aio(self._stop.set)
        self._closed = True
        with trio.move_on_after(JOIN_TIMEOUT, shield=True):
            await self._ended.wait()
            self._thread.join()  # it has nothing left to do
            return
        log.error("the thread of the bridge does not end", seconds=JOIN_TIMEOUT)

    # The two ways.

    def call_aio(self, function: Callable[[*Positional], object], *arguments: *Positional) -> None:
        """Have asyncio's loop call `function`; from trio's thread only, in order, without an answer."""
        if self._closed:
            return
        self._to_aio.append((function, arguments))
        if not self._aio_woken:
            self._aio_woken = True
            self._aio.call_soon_threadsafe(self._drain_to_aio)

    def call_trio(self, function: Callable[[*Positional], object], *arguments: *Positional) -> None:
        """Have trio call `function`; from asyncio's side only, in order, without an answer."""
        self._to_trio.append((function, arguments))
        if not self._trio_woken:
            self._trio_woken = True
            self._token.run_sync_soon(self._drain_to_trio)

    def _drain_to_aio(self) -> None:
        self._aio_woken = False
        _drain(self._to_aio)

    def _drain_to_trio(self) -> None:
        self._trio_woken = False
        _drain(self._to_trio)

    async def run(
        self,
        async_function: Callable[Arguments, Coroutine[Any, Any, Result]],
        *arguments: Arguments.args,
        **keywords: Arguments.kwargs,
    ) -> Result:
        """Run an asyncio coroutine function over there and give what it returns or raises.

        When trio's caller is cancelled, so is the coroutine, and the caller waits for its end: nothing
        goes on behind its back. Raises RpcFailed when the bridge was closed under it.
        """
        if self._closed:
            raise RpcFailed("CANCELLED", "the bridge is closed")
        run = _Run(self, async_function(*arguments, **keywords))
        self.call_aio(run.start)
        return await run.wait()

    # Asyncio's side.

    def _thread_main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._aio_main())
        except BaseException as failure:
            self._failure = failure
            log.error("the thread of the bridge failed", traceback=traceback.format_exc())
        finally:
            _one_at_a_time.release()
            self._token.run_sync_soon(self._started.set)
            self._token.run_sync_soon(self._ended.set)

    async def _aio_main(self) -> None:
        self._aio = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        # gRPC keeps one completion queue a process, with a thread and descriptors, for as long as any
        # of its objects lives. Holding it here and letting go of it last makes this loop its master,
        # provided that no channel, server or call is referred to by then.
        grpc.aio.init_grpc_aio()
        self.call_trio(self._started.set)
        await self._stop.wait()
        await asyncio.sleep(0)  # what was handed over just before has begun now
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        del tasks
        gc.collect()  # calls that are parts of reference cycles hold the completion queue, too
        # What was cancelled still comes in. Were nobody left to take it, the queue's thread could
        # block on its pipe for ever, and some releases of grpcio wait for that thread.
        await asyncio.sleep(SETTLE_DELAY)
        grpc.aio.shutdown_grpc_aio()


class _Run(Generic[Result]):
    """One coroutine that runs on asyncio's side while a trio task waits for it."""

    def __init__(self, loops: Loops, coroutine: Coroutine[Any, Any, Result]) -> None:
        self._loops = loops
        self._coroutine = coroutine
        self._waiter = trio.lowlevel.current_task()
        self._raise_cancel: trio.lowlevel.RaiseCancelT | None = None
        self._task: asyncio.Task[None]
        self._results: list[Result] = []  # one, once there is one
        self._error: BaseException | None = None

    async def wait(self) -> Result:
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._results:
            return self._results[0]
        error, self._error = self._error, None
        try:
            if error is not None and not isinstance(error, asyncio.CancelledError):
                raise error
        finally:
            del error  # it holds this frame
        if self._raise_cancel is not None:
            self._raise_cancel()
        raise RpcFailed("CANCELLED", "the channel or the bridge was closed")

    def _abort(self, raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._raise_cancel = raise_cancel
        self._loops.call_aio(self._cancel)
        return trio.lowlevel.Abort.FAILED

    def start(self) -> None:
        """On asyncio's side: begin."""
        self._task = asyncio.get_running_loop().create_task(self._carry())

    def _cancel(self) -> None:
        # Not at once: a task that has not begun would end without running at all.
        asyncio.get_running_loop().call_soon(self._task.cancel)

    async def _carry(self) -> None:
        # Not a callback of the task: that would cost a turn of the loop on the way back.
        try:
            self._results.append(await self._coroutine)
        except (Exception, asyncio.CancelledError) as error:
            self._error = error
        self._loops.call_trio(trio.lowlevel.reschedule, self._waiter)


def _drain(queue: deque[Entry]) -> None:
    for _ in range(len(queue)):
        function, arguments = queue.popleft()
        try:
            function(*arguments)
        except Exception:
            # As text: a renderer that looks at the frames' variables could fail, and end the loop.
            log.error("a call across the bridge failed", traceback=traceback.format_exc())
