"""The settings, typed and frozen: names, defaults, bounds and one sentence each.

Everything that speaks of settings (reading, environment names, docs/settings.md, the starter file) walks these
classes through `schema`, so a setting is described here and nowhere else.
"""

from typing import Annotated, Any, Final, Literal

from msgspec import field

from .duration import Duration
from .schema import Block, about
from .size import Size

EVENTS: Final = ("connect", "refresh", "subscribe", "publish", "sub_refresh", "rpc", "map_publish", "map_remove")
CHANNEL_OPERATIONS: Final = (
    "subscribe", "unsubscribe", "publish", "history", "presence", "presence_stats",
    "sub_refresh", "map_publish", "map_remove", "track", "untrack",
)  # fmt: skip
OPERATIONS: Final = ("connect", "refresh", "rpc", *CHANNEL_OPERATIONS)
SHARED_BUCKETS: Final = ("default", "total")


def _duration(text: str) -> Duration:
    return Duration.parse(text)


def _size(text: str) -> Size:
    return Size.parse(text)


class Node(Block, frozen=True):
    name: Annotated[str, about("Label of this node in analytics; empty means the host name.")] = ""


class Log(Block, frozen=True):
    level: Annotated[
        Literal["none", "trace", "debug", "info", "warn", "error", "fatal"],
        about("Least severe level that is logged."),
    ] = "info"


class Shutdown(Block, frozen=True):
    timeout: Annotated[Duration, about("Longest time a stop waits for requests in flight.", most=_duration("24h"))] = (
        _duration("30s")
    )


class TLS(Block, frozen=True):
    """Centrifugo's TLS object; each `…_pem` is PEM text, base64 of PEM text, or a path."""

    enabled: Annotated[bool, about("Turns TLS on.")] = False
    cert_pem: Annotated[str, about("Certificate chain: PEM, base64 of PEM, or a path.")] = ""
    key_pem: Annotated[str, about("Private key: PEM, base64 of PEM, or a path.", secret=True)] = ""
    server_ca_pem: Annotated[str, about("CA that a client checks the server's certificate against.")] = ""
    client_ca_pem: Annotated[str, about("CA that clients' certificates must come from; set, they must have one.")] = ""
    insecure_skip_verify: Annotated[bool, about("Does not verify the server's certificate (tests only).")] = False
    server_name: Annotated[str, about("Name expected in the server's certificate instead of the URL's host.")] = ""


class Upstream(Block, frozen=True):
    endpoint: Annotated[
        str, about("URL of the application backend; `/` and the event's name are appended.", check="endpoint")
    ] = ""
    endpoints: Annotated[
        tuple[str, ...],
        about("Several backends instead: round robin, one that fails is skipped until it recovers.", check="endpoint"),
    ] = ()
    timeout: Annotated[
        Duration,
        about(
            "Longest time a request to the backend may take; below Centrifugo's own 1s.",
            least=_duration("1ms"),
            most=_duration("1h"),
        ),
    ] = _duration("800ms")
    overrides: Annotated[
        dict[str, str],
        about("Full URL for single events, by event name; nothing is appended.", check="url", keys=EVENTS),
    ] = field(default_factory=dict)
    tls: Annotated[TLS, about("TLS towards `https://` backends (Centrifugo's TLS object).")] = TLS()


class Proxy(Block, frozen=True):
    address: Annotated[str, about("Where Centrifugo calls cpro: `host:port` or `unix:///path`.", check="address")] = (
        "127.0.0.1:8001"
    )
    prefix: Annotated[
        str, about("Path before the event's name, `POST {prefix}/{event}`; empty or `/` means none.", check="prefix")
    ] = "/centrifugo"
    secret: Annotated[
        str, about("When set, the header X-Cpro-Secret must equal it, else 401.", secret=True, check="header_value")
    ] = ""
    tls: Annotated[TLS, about("TLS of this listener (Centrifugo's TLS object).")] = TLS()
    ip_header: Annotated[
        str, about("Forwarded header that names the end user's address; empty means none.", check="header")
    ] = "X-Real-Ip"
    connect_user_header: Annotated[
        str, about("Trusted forwarded header that names the user of a connect; empty means none.", check="header")
    ] = ""
    upstream: Annotated[Upstream, about("The application backend that answers what cpro lets through.")] = Upstream()
    without_upstream: Annotated[
        Literal["deny", "allow"],
        about("Answer to an event that no backend takes; `allow` replaces Centrifugo's own permission checks."),
    ] = "deny"


class Token(Block, frozen=True):
    """Centrifugo's `client.token` block: how to verify connection tokens on this side."""

    hmac_secret_key: Annotated[str, about("Secret of HS256, HS384 and HS512 tokens.", secret=True)] = ""
    hmac_previous_secret_key: Annotated[str, about("One that is being replaced and is still good.", secret=True)] = ""
    rsa_public_key: Annotated[
        str, about("Public key of RS256, RS384 and RS512 tokens: PEM, base64 of PEM, or a path.")
    ] = ""
    ecdsa_public_key: Annotated[str, about("Public key of ES256, ES384 and ES512 tokens, given in the same ways.")] = ""
    jwks_public_endpoint: Annotated[
        str,
        about(
            "URL of a JSON Web Key Set, in place of single keys; `{{name}}` in its path is that named group of"
            " `issuer_regex` or `audience_regex`.",
            check="template",
        ),
    ] = ""
    audience: Annotated[str, about("The `aud` that tokens must name; empty means any.")] = ""
    audience_regex: Annotated[str, about("A pattern for it instead.", check="regex")] = ""
    issuer: Annotated[str, about("The `iss` that tokens must name; empty means any.")] = ""
    issuer_regex: Annotated[str, about("A pattern for it instead.", check="regex")] = ""
    user_id_claim: Annotated[str, about("Claim that names the user; empty means `sub`.", check="claim")] = ""


class Gateway(Block, frozen=True):
    enabled: Annotated[bool, about("Turns the gateway on.")] = False
    address: Annotated[str, about("Where end users' SDKs connect: `host:port` or `unix:///path`.", check="address")] = (
        "127.0.0.1:8000"
    )
    centrifugo: Annotated[
        tuple[str, ...],
        about("URLs of the Centrifugo nodes behind it; new connections go to them in turn.", check="endpoint"),
    ] = ("http://127.0.0.1:8100",)
    centrifugo_tls: Annotated[TLS, about("TLS towards `https://` Centrifugo nodes (Centrifugo's TLS object).")] = TLS()
    internal_address: Annotated[
        str,
        about(
            "Where this node listens for emulation posts that other nodes pass on, `host:port` as they reach it; empty"
            " means no other nodes.",
            check="internal",
        ),
    ] = ""
    token: Annotated[Token, about("Verifies connection tokens on this side; empty trusts Centrifugo's verdict.")] = (
        Token()
    )
    user_id_http_header: Annotated[
        str, about("Centrifugo's `client.user_id_http_header`; believed from `trusted_proxies` only.", check="header")
    ] = ""
    trusted_proxies: Annotated[
        tuple[str, ...], about("Networks (CIDR) whose X-Forwarded-For and X-Real-Ip are believed.", check="network")
    ] = ()
    max_connections: Annotated[
        int, about("Most connections of this node; 0 means no limit.", least=0, most=2**31 - 1)
    ] = 0
    max_connections_per_ip: Annotated[
        int,
        about(
            "Most connections from one address (IPv6: one /64) to this node; 0 means no limit.", least=0, most=2**31 - 1
        ),
    ] = 0
    message_size_limit: Annotated[
        int,
        about(
            "Largest message of a client in bytes, Centrifugo's `websocket.message_size_limit`.", least=1, most=1 << 30
        ),
    ] = 65_536
    compression: Annotated[bool, about("Accepts permessage-deflate from clients.")] = False
    proxy_protocol: Annotated[
        bool, about("Expects PROXY protocol (v1 or v2) from `trusted_proxies`, and from all at a Unix socket.")
    ] = False
    pass_unknown: Annotated[
        bool, about("Passes other paths on to Centrifugo, but for those of its operators, instead of answering 404.")
    ] = False
    snapshot_interval: Annotated[
        Duration,
        about(
            "How often open connections and subscriptions are exported.", least=_duration("1s"), most=_duration("24h")
        ),
    ] = _duration("60s")
    tls: Annotated[TLS, about("TLS of this listener (Centrifugo's TLS object).")] = TLS()


class HttpApi(Block, frozen=True):
    address: Annotated[
        str, about("Where server API, /health and /metrics listen: `host:port` or `unix:///path`.", check="address")
    ] = "127.0.0.1:8002"
    key: Annotated[
        str, about("API key; empty means the API answers 401 to all.", secret=True, check="header_value")
    ] = ""
    centrifugo: Annotated[
        str, about("URL of Centrifugo's own API, to which methods go that cpro does not have.", check="endpoint")
    ] = ""
    centrifugo_key: Annotated[
        str, about("API key of Centrifugo, for what goes there.", secret=True, check="header_value")
    ] = ""
    tls: Annotated[TLS, about("TLS of this listener (Centrifugo's TLS object).")] = TLS()


class LimitsTable(Block, frozen=True):
    path: Annotated[
        str, about("Folder of the table of buckets; empty means a private one in /dev/shm, else `data_dir`.")
    ] = ""
    max_buckets: Annotated[
        int, about("Buckets the table has room for, allocated at start.", least=1, most=1_000_000_000)
    ] = 1_000_000


class Bucket(Block, frozen=True):
    interval: Annotated[Duration, about("Time in which `rate` tokens are refilled.", least=1, most=_duration("8760h"))]
    rate: Annotated[int, about("Tokens refilled per interval.", least=1, most=2**53)]
    burst: Annotated[
        int | None, about("Tokens the bucket holds when full; unset means `rate`.", least=1, most=2**53)
    ] = None


class NamespaceOverride(Block, frozen=True):
    namespace_name: Annotated[str, about("Namespace this override is for.", check="namespace")]
    enabled: Annotated[bool, about("`false` exempts the namespace.")] = True
    buckets: Annotated[tuple[Bucket, ...], about("Buckets in place of the operation's; none means `default`.")] = ()


class MethodOverride(Block, frozen=True):
    method: Annotated[str, about("RPC method this override is for.", check="filled")]
    enabled: Annotated[bool, about("`false` exempts the method.")] = True
    buckets: Annotated[tuple[Bucket, ...], about("Buckets in place of the operation's; none means `default`.")] = ()


class OperationLimit(Block, frozen=True):
    enabled: Annotated[bool, about("Turns this operation's buckets on.")] = False
    buckets: Annotated[tuple[Bucket, ...], about("Buckets that must all have a token; none means `default`.")] = ()
    namespace_overrides: Annotated[tuple[NamespaceOverride, ...], about("Other buckets for single namespaces.")] = ()
    method_overrides: Annotated[
        tuple[MethodOverride, ...], about("Other buckets for single RPC methods (`rpc` only).")
    ] = ()


class ReplicaClient(Block, frozen=True):
    enabled: Annotated[bool, about("Has no effect: cpro reads and writes at masters only.")] = False


class Redis(Block, frozen=True):
    """Centrifugo's Redis object; `redis_address` reads its addresses."""

    address: Annotated[
        tuple[str, ...],
        about("`host:port` or URL of a Redis; each entry is a shard. Without any address: this node.", secret=True),
    ] = ()
    cluster_address: Annotated[
        tuple[str, ...], about("`host:port,host:port` of nodes of a Redis Cluster; each entry is a cluster of its own.")
    ] = ()
    sentinel_address: Annotated[
        tuple[str, ...], about("`host:port,host:port` of Sentinels; each entry is a shard with Sentinels of its own.")
    ] = ()
    sentinel_master_name: Annotated[str, about("Name under which Sentinels know the master.")] = ""
    sentinel_user: Annotated[str, about("User at the Sentinels.")] = ""
    sentinel_password: Annotated[str, about("Password at the Sentinels.", secret=True)] = ""
    sentinel_client_name: Annotated[str, about("Name of connections to Sentinels.", check="client_name")] = ""
    sentinel_tls: Annotated[TLS, about("TLS towards the Sentinels (Centrifugo's TLS object).")] = TLS()
    user: Annotated[str, about("User at Redis; a URL may name another.")] = ""
    password: Annotated[str, about("Password at Redis; a URL may hold another.", secret=True)] = ""
    db: Annotated[int, about("Number of the database; a Redis Cluster has only 0.", least=0, most=2**31 - 1)] = 0
    client_name: Annotated[str, about("Name of connections to Redis.", check="client_name")] = ""
    force_resp2: Annotated[bool, about("Speaks RESP2, for proxies that don't know RESP3.")] = False
    tls: Annotated[TLS, about("TLS towards Redis (Centrifugo's TLS object).")] = TLS()
    connect_timeout: Annotated[
        Duration,
        about("Longest time that connecting may take, handshake and a wait for a free connection included.",
              least=_duration("1ms"), most=_duration("1h")),
    ] = _duration("1s")  # fmt: skip
    io_timeout: Annotated[
        Duration,
        about("Longest time for the replies to one write.", least=_duration("1ms"), most=_duration("1h")),
    ] = _duration("1s")
    prefix: Annotated[str, about("Starts the name of every key.", check="filled")] = "cpro"
    replica_client: Annotated[ReplicaClient, about("Accepted as Centrifugo's, without effect.")] = ReplicaClient()


class FeatureRedis(Redis, frozen=True):
    """A feature's own Redis object."""

    reuse_from_engine: Annotated[bool, about("Uses the shared `redis` block.")] = False


class CommandBlock(Block, frozen=True):
    enabled: Annotated[bool, about("Turns this block on.")] = False
    dry_run: Annotated[bool, about("Decides and records, but refuses nothing by this block.")] = False
    operations: Annotated[
        dict[str, OperationLimit],
        about("Limits by operation, with `default` and `total`; they stand directly in the block.", inline=True),
    ] = field(default_factory=dict)


class RedisCommandBlock(CommandBlock, frozen=True):
    redis: Annotated[FeatureRedis, about("A Redis of its own, with the settings of the shared `redis` block.")] = (
        FeatureRedis()
    )


class ErrorLimit(Block, frozen=True):
    enabled: Annotated[bool, about("Turns the limit on.")] = False
    buckets: Annotated[tuple[Bucket, ...], about("Buckets that must all have a token for each error.")] = ()


class ClientError(Block, frozen=True):
    enabled: Annotated[bool, about("Turns this block on.")] = False
    total: Annotated[ErrorLimit, about("Errors of all kinds together.")] = ErrorLimit()


class RateLimit(Block, frozen=True):
    client_command: Annotated[CommandBlock, about("Limits per connection, on this node.")] = CommandBlock()
    user_command: Annotated[CommandBlock, about("Limits per user, on this node.")] = CommandBlock()
    redis_user_command: Annotated[
        RedisCommandBlock, about("Limits per user over all nodes; without Redis they are kept on this node.")
    ] = RedisCommandBlock()
    client_error: Annotated[
        ClientError, about("Errors per connection of the gateway; one that makes more is disconnected with code 3509.")
    ] = ClientError()
    store_timeout: Annotated[
        Duration,
        about("Longest time an operation waits for Redis.", least=_duration("1ms"), most=_duration("1m")),
    ] = _duration("200ms")
    on_store_error: Annotated[
        Literal["allow", "deny", "local"],
        about("What happens while Redis is unreachable; `local` keeps the buckets on this node."),
    ] = "local"
    anonymous: Annotated[
        Literal["none", "client", "ip"],
        about(
            "What stands in for an empty user id: no limit per user, the connection, or the address (IPv6: its /64)."
        ),
    ] = "none"
    exempt_users: Annotated[tuple[str, ...], about("Users who are never limited.")] = ()
    dry_run: Annotated[bool, about("Decides and records, but refuses nothing.")] = False


class UserStatus(Block, frozen=True):
    """Centrifugo PRO's block."""

    enabled: Annotated[bool, about("Keeps when each user was last active and last online.")] = False
    expire_interval: Annotated[
        Duration,
        about("Time after which a user of whom nothing was heard is forgotten.",
              least=_duration("1s"), most=_duration("87600h")),
    ] = _duration("720h")  # fmt: skip
    redis: Annotated[FeatureRedis, about("A Redis of its own, with the settings of the shared `redis` block.")] = (
        FeatureRedis()
    )


class Client(Block, frozen=True):
    rate_limit: Annotated[RateLimit, about("Centrifugo PRO's block, word for word.")] = RateLimit()


class Export(Block, frozen=True):
    """What the exports of all tables have in common."""

    enabled: Annotated[bool, about("Exports this table.")] = False
    flush_interval: Annotated[
        Duration,
        about("Longest time a row waits for its batch to fill.", least=_duration("100ms"), most=_duration("1h")),
    ] = _duration("1s")
    flush_size: Annotated[int, about("Most rows of a batch.", least=1, most=1_000_000)] = 100_000
    ttl: Annotated[
        str, about("Age at which ClickHouse deletes rows, such as `12 HOUR`, `7 DAY` or `1 MONTH`.", check="ttl")
    ] = "7 DAY"


class ConnectionsExport(Export, frozen=True):
    http_headers: Annotated[
        tuple[str, ...],
        about("Headers of the connection request that are exported, if Centrifugo forwards them.", check="exported"),
    ] = ()
    export_users: Annotated[tuple[str, ...], about("Only connections of these users; none means all.")] = ()


class SubscriptionsExport(Export, frozen=True):
    export_users: Annotated[tuple[str, ...], about("Only subscriptions of these users; none means all.")] = ()


class OperationsExport(Export, frozen=True):
    export_users: Annotated[tuple[str, ...], about("Only operations of these users; none means all.")] = ()


class PublicationsExport(Export, frozen=True):
    export_channels: Annotated[tuple[str, ...], about("Only publications in these channels; none means all.")] = ()


class Exports(Block, frozen=True):
    connections: Annotated[ConnectionsExport, about("One row per connection.")] = ConnectionsExport()
    subscriptions: Annotated[SubscriptionsExport, about("One row per subscription.")] = SubscriptionsExport()
    operations: Annotated[OperationsExport, about("One row per operation, refused ones too.")] = OperationsExport()
    publications: Annotated[PublicationsExport, about("One row per publication.")] = PublicationsExport()


class ClickhouseAnalytics(Block, frozen=True):
    enabled: Annotated[bool, about("Records what happens, and exports it to ClickHouse.")] = False
    clickhouse_dsn: Annotated[
        tuple[str, ...],
        about("`http(s)://user:password@host:port` of ClickHouse; several share the load. None: embedded.",
              secret=True),
    ] = ()  # fmt: skip
    clickhouse_database: Annotated[str, about("Database of the tables.", check="database")] = "centrifugo"
    clickhouse_cluster: Annotated[str, about("Cluster the tables are made on; empty means none.", check="cluster")] = ""
    skip_schema_initialization: Annotated[bool, about("Neither makes nor changes tables; they must be there.")] = False
    skip_ping_on_start: Annotated[bool, about("Does not ask at start whether ClickHouse answers.")] = False
    tls: Annotated[TLS, about("TLS towards ClickHouse (Centrifugo's TLS object).")] = TLS()
    sync_interval: Annotated[
        Duration,
        about("How often rows are made safe against power loss.", least=_duration("10ms"), most=_duration("1h")),
    ] = _duration("1s")
    max_journal_size: Annotated[
        Size,
        about("Most bytes of rows that wait on disk; beyond it the newest are dropped and counted.",
              least=_size("64MiB"), most=_size("1024TiB")),
    ] = _size("8GiB")  # fmt: skip
    export: Annotated[Exports, about("What is exported: nothing, until a table is enabled.")] = Exports()


class Channel(Block, frozen=True):
    """The same three as in Centrifugo's own configuration."""

    namespace_boundary: Annotated[str, about("Ends the namespace in a channel's name; empty means none.")] = ":"
    private_prefix: Annotated[str, about("Starts the name of a private channel; empty means none.")] = "$"
    user_boundary: Annotated[str, about("Starts the list of users in a channel's name; empty means none.")] = "#"


class Rpc(Block, frozen=True):
    namespace_boundary: Annotated[str, about("Ends the namespace in an RPC method's name; empty means none.")] = ":"


class Prometheus(Block, frozen=True):
    enabled: Annotated[bool, about("Serves /metrics at `http_api.address`.")] = True


class Settings(Block, frozen=True):
    node: Annotated[Node, about("This node.")] = Node()
    workers: Annotated[int, about("Processes that serve; 0 means one per core.", least=0, most=256)] = 1
    data_dir: Annotated[str, about("Folder for what must survive a restart, and for sockets.", check="filled")] = (
        "./cpro-data"
    )
    secret: Annotated[
        str,
        about(
            "Signs what cpro tells itself through Centrifugo, same on all nodes; empty: random, kept in `data_dir`.",
            secret=True,
        ),
    ] = ""
    log: Annotated[Log, about("Logging: text on a terminal, else one JSON object a line on stderr.")] = Log()
    shutdown: Annotated[Shutdown, about("How cpro stops.")] = Shutdown()
    max_body_size: Annotated[
        int, about("Largest request body in bytes; more is answered 413.", least=1, most=1 << 30)
    ] = 1_048_576
    proxy: Annotated[Proxy, about("The door for Centrifugo's event proxies.")] = Proxy()
    gateway: Annotated[Gateway, about("The door for end users' SDKs, in front of Centrifugo.")] = Gateway()
    http_api: Annotated[HttpApi, about("The door for backends: server API, /health and /metrics.")] = HttpApi()
    redis: Annotated[Redis, about("The Redis that features share, unless they have their own.")] = Redis()
    limits_table: Annotated[LimitsTable, about("The table of buckets that all workers of the node share.")] = (
        LimitsTable()
    )
    client: Annotated[Client, about("What concerns clients.")] = Client()
    clickhouse_analytics: Annotated[ClickhouseAnalytics, about("Centrifugo PRO's block: analytics.")] = (
        ClickhouseAnalytics()
    )
    user_status: Annotated[UserStatus, about("Who was last active and last online, and when.")] = UserStatus()
    channel: Annotated[Channel, about("How channel names are read; must equal Centrifugo's own settings.")] = Channel()
    rpc: Annotated[Rpc, about("How RPC method names are read; must equal Centrifugo's own setting.")] = Rpc()
    prometheus: Annotated[Prometheus, about("Metrics.")] = Prometheus()
    plugins: Annotated[
        dict[str, dict[str, Any]],
        about("Options of plugins, by the plugin's name; what they are is the plugin's matter.", secret=True),
    ] = field(default_factory=dict)
