"""The one place that makes redis-py's connections: handshake, TLS and RESP are redis-py's, all policy is ours.

redis-py's clients and pools are not used: they repeat commands after timeouts, and don't tell a command that was
never sent from one whose reply was lost. Its timeouts are off; `node` keeps the time.
"""

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from redis.asyncio.connection import Connection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from cpro.config.address import TcpAddress, UnixAddress
from cpro.config.redis_url import Access
from cpro.config.tls import client_context

Address = TcpAddress | UnixAddress


class Wire(Protocol):
    """What is used of a redis-py connection. All raise redis-py's errors, OSError or TimeoutError."""

    @property
    def is_connected(self) -> bool: ...
    async def connect(self) -> None:
        """Opens the socket and says HELLO, AUTH, CLIENT SETNAME, SELECT."""

    async def disconnect(self, nowait: bool = False) -> None: ...
    async def can_read(self) -> bool:
        """True when idle: the peer has closed, or bytes are left that belong to nobody."""

    async def send_packed_command(self, command: bytes, check_health: bool = True) -> None: ...
    async def read_response(self, *, disconnect_on_error: bool = True) -> object:
        """One reply; an error reply is raised."""


Dialer = Callable[[Address], Wire]


class _TlsConnection(Connection):
    """With our own context (PEMs in memory, a name to check that differs from the host)."""

    def __init__(self, *, context: ssl.SSLContext, server_name: str, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self._context = context
        self._server_name = server_name

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {
            "host": self.host,
            "port": self.port,
            "ssl": self._context,
            "server_hostname": self._server_name or self.host,
        }


def dialer(access: Access, db: int = 0) -> Dialer:
    """Makes connections that are not connected yet; ValueError when the TLS object is unusable."""
    options: dict[str, Any] = {
        "db": db,
        "username": access.user or None,
        "password": access.password or None,
        "client_name": access.client_name or None,
        "protocol": 2 if access.resp2 else 3,
        "socket_timeout": None,
        "socket_connect_timeout": access.connect_timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "retry_on_error": [],
    }
    kind: type[Connection] = Connection
    if access.tls is not None:
        kind = _TlsConnection
        options |= {"context": client_context(access.tls, http=False), "server_name": access.tls.server_name}

    def dial(address: Address) -> Wire:
        if isinstance(address, UnixAddress):
            return cast(Wire, UnixDomainSocketConnection(path=address.path, **options))
        return cast(Wire, kind(host=address.host, port=address.port, **options))

    return dial
