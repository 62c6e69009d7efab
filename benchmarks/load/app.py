"""The peer written in Python: what a team would put beside Centrifugo without cpro.

An ASGI app with the `limits` library in memory, three checks a request as cpro makes them, which then answers or
forwards to $BACKEND with aiohttp's keep-alive client.
"""

import json
import os
from collections.abc import Awaitable, Callable

import aiohttp
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

BACKEND = os.environ.get("BACKEND", "")
NOT_FORWARDED = {b"host", b"content-length", b"connection", b"accept-encoding"}
OK = b'{"result":{}}'
REFUSED = b'{"error":{"code":111,"message":"too many requests","temporary":true}}'

_hit = FixedWindowRateLimiter(MemoryStorage()).hit
_limit = RateLimitItemPerSecond(1_000_000)
_session: list[aiohttp.ClientSession] = []

Receive = Callable[[], Awaitable[dict]]
Send = Callable[[dict], Awaitable[None]]


async def app(scope: dict, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    event = json.loads(body)
    client, user = event["client"], event["user"]
    if _hit(_limit, "client", client) and _hit(_limit, "user", user) and _hit(_limit, "all nodes", user):
        answer = await _forward(scope, body) if BACKEND else OK
    else:
        answer = REFUSED
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _forward(scope: dict, body: bytes) -> bytes:
    headers = [(name.decode(), value.decode()) for name, value in scope["headers"] if name not in NOT_FORWARDED]
    async with _session[0].post(BACKEND + scope["path"], data=body, headers=headers) as response:
        return await response.read()


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    _session.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await _session.pop().close()
    await send({"type": "lifespan.shutdown.complete"})
