"""The secret that an agent may ask for at a TCP address: where it is, and a channel that carries it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from coherd.errors import ConfigError

TOKEN_VARIABLE = "COHERD_TOKEN_FILE"  # noqa: S105  # where it is, not what
"""The file with the secret; the agent's setting has the same name."""


class _Carrying(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the secret to every call."""

    def __init__(self, secret: str) -> None:
        self._entry = ("authorization", f"Bearer {secret}")

    def _carry(self, go_on: Callable[..., Any], details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), self._entry]
        return go_on(details._replace(metadata=metadata), request)

    intercept_unary_unary = _carry  # type: ignore[assignment]
    intercept_unary_stream = _carry  # type: ignore[assignment]
    intercept_stream_stream = _carry  # type: ignore[assignment]


def carrying(channel: grpc.Channel) -> grpc.Channel:
    """Have a channel carry the secret, if there is one. Raises ConfigError."""
    path = os.environ.get(TOKEN_VARIABLE)
    if not path:
        return channel
    try:
        secret = Path(path).read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{TOKEN_VARIABLE}: {path} can't be read: {error}") from None
    return grpc.intercept_channel(channel, _Carrying(secret))


def keep_from(address: object) -> None:
    """Refuse to send the secret, if there is one, to where others read it on its way. Raises ConfigError."""
    if os.environ.get(TOKEN_VARIABLE):
        raise ConfigError(
            f"{TOKEN_VARIABLE}: the secret would go to {address} in clear: name a certificate with "
            "--cert, ask on the agent's own host over loopback or its socket, or unset the variable"
        )
