"""What is wrong between settings (floor 2): each may be right, and both together not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coherd.config.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coherd.config import AgentConfig

INTEREST_CHARACTERS_MAX = 900
"""Of all names together: what an agent says of itself is at most 4 KiB."""


def conflicts(config: AgentConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give what is wrong between settings: their names, the one to blame first, and a text."""
    yield from _open_doors(config)
    if config.listen.is_wildcard and config.advertise is None:
        text = f"{config.listen} means every address; set advertise to the one that peers dial"
        yield ("listen", "advertise"), text
    if sum(map(len, config.interest)) > INTEREST_CHARACTERS_MAX:
        text = (
            f"the names have more than {INTEREST_CHARACTERS_MAX} characters in all; "
            'write ["*"] for all namespaces, or shorter names'
        )
        yield ("interest",), text
    for handler in config.handlers:
        for name in handler.namespaces:
            if not config.holds(name):
                text = (
                    f"copies of {name!r} are in {handler.label}, which [[handlers]] names; "
                    f'add "{name}" to interest, or take it out of the handler'
                )
                yield ("interest", "handlers"), text


def exposed(config: AgentConfig) -> dict[str, Address]:
    """Give the addresses that others can reach although nothing there is encrypted, by their settings."""
    if config.tls is not None:
        return {}
    doors = {"listen": config.listen, "advertise": config.advertise}
    if config.token_file is None:
        doors["http"] = config.http
    return {name: at for name, at in doors.items() if at is not None and not at.is_loopback}


def _open_doors(config: AgentConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    """Find addresses that others can reach although nobody is asked who they are."""
    for name, address in exposed(config).items():
        if config.insecure:
            continue
        protection = "[tls] or token_file" if name == "http" else "[tls]"
        text = (
            f"{address} is not a loopback address and nothing there is encrypted; "
            f"set {protection}, or use 127.0.0.1, or set insecure = true to allow it"
        )
        yield (name, "insecure"), text
    for door in config.local:
        if isinstance(door, Address) and not door.is_loopback and config.tls is None:
            text = (
                f"{door} is not a loopback address, and without [tls] this door asks nobody who they "
                'are; set [tls], or use 127.0.0.1, [::1] or "unix:/PATH"'
            )
            yield ("local", "tls"), text
