"""The certificate by which an agent knows who uses the command line, and what a channel needs of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coherd.config.security import TlsConfig
from coherd.errors import ConfigError, StartRefused

if TYPE_CHECKING:
    import grpc

    from coherd.config import Address
    from coherd.net.certificates import Bundle

CERT_VARIABLE = "COHERD_CERT"
"""The certificate, unless `--cert` says it."""
CA_VARIABLE = "COHERD_CA"
KEY_VARIABLE = "COHERD_KEY"
"""Where the authority and the key are, where they are not beside the certificate."""
_KEY = "coherd.cert"

F = TypeVar("F", bound=Callable[..., Any])


def _keep(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    ctx.meta[_KEY] = value


cert_option: Callable[[F], F] = click.option(
    "--cert",
    metavar="FILE.pem",
    expose_value=False,
    callback=_keep,
    help="Your certificate, for an agent that asks for one; its key beside it in FILE.key, and the "
    f"authority in ca.pem. Default: the variable {CERT_VARIABLE}.",
)


def chosen() -> TlsConfig | None:
    """Give the files of the certificate that was chosen; None where none was."""
    ctx = click.get_current_context(silent=True)
    text = (ctx.meta.get(_KEY) if ctx else None) or os.environ.get(CERT_VARIABLE)
    if not text:
        return None
    cert = Path(text)
    ca, key = os.environ.get(CA_VARIABLE), os.environ.get(KEY_VARIABLE)
    return TlsConfig(
        Path(ca) if ca else cert.with_name("ca.pem"),
        cert,
        Path(key) if key else cert.with_suffix(".key"),
    )


def load(tls: TlsConfig) -> Bundle:
    """Read the files. Raises ConfigError."""
    import time

    from coherd.net.certificates import load_bundle

    try:
        return load_bundle(tls, time.time())
    except StartRefused as error:
        raise ConfigError(f"--cert: {error}") from None


def channel(address: Address, bundle: Bundle, options: list[tuple[str, Any]]) -> grpc.Channel:
    """Open a channel to some agent of the cluster that the certificate is of."""
    import grpc

    from coherd.net.bridge_method import TARGET_NAME

    credentials = grpc.ssl_channel_credentials(bundle.roots, bundle.key, bundle.chain)
    name = bundle.holder.identity.cluster_server_name
    return grpc.secure_channel(str(address), credentials, [*options, (TARGET_NAME, name)])


def why_refused(address: Address, tls: TlsConfig, bundle: Bundle) -> str:
    """Find out what the handshake fails of; empty when it does not."""
    import trio

    from coherd.net.obstacles import why_refused as find_out

    obstacle = trio.run(find_out, address, tls, bundle.holder.identity)
    return f"{obstacle.text}: {obstacle.remedy}" if obstacle else ""
