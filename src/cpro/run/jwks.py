"""Has the keys fetched that sign connection tokens; they outlive a reload that leaves their endpoint alone."""

import asyncio
from typing import Final

from cpro.clock import boot_ns
from cpro.doors.gateway.keysets import KeySets
from cpro.doors.gateway.tokens import FindKey, no_key
from cpro.http.client import HttpClient
from cpro.http.getter import Getter

TIMEOUT_S: Final = 5.0
CONNECT_TIMEOUT_S: Final = 2.5
MOST_BYTES: Final = 1024 * 1024


class Jwks:
    """A worker's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._endpoint = ""
        self._find: FindKey = no_key
        self._client: HttpClient | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def configure(self, endpoint: str) -> FindKey:
        """Look for keys at `endpoint` from now on; empty: nowhere."""
        if endpoint == self._endpoint:
            return self._find
        self._retire()
        self._endpoint, self._find = endpoint, no_key
        if endpoint:
            self._client = HttpClient(
                self._loop, timeout_s=TIMEOUT_S, connect_timeout_s=CONNECT_TIMEOUT_S, max_reply_bytes=MOST_BYTES
            )
            self._find = KeySets(endpoint, Getter(self._client, endpoint).get, boot_ns).find
        return self._find

    async def close(self) -> None:
        self._retire()
        await asyncio.gather(*self._closing)

    def _retire(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            closing = self._loop.create_task(client.close(0.0))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
