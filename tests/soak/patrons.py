"""Clients that use everything an SDK has, at random, and know what each thing they do must lead to."""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field

from cpro._fast.wsframe import TEXT, build_frame
from tests.support.envelope import worst_overshoot
from tests.support.sdks import Refusal, Sdk, open_sdk
from tests.support.sockets import MASK, ClosedError, Socket, token_of

STEADY = "steady"
"""Channel on which the backend counts."""
LIMITS = {"publish": (5, 10), "history": (2, 4)}
"""Rate a second, and burst, of everybody who isn't exempt."""
UNEXPECTED = ("error", "sub_error", "unsubscribed", "disconnected")
SLACK = 2.0
"""Tokens that a refusal may leave: one that was returned, one that the user's other device has just taken."""


@dataclass
class World:
    """What all share."""

    url: str
    differences: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    is_over: bool = False

    def differs(self, what: str) -> None:
        self.differences.append(what)


class Allowance:
    """One user's limit of one kind of operation: what was admitted keeps it, what was refused deserved it."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._admitted: deque[tuple[float, float]] = deque(maxlen=100)
        self._full_at_s = 0.0
        self._count = 0

    def admitted(self, sent: float, received: float) -> bool:
        """Whether it could be."""
        self._admitted.append((sent, received))
        self._full_at_s = max(self._full_at_s, received) + 1 / self._rate
        self._count += 1
        return self._count % 50 != 0 or worst_overshoot(list(self._admitted), self._burst, self._rate) <= 0

    def refused(self, sent: float) -> bool:
        """Whether it had to be."""
        return self._burst - (self._full_at_s - sent) * self._rate < 1 + SLACK


class User:
    """Has one or more devices."""

    def __init__(self, name: str, *, is_exempt: bool) -> None:
        self.name = name
        self.is_exempt = is_exempt
        self.allowances = {kind: Allowance(*limit) for kind, limit in LIMITS.items()}


class Patron:
    """One device: comes, uses everything for a while, leaves, and comes again."""

    def __init__(self, world: World, kind: str, user: User, number: int) -> None:
        self._world, self._kind, self._user = world, kind, user
        self._name = f"{kind} {number} of {user.name}"
        self._rng = random.Random(number)
        self._channels = 0
        self._sdk: Sdk | None = None

    async def live(self) -> None:
        while not self._world.is_over:
            try:
                await self._visit()
            except Exception as error:
                told = [one for one in self._sdk.events if one["event"] != "publication"] if self._sdk else []
                self._world.differs(f"{self._name}: {error!r}, after {told[-3:]}")
                await asyncio.sleep(1)

    async def _visit(self) -> None:
        async with open_sdk(self._kind, self._world.url, token=token_of(self._user.name)) as self._sdk:
            await self._sdk.ready()
            await self._sdk.subscribed(STEADY, recoverable=True)
            for _ in range(self._rng.randint(20, 200)):
                if self._world.is_over:
                    break
                await self._rng.choice(self.ACTS)(self)
                await asyncio.sleep(self._rng.uniform(0.0, 0.2))
            self._check_steady()
            for event in UNEXPECTED:
                for one in self._sdk.seen(event):
                    if not str(one.get("channel", "")).startswith("own-"):
                        self._world.differs(f"{self._name}: {one}")
        self._world.done["visit"] += 1

    def _check_steady(self) -> None:
        heard = [one["data"]["n"] for one in self._sdk.seen("publication", channel=STEADY)]
        if heard != list(range(heard[0], heard[0] + len(heard)) if heard else []):
            self._world.differs(f"{self._name} heard {heard}")

    async def _limited(self, kind: str, asked: Awaitable[object]) -> object:
        """What it leads to, unless it is refused and deserves it."""
        allowance, sent = self._user.allowances[kind], time.monotonic()
        try:
            answer = await asked
        except Refusal as refusal:
            self._world.done[f"{kind} refused"] += 1
            if refusal.code != 111 or self._user.is_exempt or not allowance.refused(sent):
                self._world.differs(f"{self._name}: {kind}: {refusal}")
            return None
        self._world.done[kind] += 1
        if not (allowance.admitted(sent, time.monotonic()) or self._user.is_exempt):
            self._world.differs(f"{self._name}: more than allowed of {kind}")
        return answer

    def _expect(self, kind: str, found: object, expected: object) -> None:
        self._world.done[kind] += 1
        if found != expected:
            self._world.differs(f"{self._name}: {kind}: {found} instead of {expected}")

    # -- acts

    async def publish(self) -> None:
        await self._limited("publish", self._sdk.publish("room", {"by": self._name, "fill": "x" * self._size()}))

    async def talk_to_itself(self) -> None:
        self._channels += 1
        channel = f"own-{self._name.replace(' ', '-')}-{self._channels}"
        await self._sdk.subscribed(channel)
        self._expect("presence_stats", await self._sdk.presence_stats(channel), 1)
        self._expect("presence", await self._sdk.presence(channel), [self._user.name])
        said = await self._limited("publish", self._said(channel))
        if said:
            self._expect("publication", (await self._sdk.until("publication", channel=channel))["data"], said)
        await self._sdk.unsubscribe(channel)
        self._world.done["subscribe"] += 1

    async def _said(self, channel: str) -> dict:
        said = {"n": self._rng.random(), "fill": "y" * self._size()}
        await self._sdk.publish(channel, said)
        return said

    async def look_back(self) -> None:
        found = await self._limited("history", self._sdk.history(STEADY, 5))
        if isinstance(found, list) and found:
            first = found[0]["n"]
            self._expect("what history says", found, [{"n": first + number} for number in range(len(found))])

    async def ask(self) -> None:
        question = {"n": self._rng.random(), "fill": "z" * self._size()}
        self._expect("rpc", await self._sdk.rpc("echo", question), question)

    async def ask_for_trouble(self) -> None:
        try:
            answer = await self._sdk.rpc("fails", {})
        except Refusal as refusal:
            answer = refusal.code
        self._expect("rpc that fails", answer, 1234)

    def _size(self) -> int:
        return int(self._rng.paretovariate(0.7)) % 20_000

    ACTS = (publish, publish, talk_to_itself, look_back, ask, ask_for_trouble)


class Ruffian:
    """Comes by a bare socket, and leaves in the worst way that occurs to it."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._rng = random.Random(number)
        self._user = f"ruffian-{number}"

    async def live(self) -> None:
        while not self._world.is_over:
            with suppress(ClosedError, OSError, TimeoutError):
                socket = await Socket.open(self._world.url)
                try:
                    await socket.connect(self._user)
                    await self._misbehave(socket)
                finally:
                    socket.writer.transport.abort()
            self._world.done["rude visit"] += 1
            await asyncio.sleep(self._rng.uniform(0.0, 1.0))

    async def _misbehave(self, socket: Socket) -> None:
        frame = build_frame(TEXT, b'{"id":5,"publish":{"channel":"room","data":{}}}', mask_key=MASK)
        raw = self._rng.choice(
            [frame[: self._rng.randint(1, len(frame))], b"\x81\x05hello", b"\xff" * 20, frame * 50, b"\x88\x80\0\0\0\0"]
        )
        socket.writer.write(raw)
        await asyncio.sleep(self._rng.uniform(0.0, 0.5))
