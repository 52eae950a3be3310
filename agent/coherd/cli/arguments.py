"""What options of several verbs take: durations, waits, identities, and the keys of a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import click

from coherd.cli.output import count_of, escaped
from coherd.config.values import WrongValue, duration
from coherd.errors import InvalidRequest
from coherd.identity import Identity
from coherd.limits import BATCH_ROWS_MAX, SELECTOR_BYTES_MAX, TIMEOUT_MAX

STDIN = "-"
AGENTS_MAX = 1_000_000
"""More than any cluster has."""


class Duration(click.ParamType[float]):
    """Seconds, written as in the settings: 500ms, 5s, 1m."""

    name = "duration"

    def __init__(self, low: float = 0.0, high: float = TIMEOUT_MAX) -> None:
        self._low = low
        self._high = high

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read one."""
        try:
            return duration(self._low, self._high)(value)
        except WrongValue as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, slots=True)
class Waiting:
    """For what an invalidation waits before it is answered."""

    name: str
    """accepted, local, region or members."""
    members: int = 0


class WaitType(click.ParamType[Waiting]):
    """accepted, local, region, or how many members: 3, or members=3."""

    name = "wait"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Say what there is."""
        return "[accepted|local|region|N]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Waiting:
        """Read one."""
        if isinstance(value, Waiting):
            return value
        if value in {"accepted", "local", "region"}:
            return Waiting(str(value))
        text = str(value).removeprefix("members=")
        if not (text.isascii() and text.isdigit()):
            self.fail(
                f"{value!r}: accepted, local, region or a number of agents is due", param, ctx
            )
        if not 1 <= int(text[:10]) <= AGENTS_MAX:
            self.fail(f"{text[:10]} agents: 1 to {AGENTS_MAX:,} can be waited for", param, ctx)
        return Waiting("members", int(text))


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that fit into one request."""

    keys: tuple[bytes, ...] = ()
    tags: tuple[bytes, ...] = ()
    prefixes: tuple[bytes, ...] = ()
    everything: bool = False
    read: int = 0
    """How far into the file of keys this goes, in bytes."""

    def __len__(self) -> int:
        return len(self.keys) + len(self.tags) + len(self.prefixes) + self.everything


class Batches:
    """Cuts rows into requests that an agent takes."""

    def __init__(self) -> None:
        self._rows: dict[str, list[bytes]] = {}
        self._count = 0

    def add(self, kind: str, selector: bytes, *, read: int = 0) -> Iterator[Batch]:
        """Take a row; gives the batch before it when that is full."""
        if self._count == BATCH_ROWS_MAX:
            yield from self.rest(read=read)
        self._rows.setdefault(kind, []).append(selector)
        self._count += 1

    def rest(self, *, everything: bool = False, read: int = 0) -> Iterator[Batch]:
        """Give what is left, if anything is."""
        if everything and self._count == BATCH_ROWS_MAX:
            yield from self.rest(read=read)
        if self._count or everything:
            yield Batch(
                tuple(self._rows.get("keys", ())),
                tuple(self._rows.get("tags", ())),
                tuple(self._rows.get("prefixes", ())),
                everything,
                read,
            )
        self._rows = {}
        self._count = 0


def identity_of(text: str, trust: str, cluster: str) -> Identity:
    """Read somebody: ROLE/NAME of a cluster, or a whole URI. Raises InvalidRequest."""
    is_label = "://" not in text
    if is_label and text.count("/") != 1:
        raise InvalidRequest(f"{escaped(text)[:200]}: ROLE/NAME is due, such as client/web-1")
    try:
        return Identity.parse(f"spiffe://{trust}/cluster/{cluster}/{text}" if is_label else text)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def selector_of(text: str, *, is_hex: bool) -> bytes:
    """Read a key, tag or prefix of the command line. Raises InvalidRequest."""
    return checked(os.fsencode(text), escaped(text), is_hex=is_hex)


def checked(raw: bytes, where: str, *, is_hex: bool) -> bytes:
    """Give a selector as the agent takes it. Raises InvalidRequest, which names `where` it is."""
    if is_hex:
        try:
            raw = bytes.fromhex(raw.decode("ascii"))
        except ValueError:
            raise InvalidRequest(f"{where[:200]}: pairs of hexadecimal digits are due") from None
    if not raw:
        raise InvalidRequest(f"{where[:200] or 'an empty text'}: a key, tag or prefix is not empty")
    if len(raw) > SELECTOR_BYTES_MAX:
        raise InvalidRequest(
            f"{where[:200]}: {count_of(len(raw), 'byte')}: at most {SELECTOR_BYTES_MAX:,} are allowed"
        )
    return raw


def keys_in(file: BinaryIO, name: str, *, is_hex: bool) -> Iterator[tuple[bytes, int]]:
    """Give the keys of a file, one a line, each with where its line ends. Raises InvalidRequest."""
    position = number = 0
    longest = 2 * SELECTOR_BYTES_MAX + 2
    while line := file.readline(longest + 1):
        number += 1
        position += len(line)
        if raw := line.removesuffix(b"\n").removesuffix(b"\r"):
            if len(line) > longest:
                raise InvalidRequest(f"{name}:{number}: longer than any key may be")
            yield checked(raw, f"{name}:{number}", is_hex=is_hex), position


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open a file of keys, "-" for standard input. Raises InvalidRequest."""
    if path == STDIN:
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: PTH123, SIM115 # closed below; only opening may fail so
    except OSError as error:
        raise InvalidRequest(f"{escaped(path)}: {error.strerror}: name a file of keys") from None
    with file:
        yield file
