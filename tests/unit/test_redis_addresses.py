"""Every form of address of the reference (section 7), and every way to get one wrong."""

import pytest

from cpro.config.address import TcpAddress, UnixAddress
from cpro.config.duration import Duration
from cpro.config.faults import Faults
from cpro.config.load import redacted
from cpro.config.model import TLS, FeatureRedis, Redis, ReplicaClient, Settings
from cpro.config.redis_address import check_redis, parse_redis, redis_for
from cpro.config.redis_url import Access, Cluster, Sentinel, Standalone

HOST = TcpAddress("h", 1)
ON = TLS(enabled=True)


def shards(**settings):
    deployment = parse_redis(Redis(**settings))
    return deployment.shards if deployment else ()


def shard(address: str, **settings):
    (one,) = shards(address=(address,), **settings)
    return one


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("h:1", Standalone(HOST)),
        ("[::1]:6379", Standalone(TcpAddress("::1", 6379))),
        ("redis://h:1", Standalone(HOST)),
        ("redis://h", Standalone(TcpAddress("h", 6379))),
        ("redis://[::1]", Standalone(TcpAddress("::1", 6379))),
        ("tcp://h:1", Standalone(HOST)),
        ("redis://h:1/5", Standalone(HOST, db=5)),
        ("redis://h:1/", Standalone(HOST)),
        ("redis://:p%40ss@h:1", Standalone(HOST, Access(password="p@ss"))),
        ("redis://u:p@h:1/2", Standalone(HOST, Access("u", "p"), 2)),
        ("redis://u%3A@h:1", Standalone(HOST, Access("u:"))),
        ("rediss://h:1", Standalone(HOST, Access(tls=ON))),
        ("redis://h:1?tls_enabled=true", Standalone(HOST, Access(tls=ON))),
        ("rediss://h:1?tls_enabled=false", Standalone(HOST)),
        ("redis://h:1?force_resp2=1", Standalone(HOST, Access(resp2=True))),
        ("redis://h:1?connect_timeout=300ms&io_timeout=2s",
         Standalone(HOST, Access(connect_timeout_s=0.3, io_timeout_s=2))),
        ("unix:///run/r.sock", Standalone(UnixAddress("/run/r.sock"))),
        ("unix://u:p@/run/r%20s.sock", Standalone(UnixAddress("/run/r s.sock"), Access("u", "p"))),
        ("redis+cluster://h:1", Cluster((HOST,))),
        ("redis+cluster://u:p@h:1?addr=i:2&addr=j:3",
         Cluster((HOST, TcpAddress("i", 2), TcpAddress("j", 3)), Access("u", "p"))),
        ("rediss+cluster://h:1", Cluster((HOST,), Access(tls=ON))),
        ("redis://h:1?addr=i:2", Cluster((HOST, TcpAddress("i", 2)))),
        ("redis+sentinel://h:1?sentinel_master_name=m", Sentinel((HOST,), "m")),
        ("redis+sentinel://h?sentinel_master_name=m", Sentinel((TcpAddress("h", 26379),), "m")),
        ("redis+sentinel://u:p@h:1/3?sentinel_master_name=m&addr=i:2&sentinel_user=su&sentinel_password=sp",
         Sentinel((HOST, TcpAddress("i", 2)), "m", Access("su", "sp"), Access("u", "p"), 3)),
        ("rediss+sentinel://h:1?sentinel_master_name=m&sentinel_tls_enabled=true",
         Sentinel((HOST,), "m", Access(tls=ON), Access(tls=ON))),
        ("rediss+sentinel://h:1?sentinel_master_name=m", Sentinel((HOST,), "m", Access(), Access(tls=ON))),
    ],
)  # fmt: skip
def test_an_address_is_understood(address, expected):
    assert shard(address) == expected


def test_what_a_url_leaves_out_comes_from_the_object():
    settings = {
        "user": "u", "password": "p", "db": 4, "client_name": "n", "force_resp2": True,
        "connect_timeout": Duration.parse("2s"), "io_timeout": Duration.parse("3s"), "tls": ON,
    }  # fmt: skip
    access = Access("u", "p", "n", ON, True, 2, 3)
    assert shard("h:1", **settings) == Standalone(HOST, access, 4)
    assert shard("redis://h:1", **settings) == Standalone(HOST, access, 4)
    assert shard("redis://v:w@h:1/0", **settings) == Standalone(HOST, Access("v", "w", "n", ON, True, 2, 3), 0)
    assert shard("unix:///s", **settings).access.tls is None


def test_tls_of_a_url_uses_the_certificates_of_the_object():
    assert shard("rediss://h:1", tls=TLS(server_name="x")).access.tls == TLS(enabled=True, server_name="x")


def test_sentinels_of_a_url_use_what_the_object_says_of_sentinels():
    one = shard(
        "redis+sentinel://h:1",
        sentinel_master_name="m", sentinel_user="u", sentinel_password="p", sentinel_client_name="n", sentinel_tls=ON,
    )  # fmt: skip
    assert one == Sentinel((HOST,), "m", Access("u", "p", "n", ON))


def test_each_entry_is_a_shard_and_a_comma_joins_seeds():
    assert shards(address=("a:1", "redis://b:2")) == (
        Standalone(TcpAddress("a", 1)),
        Standalone(TcpAddress("b", 2)),
    )
    assert shards(cluster_address=("a:1,a:2", "b:3")) == (
        Cluster((TcpAddress("a", 1), TcpAddress("a", 2))),
        Cluster((TcpAddress("b", 3),)),
    )
    assert shards(sentinel_address=("a:1, a:2", "b:3"), sentinel_master_name="m", db=2) == (
        Sentinel((TcpAddress("a", 1), TcpAddress("a", 2)), "m", db=2),
        Sentinel((TcpAddress("b", 3),), "m", db=2),
    )


def test_cluster_goes_before_sentinel_before_address():
    everything = {"address": ("a:1",), "sentinel_address": ("b:2",), "sentinel_master_name": "m"}
    assert isinstance(shards(**everything, cluster_address=("c:3",))[0], Cluster)
    assert isinstance(shards(**everything)[0], Sentinel)
    assert _said(Redis(**everything)).warnings == ["f: redis.address: has no effect beside sentinel_address"]


def test_without_an_address_everything_stays_on_this_node():
    assert parse_redis(Redis()) is None
    assert parse_redis(Redis(address=("h:1",))).prefix == "cpro"


BAD = {
    "h": "must be host:port or a URL",
    "": "must be host:port or a URL",
    "hush@h:1": "must be host:port or a URL",
    "a:1,b:2": "must be one host:port or URL: several shards are a list",
    "h:0": "must not have port 0",
    "h:70000": "must have a port from 0 to 65535",
    "http://h:1": "must be host:port or a URL that starts with one of redis://, tcp://, rediss://, unix://, "
    "redis+sentinel://, rediss+sentinel://, redis+cluster://, rediss+cluster://",
    "redis://:hush#x@h:1": "must not have a fragment: write # as %23",
    "redis://:hush/x@h:1": "must have a port from 0 to 65535",
    "redis://:hu sh@h:1": "must not have spaces or control characters in a URL",
    "redis://": "must have a host",
    "redis://[::1:hush": "has a bad IPv6 address",
    "redis://h:1/hush": "must have the number of a database as its path, such as redis://host:6379/2",
    "redis://h:1?io_timeout=5": 'has an option io_timeout that is not a duration from 1ms to 1h, such as "500ms"',
    "redis://h:1?force_resp2=yes": "has an option force_resp2 that is neither true nor false",
    "redis://h:1?io_timout=1s": "has an unknown option; the nearest is io_timeout",
    "redis://h:1?io_timeout=1s&io_timeout=2s": "has io_timeout more than once",
    "redis://h:1?sentinel_master_name=m": "must start with redis+sentinel:// to have sentinel_master_name",
    "redis+sentinel://h:1": "names Sentinels, so sentinel_master_name must be set",
    "redis+cluster://h:1/2": "must be database 0: a Redis Cluster has no other",
    "redis+cluster://h:1?addr=hush": "must be host:port or a URL",
    "unix://h/run/r.sock": "must be unix:// followed by an absolute path, such as unix:///run/redis.sock",
    "unix:///run/r.sock?tls_enabled=true": "must not have TLS on a unix socket",
}


@pytest.mark.parametrize("address", BAD)
def test_a_bad_address_is_said_without_its_text(address):
    said = _said(Redis(address=("ok:1", address)))
    assert said.lines == [f"f: redis.address[1]: {BAD[address]}"]
    assert "hush" not in said.lines[0]
    with pytest.raises(ValueError, match=r"^address\[1\]: "):
        parse_redis(Redis(address=("ok:1", address)))


@pytest.mark.parametrize(
    ("redis", "faults"),
    [
        (Redis(cluster_address=("redis://h:1",)),
         ["redis.cluster_address[0]: must be host:port, several joined by commas; URLs stand in `address`"]),
        (Redis(cluster_address=("h:1,",)), ["redis.cluster_address[0]: must be host:port or a URL"]),
        (Redis(cluster_address=("h:1",), db=1), ["redis.db: must be 0: a Redis Cluster has no other database"]),
        (Redis(sentinel_address=("h:1",)), ["redis.sentinel_master_name: is missing: sentinel_address is set"]),
        (FeatureRedis(address=("h:1",), reuse_from_engine=True),
         ["redis.reuse_from_engine: must not be true beside other settings: it uses the shared block"]),
    ],
)  # fmt: skip
def test_a_bad_object_is_said(redis, faults):
    assert _said(redis).lines == [f"f: {fault}" for fault in faults]


def test_what_has_no_effect_is_a_warning():
    assert _said(Redis(address=("h:1",), replica_client=ReplicaClient(enabled=True))).warnings == [
        "f: redis.replica_client: has no effect in cpro: it talks to masters only"
    ]
    assert _said(Redis(address=("redis://h:1?replica_client_enabled=true",))).warnings
    assert _said(FeatureRedis(prefix="x")).warnings == [
        "f: redis: has no effect without an address: the shared block is used"
    ]


def test_a_feature_uses_its_own_redis_else_the_shared_one():
    own, shared = FeatureRedis(address=("own:1",)), Redis(address=("shared:1",))
    assert redis_for(own, shared) is own
    assert redis_for(FeatureRedis(), shared) is shared
    assert redis_for(FeatureRedis(reuse_from_engine=True), shared) is shared
    assert redis_for(FeatureRedis(), Redis()) is None
    assert redis_for(own, Redis()) is own


def test_passwords_are_never_shown():
    redis = Redis(
        address=("redis://:hush@h:1", "redis+sentinel://h:1?sentinel_master_name=m&sentinel_password=hush"),
        password="hush",
        sentinel_password="hush",
    )
    assert "hush" not in repr(redis)
    assert "hush" not in repr(parse_redis(redis))
    assert "hush" not in str(redacted(Settings(redis=redis)))


def _said(redis: Redis) -> Faults:
    faults = Faults("f")
    check_redis(redis, ("redis",), faults)
    return faults
