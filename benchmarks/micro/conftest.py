"""What the benchmarks share: one request as Centrifugo sends it, and how many calls make a round."""

from collections.abc import Callable

import pytest

BODY = (
    b'{"client":"9336a229-2400-4ebc-8c50-000000000042","transport":"websocket","protocol":"json","encoding":"json",'
    b'"user":"100042","channel":"chat:room42","data":{"text":"Message 42, as people write them"}}'
)
REQUEST = (
    b"POST /centrifugo/publish HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nUser-Agent: Go-http-client/1.1\r\n"
    b"Content-Length: %d\r\nContent-Type: application/json\r\n"
    b"Cookie: session=4f3a1d0e9b7c4a6f8e2d1c0b9a8f7e6d; theme=dark\r\n"
    b"X-Real-Ip: 203.0.113.24\r\nAccept-Encoding: gzip\r\n\r\n" % len(BODY)
) + BODY
CALLS = 10_000

Measure = Callable[[Callable[[int], object], int], object]


@pytest.fixture
def measure(benchmark) -> Measure:
    """`measure(run, calls)`: `run(calls)` makes that many calls; the report divides by it.

    The loop around the calls is part of the time (see `test_loop` for how much).
    """

    def start(run: Callable[[int], object], calls: int = CALLS) -> object:
        benchmark.extra_info["calls"] = calls
        return benchmark.pedantic(run, args=(calls,), rounds=25, warmup_rounds=2)

    return start
