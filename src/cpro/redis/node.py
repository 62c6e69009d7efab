"""One Redis server: a few connections, and one write and one read for many commands."""

import asyncio
from collections.abc import Callable
from typing import Final

from redis.exceptions import RedisError

from cpro.errors import StoreTimeoutError, StoreUnavailableError

from .replies import ERROR_REPLIES, Reply
from .wire import Address, Dialer, Wire

_LOST: Final = (RedisError, OSError, TimeoutError)


class Node:
    """Owns its connections. They are made when needed, never more than `most_connections`, and used again.

    A pipeline has a connection to itself. After a timeout, a fault or a cancellation that connection is closed,
    because replies may still be under way in it; nothing is ever sent twice.
    """

    def __init__(
        self,
        address: Address,
        dial: Dialer,
        connect_timeout_s: float,
        io_timeout_s: float,
        most_connections: int,
        on_sent: Callable[[], None],
    ) -> None:
        self.address = address
        self._dial = dial
        self._connect_timeout_s = connect_timeout_s
        self._io_timeout_s = io_timeout_s
        self._room = asyncio.Semaphore(most_connections)
        self._idle: list[Wire] = []
        self._retired = False
        self._on_sent = on_sent

    async def pipeline(self, payload: bytes, count: int) -> list[Reply | Exception]:
        """Sends packed commands in one write and returns their `count` replies.

        Error replies are redis-py's exceptions in the list, replies that didn't come StoreTimeoutErrors.
        Raises StoreUnavailableError: nothing was sent.
        """
        wire = await self._take()
        replies: list[Reply | Exception] = []
        try:
            async with asyncio.timeout(self._io_timeout_s):
                self._on_sent()
                await wire.send_packed_command(payload, check_health=False)
                while len(replies) < count:
                    try:
                        replies.append(await wire.read_response(disconnect_on_error=False))
                    except ERROR_REPLIES as error:
                        replies.append(error)
        except _LOST as error:
            await self._drop(wire)
            lost = StoreTimeoutError(f"Redis {self.address}: no reply: {_reason(error)}")
            return replies + [lost] * (count - len(replies))
        except BaseException:
            await self._drop(wire)
            raise
        await self._give_back(wire)
        return replies

    async def retire(self) -> None:
        """Closes idle connections at once, those in use when their replies are there. For a server that is gone."""
        self._retired = True
        idle, self._idle = self._idle, []
        for wire in idle:
            try:
                await wire.disconnect()
            except _LOST:
                await wire.disconnect(nowait=True)

    async def _take(self) -> Wire:
        """A connection that is fit for use; whoever took it must drop it or give it back."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._room.acquire()
                try:
                    return await self._fit()
                except BaseException:
                    self._room.release()
                    raise
        except _LOST as error:
            raise StoreUnavailableError(f"Redis {self.address}: can't connect: {_reason(error)}") from error

    async def _fit(self) -> Wire:
        while self._idle:
            wire = self._idle.pop()  # the warmest
            if wire.is_connected and not await _is_stale(wire):
                return wire
            await wire.disconnect(nowait=True)
        wire = self._dial(self.address)
        try:
            await wire.connect()
        except BaseException:
            await wire.disconnect(nowait=True)
            raise
        return wire

    async def _give_back(self, wire: Wire) -> None:
        if self._retired:
            await wire.disconnect(nowait=True)
        else:
            self._idle.append(wire)
        self._room.release()

    async def _drop(self, wire: Wire) -> None:
        try:
            await wire.disconnect(nowait=True)
        finally:
            self._room.release()


async def _is_stale(wire: Wire) -> bool:
    try:
        return await wire.can_read()
    except _LOST:
        return True


def _reason(error: BaseException) -> str:
    return str(error) or "timed out"
