"""Who may do what with which namespaces (floor 0, above the nouns): default deny, and grants.

An operator may do everything, a client what some grant says. Agents speak with each other, and do nothing
else: what they are asked for by name is in `api.authorization`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from coherd.identity import Role
from coherd.limits import NAMESPACE_MAX
from coherd.model import EVERY_NAMESPACE

if TYPE_CHECKING:
    from coherd.identity import Identity


class Verb(StrEnum):
    """What can be granted."""

    READ = "read"
    """Ask who has applied rows, when they came; of every namespace: how the agent is."""
    INVALIDATE = "invalidate"
    WATCH = "watch"
    ADMIN = "admin"
    """Change who is in the cluster; not about one namespace."""


class Grant(NamedTuple):
    """Some identities may do some things with some namespaces; `*` and `?` in names match as in a shell."""

    identities: Sequence[str]
    """Role and name: ``client/web-*``."""
    verbs: Sequence[Verb]
    namespaces: Sequence[str]

    def allows(self, identity: Identity, verb: Verb, namespace: str) -> bool:
        """Tell whether this grant is about all three."""
        return self.is_for(identity, verb) and any(
            pattern == EVERY_NAMESPACE
            or (namespace != EVERY_NAMESPACE and fnmatchcase(namespace, pattern))
            for pattern in self.namespaces
        )

    def is_for(self, identity: Identity, verb: Verb) -> bool:
        """Tell whether this grant lets somebody do something, with whatever namespaces."""
        return verb in self.verbs and any(
            fnmatchcase(identity.label, pattern) for pattern in self.identities
        )


class Decision(NamedTuple):
    """What was decided, and why, as one line."""

    allowed: bool
    why: str


def decide(
    grants: Sequence[Grant], identity: Identity, verb: Verb, namespace: str = EVERY_NAMESPACE
) -> Decision:
    """Decide whether somebody may do something with a namespace, or with all of them."""
    if identity.role is Role.OPERATOR:
        return Decision(True, "an operator may do everything")
    named = f"namespace {namespace[:NAMESPACE_MAX]!r}"  # nobody has checked it by now
    about = "the agent as a whole" if namespace == EVERY_NAMESPACE else named
    if identity.role is Role.AGENT:
        return Decision(False, f"an agent may only speak with agents, not {verb} {about}")
    for number, grant in enumerate(grants, 1):
        if grant.allows(identity, verb, namespace):
            return Decision(True, f"by the grant number {number}")
    return Decision(
        False, f"no grant lets {identity.label} {verb} {about}: add it to [[grants]] of the agent"
    )
