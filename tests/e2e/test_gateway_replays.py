"""Recorded sessions of SDKs with a real Centrifugo, played again by both sides with a real gateway between them."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Iterator

import pytest

from cpro._fast.commands import parse_commands
from cpro._fast.replies import parse_replies
from cpro._fast.wsframe import CLOSE
from tests.support.farside import FarSide, Visitor
from tests.support.service import Service, limits
from tests.support.transcripts import Recorded, all_recorded, raw, split

RECORDED = all_recorded()
PATIENCE_S = 20.0
HIGH = (1_000_000, "1s")
"""A limit that nobody gets to: each operation is charged, and passes."""


class Part:
    """Centrifugo's part in a recorded connection: says what it has to say once it has heard what led to it."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self._lines = deque(_lines(recorded))
        self.heard: list[bytes] = []

    def __call__(self, visitor: Visitor, payload: bytes) -> None:
        self.heard += split([payload], is_protobuf=self._recorded.is_protobuf)
        while self._lines and self._lines[0][0] <= len(self.heard):
            _, opcode, said = self._lines.popleft()
            visitor.say_raw(raw("server", [(opcode, said)]), and_close=opcode == CLOSE)


def _lines(recorded: Recorded) -> Iterator[tuple[int, int, bytes]]:
    """What the server says, and how many commands it has to have heard for that: up to those it replies to, or else all
    that came before."""
    ids: list[int] = []
    for side, opcode, payload in recorded.frames:
        if side == "client" and opcode != CLOSE:
            ids += [one.id for one in parse_commands(payload, recorded.is_protobuf)]
        elif side == "server":
            replies = [] if opcode == CLOSE else parse_replies(payload, recorded.is_protobuf)
            answered = [ids.index(one.id) + 1 for one in replies if one.id]
            yield max(answered, default=len(ids)), opcode, payload


@pytest.fixture(scope="module")
def far():
    with FarSide() as far:
        yield far


@pytest.fixture(scope="module")
def gateway(far: FarSide, tmp_path_factory: pytest.TempPathFactory):
    settings = {
        **limits(total=HIGH, default=HIGH),
        "gateway": {"enabled": True, "address": "127.0.0.1:0", "centrifugo": [far.base]},
    }
    with Service(tmp_path_factory.mktemp("replays"), settings) as service:
        yield service


async def play(address: str, recorded: Recorded, rng: random.Random) -> None:
    """The client's part, in pieces of random size; what it hears is what Centrifugo has said."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(recorded.request + b"\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            for side, frames in recorded.groups():
                whole = raw(side, frames)
                if side == "server":
                    assert await reader.readexactly(len(whole)) == whole
                    continue
                while whole:
                    size = rng.randint(1, len(whole))
                    writer.write(whole[:size])
                    whole = whole[size:]
                    await asyncio.sleep(0)
            if any(opcode == CLOSE for _, opcode, _ in recorded.frames):
                assert await reader.read() == b""
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_session_passes_as_it_was_and_each_command_is_counted(far: FarSide, gateway: Service, name: str):
    recorded = RECORDED[name]
    part = Part(recorded)
    far.script = part
    before = {kind: admitted(gateway, kind) for kind in kinds(recorded)}
    asyncio.run(play(gateway.gateway, recorded, random.Random(name)))
    assert part.heard == split(recorded.said("client"), is_protobuf=recorded.is_protobuf)
    for kind, count in kinds(recorded).items():
        assert admitted(gateway, kind) - before[kind] == count


def kinds(recorded: Recorded) -> Counter[str]:
    payloads = recorded.said("client")
    return Counter(one.kind for payload in payloads for one in parse_commands(payload, recorded.is_protobuf))


def admitted(gateway: Service, kind: str) -> float:
    return gateway.metric(f'cpro_operations_total{{door="gateway",op="{kind}",verdict="admitted"}}')
