"""What the agent tells over HTTP: `/metrics`, `/livez`, `/readyz`; it takes nothing and changes nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from coherd.api.token import HEADER
from coherd.config import Address

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client.registry import Collector
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from coherd.api.token import Token
    from coherd.cluster.agent import Agent

INDEX = """\
/metrics  figures for Prometheus
/livez    200 while the agent runs
/readyz   200 while it vouches for the caches of its host, else 503 and why; ?format=json
"""


def http_app(
    agent: Agent, read: Callable[[], Collector], address: Address, token: Token | None = None
) -> Starlette:
    """Give the application that is served at `address`; `read` gives the figures as they are then.

    With a token only who carries it is answered, apart from the question whether the agent lives.
    """
    middleware = [Middleware(_OwnHost, address=address)] if address.is_loopback else []
    if token is not None:
        middleware.append(Middleware(_Carried, token=token, denied=agent.protection.count_denied))
    app = Starlette(
        routes=[
            Route("/", _index),
            Route("/livez", _livez),
            Route("/readyz", partial(_readyz, agent)),
            Route("/metrics", partial(_metrics, read)),
        ],
        middleware=middleware,
        exception_handlers={HTTPException: _refused},
    )
    app.router.redirect_slashes = False
    return app


async def _index(_request: Request) -> Response:
    return _text(INDEX)


async def _livez(_request: Request) -> Response:
    return _text("ok\n")


async def _readyz(agent: Agent, request: Request) -> Response:
    reasons = agent.reasons()
    status = 503 if reasons else 200
    accepts_json = "application/json" in request.headers.get("accept", "")
    if request.query_params.get("format", "json" if accepts_json else "") == "json":
        return JSONResponse({"ready": not reasons, "reasons": reasons}, status, headers=_NO_STORE)
    return _text("".join(f"{reason}\n" for reason in reasons or ["ready"]), status)


async def _metrics(read: Callable[[], Collector], request: Request) -> Response:
    figures = read()
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    text = await trio.to_thread.run_sync(encode, figures)
    return PlainTextResponse(text, headers=_NO_STORE | {"content-type": media_type})


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _text(f"{error.detail}: / lists what there is\n", error.status_code)


class _OwnHost:
    """Refuses requests under a foreign name: a web page must not read us through a name of its own."""

    def __init__(self, app: ASGIApp, address: Address) -> None:
        self._app = app
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if all(self._is_own(host.decode("latin-1")) for host in hosts):
            await self._app(scope, receive, send)
        else:
            refusal = _text(f"ask for this agent as {self._address}\n", 421)
            await refusal(scope, receive, send)

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name == self._address.host.lower() or Address(name, 0).is_loopback


class _Carried:
    """Refuses requests without the token, but tells everybody that the agent lives."""

    def __init__(self, app: ASGIApp, token: Token, denied: Callable[[str], None]) -> None:
        self._app = app
        self._token = token
        self._denied = denied

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if scope.get("path") == "/livez" or self._token.is_in(headers.get(HEADER.encode())):
            await self._app(scope, receive, send)
            return
        self._denied("")
        refusal = _text(f"the secret of token_file is due in the header {HEADER}\n", 401)
        refusal.headers["www-authenticate"] = "Bearer"
        await refusal(scope, receive, send)


_NO_STORE = {"cache-control": "no-store"}


def _text(text: str, status: int = 200) -> Response:
    return PlainTextResponse(text, status, headers=_NO_STORE)
