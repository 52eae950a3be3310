"""What an agent is told (floor 2): one TOML file, COHERD_* variables and flags; the later wins.

The dataclasses below are the settings: a field is a setting, its annotation says how it is read, its
docstring what it means. `load` gives an `AgentConfig` or raises `ConfigProblems`, which lists
everything that is wrong and where. `EXAMPLE` is a file to start from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from coherd.config import address as config_address
from coherd.config import security as config_security
from coherd.config import values as config_values
from coherd.config.address import Address, UnixSocket, without_secrets
from coherd.config.conflicts import conflicts
from coherd.config.example import EXAMPLE
from coherd.config.lines import Key
from coherd.config.security import GrantConfig, TlsConfig
from coherd.config.source import (
    ConfigProblems,
    Place,
    Problem,
    Written,
    add_environment,
    add_flags,
    nearest,
    read_file,
)
from coherd.config.values import Listed, Parsed, brief, shown
from coherd.model import EVERY_NAMESPACE

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

__all__ = [
    "BATCH_WINDOW_MAX",
    "DEFAULTS",
    "EXAMPLE",
    "LOCAL_DEFAULT",
    "SETTINGS",
    "TABLES",
    "Address",
    "AgentConfig",
    "ConfigProblems",
    "GrantConfig",
    "NamespaceConfig",
    "RedisHandlerConfig",
    "TlsConfig",
    "UnixSocket",
    "Written",
    "load",
    "trace",
]

SEEDS_MAX = 10_000
LOCAL_MAX = 16
HANDLERS_MAX = 64
GRANTS_MAX = 1000
OWNERS_MAX = 1000
NAMESPACES_MAX = 1000
BATCH_WINDOW_MAX = 60.0

RATE = config_values.unless_none(config_values.number(1.0, 1e9))
"""Reads rows a second."""
INTEREST_MAX = 64

LISTEN_DEFAULT = Address("127.0.0.1", 4373)
HTTP_DEFAULT = Address("127.0.0.1", 4375)

LOCAL_DEFAULT = UnixSocket("/run/coherd/coherd.sock")
"""Where an agent listens for applications, and where they look for it."""

DEFAULTS = "default"
"""[namespaces.default] holds what the other namespaces leave unset."""


@dataclass(frozen=True, slots=True)
class NamespaceConfig:
    """How the rows of one namespace are kept and spread."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    max_ttl: Annotated[
        float | None, Parsed(config_values.unless_none(config_values.duration(1.0)))
    ] = None
    """Seconds; longest time that any cache keeps a copy. None: nobody promises one.

    Rows older than max_ttl + 60 s + 2 % of max_ttl cover no copy that can still be alive: who missed such
    rows, and finds that they were forgotten, needs no reset. Take the longest expiry that your
    applications set, or more; a shorter one leaves stale copies behind.
    """
    retention: Annotated[float, Parsed(config_values.duration(60.0))] = 86_400.0
    """Seconds for which rows are remembered where there is no `max_ttl`; with one it has no effect.

    An agent that was away for longer resets the namespace when it comes back.
    """
    entries_max: Annotated[int, Parsed(config_values.integer(1000, 1_000_000_000))] = 1_000_000
    """Keys, tags and prefixes to remember; beyond, the oldest rows are forgotten, an eighth at once.

    About 150 to 250 bytes of memory each: take the number of different keys invalidated in one
    `max_ttl`, or in the longest absence that must not end in a reset.
    """
    staleness_bound: Annotated[
        float | None, Parsed(config_values.unless_none(config_values.duration(1.0)))
    ] = 30.0
    """Seconds; how stale a copy may get unnoticed. None: no bound.

    An acknowledging watcher that went away less than this ago (30 s without a bound) still counts as
    missing in receipts: its application may still serve what it holds.
    """
    rate_max: Annotated[float | None, Parsed(RATE)] = None
    """Rows a second that one client may invalidate, lanes normal and bulk together; None: no limit.

    A burst of one second's worth, or of 1,000 rows where that is more, is let through at once. Beyond, an
    invalidation is refused, and told when to come again.
    """
    urgent_rate_max: Annotated[float | None, Parsed(RATE)] = 10_000.0
    """Rows a second that one client may invalidate in the lane urgent; None: no limit. See `rate_max`."""
    owners: Annotated[
        tuple[Annotated[str, Parsed(config_security.identity_pattern)], ...], Listed(0, OWNERS_MAX)
    ] = ()
    """Who may invalidate: "client/NAME", `*` and `?` as in a shell. Empty: everybody who is let do it.

    Rows of others are applied, for a copy that was dropped in vain does no harm; they are counted and told.
    """
    batch_window: Annotated[float, Parsed(config_values.duration(0.0, BATCH_WINDOW_MAX))] = 0.05
    """Seconds that rows of the lane bulk wait for others, to leave as one batch; 0: they do not wait.

    Of rows of one selector that wait together only those are sent that say more than a later one. Longer
    saves more where the same keys are invalidated again and again; every caller waits so much longer.
    """


@dataclass(frozen=True, slots=True)
class RedisHandlerConfig:
    """One Redis or Valkey whose copies this agent drops."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    kind: Annotated[str, Parsed(config_values.one_of("redis"))]
    """What it is; "redis" is also right for Valkey."""
    url: Annotated[str, Parsed(config_address.redis_url)] = field(repr=False)
    """redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// for TLS, unix:///PATH?db=N."""
    namespaces: Annotated[
        tuple[Annotated[str, Parsed(config_values.namespace)], ...], Listed(1, NAMESPACES_MAX)
    ]
    """Whose copies it holds: at least one namespace."""
    key: Annotated[str, Parsed(config_values.template("key"))]
    """How this cache spells a key of the namespace; {key} stands for it, once."""
    tag: Annotated[str | None, Parsed(config_values.template("tag"))] = None
    """The set that holds the keys of a tag; {tag} stands for it, once.

    None: there are no sets; an invalidation by tag drops the whole namespace in this cache.
    """

    @property
    def label(self) -> str:
        """The URL as it may be shown: without the password."""
        return without_secrets(self.url)


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything an agent is told."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    name: Annotated[str, Parsed(config_values.name)]
    """Unique in the cluster and kept for good: receipts and cursors are counted by it."""
    cluster: Annotated[str, Parsed(config_values.name)] = "default"
    """Whom the agent belongs to; agents of another cluster are refused."""
    region: Annotated[str, Parsed(config_values.name)] = ""
    """Where it is; left out, the cluster's name."""
    listen: Annotated[Address, Parsed(config_address.address)] = LISTEN_DEFAULT
    """Where it listens for other agents; port 0 is any free one. Not loopback: needs `tls` or `insecure`."""
    advertise: Annotated[Address | None, Parsed(config_address.dialled)] = None
    """Where other agents reach it. None: where it listens."""
    insecure: Annotated[bool, Parsed(config_values.boolean)] = False
    """True allows addresses that are not loopback although nothing there is encrypted, nor anybody known.

    Without `tls` whoever reaches `listen` may invalidate everything.
    """
    join: Annotated[
        tuple[Annotated[Address, Parsed(config_address.seed)], ...], Listed(0, SEEDS_MAX)
    ] = ()
    """Agents to ask at start, in any order; itself among them does no harm. Empty: the first agent."""
    join_alone: Annotated[bool, Parsed(config_values.boolean)] = False
    """True: ready although no seed answers. False is safer: an isolated agent cannot know."""
    profile: Annotated[str, Parsed(config_values.one_of("lan", "fast", "wan", "local"))] = "lan"
    """How soon others are asked, suspected and declared dead; the same for all agents of a cluster.

    "lan" declares a crashed agent of 10 dead after about 6 s, one of 1,000 after 13 s; "fast" after half
    of that or less, for somewhat more traffic; "wan" is for links of more than 100 ms, "local" for one host.
    """
    on_stop: Annotated[str, Parsed(config_values.one_of("restart", "leave"))] = "restart"
    """What SIGTERM means: "restart", the agent will be back and receipts wait for it; "leave", it is gone
    for good. Take "leave" for hosts that are created and deleted, by autoscaling for example.
    """
    interest: Annotated[
        tuple[Annotated[str, Parsed(config_values.interest)], ...], Listed(0, INTEREST_MAX)
    ] = (EVERY_NAMESPACE,)
    """Namespaces of which copies are kept on this host; "*": all. Empty: the agent only publishes.

    The others neither send this host their rows nor wait for it. It may invalidate anything all the same.
    """
    data_dir: Annotated[Path, Parsed(config_values.directory)] = Path("/var/lib/coherd")
    """The journal and the identity; on a local disk, for one agent alone."""
    local: Annotated[
        tuple[Annotated[Address | UnixSocket, Parsed(config_address.local)], ...],
        Listed(1, LOCAL_MAX),
    ] = (LOCAL_DEFAULT,)
    """Where applications of this host and the command line find it."""
    local_owner: Annotated[str, Parsed(config_security.owner)] = ""
    """Account and group that the sockets of `local` are given: "USER", "USER:GROUP" or ":GROUP".

    Empty: those of the agent. Owner and group may do everything with this host's agent.
    """
    token_file: Annotated[Path | None, Parsed(config_security.optional_file)] = None
    """A file with a secret that everybody carries who comes to a TCP address of `local`, or to `http`.

    None: at loopback everybody is let in. At the unix socket nobody is asked for it.
    """
    http: Annotated[Address | None, Parsed(config_address.optional_address)] = HTTP_DEFAULT
    """Where it tells metrics and health over HTTP; port 0 is any free one. None: off."""
    durability: Annotated[str, Parsed(config_values.one_of("os", "disk"))] = "os"
    """What an accepted row survives: "os" a crash of the agent, "disk" also a loss of power.

    "disk" waits for the disk before every answer.
    """
    journal_bytes_max: Annotated[int, Parsed(config_values.integer(16 * 1024 * 1024, 10**15))] = (
        4 * 1024**3
    )
    """Bytes that the journal's rows may take, about; beyond, the oldest rows are forgotten."""
    reset_jitter: Annotated[float, Parsed(config_values.duration(0.0, 600.0))] = 5.0
    """Seconds over which the resets of many agents are spread, so that not all caches refill at once."""
    replay_max: Annotated[int, Parsed(config_values.integer(1000, 1_000_000_000))] = 1_000_000
    """Missing rows of a namespace from which it is reset instead of replayed.

    Each takes a cache about as long as an invalidation; after a reset everything is loaded anew.
    """
    namespaces: Mapping[Annotated[str, Parsed(config_values.namespace)], NamespaceConfig] = field(
        default_factory=dict, hash=False
    )
    """Namespaces with settings of their own, what they leave unset filled in; "default": the others."""
    handlers: Annotated[tuple[RedisHandlerConfig, ...], Listed(0, HANDLERS_MAX)] = ()
    """The caches that this agent keeps coherent."""
    tls: TlsConfig | None = None
    """By what this agent and others are known. None: nobody is."""
    grants: Annotated[tuple[GrantConfig, ...], Listed(0, GRANTS_MAX)] = ()
    """What clients may do that are known by a certificate; what no grant allows is refused."""

    def __post_init__(self) -> None:
        if not self.region:
            object.__setattr__(self, "region", self.cluster)

    def holds(self, namespace: str) -> bool:
        """Tell whether copies of a namespace are kept on this host."""
        return EVERY_NAMESPACE in self.interest or namespace in self.interest

    def namespace(self, name: str) -> NamespaceConfig:
        """Give the settings of a namespace, named in the file or not."""
        found = self.namespaces.get(name) or self.namespaces.get(DEFAULTS)
        return found or NamespaceConfig()


SETTINGS: Mapping[str, object] = {
    f.name: "" if f.name == "name" else f.default
    for f in fields(AgentConfig)
    if f.name not in {"namespaces", "handlers", "tls", "grants"}
}
"""The settings that variables and flags may set, each with its default."""


def load(
    path: Path | None, environment: Mapping[str, str], flags: Mapping[str, object]
) -> AgentConfig:
    """Read a file (None: no file), then variables, then flags (None or (): not given).

    Raises ConfigProblems, which lists everything that is wrong.
    """
    return trace(path, environment, flags)[0]


def trace(
    path: Path | None, environment: Mapping[str, str], flags: Mapping[str, object]
) -> tuple[AgentConfig, Written]:
    """Do what `load` does, and tell where each value was written."""
    written = Written() if path is None else read_file(path)
    add_environment(written, environment, SETTINGS)
    add_flags(written, flags, SETTINGS)
    data = written.data if "name" in written.data else {"name": _host_name(), **written.data}
    config, errors = _read(data)
    wrong = {str(error["loc"][0]) for error in errors}
    if wrong:  # go on without what is wrong, to tell everything at once
        config, _ = _read({"name": "unnamed", **{k: v for k, v in data.items() if k not in wrong}})
    problems = written.problems + [_problem(written, error) for error in errors]
    for names, text in conflicts(config):
        if wrong.isdisjoint(names):
            place = written.place((names[0],)) or Place("default")
            problems.append(Problem(place, f"{names[0]}: {text}"))
    if problems:
        raise ConfigProblems(map(str, sorted(problems, key=lambda problem: problem.place.line)))
    return _inherit(config, written.data.get("namespaces", {})), written


def _host_name() -> str:
    """Give this host's name with what a name may not have as dashes."""
    import re
    import socket

    return re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).lstrip(".-_")[:128]


@cache
def _adapter() -> TypeAdapter[AgentConfig]:
    """Import pydantic: only when settings are read, for it takes longer than the rest together."""
    from pydantic import TypeAdapter

    return TypeAdapter(AgentConfig)


def _read(data: Mapping[str, Any]) -> tuple[AgentConfig, list[ErrorDetails]]:
    """Let pydantic read `data`; where something is wrong, the errors count and the config does not."""
    from pydantic import ValidationError

    try:
        return _adapter().validate_python(data), []
    except ValidationError as error:
        return AgentConfig(""), error.errors(include_url=False, include_input=False)


def _problem(written: Written, error: ErrorDetails) -> Problem:
    """Say in coherd's words what pydantic found."""
    key: Key = tuple(part for part in error["loc"] if part != "[key]")
    place = written.place(key) or Place("default")
    if key == ("name",) and key not in written.places:
        return Problem(place, "name: the name of this host cannot serve as one; set name")
    match error["type"]:
        case "unexpected_keyword_argument":
            return Problem(place, f"unknown setting {shown(full_name(key))}{_hint(key)}")
        case "missing":
            text = f'is missing; `coherd config example` shows how "{key[-1]}" is written'
        case "value_error":
            text = str(error["ctx"]["error"])
            if key in {("handlers",), ("grants",)}:
                text += f"; each begins with [[{key[0]}]]"
        case _:  # what is not a table where one belongs
            is_one = len(key) > 1 or key == ("tls",)
            text = f"expected {'a table' if is_one else f'tables [{key[0]}.NAME]'}"
    return Problem(place, f"{brief(full_name(key))}: {text}")


def full_name(key: Key) -> str:
    """Write a key as people do: handlers[0].url."""
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return name.removeprefix(".")


TABLES: Mapping[str, tuple[str, type[Any]]] = {
    "": ("above the first [table]", AgentConfig),
    "namespaces": ("under [namespaces.NAME]", NamespaceConfig),
    "handlers": ("under [[handlers]]", RedisHandlerConfig),
    "tls": ("under [tls]", TlsConfig),
    "grants": ("under [[grants]]", GrantConfig),
}
"""By the first part of a key: where such settings are written, and what they are."""


def _hint(key: Key) -> str:
    """Find what may have been meant by a name that nobody knows."""
    _, own = TABLES[str(key[0]) if len(key) > 1 else ""]
    for where, table in TABLES.values():
        if table is not own and key[-1] in {f.name for f in fields(table)}:
            return f"; it belongs {where}"
    return nearest(str(key[-1]), [f.name for f in fields(own)])


def _inherit(config: AgentConfig, written: Mapping[str, Mapping[str, Any]]) -> AgentConfig:
    """Fill what a namespace leaves unset from [namespaces.default]."""
    base = config.namespace(DEFAULTS)
    namespaces = {DEFAULTS: base} | {
        name: replace(base, **{key: getattr(own, key) for key in written[name]})
        for name, own in config.namespaces.items()
    }
    return replace(config, namespaces=namespaces)
