"""Calls to one server: grouped in one write, never executed twice, and their errors are ours."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from cpro.errors import StoreReplyError, StoreTimeoutError, StoreUnavailableError
from cpro.redis import Script
from tests.support.redis import RedisServer, run, shards_of, soon
from tests.support.redis_faults import Proxy, ScriptedRedis, resp

COUNT = Script("return redis.call('INCR', KEYS[1])")
FRAGILE = Script("if ARGV[1] == 'bad' then return redis.call('NONSENSE') end return redis.call('INCR', KEYS[1])")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis"), "--enable-debug-command", "yes") as one:
        yield one


@pytest.fixture
def server(kept):
    kept.run("FLUSHALL")
    kept.run("SCRIPT", "FLUSH")
    return kept


def calls_of(server: RedisServer, command: str) -> int:
    return server.run("INFO", "commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]


@asynccontextmanager
async def proxied(server: RedisServer, **settings):
    with Proxy(server.port) as proxy:
        async with shards_of(address=(proxy.address,), **settings) as shards:
            yield proxy, shards


def test_calls_of_one_turn_are_one_round_trip(server):
    trips = []

    async def scenario():
        async with shards_of(address=(server.address,), on_round_trip=trips.append) as shards:
            await shards.evalsha(0, COUNT, b"k")
            trips.clear()
            return await shards.evalsha_many(0, COUNT, [(b"k", ())] * 500)

    assert run(scenario()) == list(range(2, 502))
    assert trips == [0]


def test_no_calls_are_no_round_trip(server):
    trips = []

    async def scenario():
        async with shards_of(address=(server.address,), on_round_trip=trips.append) as shards:
            return await shards.evalsha_many(0, COUNT, [])

    assert run(scenario()) == []
    assert trips == []


def test_a_forgotten_script_is_loaded_and_only_those_calls_are_repeated(server):
    trips = []

    async def scenario():
        async with shards_of(address=(server.address,), on_round_trip=trips.append) as shards:
            assert await shards.evalsha_many(0, COUNT, [(b"a", ()), (b"b", ())]) == [1, 1]
            server.run("SCRIPT", "FLUSH")
            assert await shards.evalsha_many(0, COUNT, [(b"a", ()), (b"b", ())]) == [2, 2]
            await asyncio.gather(*(shards.evalsha(0, COUNT, b"a") for _ in range(20)))

    run(scenario())
    assert server.run("GET", "a") == b"22"
    assert len(trips) == 24


def test_the_error_of_one_call_does_not_fail_the_others(server):
    async def scenario():
        async with shards_of(address=(server.address,)) as shards:
            server.run("SET", "text", "abc")
            return await shards.evalsha_many(
                0, FRAGILE, [(b"a", ["ok"]), (b"a", ["bad"]), (b"text", ["ok"]), (b"a", ["ok"])]
            )

    first, bad, text, last = run(scenario())
    assert (first, last) == (1, 2)
    assert type(bad) is type(text) is StoreReplyError


def test_plain_commands_go_the_same_way(server):
    async def scenario():
        async with shards_of(address=(server.address,)) as shards:
            assert await shards.command(0, b"h", "HSET", "h", "a", 1, "b", 2.5) == 2
            assert await shards.command(0, b"h", "HMGET", "h", "a", "b", "c") == [b"1", b"2.5", None]
            with pytest.raises(StoreReplyError):
                await shards.command(0, b"h", "GET", "h")

    run(scenario())


@pytest.mark.parametrize("trouble", ["swallowing", "cutting"])
def test_a_call_without_a_reply_is_executed_once(server, trouble):
    async def scenario():
        async with proxied(server) as (proxy, shards):
            await shards.evalsha(0, COUNT, b"k")
            setattr(proxy, trouble, True)
            results = await shards.evalsha_many(0, COUNT, [(b"k", ())] * 10)
            assert {type(result) for result in results} == {StoreTimeoutError}
            await asyncio.sleep(0.5)  # nothing comes after it
            assert server.run("GET", "k") == b"11"
            setattr(proxy, trouble, False)
            assert await shards.evalsha(0, COUNT, b"k") == 12

    before = calls_of(server, "evalsha")
    run(scenario())
    assert calls_of(server, "evalsha") - before == 13  # one of them was NOSCRIPT


def test_a_server_that_hangs_costs_a_timeout_and_is_never_asked_twice(tmp_path):
    async def scenario(server):
        async with shards_of(address=(server.address,)) as shards:
            await shards.evalsha(0, COUNT, b"k")
            server.pause()
            started = time.monotonic()
            with pytest.raises(StoreTimeoutError):
                await shards.evalsha(0, COUNT, b"k")
            with pytest.raises(StoreUnavailableError):  # it does not even say HELLO
                await shards.evalsha(0, COUNT, b"k")
            assert 0.75 < time.monotonic() - started < 1.5
            server.resume()
            await asyncio.sleep(0.2)
            assert await shards.evalsha(0, COUNT, b"k") == 3  # the first, the one that timed out, and this

    with RedisServer(tmp_path) as server:
        run(scenario(server))


def test_a_server_that_is_not_there_is_unavailable_and_comes_back(tmp_path):
    async def scenario(server):
        async with shards_of(address=(server.address,)) as shards:
            with pytest.raises(StoreUnavailableError):
                await shards.evalsha(0, COUNT, b"k")
            server.start()
            await shards.ping(0)
            assert await shards.evalsha(0, COUNT, b"k") == 1
            server.restart()
            await asyncio.sleep(0.01)
            assert await shards.evalsha(0, COUNT, b"k") == 1, "an idle connection that broke is replaced"
            server.stop()
            await asyncio.sleep(0.01)
            with pytest.raises(StoreUnavailableError):
                await shards.ping(0)

    server = RedisServer(tmp_path)
    try:
        run(scenario(server))
    finally:
        server.stop()


def test_connections_are_used_again_and_bounded(server):
    async def scenario():
        async with shards_of(address=(server.address,), most_connections=3, client_name="mine") as shards:
            for _ in range(20):
                await shards.evalsha(0, COUNT, b"k")
            assert connected(server) == 1
            await asyncio.gather(*(shards.evalsha(0, COUNT, b"k") for _ in range(100)))
            assert connected(server) == 3
        await asyncio.sleep(0.05)
        assert connected(server) == 0

    before = server.run("INFO", "stats")["total_connections_received"]
    run(scenario())
    assert server.run("GET", "k") == b"120"
    assert server.run("INFO", "stats")["total_connections_received"] - before < 12


def connected(server: RedisServer) -> int:
    return sum(client["name"] == "mine" for client in server.run("CLIENT LIST"))


def test_calls_that_find_no_free_connection_in_time_are_not_executed(server):
    async def scenario():
        async with proxied(server, most_connections=1) as (proxy, shards):
            await shards.evalsha(0, COUNT, b"k")
            proxy.swallowing = True
            calls = [asyncio.create_task(shards.evalsha(0, COUNT, b"k")) for _ in range(3)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(result) for result in results] == [StoreTimeoutError, *[StoreUnavailableError] * 2]

    run(scenario())
    assert server.run("GET", "k") == b"2"


def test_a_cancelled_call_leaves_no_reply_for_the_next(server):
    async def scenario():
        async with shards_of(address=(server.address,), most_connections=1) as shards:
            for delay_s in (0, 0, 0.0001, 0.0002, 0.0005, 0.001) * 5:
                call = asyncio.create_task(shards.command(0, b"x", "ECHO", "cancelled"))
                await asyncio.sleep(delay_s)
                call.cancel()
                (result,) = await asyncio.gather(call, return_exceptions=True)
                assert result == b"cancelled" or isinstance(result, asyncio.CancelledError)
                assert await shards.command(0, b"x", "ECHO", "kept") == b"kept"

    run(scenario())


def test_closing_lets_calls_under_way_finish(server):
    async def scenario():
        async with shards_of(address=(server.address,)) as shards:
            await shards.ping(0)
            call = asyncio.create_task(shards.command(0, b"x", "DEBUG", "SLEEP", "0.1"))
            await asyncio.sleep(0.02)
        assert await call == b"OK"

    run(scenario())


def test_loading_is_a_server_that_is_away(tmp_path):
    async def scenario(server):
        async with shards_of(address=(server.address,)) as shards:
            with pytest.raises(StoreUnavailableError, match="loading"):
                await shards.evalsha(0, COUNT, b"k")
            connections = server.run("INFO", "clients")["connected_clients"]
            with pytest.raises(StoreUnavailableError, match="loading"):
                await shards.evalsha(0, COUNT, b"k")
            assert server.run("INFO", "clients")["connected_clients"] == connections, "the connection is kept"
            assert await soon(lambda: shards.evalsha(0, COUNT, b"k")) == 1

    slow = ("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
    server = RedisServer(tmp_path, *slow, "--enable-debug-command", "yes")
    with server:
        server.run("DEBUG", "POPULATE", "1000")
        server.run("SAVE")
        server.stop()
        server.start()
        run(scenario(server))


def test_a_replica_that_is_asked_to_write_is_away(server, tmp_path):
    async def scenario(replica):
        async with shards_of(address=(replica.address,)) as shards:
            results = await shards.evalsha_many(0, COUNT, [(b"k", ())] * 2)
            assert {type(result) for result in results} == {StoreUnavailableError}

    with RedisServer(tmp_path, "--replicaof", f"127.0.0.1 {server.port}") as replica:
        run(scenario(replica))


def test_a_server_that_never_stops_sending_on_is_given_up():
    async def scenario(scripted):
        async with shards_of(address=(scripted.address,)) as shards:
            with pytest.raises(StoreUnavailableError, match="more than 5 times"):
                await shards.evalsha(0, COUNT, b"k")

    with ScriptedRedis(lambda command: b"-TRYAGAIN later\r\n") as scripted:
        run(scenario(scripted))
        assert [command[0] for command in scripted.commands] == [b"EVALSHA"] * 6


def test_a_slot_on_its_way_is_asked_again():
    replies = [b"-TRYAGAIN later\r\n", b"-TRYAGAIN later\r\n", resp(7)]

    async def scenario(scripted):
        async with shards_of(address=(scripted.address,)) as shards:
            assert await shards.evalsha(0, COUNT, b"k") == 7

    with ScriptedRedis(lambda command: replies.pop(0)) as scripted:
        run(scenario(scripted))


def test_what_is_no_redis_is_a_call_without_a_reply():
    async def scenario(scripted):
        async with shards_of(address=(scripted.address,)) as shards:
            with pytest.raises(StoreTimeoutError):
                await shards.evalsha(0, COUNT, b"k")

    with ScriptedRedis(lambda command: b"HTTP/1.1 400 Bad Request\r\n\r\n") as scripted:
        run(scenario(scripted))


def test_scripts_that_may_not_be_loaded_say_so():
    def answer(command):
        return b"-NOPERM no\r\n" if command[0] == b"SCRIPT" else b"-NOSCRIPT No matching script.\r\n"

    async def scenario(scripted):
        async with shards_of(address=(scripted.address,)) as shards:
            with pytest.raises(StoreReplyError, match="no"):
                await shards.evalsha(0, COUNT, b"k")

    with ScriptedRedis(answer) as scripted:
        run(scenario(scripted))


def test_a_script_that_another_client_has_loaded_is_used():
    replies = [b"-NOSCRIPT No matching script.\r\n", b"-NOPERM no\r\n", resp(7)]

    async def scenario(scripted):
        async with shards_of(address=(scripted.address,)) as shards:
            assert await shards.evalsha(0, COUNT, b"k") == 7

    with ScriptedRedis(lambda command: replies.pop(0)) as scripted:
        run(scenario(scripted))
