"""Keys, tags, prefixes and namespaces: what is illegal is refused by name, what is merely odd works."""

from __future__ import annotations

import json
import unicodedata
from io import StringIO
from typing import Any

import pytest
import structlog
from doors import METHODS, Doors, Raw, assert_one_line, exchange

from coherd import logs
from coherd.errors import RpcFailed
from coherd.limits import NAMESPACE_MAX, SELECTOR_BYTES_MAX
from coherd.v1 import cache_service_pb2 as cache

KINDS = {"keys": "key", "tags": "tag", "prefixes": "prefix"}


def request(**fields: Any) -> cache.InvalidateRequest:
    return cache.InvalidateRequest(**{"namespace": "shop", **fields})


@pytest.mark.bad_input(1)
@pytest.mark.parametrize("kind", ["keys", "tags"])
async def test_an_empty_name(agent: Doors, kind: str) -> None:
    for texts in ([b""], [b"a", b"", b"b"]):
        said = await agent.refused("Invalidate", request(**{kind: texts}))
        assert said == f"an empty {KINDS[kind]}"


@pytest.mark.bad_input(2)
@pytest.mark.parametrize("kind", KINDS)
async def test_the_longest_name_and_one_that_is_longer(agent: Doors, kind: str) -> None:
    longest = b"\xff" * SELECTOR_BYTES_MAX
    receipt = await agent.invalidate(**{kind: [longest]})
    assert receipt.complete
    said = await agent.refused("Invalidate", request(**{kind: [longest + b"x"]}))
    assert said == f"a {KINDS[kind]} of 1025 bytes: at most 1024 are allowed"


@pytest.mark.bad_input(3, 6)
@pytest.mark.parametrize(
    "twins",
    [
        (b"\x00", b"\x00\x00"),
        (b"a\x00b", b"a"),
        tuple(unicodedata.normalize(form, "Ångström").encode() for form in ("NFC", "NFD")),
    ],
    ids=["NUL alone", "NUL inside", "NFC and NFD"],
)
async def test_names_are_bytes_and_those_that_look_alike_differ(
    agent: Doors, twins: tuple[bytes, bytes]
) -> None:
    one, other = twins
    assert one != other
    for key in twins:
        agent.handler.put(key, "value", ())
    await agent.invalidate(keys=[one], wait=cache.WAIT_LOCAL)
    assert set(agent.handler.entries) == {other}
    await agent.invalidate(keys=[other], wait=cache.WAIT_LOCAL)
    assert not agent.handler.entries


NASTY = "line\nred \x1b[31m \u202egnirts\r\x00"


@pytest.fixture
def log_lines() -> Any:
    """Log as an agent does, into a text."""
    said = StringIO()
    before = structlog.get_config()
    logs.configure(json=True)
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(said), cache_logger_on_first_use=False
    )
    yield lambda: said.getvalue().splitlines()
    structlog.configure(**before)


@pytest.mark.bad_input(4)
async def test_control_characters_work_in_a_key_and_are_escaped_in_the_log(
    agent: Doors, log_lines: Any
) -> None:
    key = NASTY.encode()
    agent.handler.put(key, "value", ())
    await agent.invalidate(keys=[key], tags=[key], reason=NASTY, wait=cache.WAIT_LOCAL)
    assert not agent.handler.entries
    await agent.refused("Invalidate", request(namespace=NASTY, keys=[b"a"]))
    stranger = exchange(cluster=NASTY + "x" * 2_000)
    await agent.refused("Exchange", stranger, "FAILED_PRECONDITION", counted=False)
    structlog.get_logger("coherd.test").warning("said by a peer", text=NASTY, long="x" * 2_000)
    (line,) = [line for line in log_lines() if "said by a peer" in line]
    assert line.isprintable()
    assert line.isascii()
    found = json.loads(line)
    assert found["text"] == "line\\nred \\x1b[31m \\u202egnirts\\r\\x00"
    assert len(found["long"]) == 257
    assert found["long"].endswith("…")


@pytest.mark.bad_input(5)
@pytest.mark.parametrize("text", [b"\xff\xfe", b"\xed\xa0\x80", b"a\xc3", b"\xc0\xaf"])
async def test_text_that_is_no_utf8(agent: Doors, text: bytes) -> None:
    """Keys are bytes; namespaces, reasons and names are text."""
    for tag in (b"\x0a", b"\x62"):  # namespace, reason
        data = b"\x12\x01a" + tag + bytes([len(text)]) + text
        said = await agent.refused("Invalidate", Raw(data))
        assert said == "bytes that are no coherd.v1.InvalidateRequest"
    await agent.refused("Exchange", Raw(b"\x0a" + bytes([len(text)]) + text))
    with pytest.raises(UnicodeEncodeError):
        request(namespace="\ud800")
    assert (await agent.invalidate(keys=[text])).complete


@pytest.mark.bad_input(7)
@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "a/b",
        "CON",
        "x" * (NAMESPACE_MAX + 1),
        "Shop",
        "",
        "a b",
        "shop\n",
        "ſhop",
        "*",
    ],
)
async def test_what_is_no_namespace(agent: Doors, name: str) -> None:
    said = await agent.refused("Invalidate", request(namespace=name, keys=[b"a"]))
    assert said.startswith("illegal namespace")
    async with agent.local.stream(METHODS["Watch"]) as stream:
        await stream.send(cache.WatchRequest(open=cache.WatchOpen(namespaces=[name])))
        with pytest.raises(RpcFailed, match="illegal namespace") as caught:
            await stream.receive()
        assert caught.value.code == "INVALID_ARGUMENT"
        assert_one_line(caught.value.details)


@pytest.mark.bad_input(7)
@pytest.mark.parametrize("name", ["..", ".", "con", "-", "x" * NAMESPACE_MAX])
async def test_names_that_only_a_file_system_would_mind(agent: Doors, name: str) -> None:
    """No file is named after a namespace."""
    assert (await agent.invalidate(namespace=name, keys=[b"a"])).complete


@pytest.mark.bad_input(8)
async def test_ten_thousand_tags_and_the_same_tag_twice(agent: Doors) -> None:
    """An invalidation names tags; which keys carry them is the cache's knowledge."""
    tags = [b"%d" % n for n in range(10_000)]
    said = await agent.refused("Invalidate", request(tags=tags))
    assert said == "10000 rows: 1 to 1000 are due in one request"
    agent.handler.put(b"key", "value", tags)
    receipt = await agent.invalidate(tags=[b"9999", b"9999"], wait=cache.WAIT_LOCAL)
    assert (receipt.dots[0].first, receipt.dots[0].last) == (1, 2), "a row each"
    assert not agent.handler.entries


@pytest.mark.bad_input(9)
async def test_an_empty_prefix_is_not_everything(agent: Doors) -> None:
    agent.handler.put(b"key", "value", ())
    said = await agent.refused("Invalidate", request(prefixes=[b""]))
    assert said == "an empty prefix; to invalidate everything say so"
    assert agent.handler.entries
    await agent.invalidate(everything=True, wait=cache.WAIT_LOCAL)
    assert not agent.handler.entries


@pytest.mark.bad_input(10)
async def test_one_key_named_in_every_way_has_one_effect_and_a_dot_each(agent: Doors) -> None:
    for key in (b"user:1", b"user:2", b"else"):
        agent.handler.put(key, "value", [b"user:1"] if key == b"user:1" else ())
    receipt = await agent.invalidate(
        prefixes=[b"user:1"], tags=[b"user:1"], keys=[b"user:1"], wait=cache.WAIT_LOCAL
    )
    assert set(agent.handler.entries) == {b"user:2", b"else"}
    (dots,) = receipt.dots
    assert (dots.first, dots.last) == (1, 3)
    replica = agent.agent.replica
    stream = next(
        s for s, state in replica.vector if s.origin == agent.agent.ingest.life and state.have
    )
    (entry,) = agent.agent.feed.rows(stream, replica.vector.state(stream).have)
    order = [b"kuser:1", b"tuser:1", b"puser:1"]
    assert list(entry.arrival.batch.selectors) == order
    assert replica.position == 3
