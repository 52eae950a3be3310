"""Where settings come from (floor 2): a file, variables and flags, each value with its place.

Nothing here knows what a setting means. A source that cannot be read is a `ConfigProblems`; a name
that nobody knows is a problem among others, with the nearest known name.
"""

from __future__ import annotations

import difflib
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from coherd.config.lines import Key, lines_of
from coherd.config.values import printable, shown
from coherd.errors import ConfigError

FILE_BYTES_MAX = 2**20
PROBLEMS_MAX = 100
"""More are counted, not listed."""

PREFIX = "COHERD_"
OTHER_VARIABLES = frozenset({"COHERD_ADDRESS", "COHERD_OUTPUT"})
"""Variables of the command line and the clients."""

_INTEGER = re.compile(r"[0-9](_?[0-9]){0,30}")
_KUBERNETES = re.compile(
    r"COHERD_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""What Kubernetes sets in every pod beside a service whose name begins with coherd."""

_WORDS = {"true": True, "1": True, "yes": True, "on": True}
_WORDS |= {"false": False, "0": False, "no": False, "off": False}


class ConfigProblems(ConfigError):
    """Settings are wrong: `problems` has a line for each, with its place, its name and the remedy."""

    def __init__(self, problems: Iterable[str]) -> None:
        found = tuple(printable(problem) for problem in problems)
        if len(found) > PROBLEMS_MAX:
            more = len(found) - PROBLEMS_MAX
            found = (*found[:PROBLEMS_MAX], f"and {more} problems more")
        super().__init__("\n".join(found))
        self.problems = found


class Place(NamedTuple):
    """Where a value was written."""

    source: str
    """The file, the variable or the flag."""
    line: int = 0
    """In the file, from 1."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


class Problem(NamedTuple):
    """What is wrong, and where."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass(slots=True)
class Written:
    """Settings as they were written, nested as in TOML, and where each was."""

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[Key, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def put(self, name: str, value: object, place: Place) -> None:
        """Set a setting, in place of whatever came before it."""
        self.data[name] = value
        self.places = {key: old for key, old in self.places.items() if key[0] != name}
        self.places[name,] = place

    def place(self, key: Key) -> Place | None:
        """Give where `key`, or the table or list around it, was written; None for a default."""
        for length in range(len(key), 0, -1):
            if place := self.places.get(key[:length]):
                return place
        return None


def read_file(path: Path) -> Written:
    """Read a TOML file. Raises ConfigProblems when it cannot be read as one."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise ConfigProblems([f"{path}: is {what}; expected a TOML file"])
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigProblems(
            [f"{path}: no such file; `coherd config example` prints one to start from"]
        ) from None
    except OSError as error:
        raise ConfigProblems([f"{path}: cannot be read: {error.strerror}"]) from None
    if len(content) > FILE_BYTES_MAX:
        raise ConfigProblems([f"{path}: larger than 1 MiB; expected a TOML file"])
    return read_bytes(content, str(path))


def read_bytes(content: bytes, source: str) -> Written:
    """Read the content of a TOML file. Raises ConfigProblems when it is none."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigProblems([f"{source}:1: is UTF-16; save it as UTF-8"])
    try:
        text = content.decode("utf-8-sig")  # some editors put a byte order mark first
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigProblems([f"{source}:{line}: is not UTF-8; save it as UTF-8"]) from None
    try:
        data = tomllib.loads(text)
        lines = lines_of(text)
    except RecursionError:
        raise ConfigProblems([f"{source}: lists or tables are nested too deeply"]) from None
    except ValueError as error:
        raise ConfigProblems([_syntax_error(source, text, str(error))]) from None
    return Written(data, {key: Place(source, line) for key, line in lines.items()})


def _syntax_error(source: str, text: str, message: str) -> str:
    """Move tomllib's "(at line 3, column 7)" to the front, where a line belongs."""
    match = re.fullmatch(
        r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL
    )
    if match is None:
        return f"{source}: {message}"
    line = match[2] or text.count("\n") + 1
    column = f" (column {match[3]})" if match[3] else " (at the end of the file)"
    return f"{source}:{line}: not TOML: {match[1]}{column}"


def add_environment(
    written: Written, environment: Mapping[str, str], defaults: Mapping[str, object]
) -> None:
    """Let COHERD_* variables override; `defaults` has the settings that may be set so."""
    known = {PREFIX + name.upper(): name for name in defaults}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or _belongs_to_others(variable, text):
            continue
        if name := known.get(variable):
            written.put(name, _from_text(text, defaults[name]), Place(variable))
        else:
            problem = f"unknown variable{_variable_hint(variable, defaults)}"
            written.problems.append(Problem(Place(variable), problem))


def _belongs_to_others(variable: str, text: str) -> bool:
    if variable in OTHER_VARIABLES or _KUBERNETES.fullmatch(variable):
        return True
    return variable.endswith("_PORT") and re.match(r"(tcp|udp|sctp)://", text) is not None


def _variable_hint(variable: str, names: Iterable[str]) -> str:
    if variable.startswith(("COHERD_NAMESPACE", "COHERD_HANDLER")):
        return "; namespaces and handlers are set in the file only"
    found = difflib.get_close_matches(variable[len(PREFIX) :].lower(), list(names), n=1)
    if found:
        return f"; did you mean {PREFIX}{found[0].upper()}?"
    return "; `coherd config example` lists the settings"


def add_flags(
    written: Written, flags: Mapping[str, object], defaults: Mapping[str, object]
) -> None:
    """Let flags override; None and () are flags that were not given."""
    for name, value in flags.items():
        if value is None or value == ():
            continue
        place = Place("--" + name.replace("_", "-"))
        if name not in defaults:
            written.problems.append(Problem(place, f"unknown flag{nearest(name, defaults)}"))
        elif isinstance(value, list | tuple):
            entries = [entry for text in value for entry in _entries(str(text))]
            written.put(name, entries, place)
        else:
            text = value if isinstance(value, bool) else str(value)
            written.put(name, _from_text(text, defaults[name]), place)


def _from_text(value: str | bool, default: object) -> object:
    """Read a text as TOML would have given it; what does not fit is left for the setting to refuse.

    An address is a named tuple and no list: hence the exact type.
    """
    if isinstance(value, bool):
        return value
    if isinstance(default, bool):
        return _WORDS.get(value.strip().lower(), value)
    if type(default) is int and _INTEGER.fullmatch(value):
        return int(value)
    return _entries(value) if type(default) is tuple else value


def _entries(text: str) -> list[str]:
    return [entry for part in text.split(",") if (entry := part.strip())]


def nearest(name: str, known: Iterable[str]) -> str:
    """Give "; did you mean 'join'?", or nothing when no name is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {shown(found[0])}?" if found else ""
