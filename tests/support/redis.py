"""Real Redis servers on free ports, alone, watched by a Sentinel, or as a cluster; every process ends by its id."""

import asyncio
import gc
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
import uvloop

from cpro.config.duration import Duration
from cpro.config.model import Redis
from cpro.config.redis_address import parse_redis
from cpro.errors import StoreError
from cpro.redis import Shards
from tests.support.processes import eventually

Result = TypeVar("Result")

SERVER = os.environ.get("CPRO_TEST_REDIS", "redis-server")
"""Which server the tests start: another version of Redis, or Valkey."""
START_S = 30.0
CLUSTER_TIMEOUT_MS = 1000


def need_redis() -> None:
    if shutil.which(SERVER) is None:
        pytest.skip("redis-server is not installed")


def free_port() -> int:
    """Free, and so is the one 10,000 above it, where a cluster's nodes talk to each other."""
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), ExitStack() as sockets:
            for one in (port, port + 10_000):
                sockets.enter_context(socket.socket()).bind(("127.0.0.1", one))
            return port


class RedisServer:
    """One server that keeps nothing on disk; a context manager."""

    def __init__(self, folder: Path, *options: str, password: str = "", sentinel: str = ""):
        need_redis()
        self.folder = folder
        self.port = free_port()
        self.options = options
        self.password = password
        self._sentinel = sentinel  # the configuration of one
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> "RedisServer":
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), *self.options]
        if self._sentinel:
            config = self.folder / "sentinel.conf"
            config.write_text(self._sentinel)
            command = [SERVER, str(config), "--sentinel", *options]
        else:
            command = [SERVER, "--save", "", "--appendonly", "no", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert eventually(self.answers, START_S), f"{command} does not answer"
        return self

    def client(self, **options) -> redis.Redis:
        keywords = {"port": self.port, "socket_timeout": 5, "password": self.password or None, "retry": None, **options}
        return redis.Redis(**keywords)

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (redis.exceptions.ResponseError, redis.exceptions.BusyLoadingError):
            return True  # it may not like us, but it talks
        except redis.exceptions.RedisError:
            return False

    def run(self, *command):
        """One command, asked from outside."""
        with self.client() as client:
            return client.execute_command(*command)

    def is_replicated(self) -> bool:
        """Whether its replicas, one at least, have acknowledged all that was written so far."""
        info = self.run("INFO", "replication")
        replicas = [info[f"slave{number}"] for number in range(info["connected_slaves"])]
        return bool(replicas) and all(one["offset"] >= info["master_repl_offset"] for one in replicas)

    def stop(self) -> None:
        """Gone at once; a paused one too."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def restart(self) -> None:
        """Comes back empty, on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> "RedisServer":
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()


class RedisCluster:
    """Masters with one replica each; a context manager."""

    def __init__(self, folder: Path, masters: int = 3, replicas: int = 1, *options: str):
        self.masters = masters
        self.replicas = replicas
        clustered = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(CLUSTER_TIMEOUT_MS))
        self.nodes = [
            RedisServer(folder / f"node{number}", *clustered, *options) for number in range(masters * (1 + replicas))
        ]

    @property
    def seeds(self) -> str:
        return ",".join(node.address for node in self.nodes)

    def __enter__(self) -> "RedisCluster":
        with ExitStack() as undo:
            for node in self.nodes:
                undo.enter_context(node)
            subprocess.run(
                ["redis-cli", "--cluster", "create", *(node.address for node in self.nodes),
                 "--cluster-replicas", str(self.replicas), "--cluster-yes"],
                check=True, stdout=subprocess.DEVNULL, timeout=60,
            )  # fmt: skip
            assert eventually(self.is_whole), "the cluster does not come together"
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_) -> None:
        self._undo.close()

    def is_whole(self) -> bool:
        """Every node says that all slots are served, and replicas follow their masters."""
        infos = [node.run("CLUSTER", "INFO") for node in self.nodes if node.process.poll() is None]
        links = [node.run("INFO", "replication") for node in self.nodes if node.process.poll() is None]
        return all(_field(info, "cluster_state") == "ok" for info in infos) and all(
            link["role"] == "master" or link["master_link_status"] == "up" for link in links
        )

    def is_replicated(self) -> bool:
        """Whether every master's replicas have all that was written so far."""
        masters = [node for node in self.nodes if node.run("INFO", "replication")["role"] == "master"]
        return all(node.is_replicated() for node in masters)

    def master_of(self, key: bytes) -> RedisServer:
        """The node that serves a key now."""
        alive = next(node for node in self.nodes if node.process.poll() is None)
        slot = alive.run("CLUSTER", "KEYSLOT", key)
        for first, last, master, *_ in _slots(alive):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == master)
        raise AssertionError(f"nobody serves slot {slot}")


class WatchedRedis:
    """A master, a replica and a Sentinel that watches them as `mymaster`; a context manager."""

    def __init__(self, folder: Path, *, password: str = "", sentinel_password: str = ""):
        access = ("--requirepass", password, "--masterauth", password) if password else ()
        self.master = RedisServer(folder / "master", *access, password=password)
        self.replica = RedisServer(
            folder / "replica", "--replicaof", f"127.0.0.1 {self.master.port}", *access, password=password
        )
        lines = [
            f"sentinel monitor mymaster 127.0.0.1 {self.master.port} 1",
            "sentinel down-after-milliseconds mymaster 500",
            "sentinel failover-timeout mymaster 2000",
            *([f"sentinel auth-pass mymaster {password}"] if password else []),
            *([f"requirepass {sentinel_password}"] if sentinel_password else []),
        ]
        self.sentinel = RedisServer(folder / "sentinel", password=sentinel_password, sentinel="\n".join(lines) + "\n")

    def __enter__(self) -> "WatchedRedis":
        with ExitStack() as undo:
            for server in (self.master, self.replica, self.sentinel):
                undo.enter_context(server)
            assert eventually(lambda: self.replica.run("INFO", "replication")["master_link_status"] == "up")
            assert eventually(self._is_known), "the Sentinel does not learn of the replica"
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_) -> None:
        self._undo.close()

    def is_replicated(self) -> bool:
        """Whether the replica has all that was written so far."""
        return self.master.is_replicated()

    def named_port(self) -> int:
        """Port of the server that the Sentinel calls the master now."""
        with self.sentinel.client() as client:
            return client.sentinel_get_master_addr_by_name("mymaster")[1]

    def _is_known(self) -> bool:
        return self._seen()["num-slaves"] == 1

    def _seen(self) -> dict:
        with self.sentinel.client() as client:
            return client.sentinel_master("mymaster")


def certificates(folder: Path) -> dict[str, str]:
    """Paths of an authority, and of a server's and a client's certificate and key, made by openssl."""
    folder.mkdir(parents=True, exist_ok=True)
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test ca",
             "-keyout", ca_key, "-out", ca)  # fmt: skip
    found = {"ca": str(ca)}
    for name in ("server", "client"):
        key, request, cert = folder / f"{name}.key", folder / f"{name}.csr", folder / f"{name}.pem"
        names = folder / f"{name}.ext"
        names.write_text("subjectAltName=DNS:redis.test,IP:127.0.0.1\n")
        _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2",
                 "-extfile", names, "-out", cert)  # fmt: skip
        found |= {f"{name}_cert": str(cert), f"{name}_key": str(key)}
    return found


def tls_options(certs: dict[str, str]) -> tuple[str, ...]:
    """For a server that also listens with TLS, on a port of its own which is the last of the options."""
    return (
        "--tls-cert-file", certs["server_cert"], "--tls-key-file", certs["server_key"],
        "--tls-ca-cert-file", certs["ca"], "--tls-port", str(free_port()),
    )  # fmt: skip


def has_tls() -> bool:
    need_redis()
    with subprocess.Popen(
        [SERVER, "--port", "0", "--tls-port", "1", "--tls-cert-file", "/nonexistent"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        said, _ = process.communicate(timeout=10)
    return "Bad directive" not in said and "FATAL CONFIG" not in said


def run(scenario: Coroutine[Any, Any, Result]) -> Result:
    """On uvloop as in production; fails when it leaves a task or an open connection behind."""

    async def main() -> Result:
        before = _sockets()
        try:
            return await scenario
        finally:
            await asyncio.sleep(0.02)  # what is closing has closed
            gc.collect()  # an unclosed connection warns here
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert _sockets() <= before

    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        return runner.run(main())
    finally:  # where a test has left a connection open, uvloop may wait for it for ever, deaf to signals
        closing = threading.Thread(target=runner.close, daemon=True)
        closing.start()
        closing.join(20)


def _sockets() -> int:
    """How many this process has open."""
    descriptors = list(Path("/proc/self/fd").iterdir())
    found = 0
    for descriptor in descriptors:
        with suppress(FileNotFoundError):
            found += os.readlink(descriptor).startswith("socket:")
    return found


@asynccontextmanager
async def shards_of(most_connections: int = 8, on_round_trip=lambda shard: None, **settings) -> AsyncIterator[Shards]:
    """Clients for a Redis object; short timeouts unless it says otherwise."""
    short = Duration.parse("400ms")
    deployment = parse_redis(Redis(**{"connect_timeout": short, "io_timeout": short, **settings}))
    shards = Shards(deployment, on_round_trip=on_round_trip, most_connections=most_connections)
    try:
        yield shards
    finally:
        await shards.aclose()


async def soon(attempt: Callable[[], Awaitable[Result]], timeout_s: float = 30.0) -> Result:
    """The first result of an attempt that raises no StoreError."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            return await attempt()
        except StoreError:
            if time.monotonic() > until:
                raise
        await asyncio.sleep(0.05)


def _field(info, name: str) -> str:
    return info[name] if isinstance(info, dict) else info.decode().split(f"{name}:")[1].split()[0]


def _slots(node: RedisServer) -> list:
    """First slot, last slot and the port of each node, master first."""
    connection = redis.connection.Connection(port=node.port)  # its replies are as they came
    connection.connect()
    connection.send_command("CLUSTER", "SLOTS")
    rows = connection.read_response()
    connection.disconnect()
    return [(first, last, *(node[1] for node in nodes)) for first, last, *nodes in rows]


def _openssl(*arguments) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)
