"""The file that `coherd config example` prints (floor 2): every setting, what it means, its default.

A line `# default: VALUE` gives the default as TOML. What is written with a leading `#` is not set.
Tests hold this text and the dataclasses of `config` together.
"""

EXAMPLE = """\
# Settings of one coherd agent.
#
# Durations are written "500ms", "90s", "5m", "1h", "2d", or as a number of seconds.
# The settings above the first [table] can also be given as variables (COHERD_DATA_DIR for data_dir,
# lists with commas) and some of them as flags; a flag wins over a variable, a variable over this file.
# `coherd config check FILE` says what is wrong with a file, `coherd config show FILE` what it results in.

# Unique in the cluster, and kept for good: receipts and cursors are counted by it.
# default: the host name
name = "cache-1"

# Agents of another cluster are refused.
# default: "default"
cluster = "prod-eu"

# Where this agent is.
# default: the name of the cluster
region = "eu-west"

# Where it listens for other agents. Port 0: any free one, logged.
# default: "127.0.0.1:4373"
listen = "127.0.0.1:4373"

# Where other agents reach it, when that is not where it listens (NAT, containers, 0.0.0.0).
# default: what listen says
# advertise = "cache-1.internal:4373"

# true allows any address that is not loopback without [tls]: nothing there is encrypted, nobody is asked who
# they are, and whoever reaches the port may invalidate.
# default: false
insecure = false

# Agents to ask at start: "HOST" or "HOST:PORT", names or addresses, any of them down, itself among
# them or not. Give the same list to every agent. At most 10,000.
# default: []
join = ["cache-2.internal:4373", "10.0.0.12:4373"]

# true: ready although no agent of join answers. An isolated agent cannot know what it missed:
# set it only where an agent may have to start alone.
# default: false
join_alone = false

# How soon others are asked, suspected and declared dead; the same for all agents of a cluster. "lan" declares
# a crashed agent of 10 dead after about 6 s; "fast" after half of that or less, for somewhat more traffic;
# "wan" is for round trips of more than 100 ms, "local" for agents that are all on one host.
# default: "lan"
profile = "lan"

# What SIGTERM means: "restart", it will be back, and receipts name it until then; "leave", it is gone for
# good and its caches with it, as hosts are that autoscaling creates and deletes.
# default: "restart"
on_stop = "restart"

# The namespaces of which copies are kept on this host, "*" for all. [] is an agent that only publishes: it
# may invalidate anything, keeps no rows of others, and no receipt waits for it.
# default: ["*"]
interest = ["*"]

# The directory of the journal and the identity: on a local disk, for one agent alone.
# default: "/var/lib/coherd"
data_dir = "/var/lib/coherd"

# Where applications and the command line find the agent: "unix:/PATH" (at most 107 bytes) or a loopback
# "HOST:PORT", where whoever can open it may do everything; the socket has mode 0660. With [tls] also another
# "HOST:PORT": there everybody shows a certificate, and [[grants]] say what they may.
# default: ["unix:/run/coherd/coherd.sock"]
local = ["unix:/run/coherd/coherd.sock"]

# Account and group that the sockets of local are given: "USER", "USER:GROUP" or ":GROUP". They may do
# everything with this agent. "": those of the agent.
# default: ""
local_owner = ""

# A file with a secret of at least 16 characters, 0600, that everybody carries who comes to a TCP address of
# local or to http: "authorization: Bearer …". "": at loopback everybody is let in.
# default: ""
token_file = ""

# Where it tells figures for Prometheus (/metrics) and its health (/livez, /readyz) over HTTP. Port 0: any
# free one, logged. "" is off. Where others can reach it with [tls] (HTTPS, for operators and who may read
# "*") or a token_file.
# default: "127.0.0.1:4375"
http = "127.0.0.1:4375"

# What an accepted invalidation survives: "os" a crash of the agent, "disk" also a loss of power.
# "disk" waits for the disk before every answer.
# default: "os"
durability = "os"

# Bytes that the rows in the journal may take, about. Beyond, the oldest rows are forgotten.
# default: 4_294_967_296
journal_bytes_max = 4_294_967_296

# Seconds over which the resets of many agents are spread, so that not all caches are refilled at once.
# default: "5s"
reset_jitter = "5s"

# Missing rows of a namespace from which it is reset instead of replayed.
# default: 1_000_000
replay_max = 1_000_000

# A table for each namespace that needs settings of its own. What it leaves unset comes from
# [namespaces.default], which is also for namespaces that are not named here.
[namespaces.default]

# Longest time that any cache keeps a copy: the longest expiry that your applications set, or more.
# Who missed an invalidation that is older (and 60 s + 2 % older still) needs no reset.
# "none": nobody promises one.
# default: "none"
# max_ttl = "none"

# How long rows are remembered where there is no max_ttl: an agent that was away for longer resets the
# namespace when it comes back. With a max_ttl it has no effect. At least "1m".
# default: "1d"
# retention = "1d"

# Most keys, tags and prefixes to remember, 150 to 250 bytes of memory each. Beyond, the oldest rows are
# forgotten: take the number of different keys invalidated in one max_ttl.
# default: 1_000_000
# entries_max = 1_000_000

# How stale a copy may get unnoticed, at least "1s"; "none": no bound. An acknowledging watcher that went
# away less than this ago (30 s without a bound) still counts as missing in receipts.
# default: "30s"
# staleness_bound = "30s"

# Rows a second that one client may invalidate, lanes normal and bulk together; at least 1. A burst of one
# second's worth, or of 1,000 rows, is let through at once. "none": no limit.
# default: "none"
# rate_max = "none"

# The same for the lane urgent, which has a budget of its own.
# default: 10_000.0
# urgent_rate_max = 10_000.0

# Who may invalidate: "client/NAME", in which * and ? match as in a shell. Rows of others, which some agent
# let through, are applied, counted and told. []: everybody who is let do it.
# default: []
# owners = []

# How long rows of the lane bulk wait for others, to leave as one batch in which a key stands once; up to
# "1m". 0: they do not wait.
# default: "50ms"
# batch_window = "50ms"

[namespaces.shop]
max_ttl = "1h"
entries_max = 1_000_000

# One [[handlers]] for each cache on this host that the agent keeps coherent.
[[handlers]]

# What it is. "redis" is also right for Valkey.
kind = "redis"

# redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// with TLS, or unix:///PATH?db=N.
# In a password write @ as %40, / as %2F, ? as %3F and # as %23. Passwords are never shown.
url = "redis://127.0.0.1:6379/0"

# Whose copies it holds.
namespaces = ["shop"]

# How this cache spells a key of the namespace: {key} once, no other braces.
key = "shop:{key}"

# The set that holds the keys of a tag: {tag} once, no other braces. Leave it out where there are no
# such sets: an invalidation by tag then drops the whole namespace in this cache.
tag = "tag:shop:{tag}"

# By what agents and clients are known to each other. `coherd pki` makes the files where nobody else does.
# They are read again when they change. Without this table nobody is known, and nothing is encrypted.
# [tls]

# Certificates of the authorities that are believed; two of them while one replaces the other.
# ca = "/etc/coherd/ca.pem"

# The certificate of this agent, whose one URI is spiffe://TRUST/cluster/CLUSTER/agent/NAME.
# cert = "/etc/coherd/agent.pem"

# Its key, without a password; only its owner may read the file.
# key = "/etc/coherd/agent.key"

# What clients may do that are known by a certificate; what no [[grants]] allows is refused.
# [[grants]]

# Who: "client/NAME", in which * and ? match as in a shell. Operators may do everything.
# identities = ["client/shop-*"]

# What: "read", "invalidate", "watch", "admin".
# verbs = ["read", "invalidate", "watch"]

# With which namespaces, * and ? as in a shell; "*" alone is also the agent as a whole.
# namespaces = ["shop", "shop.*"]
"""
