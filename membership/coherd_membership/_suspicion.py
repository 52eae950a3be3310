"""How long a suspect has to speak up (Lifeguard, Dadgar et al. 2017, §IV-B: LHA-Suspicion).

One accuser may be the one that is slow, so a suspicion starts long; each independent accuser that joins in
makes it shorter, the first the most:

    min = multiplier · max(1, log10 n) · probe_interval        max = factor · min
    timeout(c) = max(min, max − (max − min) · ln(c + 1) / ln(k + 1))

with c confirmations beyond the first accuser and k wanted ones. In a cluster where k others do not exist
it is min from the start.
"""

from __future__ import annotations

from math import log, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coherd_membership._config import SwimConfig


def minimum(config: SwimConfig, members: int) -> float:
    """Give the shortest suspicion in seconds, in a cluster of `members`."""
    return config.suspicion_multiplier * max(1.0, log10(max(1, members))) * config.probe_interval


def maximum(config: SwimConfig, members: int) -> float:
    """Give the longest suspicion in seconds."""
    return config.suspicion_max_factor * minimum(config, members)


def timeout(config: SwimConfig, members: int, confirmations: int) -> float:
    """Give the seconds from the first accusation to the verdict."""
    shortest = minimum(config, members)
    wanted = config.confirmations if members - 2 >= config.confirmations else 0
    if wanted == 0:
        return shortest
    longest = config.suspicion_max_factor * shortest
    share = log(confirmations + 1) / log(wanted + 1)
    return max(shortest, longest - (longest - shortest) * share)
