"""Who somebody is (floor 0, above the nouns): a role and a name in a cluster, written as one URI.

A certificate names its holder by exactly one URI, as SPIFFE's X.509-SVID, section 2 has it:
``spiffe://TRUST/cluster/CLUSTER/ROLE/NAME``. What else it names, a common name above all, counts for nothing.
"""

from __future__ import annotations

import re
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

from coherd.model import NAME_PATTERN

TRUST_PATTERN = re.compile(r"[a-z0-9._-]{1,255}")
"""What a trust domain may be called; matched whole."""
SHAPE = "spiffe://TRUST/cluster/CLUSTER/ROLE/NAME"


class Role(StrEnum):
    """What somebody is to a cluster."""

    AGENT = "agent"
    """Holds copies, and speaks with the other agents."""
    CLIENT = "client"
    """May do what a grant says."""
    OPERATOR = "operator"
    """May do everything but what only agents do."""


class Identity(NamedTuple):
    """Somebody."""

    trust: str
    """The domain whose authority has issued the certificate."""
    cluster: str
    role: Role
    name: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust}/cluster/{self.cluster}/{self.role}/{self.name}"

    @classmethod
    def parse(cls, uri: str) -> Identity:
        """Read a URI; raises ValueError with one line that says what is wrong with it."""
        scheme, slashes, rest = uri.partition("://")
        parts = rest.split("/")
        if scheme != "spiffe" or not slashes or len(parts) != 5 or parts[1] != "cluster":
            raise ValueError(f"{uri[:200]!r} is not of the form {SHAPE}")
        trust, _, cluster, role, name = parts
        if not TRUST_PATTERN.fullmatch(trust):
            raise ValueError(f"{trust[:80]!r} is no trust domain: a-z 0-9 . _ - are due")
        for text in (cluster, name):
            if not NAME_PATTERN.fullmatch(text):
                raise ValueError(f"{text[:80]!r} can be the name of nobody")
        if role not in Role.__members__.values():
            raise ValueError(f"{role[:80]!r} is no role: {', '.join(Role)} are")
        return cls(trust, cluster, Role(role), name)

    @property
    def label(self) -> str:
        """How it is called within its cluster: ``client/web-1``."""
        return f"{self.role}/{self.name}"

    @property
    def server_name(self) -> str:
        """The DNS name under which TLS finds out that this very agent answers, whatever its address."""
        return f"{_digest(str(self))}.agent.coherd"

    @property
    def cluster_server_name(self) -> str:
        """The DNS name under which TLS finds out that some agent of its cluster answers."""
        return f"{_digest(f'{self.trust}/{self.cluster}')}.cluster.coherd"


def _digest(text: str) -> str:
    """Give 40 characters for a text: DNS names know no case, and none of them has 128 characters."""
    return blake2b(text.encode(), digest_size=20).hexdigest()
