"""Every form of address reaches the server it names, and nothing else is let in."""

import pytest

from cpro.config.model import TLS
from cpro.errors import StoreUnavailableError
from cpro.redis import Script
from tests.support.redis import (
    RedisCluster,
    RedisServer,
    WatchedRedis,
    certificates,
    has_tls,
    run,
    shards_of,
    tls_options,
)

WHERE = Script("return {redis.call('INCR', KEYS[1]), ARGV[1]}")
VECTORS = {
    "": (1, 1, 1), "1": (1, 2, 2), "42": (1, 1, 1), "user:42": (1, 1, 1), "chat:index": (0, 0, 0), "news": (1, 2, 3),
    "$private:room": (0, 0, 3), "dialog#1,2": (0, 2, 2), "rate_limit_test": (1, 2, 3), "канал": (1, 2, 2),
    "a" * 64: (0, 0, 3), "00000000-0000-0000-0000-000000000000": (1, 1, 1),
}  # fmt: skip
"""Key -> its shard of 2, 3 and 4: section 7 of the reference."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("redis")
    with RedisServer(folder, "--unixsocket", str(folder / "r.sock")) as one:
        yield one


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("locked"), "--requirepass", "def", password="def") as one:
        one.run("ACL", "SETUSER", "al", "on", ">p@ss", "~cpro*", "+@all", "-@dangerous")
        yield one


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    with WatchedRedis(tmp_path_factory.mktemp("watched"), password="mp", sentinel_password="sp") as one:
        yield one


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with RedisCluster(tmp_path_factory.mktemp("cluster"), 3, 0) as one:
        yield one


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    if not has_tls():
        pytest.skip("this redis-server has no TLS")
    folder = tmp_path_factory.mktemp("tls")
    certs = certificates(folder / "certs")
    with RedisServer(folder, *tls_options(certs)) as one:
        one.certs = certs
        one.tls_port = int(one.options[-1])
        yield one


async def reaches(**settings):
    """The connection's own description, after a script has run on it."""
    async with shards_of(**settings) as shards:
        assert (await shards.evalsha(0, WHERE, b"cpro:x", ["a"]))[1] == b"a"
        info = await shards.command(0, b"cpro:x", "CLIENT", "INFO")
        return dict(part.split("=", 1) for part in (info.decode() if info else "").split())


@pytest.mark.parametrize(
    "form", ["127.0.0.1:{port}", "redis://127.0.0.1:{port}", "tcp://localhost:{port}", "unix://{folder}/r.sock"]
)
def test_a_plain_address_is_reached(server, form):
    info = run(reaches(address=(form.format(port=server.port, folder=server.folder),), client_name="cpro-7"))
    assert (info["name"], info["db"], info["resp"]) == ("cpro-7", "0", "3")


def test_database_and_protocol_are_those_of_the_url(server):
    info = run(reaches(address=(f"redis://127.0.0.1:{server.port}/3?force_resp2=true",), db=1))
    assert (info["db"], info["resp"]) == ("3", "2")


@pytest.mark.parametrize("resp2", [False, True])
def test_user_and_password_let_in(locked, resp2):
    assert run(reaches(address=(f"redis://al:p%40ss@{locked.address}",), force_resp2=resp2))["user"] == "al"
    assert run(reaches(address=(locked.address,), user="al", password="p@ss", force_resp2=resp2))["user"] == "al"
    assert run(reaches(address=(f"redis://:def@{locked.address}",), force_resp2=resp2))["user"] == "default"


@pytest.mark.parametrize("resp2", [False, True])
@pytest.mark.parametrize("password", ["", ":hush@", "al:hush@"])
def test_a_wrong_password_is_a_store_that_is_away(locked, password, resp2):
    with pytest.raises(StoreUnavailableError) as caught:
        run(reaches(address=(f"redis://{password}{locked.address}",), force_resp2=resp2))
    assert "hush" not in str(caught.value)


def test_sentinels_name_the_master(watched):
    url = f"redis+sentinel://:mp@{watched.sentinel.address}?sentinel_master_name=mymaster&sentinel_password=sp"
    settings = {"sentinel_master_name": "mymaster", "sentinel_password": "sp", "password": "mp", "db": 2}
    assert run(reaches(address=(url,)))["laddr"] == watched.master.address
    dead_one_first = f"127.0.0.1:1,{watched.sentinel.address}"
    info = run(reaches(sentinel_address=(dead_one_first,), **settings))
    assert (info["laddr"], info["db"]) == (watched.master.address, "2")


@pytest.mark.parametrize(
    "wrong", [{"sentinel_master_name": "other"}, {"sentinel_password": "hush"}, {"password": "hush"}]
)
def test_wrong_answers_of_sentinels_are_a_store_that_is_away(watched, wrong):
    settings = {"sentinel_master_name": "mymaster", "sentinel_password": "sp", "password": "mp", **wrong}
    with pytest.raises(StoreUnavailableError) as caught:
        run(reaches(sentinel_address=(watched.sentinel.address,), **settings))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("form", ["cluster_address", "redis+cluster://", "redis://"])
def test_all_keys_of_a_cluster_are_reached(cluster, form):
    async def scenario():
        settings = {"cluster_address": (cluster.seeds,)}
        if form != "cluster_address":
            settings = {"address": (f"{form}{cluster.nodes[0].address}",)}
        async with shards_of(**settings) as shards:
            return await shards.evalsha_many(0, WHERE, [(b"%s%d" % (form.encode(), i), [i]) for i in range(60)])

    assert run(scenario()) == [[1, b"%d" % i] for i in range(60)]


@pytest.mark.parametrize("dead", [True, False])
def test_one_living_seed_is_enough(cluster, dead):
    first = "127.0.0.1:1" if dead else cluster.nodes[0].address
    run(reaches(cluster_address=(f"{first},{cluster.nodes[1].address}",)))


def test_tls_with_our_own_authority_and_certificate(secure):
    tls = TLS(
        enabled=True,
        server_ca_pem=secure.certs["ca"],
        cert_pem=secure.certs["client_cert"],
        key_pem=secure.certs["client_key"],
    )
    run(reaches(address=(f"127.0.0.1:{secure.tls_port}",), tls=tls))
    run(reaches(address=(f"rediss://127.0.0.1:{secure.tls_port}",), tls=_but(tls, enabled=False)))
    run(reaches(address=(f"rediss://127.0.0.1:{secure.tls_port}",), tls=_but(tls, server_name="redis.test")))


@pytest.mark.parametrize(
    "wrong", [{"server_ca_pem": ""}, {"server_name": "other.test"}, {"cert_pem": "", "key_pem": ""}]
)
def test_tls_that_can_not_be_trusted_is_a_store_that_is_away(secure, wrong):
    tls = TLS(
        enabled=True,
        server_ca_pem=secure.certs["ca"],
        cert_pem=secure.certs["client_cert"],
        key_pem=secure.certs["client_key"],
    )
    with pytest.raises(StoreUnavailableError):
        run(reaches(address=(f"127.0.0.1:{secure.tls_port}",), tls=_but(tls, **wrong)))


def test_several_addresses_share_the_keys_as_centrifugo_does(tmp_path):
    async def scenario(servers):
        for count in (2, 3, 4):
            async with shards_of(address=tuple(server.address for server in servers[:count])) as shards:
                assert len(shards) == count
                assert {key: shards.shard_of(key) for key in VECTORS} == {k: v[count - 2] for k, v in VECTORS.items()}
                for key in VECTORS:
                    await shards.command(shards.shard_of(key), b"x", "SET", f"{count}:{key}", 1)
        async with shards_of(address=(servers[0].address,)) as shards:
            assert {shards.shard_of(key) for key in VECTORS} == {0}

    servers = [RedisServer(tmp_path / str(number)) for number in range(4)]
    with servers[0], servers[1], servers[2], servers[3]:
        run(scenario(servers))
        for count in (2, 3, 4):
            for number, server in enumerate(servers):
                expected = {f"{count}:{key}".encode() for key, shards in VECTORS.items() if shards[count - 2] == number}
                assert {key for key in server.run("KEYS", "*") if key.startswith(b"%d:" % count)} == expected


def _but(tls: TLS, **changes) -> TLS:
    return TLS(**{name: changes.get(name, getattr(tls, name)) for name in TLS.__struct_fields__})
