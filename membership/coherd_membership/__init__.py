"""Who is in the cluster: SWIM with Lifeguard as a pure state machine.

    Swim            one member: five verbs and one timer                     (_swim)
    SwimConfig      every number, with profiles                              (_config)
    News, Status    what is said of a member, and how it is; `merge`         (_member)
    Member          what is known of one                                     (_roster)
    Change, events  what happened                                            (_member, _events)
    Datagram        what to send                                             (_messages)
    errors          SwimError ← MalformedDatagram, NotPossible               (_errors)

Inside: `_hearing` weighs news of others and `_standing` that of this member; `_probe` asks, `_suspicion` and
`_health` are the formulas, `_exchange` compares rosters, `_inquiry` asks before a name moves, `_outbox` and
`_rumors` send, `_codec` reads and writes, `_timers` keeps the deadlines. Only the standard library is used,
and nothing of it that does I/O.
"""

from coherd_membership._config import SwimConfig
from coherd_membership._errors import MalformedDatagram, NotPossible, SwimError
from coherd_membership._events import (
    Dropped,
    EpochNeeded,
    Event,
    Evicted,
    MemberChanged,
    MetaChanged,
    NameTaken,
)
from coherd_membership._member import Change, News, Status, merge
from coherd_membership._messages import PROTOCOL_MAX, PROTOCOL_MIN, Datagram
from coherd_membership._roster import Member
from coherd_membership._swim import Swim

__all__ = [
    "PROTOCOL_MAX",
    "PROTOCOL_MIN",
    "Change",
    "Datagram",
    "Dropped",
    "EpochNeeded",
    "Event",
    "Evicted",
    "MalformedDatagram",
    "Member",
    "MemberChanged",
    "MetaChanged",
    "NameTaken",
    "News",
    "NotPossible",
    "Status",
    "Swim",
    "SwimConfig",
    "SwimError",
    "merge",
]
