"""Rows of issuers that are no owners of their namespace: some other agent has let them through.

They are applied all the same: a copy that is dropped in vain does no harm, one that is kept may.
"""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import structlog

from coherd.identity import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from coherd.model import Batch

log = structlog.get_logger("coherd.authorization")

LOGGED_MAX = 1000
"""Different issuers that are told, each once."""


class Foreign:
    """Looks at rows of peers."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        """How many there were, by namespace."""
        self.owners: Callable[[str], Sequence[str]] = lambda _namespace: ()
        """Gives the setting `owners` of a namespace."""
        self._told: set[tuple[str, str, str]] = set()

    def look(self, namespace: str, batches: Iterable[Batch]) -> None:
        """Count the rows of one namespace that others have issued, and tell whom nobody told of yet."""
        owners = self.owners(namespace)
        if not owners:
            return
        for batch in batches:
            if not _is_owner(batch.issuer, owners):
                self._note(batch)

    def _note(self, batch: Batch) -> None:
        namespace, origin, _ = batch.stream
        self.rows[namespace] += len(batch)
        found = (namespace, batch.issuer, origin.name)
        if found not in self._told and len(self._told) < LOGGED_MAX:
            self._told.add(found)
            log.warning(
                "rows of a stranger",
                namespace=namespace,
                issuer=batch.issuer or "nobody known",
                let_through_by=origin.name,
            )


def _is_owner(issuer: str, owners: Sequence[str]) -> bool:
    return issuer.startswith(f"{Role.OPERATOR}/") or any(
        fnmatchcase(issuer, owner) for owner in owners
    )
