"""How one member spreads payloads: times, shares and bounds, with the reasons for each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpreadConfig:
    """How one member spreads; durations in seconds."""

    acknowledge_lone_after: float = 0.010
    """A message that comes alone is acknowledged after this: acknowledgements of all to one would otherwise
    be computed just when the last of them are still to hear of the row, where they share processors."""
    acknowledge_after: float = 0.002
    """When another comes before that, both are acknowledged after this: their sender has more to send."""
    remembered_for: float = 2.0
    """So long what was forwarded of a payload is not forwarded again."""
    remembered_max: int = 65_536
    """Payloads remembered at most; the oldest are forgotten early, which can only cost copies."""
    redelegated_share: float = 0.05
    """Of the parcels sent; what re-delegation may add to them."""
    redelegated_burst: float = 8.0
    """Re-delegations that a member may have saved up, and begins with. With 4, in a simulated region of 1,000
    with 5 % loss and 1 % stalled, the slowest percent sometimes waits for TCP (p99 160 ms); with 8 it never
    did."""
    late_after: float = 0.020
    """A timer that comes later than this shows that this member is late itself: then acknowledgements may be
    here unread, so nobody loses an arc for the next 50 ms."""
    receipts_interval: float = 0.020
    """What has been applied is told along a link at most so often."""
    receipts_max: int = 10_000
    """Payloads whose receipts are passed on; for others their origin asks members directly."""
