"""Who is let in, and how they are known (floor 2): the tables [tls] and [[grants]]."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from coherd.config import values as config_values
from coherd.config.values import Listed, Parsed, WrongValue, shown, text_of
from coherd.grants import Grant, Verb
from coherd.identity import Role

PATTERNS_MAX = 1000
_IDENTITY = re.compile(r"(?:[a-z*?]+)/(?:[A-Za-z0-9._*?-]{1,128})")
_OWNER = re.compile(r"[A-Za-z0-9._-]+(?::[A-Za-z0-9._-]+)?|:[A-Za-z0-9._-]+")
_NAMESPACES = re.compile(r"[a-z0-9._*?-]{1,64}")


def file(value: object) -> Path:
    """Read the path of a file; whether it can be used is seen at start."""
    text = text_of(value, "the path of a file")
    if not text or text.startswith("~"):
        raise WrongValue(f"{shown(text)}: write the whole path of the file")
    return Path(text)


def optional_file(value: object) -> Path | None:
    """Read the path of a file, or nothing at all: none."""
    return None if value == "" else file(value)


def owner(value: object) -> str:
    """Read USER, USER:GROUP or :GROUP, by name or number; whether they exist is seen at start."""
    text = text_of(value, 'an owner such as "coherd:www-data" or ":www-data"')
    if text and not _OWNER.fullmatch(text):
        raise WrongValue(f'{shown(text)}: expected "USER", "USER:GROUP" or ":GROUP"')
    return text


def identity_pattern(value: object) -> str:
    """Read whom a grant is for: a role and a name, in which `*` and `?` match as in a shell."""
    expected = 'an identity such as "client/web-1" or "client/web-*"'
    text = text_of(value, expected)
    role = text.partition("/")[0]
    if not _IDENTITY.fullmatch(text):
        raise WrongValue(f"expected {expected}, got {shown(text)}")
    if role != Role.CLIENT:
        raise WrongValue(
            f"{shown(text)}: grants are for clients; an operator may do everything, and an agent only "
            "what agents do"
        )
    return text


def namespace_pattern(value: object) -> str:
    """Read which namespaces a grant is about: a name, in which `*` and `?` match as in a shell."""
    text = text_of(value, 'a namespace such as "shop", "shop.*" or "*"')
    if not _NAMESPACES.fullmatch(text):
        raise WrongValue(f"{shown(text)} matches no namespace: a-z 0-9 . _ - and * ? are due")
    return text


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """By what this agent and others are known; `coherd pki` makes the files where nobody else does."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    ca: Annotated[Path, Parsed(file)]
    """Certificates of the authorities that are believed, in PEM; two of them while one replaces the other."""
    cert: Annotated[Path, Parsed(file)]
    """This agent's certificate in PEM, those between it and an authority behind it."""
    key: Annotated[Path, Parsed(file)]
    """Its key in PEM, without a password; only its owner may read the file."""


@dataclass(frozen=True, slots=True)
class GrantConfig:
    """What some clients may do with some namespaces."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    identities: Annotated[
        tuple[Annotated[str, Parsed(identity_pattern)], ...], Listed(1, PATTERNS_MAX)
    ]
    """Who: "client/NAME", in which `*` and `?` match as in a shell."""
    verbs: Annotated[
        tuple[Annotated[str, Parsed(config_values.one_of(*Verb))], ...], Listed(1, len(Verb))
    ]
    """What: "read", "invalidate", "watch", "admin"."""
    namespaces: Annotated[
        tuple[Annotated[str, Parsed(namespace_pattern)], ...], Listed(1, PATTERNS_MAX)
    ]
    """With which namespaces, `*` and `?` as in a shell; "*" is also the agent as a whole."""

    @property
    def grant(self) -> Grant:
        """Give it as it is decided by."""
        return Grant(self.identities, [Verb(verb) for verb in self.verbs], self.namespaces)
