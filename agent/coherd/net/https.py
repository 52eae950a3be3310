"""TLS of the HTTP server: what it shows, and whom it believes; a client may show a certificate, or none."""

from __future__ import annotations

import os
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from coherd.errors import StartRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coherd.config import TlsConfig
    from coherd.net.certificates import Bundle


def make_context(bundle: Bundle, tls: TlsConfig) -> ssl.SSLContext:
    """Have Python's TLS take what was read of `[tls]`. Raises StartRefused with the file and the remedy.

    It is choosier than what has read the files: it wants keys of a certain strength, for one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    context.verify_mode = ssl.CERT_OPTIONAL
    try:
        context.load_verify_locations(cadata=_only_certificates(bundle.roots))
    except (OSError, ValueError) as error:
        raise StartRefused(
            f"{tls.ca}: TLS can't use it ({_reason(error)}): correct tls.ca"
        ) from None
    try:
        with _file_of(bundle.chain) as chain, _file_of(bundle.key) as key:
            context.load_cert_chain(chain, key, password="")  # empty: nobody is asked for one
    except (ssl.SSLError, ValueError) as error:
        raise StartRefused(
            f"{tls.cert}: TLS can't use it, or its key ({_reason(error)}): issue another, "
            "as `coherd pki issue` does"
        ) from None
    except OSError as error:  # of the files in memory
        raise StartRefused(
            f"{tls.cert} can't be given to TLS ({_reason(error)}): see how many files the agent may open, "
            "and whether /proc is there"
        ) from None
    return context


def _only_certificates(pem: bytes) -> bytes:
    """Leave out whatever else is in a file: words between the certificates may be in any encoding."""
    return b"".join(
        each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(pem)
    )


@contextmanager
def _file_of(data: bytes) -> Iterator[str]:
    """Give data as a file: Python takes it from files alone, and those of the disk may have changed."""
    descriptor = os.memfd_create("certificate")
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


def _reason(error: Exception) -> str:
    """Say what went wrong, in the words of OpenSSL or of the system."""
    reason = error.reason if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
    return (reason or str(error)).lower().replace("_", " ")
