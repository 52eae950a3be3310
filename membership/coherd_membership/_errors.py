"""What the library raises, in one tree.

SwimError
├── MalformedDatagram    what came in is no message; nothing changed
└── NotPossible          what the caller asked for cannot be; nothing changed
"""

from __future__ import annotations


class SwimError(Exception):
    """The root of everything raised here."""


class MalformedDatagram(SwimError):
    """These bytes are no message of ours. `Swim.receive` counts it; only the codec raises it."""


class NotPossible(SwimError):
    """The state of the cluster as seen from here forbids what the caller asked for."""
