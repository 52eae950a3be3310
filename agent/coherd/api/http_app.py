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

from coherd.api.auditing import Records
from coherd.api.authorization import TOLD
from coherd.api.http_server import CERTIFICATE
from coherd.api.token import HEADER
from coherd.config import Address
from coherd.errors import CertificateRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client.registry import Collector
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from coherd.api.authorization import Certified
    from coherd.api.token import Token
    from coherd.cluster.agent import Agent

AS_RPC = "http"
"""How requests over HTTP are called where refused calls are counted by RPC."""
INDEX = """\
/metrics  figures for Prometheus
/livez    200 while the agent runs
/readyz   200 while it vouches for the caches of its host, else 503 and why; ?format=json
"""


def http_app(
    agent: Agent,
    read: Callable[[], Collector],
    address: Address,
    *,
    token: Token | None = None,
    certified: Certified | None = None,
) -> Starlette:
    """Give the application that is served at `address`; `read` gives the figures as they are then.

    With a token, or where certificates are asked for, only who is known by one of them is answered, apart
    from the question whether the agent lives.
    """
    middleware = [Middleware(_OwnHost, address=address)] if address.is_loopback else []
    if token is not None or certified is not None:
        records = Records(agent.protection, agent.clock.wall_us)
        known = Middleware(_Known, token=token, certified=certified, records=records)
        middleware.append(known)
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
    try:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
    except (TypeError, ValueError):  # it compares whatever a client calls a version
        encode, media_type = choose_encoder("")
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


class _Known:
    """Refuses requests of strangers, but tells everybody that the agent lives.

    Known is who carries the token, or has shown a certificate whose holder may read.
    """

    def __init__(
        self, app: ASGIApp, token: Token | None, certified: Certified | None, records: Records
    ) -> None:
        self._app = app
        self._token = token
        self._certified = certified
        self._records = records

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = None if scope.get("path") == "/livez" else self._refused(scope)
        await (refused or self._app)(scope, receive, send)

    def _refused(self, scope: Scope) -> Response | None:
        """Give the answer to a stranger; None to others."""
        token, certificate = self._token, scope.get("state", {}).get(CERTIFICATE)
        if token is not None and token.is_in(dict(scope["headers"]).get(HEADER.encode())):
            return None
        if self._certified is None or certificate is None:
            return self._deny(scope, _due(token, self._certified), 401)
        try:
            identity = self._certified.holder(certificate).identity
        except CertificateRefused as error:
            return self._deny(scope, str(error), 401)
        why = self._certified.why_not(identity, TOLD)
        return self._deny(scope, why, 403, str(identity)) if why else None

    def _deny(self, scope: Scope, why: str, status: int, who: str = "") -> Response:
        client = scope.get("client") or ("somebody who is gone", 0)
        self._records.refused(who or f"http {Address(*client)}", AS_RPC, why)
        refusal = _text(f"{why}\n", status)
        if status == 401 and self._token is not None:
            refusal.headers["www-authenticate"] = "Bearer"
        return refusal


def _due(token: Token | None, certified: Certified | None) -> str:
    """Say what was missing."""
    due = [] if token is None else [f"the secret of token_file is due in the header {HEADER}"]
    if certified is not None:
        due.append("a certificate of a client or operator of this cluster is due")
    return ", or ".join(due)


_NO_STORE = {"cache-control": "no-store"}


def _text(text: str, status: int = 200) -> Response:
    return PlainTextResponse(text, status, headers=_NO_STORE)
