"""Settings: which values are read, which are refused, and that no password is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_files import HANDLER, problems, read
from hypothesis import given
from hypothesis import strategies as st

from coherd.config import (
    Address,
    AgentConfig,
    NamespaceConfig,
    UnixSocket,
)
from coherd.config.values import duration, format_duration


def words(text: str) -> list[str]:
    """Many short values on a line."""
    return text.split()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "coherd.toml"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ('"1500ms"', 1.5),
        ('"90s"', 90),
        ('"5m"', 300),
        ('"1h"', 3600),
        ('"2d"', 172_800),
        ('"1.5h"', 5400),
        ("90", 90),
        ('"90"', 90),
        ("1.5", 1.5),
        ('"none"', None),
    ],
)
def test_a_duration_is_read_in_seconds(file: Path, written: str, seconds: float | None) -> None:
    config = read(file, f"namespaces.shop.max_ttl = {written}")
    assert config.namespace("shop").max_ttl == seconds


@pytest.mark.bad_input(69)
@pytest.mark.parametrize(
    "written",
    [
        *words('"1e9s" "-1s" "" "s" "1w" "٣s" "inf" "1h30m"'),
        '"1 s"',
        '" 1s"',
        '"1s "',
        *words('-1 0 nan inf -inf 1e300 true [1] "4000d" "0ms"'),
        "0x" + "f" * 9000,
    ],
)
def test_what_is_no_duration_is_refused(file: Path, written: str) -> None:
    (problem,) = problems(file, f"namespaces.shop.max_ttl = {written}")
    assert problem.startswith("FILE:1: namespaces.shop.max_ttl: expected ")
    assert len(problem) < 200


@given(st.floats(0.001, 1e8))
def test_a_duration_that_was_written_is_read_again(seconds: float) -> None:
    assert duration(0.0)(format_duration(seconds)) == pytest.approx(seconds, abs=1e-8)


@pytest.mark.parametrize(
    "written", ["0", "999", "1.0", "true", '"1000"', "10_000_000_000", "0x" + "f" * 5000]
)
def test_what_is_no_number_of_entries_is_refused(file: Path, written: str) -> None:
    (problem,) = problems(file, f"namespaces.shop.entries_max = {written}")
    assert "entries_max: expected a whole number from 1000 to 1000000000, got" in problem


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("127.0.0.1:4373", Address("127.0.0.1", 4373)),
        ("127.9.9.9:0", Address("127.9.9.9", 0)),
        ("localhost:65535", Address("localhost", 65_535)),
        ("[::1]:1", Address("::1", 1)),
        ("[::ffff:127.0.0.1]:1", Address("::ffff:127.0.0.1", 1)),
    ],
)
def test_a_loopback_address_needs_no_permission(file: Path, written: str, address: Address) -> None:
    config = read(file, f'listen = "{written}"\nhttp = "{written}"')
    assert config.listen == config.http == address
    assert str(config.listen) == written


@pytest.mark.parametrize("setting", ["listen", "advertise", "http"])
@pytest.mark.parametrize("written", ["10.0.0.1:1", "host:1", "[2001:db8::1]:1", "[fe80::1%eth0]:1"])
def test_another_address_needs_insecure(file: Path, setting: str, written: str) -> None:
    (problem,) = problems(file, f'{setting} = "{written}"')
    assert problem.startswith(f"FILE:1: {setting}: {written} is not a loopback address")
    assert "set insecure = true" in problem
    config = read(file, f'insecure = true\n{setting} = "{written}"')
    assert str(getattr(config, setting)) == written


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "[::]"])
def test_every_address_is_no_address_that_others_can_dial(file: Path, wildcard: str) -> None:
    text = f'insecure = true\nlisten = "{wildcard}:4373"\n'
    (problem,) = problems(file, text)
    assert "set advertise" in problem
    read(file, text + 'advertise = "10.0.0.1:4373"')
    for dialled in (f'advertise = "{wildcard}:4373"', f'join = ["{wildcard}:4373"]'):
        assert "cannot be dialled" in "".join(problems(file, text + dialled))


@pytest.mark.parametrize(
    "written",
    [
        *words("x :1 x: x:-1 x:65536 x:1:2 x:٣ x:123456 ::1 ::1:4373"),
        "",
        "x:1 ",
        " x:1",
        *words("[::1] [::1]: [::1]x:1 [127.0.0.1]:1 [x]:1 []:1 [::1%]:1"),
        "[fe80::1%a b]:1",
        *words("127.1:1 1.2.3.256:1 1.2.3:1 010.0.0.1:1 höst:1 x..y:1 a/b:1"),
        "ho st:1",
        "x" * 64 + ":1",
        *words("tcp://x:1 a@b:1"),
        "x." * 130 + "x:1",
        "x\ty:1",
        "x\x1b[31m:1",
        "x\n:1",
    ],
)
def test_what_is_no_address_is_refused(file: Path, written: str) -> None:
    escaped = "".join(f"\\u{ord(c):04x}" for c in written)
    (problem,) = problems(file, f'insecure = true\nlisten = "{escaped}"')
    assert problem.startswith("FILE:2: listen: ")


@pytest.mark.bad_input(70)
def test_seeds_may_be_names_addresses_and_many(file: Path) -> None:
    config = read(
        file, 'join = ["a", "a:4373", "10.0.0.1", "[fe80::1%eth0]:5", "[::1]", "x.internal."]'
    )
    assert config.join == (
        Address("a", 4373),
        Address("10.0.0.1", 4373),
        Address("fe80::1%eth0", 5),
        Address("::1", 4373),
        Address("x.internal.", 4373),
    )
    hosts = ",".join(f'"host-{n}"' for n in range(10_000))
    assert len(read(file, f"join = [{hosts}]").join) == 10_000
    assert problems(file, f'join = [{hosts}, "x"]') == [
        "FILE:1: join: has 10001 entries; expected 0 to 10000"
    ]


@pytest.mark.bad_input(70)
def test_the_agent_itself_among_the_seeds_does_no_harm(file: Path) -> None:
    assert read(file, 'listen = "127.0.0.1:4373"\njoin = ["127.0.0.1:4373"]').join


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("unix:/run/x.sock", UnixSocket("/run/x.sock")),
        ("unix:///run/x.sock", UnixSocket("/run/x.sock")),
        ("unix:/" + "x" * 106, UnixSocket("/" + "x" * 106)),
        ("127.0.0.1:4376", Address("127.0.0.1", 4376)),
        ("[::1]:0", Address("::1", 0)),
    ],
)
def test_applications_come_in_by_a_socket_or_loopback(
    file: Path, written: str, expected: Address | UnixSocket
) -> None:
    config = read(file, f'local = ["{written}", "{written}"]')
    assert config.local == (expected,)


@pytest.mark.bad_input(68)
@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("unix:run/x.sock", "the path of a unix socket is absolute"),
        ("unix://run/x.sock", "the path of a unix socket is absolute"),
        ("unix:", "the path of a unix socket is absolute"),
        ("unix:/run/", "names a file"),
        ("unix:/" + "x" * 107, "has 108 bytes; the path of a unix socket has at most 107"),
        ("unix:/" + "é" * 54, "has 109 bytes"),
        ("unix:/a\\u0000b", "cannot be printed"),
        ("/run/x.sock", 'write "unix:/run/x.sock"'),
    ],
)
def test_other_doors_for_applications_are_refused(file: Path, written: str, expected: str) -> None:
    (problem,) = problems(file, f'insecure = true\nlocal = ["{written}"]')
    assert problem.startswith("FILE:2: local[0]: ")
    assert expected in problem


# Namespaces and handlers


def test_a_namespace_inherits_what_it_leaves_unset(file: Path) -> None:
    config = read(
        file,
        """
        [namespaces.shop]
        max_ttl = "1h"
        staleness_bound = "none"
        [namespaces.default]
        entries_max = 5000
        max_ttl = "2h"
        retention = "3d"
        [namespaces.users]
        max_ttl = "none"
        """,
    )
    kept = {"retention": 259_200, "entries_max": 5000}
    assert config.namespace("shop") == NamespaceConfig(3600, staleness_bound=None, **kept)
    assert config.namespace("users") == NamespaceConfig(None, **kept)
    assert (
        config.namespace("other") == config.namespaces["default"] == NamespaceConfig(7200, **kept)
    )
    assert AgentConfig("a").namespace("x") == NamespaceConfig()


@pytest.mark.parametrize(
    ("written", "rate"), [("1", 1.0), ("2.5", 2.5), ("1_000_000_000", 1e9), ('"none"', None)]
)
@pytest.mark.parametrize("setting", ["rate_max", "urgent_rate_max"])
def test_a_rate_is_a_number_or_none(
    file: Path, setting: str, written: str, rate: float | None
) -> None:
    config = read(file, f"namespaces.shop.{setting} = {written}")
    assert getattr(config.namespace("shop"), setting) == rate


@pytest.mark.parametrize("written", words('0 -1 0.9 1e10 nan inf true "10" "1s" [1]'))
def test_what_is_no_rate_is_refused(file: Path, written: str) -> None:
    (problem,) = problems(file, f"namespaces.shop.rate_max = {written}")
    assert "namespaces.shop.rate_max: expected a number from 1 to 1,000,000,000, got " in problem


def test_a_window_may_have_no_time_and_at_most_a_minute(file: Path) -> None:
    for written, seconds in (("0", 0.0), ('"20ms"', 0.02), ('"1m"', 60.0)):
        config = read(file, f"namespaces.shop.batch_window = {written}")
        assert config.namespace("shop").batch_window == seconds
    (problem,) = problems(file, 'namespaces.shop.batch_window = "61s"')
    assert "expected 0s to 1m" in problem


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1",
        "redis://cache:6379/3",
        "rediss://user:p%40ss@cache.internal:6380/0?ssl_ca_certs=/etc/ca.pem",
        "redis://:pw@[::1]:6379/0",
        "redis://host?db=4",
        "unix:///run/redis.sock?db=2",
        "unix://:pw@/run/redis.sock",
    ],
)
def test_a_redis_is_named_by_a_url(file: Path, url: str) -> None:
    (handler,) = read(file, HANDLER + f'url = "{url}"').handlers
    assert (handler.url, handler.tag) == (url, None)


@pytest.mark.parametrize(
    "url",
    [
        *words("127.0.0.1:6379 http://h redis:h redis:// redis://:6379 redis://h:0 redis://h:x"),
        "",
        *words(
            "redis://h:99999 redis://h/x redis://h/0/1 redis://h/-1 redis://h/0?db=1 redis://h?x=1"
        ),
        *words("redis://h?ssl_keyfile=x redis://h\\u0000 unix://h/x unix:/ unix://x.sock"),
        "redis://h/ 0",
        *words("redis://h_\\u00e9 redis://[::1 redis://[x]:1 redis://h#x redis://s!h"),
    ],
)
def test_what_is_no_redis_is_refused(file: Path, url: str) -> None:
    (problem,) = problems(file, HANDLER + f'url = "{url}"')
    assert problem.startswith("FILE:5: handlers[0].url: ")


@pytest.mark.parametrize(
    "url",
    [
        *words(
            "redis://:SECRET@h:x redis://:SECRET@h/x redis://u:SECRET/@h redis://:SECRET#1@h SECRET"
        ),
        *words("redis://:a?SECRET@h redis://:SECRET@h?x=SECRET http://u:SECRET@h"),
        "redis://:SECRET @h",
        *words("redis://SEC/RET:SECRET@h redis://a!SECRET?@h redis://h!SECRET redis:/:SECRET@h:1"),
    ],
)
def test_a_wrong_url_is_not_repeated(file: Path, url: str) -> None:
    assert "SECRET" not in "".join(problems(file, HANDLER + f'url = "{url}"'))


def test_a_url_in_a_wrong_place_does_not_show_its_password(file: Path) -> None:
    for line in (
        'listen = "{}"',
        'join = ["{}"]',
        'name = "{}"',
        'local = ["{}"]',
        'namespaces."{}".x = 1',
    ):
        found = "".join(problems(file, line.format("redis://u:SEC@RET@h:6379")))
        assert "SEC" not in found
        assert "RET" not in found


def test_a_password_is_not_in_what_is_printed(file: Path) -> None:
    config = read(file, HANDLER + 'url = "redis://u:SECRET@h:6379/0"')
    assert "SECRET" not in repr(config) + str(config)
    assert config.handlers[0].label == "redis://u:***@h:6379/0"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('key = "x"', "{key} exactly once"),
        ('key = "{key}{key}"', "{key} exactly once"),
        ('key = "{key}{x}"', "no other braces"),
        ('key = "{{key}}"', "no other braces"),
        ('key = "{tag}"', "{key} exactly once"),
        (f'key = "{"x" * 252}{{key}}"', "longer than 256 bytes"),
        ('key = "coherd:cursor:{key}"', "coherd's own"),
        ('tag = "{key}"', "{tag} exactly once"),
        ("tag = 3", 'expected a text such as "shop:{tag}", got 3'),
        ("namespaces = []", "is empty"),
        ('namespaces = ["*"]', "'*' is not a namespace"),
    ],
)
def test_what_a_handler_cannot_use_is_refused(file: Path, line: str, expected: str) -> None:
    name = line.partition(" ")[0]
    rest = "\n".join(text for text in HANDLER.splitlines() if not text.startswith(name + " "))
    (problem,) = problems(file, f'{rest}\nurl = "redis://h"\n{line}')
    assert f"handlers[0].{name}" in problem
    assert expected in problem
