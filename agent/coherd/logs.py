"""What the agent says of itself: key=value on a terminal, JSON lines otherwise, always on standard error.

Text that came over the wire may hold control characters; they are escaped before they reach a terminal.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

from coherd.limits import LOG_TEXT_MAX

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any


def configure(level: str = "info", *, json: bool | None = None) -> None:
    """Set up logging for the process; `json` None means by whether standard error is a terminal."""
    if json is None:
        json = not sys.stderr.isatty()
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"])
    )
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            escape,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def escape(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Escape what is not printable and cut what is too long."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = printable(value)
    return event


def printable(text: str) -> str:
    """Give `text` with everything unprintable as an escape."""
    text = text if len(text) <= LOG_TEXT_MAX else text[:LOG_TEXT_MAX] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
