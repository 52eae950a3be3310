"""The secret that is asked for where anybody of a host could come: at TCP addresses, and over HTTP."""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING

from coherd.errors import StartRefused
from coherd.net.certificates import check_private, read_file

if TYPE_CHECKING:
    from pathlib import Path

TOKEN_BYTES_MIN = 16
"""Fewer can be guessed."""
TOKEN_BYTES_MAX = 4096
HEADER = "authorization"


class Token:
    """What must be carried in the header `authorization`, as ``Bearer SECRET``."""

    def __init__(self, path: Path) -> None:
        """Raises StartRefused."""
        check_private(path)
        secret = read_file(path, "token_file").strip()
        if not TOKEN_BYTES_MIN <= len(secret) <= TOKEN_BYTES_MAX or not secret.isascii():
            raise StartRefused(
                f"{path}: {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} characters of ASCII are due; "
                "`openssl rand -hex 32` makes some"
            )
        self._due = b"Bearer " + secret

    def is_in(self, header: str | bytes | None) -> bool:
        """Tell whether a header carries it, in a time that says nothing of how far it is right."""
        if header is None:
            return False
        shown = header.encode("utf-8", "replace") if isinstance(header, str) else header
        return compare_digest(shown, self._due)
