"""What tests of `coherd pki` have in common."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from click.testing import Result
from cryptography import x509
from toy_agent import coherd

from coherd.identity import Identity, Role
from coherd.pki.files import read_certificates

AGENT = Identity("example.org", "prod", Role.AGENT, "cache-1")
HOUR = timedelta(hours=1)


def pki(verb: str, *arguments: object, code: int = 0) -> Result:
    result = coherd("pki", verb, *arguments)
    assert result.exit_code == code, result.output
    if code == 1 and verb != "show":
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
    return result


def made(ca: Path, who: str = "agent/cache-1", *arguments: object) -> Path:
    pki("issue", ca, who, "--cluster", "prod", *arguments)
    return ca / f"{who.replace('/', '-')}.pem"


def leaf(path: Path) -> x509.Certificate:
    return read_certificates(path)[0]
