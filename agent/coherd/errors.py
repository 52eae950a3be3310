"""Everything coherd raises (floor 0), as a tree; each says what to do about it.

CoherdError
├── ConfigError            the operator's: a setting is wrong
├── StartRefused           the operator's: this agent must not start as it is
├── InvalidRequest         the caller's: the request breaks a limit; nothing changed
├── Overloaded             a bounded queue is full, or a client's budget used up; nothing changed, try again
├── NotDurable             the agent's: the disk failed; the rows may have been applied
├── MalformedMessage       a peer's: bytes that are not what they should be; counted, dropped
├── JournalDamaged         the disk's: stored bytes are not what was written
├── CertificateRefused     a certificate's holder: it is not what a certificate here must be
├── HandlerFailed          a cache's: it did not apply what it was told to
└── RpcFailed              a call's: the status the other side or the network gave
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class CoherdError(Exception):
    """What coherd raises; the message is one line that a person can act on."""


class ConfigError(CoherdError):
    """A setting is wrong; the message names it, its line and the remedy."""


class StartRefused(CoherdError):
    """The agent must not start: a locked data directory, a taken name, a foreign journal."""


class InvalidRequest(CoherdError):
    """The request breaks a limit or is incomplete. Nothing was changed."""


class Overloaded(CoherdError):
    """A bounded queue is full, or the budget of a client used up.

    Nothing was changed; try again after `retry_after` seconds.
    """

    def __init__(self, message: str, retry_after: float = 0.1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotDurable(CoherdError):
    """The disk failed after the rows were sent: not durable, may have been applied."""


class MalformedMessage(CoherdError):
    """Bytes from a peer, a cache or a client that are not what they should be."""


class JournalDamaged(CoherdError):
    """Stored bytes are not what was written.

    Blocks of `namespace` (None: of any) that lie within `positions` (first and last) are gone.
    """

    def __init__(
        self, message: str, namespace: str | None = None, positions: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__(message)
        self.namespace = namespace
        self.positions = positions


class FileRefused(CoherdError):
    """A file of a certificate, a key or a secret cannot be used; the message begins with its path."""


class CertificateRefused(CoherdError):
    """A certificate is out of date, or does not say who holds it as it must."""


class HandlerFailed(CoherdError):
    """A cache did not confirm that it applied what it was told to."""


class RpcFailed(CoherdError):
    """A call ended with a status other than OK.

    `code` is the name of the gRPC status (``"UNAVAILABLE"`` …).
    """

    def __init__(self, code: str, details: str = "") -> None:
        super().__init__(f"{code}: {details}" if details else code)
        self.code = code
        self.details = details


@contextmanager
def one_failure() -> Iterator[None]:
    """Raise one error of this tree instead of the group that a nursery makes, of one or several."""
    try:
        yield
    except BaseExceptionGroup as group:
        failures, others = group.split(CoherdError)
        if failures is None:
            raise
        if others is not None:  # a cancellation, for example, outweighs it
            raise others from None
        raise _first(failures) from None


def _first(group: BaseExceptionGroup[CoherdError]) -> CoherdError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
