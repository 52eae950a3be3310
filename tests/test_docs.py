"""The documentation is complete: every setting, verb and RPC has its place in docs/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FileDescriptor

from coherd.cli.exit_codes import ExitCode
from coherd.cli.main import VERBS
from coherd.config import EXAMPLE, SETTINGS, TABLES
from coherd.v1 import admin_service_pb2, cache_service_pb2, peer_service_pb2

DOCS = Path(__file__).parent.parent / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text()
CLI = (DOCS / "cli.md").read_text()
RPC = (DOCS / "rpc.md").read_text()

NAMES = sorted({field.name for _, table in TABLES.values() for field in fields(table)})
FILES: tuple[FileDescriptor, ...] = (
    admin_service_pb2.DESCRIPTOR,
    cache_service_pb2.DESCRIPTOR,
    peer_service_pb2.DESCRIPTOR,
)
RPCS = [
    method
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_explained_and_in_the_example(name: str) -> None:
    heading = (
        f"`{name}` is a"
        if name in {"namespaces", "handlers", "tls", "grants"}
        else f"\n### `{name}`\n"
    )
    assert heading in CONFIGURATION
    assert re.search(rf"^(# )?(\[+)?{name}\b", EXAMPLE, re.MULTILINE)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_variable_is_named(name: str) -> None:
    assert f"`COHERD_{name.upper()}`" in CONFIGURATION


@pytest.mark.parametrize("name", re.findall(r"^### `(\w+)`", CONFIGURATION, re.MULTILINE))
def test_no_setting_is_explained_that_does_not_exist(name: str) -> None:
    assert name in NAMES


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_explained(verb: str) -> None:
    assert f"\n## `coherd {verb}`\n" in CLI


@pytest.mark.parametrize("verb", re.findall(r"^## `coherd ([\w-]+)`", CLI, re.MULTILINE))
def test_no_verb_is_explained_that_does_not_exist(verb: str) -> None:
    assert verb in VERBS


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_is_explained(code: ExitCode) -> None:
    assert f"| {code.value} | {code.name.lower().replace('_', ' ')}" in CLI


@pytest.mark.parametrize("method", RPCS, ids=lambda method: method.full_name)
def test_every_rpc_is_explained(method: object) -> None:
    assert f"`{getattr(method, 'name')}`" in RPC  # noqa: B009


def public_messages() -> Iterator[Descriptor]:
    """Messages that applications and operators see."""
    waiting = [
        message
        for method in RPCS
        if method.containing_service.name != "PeerService"
        for message in (method.input_type, method.output_type)
    ]
    seen: set[str] = set()
    while waiting:
        message = waiting.pop()
        if message.full_name not in seen and message.full_name.startswith("coherd."):
            seen.add(message.full_name)
            yield message
            waiting += [field.message_type for field in message.fields if field.message_type]


@pytest.mark.parametrize("message", list(public_messages()), ids=lambda message: message.name)
def test_every_field_that_applications_see_is_explained(message: Descriptor) -> None:
    section = RPC.partition(f"`{message.name}`")[2].partition("\n#")[0]
    if not message.GetOptions().map_entry:
        assert [f.name for f in message.fields if f"\n| `{f.name}` |" not in section] == []
