"""What is told of a member: how it is seen from here, beside what it says of itself."""

from __future__ import annotations

import pytest

from coherd.api.receipts import encode_seen
from coherd.cluster.roster import Member, State
from coherd.model import HandlerInfo
from coherd.net.peer import MemberInfo
from coherd.v1 import types_pb2

INFO = MemberInfo(
    "b", 7, "b:1", "r", ("shop",), "0.1.0", 1, 2, (HandlerInfo("redis", "shop", True),), True
)


def test_a_member_is_told_with_its_caches_and_whether_it_is_linked() -> None:
    seen = encode_seen(INFO, Member(INFO, State.ALIVE, 3.0, 3.0, is_linked=True), 4.5)
    assert (seen.state, seen.state_age_ms, seen.linked) == (
        *(types_pb2.MEMBER_STATE_ALIVE, 1500, True),
    )
    assert seen.ready
    assert [(each.kind, each.namespace, each.tags) for each in seen.handlers] == [
        ("redis", "shop", True)
    ]
    assert not seen.HasField("clock_offset_min_us")


@pytest.mark.parametrize("state", State)
def test_whether_it_is_ready_is_not_known_of_one_that_does_not_run(state: State) -> None:
    seen = encode_seen(INFO, Member(INFO, state, 3.0, 3.0), 4.5)
    assert types_pb2.MemberState.Name(seen.state) == f"MEMBER_STATE_{state.name}"
    assert seen.HasField("ready") == (state in {State.ALIVE, State.SUSPECT})


def test_the_agent_itself_is_alive_and_knows_no_age() -> None:
    seen = encode_seen(INFO, None, 4.5)
    assert (seen.state, seen.state_age_ms) == (types_pb2.MEMBER_STATE_ALIVE, 0)
