"""Which names and addresses another agent can have: what nobody can be called, and where nobody can be, is
not believed of anybody, and never dialled.
"""

from __future__ import annotations

from functools import lru_cache

from coherd.config.address import dialled
from coherd.config.values import WrongValue
from coherd.limits import ADDRESS_MAX
from coherd.model import NAME_PATTERN


@lru_cache(maxsize=16_384)
def admits(name: str, address: str, own: str) -> bool:
    """Tell whether an agent may be called `name` and be reached at `address`, seen from the one at `own`.

    A loopback or link-local address means another host on every host: it is believed only where this
    agent itself is reached at such a one.
    """
    if not NAME_PATTERN.fullmatch(name) or len(address) > ADDRESS_MAX:
        return False
    try:
        theirs, ours = dialled(address), dialled(own)
    except WrongValue:
        return False
    return (
        not theirs.is_multicast
        and (ours.is_loopback or not theirs.is_loopback)
        and (ours.is_link_local or not theirs.is_link_local)
    )
