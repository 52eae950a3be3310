"""Settings: what is read from which source, what is refused, and how that is said."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import fields
from pathlib import Path

import pytest
from config_files import problems, read

from coherd.config import (
    EXAMPLE,
    LOCAL_DEFAULT,
    SETTINGS,
    Address,
    AgentConfig,
    ConfigProblems,
    NamespaceConfig,
    RedisHandlerConfig,
    UnixSocket,
    load,
)
from coherd.config.source import FILE_BYTES_MAX


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "coherd.toml"


# The example and the defaults


def test_the_example_is_read_as_it_reads(file: Path) -> None:
    assert read(file, EXAMPLE) == AgentConfig(
        name="cache-1",
        cluster="prod-eu",
        region="eu-west",
        listen=Address("127.0.0.1", 4373),
        insecure=False,
        join=(Address("cache-2.internal", 4373), Address("10.0.0.12", 4373)),
        join_alone=False,
        profile="lan",
        on_stop="restart",
        data_dir=Path("/var/lib/coherd"),
        local=(UnixSocket("/run/coherd/coherd.sock"),),
        http=Address("127.0.0.1", 4375),
        durability="os",
        namespaces={
            "default": NamespaceConfig(),
            "shop": NamespaceConfig(max_ttl=3600.0, entries_max=1_000_000),
        },
        handlers=(
            RedisHandlerConfig(
                kind="redis",
                url="redis://127.0.0.1:6379/0",
                namespaces=("shop",),
                key="shop:{key}",
                tag="tag:shop:{tag}",
            ),
        ),
    )


def test_the_example_names_the_defaults_that_the_code_has(file: Path) -> None:
    """Each `# default:` line, put in the place of what follows it, changes nothing."""
    defaults = dict(
        re.findall(r"^# default: (.*)\n(?:# )?(\w+) = ", EXAMPLE, re.MULTILINE)[i][::-1]
        for i in range(EXAMPLE.count("# default: "))
    )
    assert defaults.keys() == SETTINGS.keys() | {f.name for f in fields(NamespaceConfig)}
    derived = {"name", "region", "advertise"}
    agent = [f"{n} = {defaults[n]}" for n in SETTINGS if n not in derived]
    namespace = [f"{f.name} = {defaults[f.name]}" for f in fields(NamespaceConfig)]
    text = "\n".join(['name = "a"', *agent, "[namespaces.default]", *namespace])
    assert read(file, text) == read(file, 'name = "a"')
    assert read(file, text).namespaces == {"default": NamespaceConfig()}


def test_what_the_example_has_commented_out_is_valid(file: Path) -> None:
    read(file, re.sub(r"^# (\w+ = |\[+\w+\]+$)", r"\1", EXAMPLE, flags=re.MULTILINE), insecure=True)


def test_an_empty_file_is_an_agent_with_the_host_name(file: Path) -> None:
    config = read(file, "")
    assert config.name == socket.gethostname()
    assert config.region == config.cluster == "default"
    assert config.local == (LOCAL_DEFAULT,)
    assert config == load(None, {}, {})


@pytest.mark.parametrize(("host", "name"), [("Bob's Mac.local", "Bob-s-Mac.local"), ("_a", "a")])
def test_the_host_name_becomes_a_name(
    monkeypatch: pytest.MonkeyPatch, host: str, name: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert load(None, {}, {}).name == name


def test_a_host_name_that_cannot_serve_is_an_error_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "東京")
    assert problems(file, "") == [
        "default: name: the name of this host cannot serve as one; set name"
    ]


# Sources


def test_flags_win_over_variables_and_these_over_the_file(file: Path) -> None:
    text = 'name = "file"\ncluster = "file"\nregion = "file"\njoin = ["x"]'
    env = {"COHERD_NAME": "env", "COHERD_CLUSTER": "env", "COHERD_JOIN": "y, z:1,"}
    config = read(file, text, env, name="flag", cluster=None, join=())
    assert (config.name, config.cluster, config.region) == ("flag", "env", "file")
    assert config.join == (Address("y", 4373), Address("z", 1))
    assert read(file, text, env, join=("a,b", "c")).join == tuple(
        Address(host, 4373) for host in "abc"
    )


def test_every_setting_above_the_tables_has_a_variable() -> None:
    env = {
        "COHERD_NAME": "a",
        "COHERD_CLUSTER": "b",
        "COHERD_REGION": "c",
        "COHERD_LISTEN": "0.0.0.0:0",
        "COHERD_ADVERTISE": "10.0.0.1:4373",
        "COHERD_INSECURE": "yes",
        "COHERD_JOIN": "",
        "COHERD_JOIN_ALONE": "1",
        "COHERD_PROFILE": "fast",
        "COHERD_ON_STOP": "leave",
        "COHERD_DATA_DIR": "/data",
        "COHERD_LOCAL": "unix:/a,127.0.0.1:4376",
        "COHERD_HTTP": "",
        "COHERD_DURABILITY": "disk",
        "COHERD_JOURNAL_BYTES_MAX": "1_000_000_000",
        "COHERD_RESET_JITTER": "30",
        "COHERD_INTEREST": "",
        "COHERD_REPLAY_MAX": "5_000",
        "COHERD_LOCAL_OWNER": ":www-data",
        "COHERD_TOKEN_FILE": "/etc/coherd/token",
    }
    assert env.keys() == {f"COHERD_{name.upper()}" for name in SETTINGS}
    assert load(None, env, {}) == AgentConfig(
        name="a",
        cluster="b",
        region="c",
        listen=Address("0.0.0.0", 0),
        advertise=Address("10.0.0.1", 4373),
        insecure=True,
        join_alone=True,
        local_owner=":www-data",
        token_file=Path("/etc/coherd/token"),
        profile="fast",
        on_stop="leave",
        data_dir=Path("/data"),
        local=(UnixSocket("/a"), Address("127.0.0.1", 4376)),
        http=None,
        durability="disk",
        journal_bytes_max=1_000_000_000,
        reset_jitter=30.0,
        interest=(),
        replay_max=5000,
        namespaces={"default": NamespaceConfig()},
    )


def test_flags_come_in_their_own_types(tmp_path: Path) -> None:
    config = load(
        None, {}, {"data_dir": tmp_path, "insecure": True, "listen": "[::]:1", "advertise": "a:1"}
    )
    assert (config.data_dir, config.insecure, config.listen) == (tmp_path, True, Address("::", 1))


def test_an_unknown_variable_is_an_error_that_names_the_nearest(file: Path) -> None:
    assert problems(
        file, "", {"COHERD_JION": "x", "COHERD_ZZZ": "", "COHERD_NAMESPACES": "", "PATH": "/bin"}
    ) == [
        "COHERD_JION: unknown variable; did you mean COHERD_JOIN?",
        "COHERD_ZZZ: unknown variable; `coherd config example` lists the settings",
        "COHERD_NAMESPACES: unknown variable; namespaces and handlers are set in the file only",
    ]
    assert problems(file, "", nmae="x") == ["--nmae: unknown flag; did you mean 'name'?"]


def test_variables_of_clients_and_of_kubernetes_are_left_alone() -> None:
    load(
        None,
        {
            "COHERD_ADDRESS": "unix:/x",
            "COHERD_SERVICE_HOST": "10.0.0.1",
            "COHERD_SERVICE_PORT": "4373",
            "COHERD_SERVICE_PORT_PEERS": "4373",
            "COHERD_PORT": "tcp://10.0.0.1:4373",
            "COHERD_PORT_4373_TCP": "tcp://10.0.0.1:4373",
            "COHERD_PORT_4373_TCP_ADDR": "10.0.0.1",
            "COHERD_SEEDS_SERVICE_HOST": "10.0.0.2",
        },
        {},
    )
    with pytest.raises(ConfigProblems, match="COHERD_PORT: unknown variable"):
        load(None, {"COHERD_PORT": "4373"}, {})


def test_the_place_in_an_error_is_the_source_that_won(file: Path) -> None:
    assert problems(file, 'listen = "x"', {"COHERD_INSECURE": "maybe"}, cluster="a b") == [
        (
            "--cluster: cluster: 'a b' is not a name: 1 to 128 letters, digits, '.', '_' or '-', "
            "the first a letter or digit"
        ),
        "COHERD_INSECURE: insecure: expected true or false, got 'maybe'",
        "FILE:1: listen: 'x': the port is missing; write \"HOST:PORT\"",
    ]


# The file as such


@pytest.mark.bad_input(69)
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xfen\x00", "FILE:1: is UTF-16; save it as UTF-8"),
        (b'name = "a"\nregion = "\xff"', "FILE:2: is not UTF-8; save it as UTF-8"),
        (b"a = 1\nb = ]", "FILE:2: not TOML: Invalid value (column 5)"),
        (b'a = "', "FILE:1: not TOML: Unterminated string (at the end of the file)"),
        (b'name = "a"\nname = "b"\n', "FILE:2: not TOML: Cannot overwrite a value (column 11)"),
        (b"a = " + b"[" * 100_000, "FILE: lists or tables are nested too deeply"),
        (b"#" * (FILE_BYTES_MAX + 1), "FILE: larger than 1 MiB; expected a TOML file"),
        (b"#" * 10_000_000, "FILE: larger than 1 MiB; expected a TOML file"),
    ],
)
def test_a_file_that_is_no_toml_is_refused_with_its_line(
    file: Path, content: bytes, expected: str
) -> None:
    found = problems(file, content)
    assert len(found) == 1
    assert found[0].replace("at end of document", "at the end of the file") == expected


@pytest.mark.bad_input(69)
def test_a_byte_order_mark_and_windows_lines_do_no_harm(file: Path) -> None:
    assert read(file, b'\xef\xbb\xbfname = "a"\r\ncluster = "b"\r\n').cluster == "b"
    assert problems(file, b"\xef\xbb\xbf\r\n\r\njion = 1\r\n")[0].startswith("FILE:3: ")


@pytest.mark.bad_input(67, 69)
def test_a_file_that_is_not_there_or_not_a_file_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    looped = tmp_path / "loop"
    looped.symlink_to(looped)
    for path, expected in {
        tmp_path / "none": "no such file; `coherd config example` prints one to start from",
        tmp_path: "is a directory; expected a TOML file",
        fifo: "is not a regular file; expected a TOML file",
        looped: "cannot be read: Too many levels of symbolic links",
    }.items():
        with pytest.raises(ConfigProblems) as caught:
            load(path, {}, {})
        assert caught.value.problems == (f"{path}: {expected}",)


def test_nothing_to_read_is_an_agent_with_defaults() -> None:
    assert load(Path("/dev/null"), {}, {}) == load(None, {}, {})


# Names that nobody knows


def test_everything_that_is_wrong_is_listed_with_its_line(file: Path) -> None:
    text = """\
name = "cache-1"
jion = ["x"]
join = [
  "x",
  "y:0",
]
listen = "0.0.0.0:4373"
max_ttl = "1h"
[namespaces.shop]
max_tl = "1h"
staleness_bound = "-1s"
durability = "disk"
[namespaces.Shop]
[[handlers]]
kind = "memcached"
key = "x"
url_ = 1
[storage]
"""
    assert problems(file, text) == [
        "FILE:2: unknown setting 'jion'; did you mean 'join'?",
        "FILE:5: join[1]: port 0 cannot be dialled; write the port of the agent",
        (
            "FILE:7: listen: 0.0.0.0:4373 is not a loopback address and nothing there is encrypted; "
            "set [tls], or use 127.0.0.1, or set insecure = true to allow it"
        ),
        "FILE:7: listen: 0.0.0.0:4373 means every address; set advertise to the one that peers dial",
        "FILE:8: unknown setting 'max_ttl'; it belongs under [namespaces.NAME]",
        "FILE:10: unknown setting 'namespaces.shop.max_tl'; did you mean 'max_ttl'?",
        (
            "FILE:11: namespaces.shop.staleness_bound: "
            'expected a duration such as "500ms", "90s", "5m", "1h" or "2d", got \'-1s\''
        ),
        "FILE:12: unknown setting 'namespaces.shop.durability'; it belongs above the first [table]",
        (
            "FILE:13: namespaces.Shop: 'Shop' is not a namespace: "
            "1 to 64 lower-case letters, digits, '.', '_' or '-'"
        ),
        'FILE:14: handlers[0].url: is missing; `coherd config example` shows how "url" is written',
        (
            "FILE:14: handlers[0].namespaces: is missing; "
            '`coherd config example` shows how "namespaces" is written'
        ),
        "FILE:15: handlers[0].kind: expected \"redis\", got 'memcached'",
        "FILE:16: handlers[0].key: 'x': expected {key} exactly once and no other braces",
        "FILE:17: unknown setting 'handlers[0].url_'; did you mean 'url'?",
        "FILE:18: unknown setting 'storage'",
    ]


@pytest.mark.bad_input(69)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("namespaces = 3", "FILE:1: namespaces: expected tables [namespaces.NAME]"),
        ("namespaces.shop = 3", "FILE:1: namespaces.shop: expected a table"),
        (
            '[handlers]\nkind = "redis"',
            "FILE:1: handlers: expected a list, got a table; each begins with [[handlers]]",
        ),
        ("handlers = [1]", "FILE:1: handlers[0]: expected a table"),
        ('handlers = [{kind = "redis", nmae = 1}]', "FILE:1: unknown setting 'handlers[0].nmae'"),
        ('join = "x"', "FILE:1: join: expected a list, got 'x'"),
        (
            "join = [[]]",
            'FILE:1: join[0]: expected an address such as "127.0.0.1:4373", got a list',
        ),
        ('insecure = "true"', "FILE:1: insecure: expected true or false, got 'true'"),
        ("insecure = 1", "FILE:1: insecure: expected true or false, got 1"),
        ("name = 1979-05-27", "FILE:1: name: expected a name, got a date"),
        ('durability = "ram"', 'FILE:1: durability: expected "os" or "disk", got \'ram\''),
        (
            'profile = "LAN"',
            'FILE:1: profile: expected "lan" or "fast" or "wan" or "local", got \'LAN\'',
        ),
        ("on_stop = true", 'FILE:1: on_stop: expected "restart" or "leave", got true'),
        ("local = []", "FILE:1: local: is empty; expected at least one entry"),
        ('data_dir = "~/x"', "FILE:1: data_dir: '~/x': write the whole path of the directory"),
        ('"a\\u001bb" = 1', "FILE:1: unknown setting 'a\\x1bb'"),
        (f'name = "{"x" * 500}"', f"FILE:1: name: '{'x' * 60}…' is not a name"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(file: Path, text: str, expected: str) -> None:
    found = problems(file, text)
    assert any(problem.startswith(expected) for problem in found), found


def test_a_thousand_mistakes_do_not_fill_the_screen(file: Path) -> None:
    found = problems(file, "".join(f"x{n} = 1\n" for n in range(1000)))
    assert len(found) == 101
    assert found[-1] == "and 900 problems more"


# Interest


def test_a_handlers_namespaces_must_be_held(file: Path) -> None:
    text = """interest = ["farm"]
[[handlers]]
kind = "redis"
url = "redis://127.0.0.1:6379/0"
namespaces = ["farm", "shop"]
key = "{key}"
"""
    (problem,) = problems(file, text)
    assert problem.startswith("FILE:1: interest: copies of 'shop' are in redis://127.0.0.1:6379")
    assert problem.endswith('add "shop" to interest, or take it out of the handler')
    assert read(file, text.replace('["farm"]', '["*"]')).holds("shop")


def test_an_interest_fits_into_what_an_agent_says_of_itself(file: Path) -> None:
    names = ", ".join(f'"{n:064}"' for n in range(15))
    assert problems(file, f"interest = [{names}]")[0].startswith("FILE:1: interest: the names")
    assert problems(file, 'interest = ["A"]')[0].startswith("FILE:1: interest[0]: 'A' is not")
