"""The same session of an unmodified SDK, straight to Centrifugo and through the gateway: the wire says the same."""

import asyncio
import itertools

import pytest

from cpro._fast.wsframe import BINARY, TEXT
from tests.e2e.centrifugo.conftest import Stack, StartStack
from tests.support.scenario import CENTRIFUGO, WAYS, application, play, transcript
from tests.support.sdks import SOCKET_KINDS, why_missing
from tests.support.wiretap import Take, Wiretap

pytestmark = pytest.mark.centrifugo


HOP_BY_HOP = {b"connection", b"upgrade", b"sec-websocket-extensions"}
ADDED = {b"x-cpro-connection", b"x-forwarded-for", b"x-real-ip"}


async def show(kind: str, url: str, started: Stack, way: str, tag: str) -> list[Take]:
    async with Wiretap(url) as tap:
        await play(kind, tap, started.centrifugo.api, WAYS[way], tag)
        return tap.takes


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("kind", "way"),
    [
        *itertools.product(SOCKET_KINDS, ["token", "proxy"]),
        ("python-json", "anonymous"),
        ("js-protobuf", "anonymous"),
    ],
)
def test_a_session_looks_the_same_with_and_without_the_gateway(stack: StartStack, kind: str, way: str):
    if reason := why_missing(kind):
        pytest.skip(reason)

    async def run():
        async with Wiretap() as behind:  # between the gateway and Centrifugo
            settings = {"gateway": {"enabled": True, "centrifugo": [behind.base]}}
            started = await asyncio.to_thread(stack, settings, answer=application, centrifugo=CENTRIFUGO)
            behind.aim(started.url)
            straight = await show(kind, started.url, started, way, "one")
            through = await show(kind, started.gateway_url, started, way, "two")
            return straight, through, behind.takes

    straight, through, behind = asyncio.run(run())
    assert len(straight) == 2
    assert transcript(through, "two") == transcript(straight, "one")
    (cut, cut_behind), (whole, whole_behind) = zip(through, behind, strict=True)
    for front, back in ((cut, cut_behind), (whole, whole_behind)):
        check_heads(front, back)
        check_commands(front, back)
        check_replies(front, back, is_sealed=way != "token")
    assert controls(whole, "client") == controls(whole_behind, "client")
    assert len(whole.messages("server")) == len(whole_behind.messages("server"))


def check_heads(front: Take, back: Take) -> None:
    """Centrifugo got the headers that the client sent, and the client got Centrifugo's answer."""
    sent, got = (set(one.request.split(b"\r\n")) for one in (front, back))
    assert {line.partition(b":")[0].lower() for line in sent - got} <= HOP_BY_HOP
    assert {line.partition(b":")[0].lower() for line in got - sent} <= HOP_BY_HOP | ADDED
    assert front.response == back.response


def check_commands(front: Take, back: Take) -> None:
    """Centrifugo got what the client said, byte by byte, but for where messages begin: a connect goes alone."""
    between = b"" if any(opcode == BINARY for _, opcode, _ in front.frames) else b"\n"
    assert between.join(front.messages("client")) == between.join(back.messages("client"))


def check_replies(front: Take, back: Take, *, is_sealed: bool) -> None:
    """The client got what Centrifugo said, byte by byte, as far as it got before it was cut off; but for the user whom
    the proxy door has sealed into the reply to the connect, the first thing that the server says."""
    if not is_sealed:
        assert back.bytes_of_server.startswith(front.bytes_of_server)
        return
    got, said = front.messages("server"), back.messages("server")
    assert got[0] != said[0]
    assert got[1:] == said[1 : len(got)]


def controls(take: Take, side: str) -> list[tuple[int, bytes]]:
    return [(opcode, payload) for who, opcode, payload in take.frames if who == side and opcode not in (TEXT, BINARY)]
