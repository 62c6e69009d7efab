"""Listening sockets: bound once by the supervisor, inherited by the workers.

Every worker has a socket of its own on the same port (SO_REUSEPORT, socket(7)), and the supervisor keeps them open:
when a worker dies, connections that wait in its queue wait for its successor instead of being reset.
"""

import errno
import os
import socket
import stat
from contextlib import suppress

from cpro.errors import StartError

BACKLOG = 1024
UNIX_PREFIX = "unix://"


class Listener:
    """One address of cpro, with a socket for each worker. Close it to stop accepting."""

    def __init__(self, address: str, workers: int, setting: str) -> None:
        """Bind `address` (`host:port` or `unix:///path`; port 0 = any); `setting` names it in errors."""
        try:
            if address.startswith(UNIX_PREFIX):
                self._path = address.removeprefix(UNIX_PREFIX)
                self.sockets = [_bind_unix(self._path)] * workers
                self.address = address
            else:
                self._path = ""
                self.sockets = _bind_tcp(address, workers)
                host, port = self.sockets[0].getsockname()[:2]
                self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        except OSError as error:
            raise StartError(f"{setting}: can't listen on {address}: {error.strerror or error}") from error

    def close(self) -> None:
        """Stop accepting here; workers close their own copies."""
        for listener in self.sockets:
            listener.close()
        if self._path:
            with suppress(FileNotFoundError):
                os.unlink(self._path)


def _bind_tcp(address: str, workers: int) -> list[socket.socket]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "0.0.0.0"  # noqa: S104 -- `:8001` means every address, as in Go
    family, _, _, _, name = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    # SO_REUSEPORT alone would let a second cpro share the port unnoticed: a socket without it finds that out.
    with _tcp(family) as probe:
        probe.bind(name)
        name = probe.getsockname()
        probe.listen(1)
    listeners = []
    for _ in range(workers):
        listener = _tcp(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(name)
        listener.listen(BACKLOG)
        listeners.append(listener)
    return listeners


def _tcp(family: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return listener


def _bind_unix(path: str) -> socket.socket:
    """Bind, replacing the socket file of a cpro that is gone."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _is_abandoned(path):
            raise
        os.unlink(path)
        listener.bind(path)
    listener.listen(BACKLOG)
    return listener


def _is_abandoned(path: str) -> bool:
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        return visitor.connect_ex(path) == errno.ECONNREFUSED
