"""What every message carries, and how much of it."""

from __future__ import annotations

from dataclasses import replace

from pair import Cores, acquainted, address, news, sent, swim, tell

from coherd_membership import Status, SwimConfig
from coherd_membership import _codec as codec
from coherd_membership._messages import PROTOCOL_MAX, PROTOCOL_MIN, Kind


def test_every_message_carries_the_range_of_versions_the_cluster_the_sum_and_the_own_word() -> None:
    core = acquainted("a")
    core.publish(b"x")
    core._outbox.send(Kind.TELL, "to:1", sequence=9, target="a")
    ((to, message),) = sent(core)
    assert (to, message.sequence, message.target) == ("to:1", 9, "a")
    assert (message.protocol_min, message.protocol_max) == (PROTOCOL_MIN, PROTOCOL_MAX)
    assert message.cluster == codec.cluster_label("test")
    assert message.root == core._roster.root
    assert message.sender == core.me


def test_no_message_with_news_is_longer_than_one_packet() -> None:
    core = swim()
    for number in range(400):
        tell(core, f"member-of-some-length-{number}")
    core.datagrams()
    lengths = []
    while core._outbox.rumors:
        core._outbox.send(Kind.PING, "to:1", target="somebody")
        lengths += [len(each.payload) for each in core.datagrams()]
    assert max(lengths) <= 1_200
    assert min(lengths[: len(lengths) // 2]) > 1_100, "and the room is used"


def test_what_the_receiver_has_to_know_goes_before_all_other_news() -> None:
    core = acquainted("a", "b", "c")
    word = news("a", Status.SUSPECT, accusers=("b",))
    core._outbox.send(Kind.TELL, "a:1", first=word)
    ((_, message),) = sent(core)
    assert message.news[0] == word
    assert [item.name for item in message.news].count("a") == 1


def test_messages_and_bytes_are_counted() -> None:
    core = acquainted("a")
    before = core.statistics()
    core._outbox.send(Kind.TELL, "to:1")
    (each,) = core.datagrams()
    after = core.statistics()
    assert after["sent"] - before["sent"] == 1
    assert after["sent_bytes"] - before["sent_bytes"] == len(each.payload)


def test_news_reaches_everybody_within_a_few_intervals() -> None:
    names = [f"m{number}" for number in range(20)]
    cores = Cores(*names, config=replace(SwimConfig(), exchange_interval=1e6))
    cores.advance(15.0)
    assert cores.is_whole()
    cores["m7"].publish(b"new")
    version = cores["m7"].me.version
    cores.advance(6.0)
    for name in set(names) - {"m7"}:
        assert cores[name].members["m7"].news.version == version
    assert len(cores[names[0]]._outbox.rumors) <= len(names)


def test_a_quiet_cluster_sends_little_and_no_old_news() -> None:
    names = [f"m{number}" for number in range(10)]
    cores = Cores(*names)
    cores.advance(120.0)
    assert cores.statistics()["rumors"] == 0
    before = cores.statistics()["sent_bytes"]
    cores.advance(60.0)
    assert (cores.statistics()["sent_bytes"] - before) / 60 / len(names) < 500
    last = [each for at, _, each in cores.traffic if at > 170.0]
    assert all(codec.decode(each.payload).news == () for each in last)
    assert {each.destination for each in last} <= {address(name) for name in names}
