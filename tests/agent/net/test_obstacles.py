"""What a server may show in a handshake that is no certificate is an obstacle too, and never an exception."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from certificates import Authority, identity

from coherd.net.obstacles import _who_is_wrong

A = identity("agent/a")
VERSION_3, VERSION_8 = bytes.fromhex("a003020102"), bytes.fromhex("a003020107")


@pytest.mark.parametrize(
    "case", ["nothing", "an extension twice", "a version of later", "a name that is no text"]
)
def test_what_is_no_certificate_is_said_to_be_none(tmp_path: Path, case: str) -> None:
    authority = Authority(tmp_path)
    right = ssl.PEM_cert_to_DER_cert(authority.issue(A).cert.read_text())
    assert _who_is_wrong(right, A, "a") is None
    shown = {
        "nothing": None,
        "an extension twice": ssl.PEM_cert_to_DER_cert(authority.odd(A).decode()),
        "a name that is no text": right.replace(b"somebody", b"some\xffody"),
        "a version of later": right.replace(VERSION_3, VERSION_8, 1),
    }[case]
    obstacle = _who_is_wrong(shown, A, "a")
    assert obstacle is not None
    assert "malformed" in obstacle.text or "no certificate" in obstacle.text
