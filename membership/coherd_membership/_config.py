"""Every number of the protocol: what it is, in which unit, and how to choose it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class SwimConfig:
    """The settings of one member; all members of a cluster should have the same.

    Seconds unless a name says otherwise. The defaults are the profile `lan`.
    """

    probe_interval: float = 1.0
    """Between the beginnings of two probes of a healthy member (SWIM §4.3: the protocol period)."""
    probe_timeout: float = 0.5
    """For the direct answer to a probe: the 99th percentile of the round trip and some; at most half
    of the interval, so that helpers have as long."""
    indirect_probes: int = 3
    """Helpers asked to probe a member that does not answer (SWIM §3.1, k). 3 survive 20 % loss."""
    suspicion_multiplier: float = 4.0
    """The minimal suspicion is `multiplier · max(1, log10 n) · probe_interval` (Lifeguard §IV-B, α)."""
    suspicion_max_factor: float = 6.0
    """The maximal suspicion in minimal ones (Lifeguard §IV-B, β). 1 switches dynamic suspicion off."""
    confirmations: int = 2
    """Independent accusers beyond the first that bring the suspicion to its minimum (Lifeguard, K)."""
    accusers: int = 2
    """How many have to accuse a member before it is declared dead, where there are that many."""
    health_max: int = 8
    """Bound of the local health (Lifeguard §IV-A, S): 8 stretches interval and timeout up to ninefold.
    0 switches it off, and with it everything that a late timer does."""
    nack_after: float = 0.8
    """After this share of the timeout a helper that hears nothing says so. 0: it stays silent."""
    late_after: float = 0.1
    """A timer handled later than that means that this member is slow: it lowers its own health."""
    tells_suspects: bool = True
    """Whether a suspect is told so by whoever talks with it (Lifeguard §IV-C, buddy system)."""
    outcomes: int = 10
    """Of its last so many probes more than half failed: a sick observer. It accuses nobody for at most
    one maximal suspicion, and asks the seeds again. 0 switches it off."""

    rumor_multiplier: float = 3.0
    """A piece of news is passed on `multiplier · log2(n + 1)` times (SWIM §4.1, λ log n)."""
    datagram_bytes_max: int = 1_200
    """News is added to a message up to this size: what fits into one packet anywhere."""
    exchange_bytes_max: int = 48_000
    """Size of one datagram of a full exchange; a larger answer comes in several."""
    exchange_interval: float = 30.0
    """Between two full exchanges with 32 members or fewer; grows with `ceil(log2 n - 5) + 1`."""
    exchanges_max: int = 5
    """Full exchanges under way at once because a hash differed."""

    down_after: float = 24 * 3600.0
    """For so long a member that is down is asked now and then whether it is back."""
    down_interval: float = 65.0
    """Between two such rounds."""
    downs_at_once: int = 2
    """Members asked in one round."""
    join_interval_min: float = 0.2
    join_interval_max: float = 10.0
    """Between two rounds over the seeds while none has answered; doubles from one to the other."""
    seed_interval: float = 60.0
    """Between two rounds afterwards, for ever: only so do partitions heal that outlast everything."""
    inquiry_timeout: float = 1.0
    """Silence for so long at its old address: then a member may have moved, or have left."""
    inquiries_max: int = 100
    """Such questions under way at once; news that would need one more is dropped and comes again."""
    restart_timeout: float = 10.0
    """For so long a member that said that it restarts is expected back; then it is down."""

    linked_above: int = 32
    """In clusters larger than this, seven of eight probes go to members with an open link."""
    incarnation_ahead_max: int = 2**16
    """News of a higher incarnation is poison. A member that would have to go beyond it, to refute an
    accusation or to publish, takes a new epoch."""
    epoch_max: int = 2**63 - 1
    """No epoch beyond is believed."""
    members_max: int = 10_000
    """Members, and tombstones beside them, that are remembered."""
    meta_bytes_max: int = 4_096
    """Size of what a member publishes of itself."""

    PROFILES: ClassVar[dict[str, SwimConfig]]

    @classmethod
    def profile(cls, name: str) -> SwimConfig:
        """Give the settings of a profile: `lan`, `fast`, `wan` or `local`. Raises KeyError."""
        return cls.PROFILES[name]

    def plain(self) -> SwimConfig:
        """Give SWIM with multiplier 5 and no part of Lifeguard or of ours, to measure those against it."""
        return replace(
            self,
            suspicion_multiplier=5.0,
            suspicion_max_factor=1.0,
            confirmations=0,
            accusers=1,
            health_max=0,
            nack_after=0.0,
            tells_suspects=False,
            outcomes=0,
        )


SwimConfig.PROFILES = {
    "lan": SwimConfig(),
    "fast": SwimConfig(probe_interval=0.5, probe_timeout=0.25, suspicion_multiplier=2.0),
    "wan": SwimConfig(probe_interval=5.0, probe_timeout=3.0, suspicion_multiplier=6.0),
    "local": SwimConfig(probe_interval=1.0, probe_timeout=0.2, suspicion_multiplier=3.0),
}
