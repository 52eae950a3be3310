"""The profiles, and SWIM without any part of Lifeguard."""

from __future__ import annotations

from dataclasses import fields

import pytest
from pair import Cores, address, changes

from coherd_membership import Status, SwimConfig
from coherd_membership._codec import decode
from coherd_membership._messages import Kind


@pytest.mark.parametrize(
    ("name", "interval", "timeout", "multiplier"),
    [("lan", 1, 0.5, 4), ("fast", 0.5, 0.25, 2), ("wan", 5, 3, 6), ("local", 1, 0.2, 3)],
)
def test_profiles(name: str, interval: float, timeout: float, multiplier: float) -> None:
    config = SwimConfig.profile(name)
    assert config.probe_interval == interval
    assert config.probe_timeout == timeout
    assert config.suspicion_multiplier == multiplier
    different = {
        field.name
        for field in fields(SwimConfig)
        if getattr(config, field.name) != getattr(SwimConfig(), field.name)
    }
    assert different <= {"probe_interval", "probe_timeout", "suspicion_multiplier"}


def test_no_profile_of_that_name() -> None:
    with pytest.raises(KeyError):
        SwimConfig.profile("moon")


def test_plain_has_no_part_of_lifeguard() -> None:
    plain = SwimConfig().plain()
    assert plain.suspicion_multiplier == 5.0
    assert (plain.suspicion_max_factor, plain.confirmations, plain.accusers) == (1.0, 0, 1)
    assert (plain.health_max, plain.nack_after, plain.tells_suspects, plain.outcomes) == (
        0, 0.0, False, 0,
    )  # fmt: skip
    assert (plain.probe_interval, plain.indirect_probes) == (1.0, 3)


@pytest.mark.parametrize("name", [*SwimConfig.PROFILES, "plain"])
def test_a_crash_is_found_and_the_rest_stay_alive_in_every_profile(name: str) -> None:
    config = SwimConfig().plain() if name == "plain" else SwimConfig.profile(name)
    names = [f"m{number}" for number in range(6)]
    cores = Cores(*names, config=config)
    cores.advance(10 * config.probe_interval)
    assert cores.is_whole()
    cores.crash("m5")
    cores.advance(40 * config.probe_interval)
    assert cores.seen("m5") == {Status.DEAD}
    assert cores.is_whole()


def test_plain_sends_no_nack_and_tells_no_suspect() -> None:
    kinds = {}
    for config in (SwimConfig(), SwimConfig().plain()):
        cores = Cores("a", "b", "c", "d", config=config)
        cores.advance(10.0)
        cores.stall("d")
        cores.advance(10.0)
        kinds[config.health_max] = {decode(each.payload).kind for _, _, each in cores.traffic}
    assert kinds[8] - kinds[0] == {Kind.NACK}


def test_who_is_stalled_for_three_seconds_is_not_declared_dead() -> None:
    names = [f"m{number}" for number in range(10)]
    cores = Cores(*names)
    cores.advance(10.0)
    cores.stall("m5")
    cores.advance(3.0)
    cores.resume("m5")
    cores.advance(30.0)
    assert cores.is_whole()
    for name in names:
        assert "died" not in {
            change for other in names for change in changes(cores.events[address(name)], other)
        }
