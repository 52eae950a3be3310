"""One setting's value (floor 2): from what TOML, a variable or a flag gives to what the agent uses.

Each parser takes whatever was written and gives the value, or raises WrongValue with a phrase that
says what was expected. No phrase repeats a password.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from coherd.model import EVERY_NAMESPACE, NAME_PATTERN, NAMESPACE_PATTERN

DURATION_MAX = 3650 * 86_400.0
"""Ten years in seconds: a longer duration is a mistake."""

INTEGER_MAX = 2**63 - 1
TEMPLATE_BYTES_MAX = 256
RESERVED = "coherd:cursor:"
"""What the names of coherd's own keys in a cache begin with."""

_SHOWN_CHARACTERS_MAX = 60

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "": 1.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d|)")
_USER = re.compile(r"//.*@")

T = TypeVar("T")


class WrongValue(ValueError):
    """What was written is not what the setting takes; the text is a phrase about the value."""


def printable(text: str) -> str:
    """Give `text` with what would move a terminal's cursor written out, so that it is one line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def brief(text: str) -> str:
    """Give the beginning of `text`, without the user part of a URL."""
    text = _USER.sub("//***@", text)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[:_SHOWN_CHARACTERS_MAX] + "…"


def shown(value: object) -> str:
    """Say what was written, short, on one line and without the user part of a URL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) <= INTEGER_MAX else "a number that is too large"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return repr(brief(value))
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def text_of(value: object, expected: str) -> str:
    """Read a text of one line."""
    if not isinstance(value, str):
        raise WrongValue(f"expected {expected}, got {shown(value)}")
    if not value.isprintable():
        raise WrongValue(f"{shown(value)} has characters that cannot be printed")
    return value


def boolean(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise WrongValue(f"expected true or false, got {shown(value)}")
    return value


def one_of(*choices: str) -> Callable[[object], str]:
    """Make the parser of a setting that has only these values."""

    def parse(value: object) -> str:
        if value not in choices:
            known = " or ".join(f'"{choice}"' for choice in choices)
            raise WrongValue(f"expected {known}, got {shown(value)}")
        return str(value)

    return parse


def integer(low: int, high: int) -> Callable[[object], int]:
    """Make the parser of a whole number from `low` to `high`."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise WrongValue(f"expected a whole number from {low} to {high}, got {shown(value)}")
        return value

    return parse


def number(low: float, high: float) -> Callable[[object], float]:
    """Make the parser of a number, whole or not, from `low` to `high`."""

    def parse(value: object) -> float:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise WrongValue(
                f"expected a number from {low:,.0f} to {high:,.0f}, got {shown(value)}"
            )
        return float(value)

    return parse


def duration(low: float, high: float = DURATION_MAX) -> Callable[[object], float]:
    """Make the parser of a time in seconds from `low` to `high`."""

    def parse(value: object) -> float:
        seconds = _seconds(value)
        if not low <= seconds <= high:
            raise WrongValue(
                f"expected {format_duration(low)} to {format_duration(high)}, got {shown(value)}"
            )
        return seconds

    return parse


def _seconds(value: object) -> float:
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= INTEGER_MAX:
        return float(value)
    raise WrongValue(
        f'expected a duration such as "500ms", "90s", "5m", "1h" or "2d", got {shown(value)}'
    )


def unless_none(parse: Callable[[object], T]) -> Callable[[object], T | None]:
    """Make a parser that also takes the word "none"."""
    return lambda value: None if value == "none" else parse(value)


def format_duration(seconds: float) -> str:
    """Write seconds as a setting spells them, in the largest unit that needs no fraction."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds / _UNITS[unit]
        if count == int(count) and (count or unit == "s"):
            return f"{int(count)}{unit}"
    return f"{seconds:.9f}".rstrip("0") + "s"


def name(value: object) -> str:
    """Read the name of an agent, a cluster or a region."""
    text = text_of(value, "a name")
    if not NAME_PATTERN.fullmatch(text):
        raise WrongValue(
            f"{shown(text)} is not a name: 1 to 128 letters, digits, '.', '_' or '-', "
            "the first a letter or digit"
        )
    return text


def namespace(value: object) -> str:
    """Read the name of a namespace."""
    text = text_of(value, "a namespace")
    if not NAMESPACE_PATTERN.fullmatch(text):
        raise WrongValue(
            f"{shown(text)} is not a namespace: 1 to 64 lower-case letters, digits, '.', '_' or '-'"
        )
    return text


def interest(value: object) -> str:
    """Read the name of a namespace, or what stands for all of them."""
    return EVERY_NAMESPACE if value == EVERY_NAMESPACE else namespace(value)


def directory(value: object) -> Path:
    """Read the path of a directory; whether it exists is seen at start."""
    text = text_of(value, "the path of a directory")
    if not text or text.startswith("~"):
        raise WrongValue(f"{shown(text)}: write the whole path of the directory")
    return Path(text)


def template(placeholder: str) -> Callable[[object], str]:
    """Make the parser of a text that has {placeholder} exactly once and no other brace."""

    def parse(value: object) -> str:
        text = text_of(value, f'a text such as "shop:{{{placeholder}}}"')
        before, found, after = text.partition(f"{{{placeholder}}}")
        if not found or any(brace in before + after for brace in "{}"):
            raise WrongValue(
                f"{shown(text)}: expected {{{placeholder}}} exactly once and no other braces"
            )
        if text.startswith(RESERVED):
            raise WrongValue(f"{shown(text)}: names that begin with {RESERVED} are coherd's own")
        if len(text.encode()) > TEMPLATE_BYTES_MAX:
            raise WrongValue(f"longer than {TEMPLATE_BYTES_MAX} bytes")
        return text

    return parse


@dataclass(frozen=True, slots=True)
class Parsed:
    """Annotation of a field: its value is what `parse` makes of what was written.

    pydantic asks for the schema, and only then is imported by anything here.
    """

    parse: Callable[[object], object]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Let pydantic call `parse` instead of converting."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self.parse)


@dataclass(frozen=True, slots=True)
class Listed:
    """Annotation of a tuple: how many entries it may have; what is written twice counts once."""

    low: int
    high: int

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Let pydantic check the list around the entries."""
        from pydantic_core import core_schema

        def check(value: object) -> object:
            if not isinstance(value, list | tuple):
                raise WrongValue(f"expected a list, got {shown(value)}")
            if not self.low <= len(value) <= self.high:
                raise WrongValue(
                    f"has {len(value)} entries; expected {self.low} to {self.high}"
                    if value
                    else "is empty; expected at least one entry"
                )
            return tuple(value)

        def unique(entries: Iterable[object]) -> tuple[object, ...]:
            return tuple(dict.fromkeys(entries))

        inner = core_schema.no_info_after_validator_function(unique, handler(source))
        return core_schema.no_info_before_validator_function(check, inner)
