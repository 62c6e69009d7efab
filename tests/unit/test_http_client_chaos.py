"""Whatever peers do, each request has one outcome, none arrives twice, and nothing is left (`House.close` checks)."""

import asyncio
import random

import pytest

from cpro.http import health, pool
from cpro.http.client import Failure
from tests.unit.http_client_peers import House, PeerConnection, in_a_house, make_request, reply

KINDS = ("answer", "answer", "answer", "answer and close", "close", "reset", "part", "garbage", "hang", "excess")


def moody(dice: random.Random):
    async def script(connection: PeerConnection) -> None:
        while await connection.request():
            kind = dice.choice(KINDS)
            if dice.random() < 0.3:
                await asyncio.sleep(dice.random() * 0.02)
            if kind in ("answer", "answer and close", "excess"):
                connection.send(reply() + (b"HTTP" if kind == "excess" else b""))
            elif kind in ("part", "garbage"):
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{" if kind == "part" else b"\0\0\0\0")
            if kind in ("close", "answer and close", "part"):
                connection.close()
            elif kind == "reset":
                connection.reset()
            if kind not in ("answer", "excess"):
                return

    return script


@pytest.mark.parametrize("may_repeat", [False, True])
@pytest.mark.parametrize("seed", range(3))
@in_a_house
async def test_every_request_has_one_outcome_and_arrives_at_most_as_often_as_allowed(house: House, seed, may_repeat):
    dice = random.Random(seed)
    peers = [await house.peer(moody(dice)) for _ in range(2)]
    client = house.client(timeout_s=0.15)
    dead = f"http://127.0.0.1:{house.dead_port()}/"
    route = client.route([peers[0].url(), dead, peers[1].url()], may_repeat=may_repeat)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "MAX_CONNECTIONS", 4)
        patch.setattr(health, "PROBE_INTERVAL_S", 0.02)
        sent = []
        for number in range(200):
            sent.append(house.send(client, route, make_request(b"%05d" % number)))
            if dice.random() < 0.3:
                await asyncio.sleep(dice.random() * 0.01)
        outcomes = await asyncio.gather(*sent)
    arrivals: dict[bytes, int] = {}
    for message in peers[0].requests + peers[1].requests:
        arrivals[message[-5:]] = arrivals.get(message[-5:], 0) + 1
    assert max(arrivals.values()) <= 1 + may_repeat
    for number, outcome in enumerate(outcomes):
        if not isinstance(outcome, Failure) or outcome is Failure.BROKEN:
            assert arrivals[b"%05d" % number]
        if outcome is Failure.REFUSED:
            assert b"%05d" % number not in arrivals
    assert len({outcome for outcome in outcomes if isinstance(outcome, Failure)}) >= 3
