"""What the exit code of `coherd` says (floor 6), and which error gives which code."""

from __future__ import annotations

from enum import IntEnum

from coherd.errors import CoherdError, ConfigError, InvalidRequest, RpcFailed

PARTS_MISSING = "the coherd command needs its agent parts: pip install 'coherd[agent]'"
"""The base install is the client alone."""


class ExitCode(IntEnum):
    """Scripts rely on these numbers: they do not change."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    """The command line or a setting is wrong; nothing was done."""
    PARTIAL = 3
    """Done, but not everywhere in time, or not answered in time; what was reached was printed."""
    UNREACHABLE = 4
    """No agent answers where it was looked for."""
    DENIED = 5
    NOT_FOUND = 6


_OF_STATUS = {
    "INVALID_ARGUMENT": ExitCode.USAGE,
    "DEADLINE_EXCEEDED": ExitCode.PARTIAL,
    "UNAVAILABLE": ExitCode.UNREACHABLE,
    "PERMISSION_DENIED": ExitCode.DENIED,
    "UNAUTHENTICATED": ExitCode.DENIED,
    "NOT_FOUND": ExitCode.NOT_FOUND,
}


def exit_code(error: CoherdError) -> ExitCode:
    """Give the exit code of a command that ended with `error`."""
    if isinstance(error, ConfigError | InvalidRequest):
        return ExitCode.USAGE
    if isinstance(error, RpcFailed):
        return _OF_STATUS.get(error.code, ExitCode.FAILED)
    return ExitCode.FAILED
