"""What `coherd doctor` says of one thing: how it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How bad a finding is, the worse the higher."""

    OK = 1
    """As it should be."""
    WARNING = 2
    """Works, but not as it was probably meant."""
    ERROR = 3
    """Does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing is; the texts are one line each."""

    subject: str
    """What was looked at: seed, link, clock, version, disk, socket, journal, handler …"""
    name: str
    """Which one of them; empty where there is one alone."""
    severity: Severity
    text: str
    remedy: str = ""
    """What to do about it; empty when nothing is to be done."""


def fine(subject: str, name: str, text: str) -> Finding:
    """Say that something is as it should be."""
    return Finding(subject, name, Severity.OK, text)


def warning(subject: str, name: str, text: str, remedy: str) -> Finding:
    """Say that something works, but not as it was probably meant."""
    return Finding(subject, name, Severity.WARNING, text, remedy)


def broken(subject: str, name: str, text: str, remedy: str) -> Finding:
    """Say that something does not work."""
    return Finding(subject, name, Severity.ERROR, text, remedy)
