"""An agent that says what a test wants: a plain grpc server on a unix socket, without the daemon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from click.testing import CliRunner, Result

from coherd.cli.main import cli
from coherd.v1 import admin_service_pb2 as admin_pb
from coherd.v1 import admin_service_pb2_grpc, cache_service_pb2_grpc, types_pb2
from coherd.v1 import cache_service_pb2 as pb

EPOCH = 1_760_000_000_000
ALIVE = types_pb2.MEMBER_STATE_ALIVE
DEAD = types_pb2.MEMBER_STATE_DEAD
ME = types_pb2.Member(
    name="cache-1",
    epoch=EPOCH,
    address="127.0.0.1:4373",
    region="eu-west",
    namespaces=["*"],
    version="0.1.0",
    protocol_min=1,
    protocol_max=1,
    state=ALIVE,
)


def dots(first: int, last: int | None = None, namespace: str = "shop") -> types_pb2.Dots:
    return types_pb2.Dots(
        namespace=namespace,
        origin=types_pb2.Origin(name="cache-1", epoch=EPOCH),
        lane=types_pb2.LANE_NORMAL,
        first=first,
        last=last or first,
    )


def receipt(*rows: types_pb2.Dots, applied: str = "", missing: str = "", **more: Any) -> pb.Receipt:
    more.setdefault("complete", not missing)
    return pb.Receipt(
        dots=rows,
        applied=applied.split(),
        missing=[pb.Missing(name=name, state=DEAD) for name in missing.split()],
        **more,
    )


class ToyAgent(
    cache_service_pb2_grpc.CacheServiceServicer, admin_service_pb2_grpc.AdminServiceServicer
):
    """Answers with what its fields say and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.refusals: list[tuple[grpc.StatusCode, str]] = []
        """What the next calls are refused with; OK lets one through."""
        self.pushback = ""
        """With a refusal, in how many milliseconds to try again."""
        self.rows = 0
        self.receipt: Callable[[int, int], pb.Receipt] = lambda first, last: receipt(
            dots(first, last), durability=types_pb2.DURABILITY_OS
        )
        self.status = admin_pb.GetStatusResponse()
        self.members = admin_pb.ListMembersResponse()
        self.diagnosis = admin_pb.DiagnoseResponse()
        self.joined = admin_pb.JoinResponse()
        self.forgotten = admin_pb.ForgetResponse()
        self.left = admin_pb.LeaveResponse()
        self.trace = admin_pb.TraceKeyResponse()
        self.progress: Callable[[], Iterator[pb.InvalidateProgressResponse]] | None = None
        """What is told of an invalidation; None is an agent of an older release."""
        self.watch: Callable[[pb.WatchOpen], Iterator[pb.WatchResponse]] = lambda _: iter(())
        self.address = ""

    def Invalidate(self, request: pb.InvalidateRequest, context: Any) -> pb.InvalidateResponse:
        self._take(request, context)
        count = len(request.keys) + len(request.tags) + len(request.prefixes) + request.everything
        assert 1 <= count <= 1000
        first = self.rows + 1
        self.rows += count
        return pb.InvalidateResponse(receipt=self.receipt(first, self.rows))

    def GetReceipt(self, request: pb.GetReceiptRequest, context: Any) -> pb.GetReceiptResponse:
        self._take(request, context)
        return pb.GetReceiptResponse(receipt=self.receipt(1, 1))

    def Watch(self, requests: Any, context: Any) -> Iterator[pb.WatchResponse]:
        opening = next(requests).open
        self._take(opening, context)
        yield from self.watch(opening)

    def GetStatus(self, request: Any, context: Any) -> admin_pb.GetStatusResponse:
        self._take(request, context)
        return self.status

    def ListMembers(self, request: Any, context: Any) -> admin_pb.ListMembersResponse:
        self._take(request, context)
        return self.members

    def Diagnose(self, request: Any, context: Any) -> admin_pb.DiagnoseResponse:
        self._take(request, context)
        return self.diagnosis

    def Join(self, request: Any, context: Any) -> admin_pb.JoinResponse:
        self._take(request, context)
        return self.joined

    def Forget(self, request: Any, context: Any) -> admin_pb.ForgetResponse:
        self._take(request, context)
        return self.forgotten

    def Leave(self, request: Any, context: Any) -> admin_pb.LeaveResponse:
        self._take(request, context)
        return self.left

    def TraceKey(self, request: Any, context: Any) -> admin_pb.TraceKeyResponse:
        self._take(request, context)
        return self.trace

    def InvalidateProgress(
        self, request: Any, context: Any
    ) -> Iterator[pb.InvalidateProgressResponse]:
        self._take(request, context)
        if self.progress is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method")
        else:
            yield from self.progress()

    def _take(self, request: Any, context: Any) -> None:
        self.asked.append(request)
        if self.refusals:
            code, text = self.refusals.pop(0)
            if code is not grpc.StatusCode.OK:
                if self.pushback:
                    context.set_trailing_metadata((("grpc-retry-pushback-ms", self.pushback),))
                context.abort(code, text)


@contextmanager
def serving(toy: ToyAgent, path: Path) -> Iterator[str]:
    """Let `toy` answer at a unix socket."""
    server = grpc.server(ThreadPoolExecutor(4))
    cache_service_pb2_grpc.add_CacheServiceServicer_to_server(toy, server)
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(toy, server)
    toy.address = f"unix:{path}"
    server.add_insecure_port(toy.address)
    server.start()
    try:
        yield toy.address
    finally:
        server.stop(None).wait(5)


def coherd(*arguments: object, env: dict[str, str | None] | None = None, **more: Any) -> Result:
    """Run the command."""
    variables = {"COHERD_ADDRESS": None, "COHERD_OUTPUT": None, **(env or {})}
    result = CliRunner().invoke(
        cli, [str(argument) for argument in arguments], env=variables, **more
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
