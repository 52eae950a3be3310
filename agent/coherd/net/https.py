"""TLS of the HTTP server: what it shows, and whom it believes; a client may show a certificate, or none."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coherd.net.certificates import Bundle
    from coherd.net.credentials import Credentials


class HttpsContext:
    """The current files of `[tls]`, as Python's TLS takes them."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._made: tuple[Bundle, ssl.SSLContext] | None = None

    def current(self) -> ssl.SSLContext:
        """Give what a connection that begins now needs."""
        bundle = self._credentials.bundle
        if self._made is None or self._made[0] is not bundle:
            self._made = bundle, _context(bundle)
        return self._made[1]


def _context(bundle: Bundle) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=bundle.roots.decode("ascii", "replace"))
    # Python takes these from files alone; those of the disk may have changed since they were looked at.
    descriptor = os.memfd_create("certificate")
    with os.fdopen(descriptor, "wb") as file:
        file.write(bundle.chain + b"\n" + bundle.key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    return context
