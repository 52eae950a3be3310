"""Receipts, members and changes as protobuf: what several services say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd.cluster.roster import Roster, State
from coherd.journal import Durability
from coherd.model import Kind
from coherd.net.peer import StreamRange
from coherd.net.peer_codec import encode_dots, encode_member
from coherd.v1 import cache_service_pb2 as pb
from coherd.v1 import types_pb2

if TYPE_CHECKING:
    from coherd.cluster.invalidating import Outcome
    from coherd.cluster.roster import Member
    from coherd.model import Batch
    from coherd.net.peer import MemberInfo
    from coherd.replication.replica import Arrival

DURABILITIES = {
    Durability.OS: types_pb2.DURABILITY_OS,
    Durability.DISK: types_pb2.DURABILITY_DISK,
}
STATES = {
    State.ALIVE: types_pb2.MEMBER_STATE_ALIVE,
    State.SUSPECT: types_pb2.MEMBER_STATE_SUSPECT,
    State.RESTARTING: types_pb2.MEMBER_STATE_RESTARTING,
    State.DEAD: types_pb2.MEMBER_STATE_DEAD,
}


def encode_outcome(
    outcome: Outcome, roster: Roster, durability: Durability | None, cursor: str
) -> pb.Receipt:
    """Say who has applied some rows and who has not."""
    receipt = outcome.receipt
    return pb.Receipt(
        dots=encode_dots(receipt.dots),
        complete=outcome.is_complete,
        applied=sorted(receipt.applied),
        missing=[
            pb.Missing(
                name=name,
                state=state_of(roster, name),
                state_age_ms=int(roster.state_age(name) * 1000),
            )
            for name in receipt.missing
        ],
        durability=DURABILITIES[durability] if durability else types_pb2.DURABILITY_UNSPECIFIED,
        cursor=cursor,
    )


def state_of(roster: Roster, name: str) -> types_pb2.MemberState.ValueType:
    """Say how a member is seen."""
    if name == roster.me.name:
        return types_pb2.MEMBER_STATE_ALIVE
    member = roster.members.get(name)
    return STATES[member.state] if member else types_pb2.MEMBER_STATE_UNSPECIFIED


def encode_seen(info: MemberInfo, member: Member | None, now: float) -> types_pb2.Member:
    """Write a member with how it is seen; without `member` it is this agent itself."""
    seen = encode_member(info)
    seen.state = STATES[member.state] if member else types_pb2.MEMBER_STATE_ALIVE
    if member:
        seen.state_age_ms = int((now - member.since) * 1000)
        seen.linked = member.is_linked
        if member.state in {State.DEAD, State.RESTARTING}:
            seen.ClearField("ready")  # it said so while it lived
    return seen


def encode_change(arrival: Arrival) -> pb.Change:
    """Write rows as a watcher sees them."""
    batch = arrival.batch
    keys = [s[1:] for s in batch.selectors if s[0] == Kind.KEY]
    change = pb.Change(
        namespace=arrival.namespace,
        keys=keys,
        effect=pb_effect(batch),
        stamp=batch.stamp,
        cause=arrival.cause.value,
        reason=batch.reason,
        issuer=batch.issuer,
        dots=encode_dots(StreamRange(batch.stream, numbers) for numbers in batch.numbers),
    )
    if len(keys) < len(batch.selectors):
        change.tags.extend(s[1:] for s in batch.selectors if s[0] == Kind.TAG)
        change.prefixes.extend(s[1:] for s in batch.selectors if s[0] == Kind.PREFIX)
        change.everything = any(s[0] == Kind.NAMESPACE for s in batch.selectors)
    return change


def pb_effect(batch: Batch) -> types_pb2.Effect.ValueType:
    """Write an effect."""
    return types_pb2.Effect.Value(f"EFFECT_{batch.effect.name}")
