"""Sessions of SDKs with a real Centrifugo, kept in tests/fixtures/transcripts to be played again where there is none.

    python -m tests.support.transcripts      # records them anew; needs Centrifugo, node and the npm packages

A file has the connections of one session, each with the heads of its upgrade and its frames in the order in which they
passed: who, opcode, payload (text as it is, all else in base64).
"""

import asyncio
import base64
import json
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from cpro._fast.wsframe import BINARY, TEXT, build_frame
from tests.support.wiretap import Side, Take, Wiretap

FOLDER = Path(__file__).parents[1] / "fixtures" / "transcripts"
CHOSEN = [("python-json", "token"), ("python-protobuf", "token"), ("js-json", "proxy"), ("js-protobuf", "anonymous")]
CLIENTS_MASK = 0x2B1A7C05

Group = tuple[Side, list[tuple[int, bytes]]]


@dataclass(frozen=True)
class Recorded:
    """One connection."""

    request: bytes
    response: bytes
    frames: list[tuple[Side, int, bytes]]

    @property
    def is_protobuf(self) -> bool:
        return any(opcode == BINARY for _, opcode, _ in self.frames)

    def groups(self) -> list[Group]:
        """Who said what in turn."""
        turns = groupby(self.frames, key=lambda frame: frame[0])
        return [(side, [(opcode, payload) for _, opcode, payload in turn]) for side, turn in turns]

    def said(self, side: Side) -> list[bytes]:
        """The messages of one side."""
        return [payload for who, opcode, payload in self.frames if who == side and opcode in (TEXT, BINARY)]


def raw(side: Side, frames: list[tuple[int, bytes]]) -> bytes:
    """Frames as that side sends them."""
    mask = CLIENTS_MASK if side == "client" else None
    return b"".join(build_frame(opcode, payload, mask_key=mask) for opcode, payload in frames)


def split(payloads: list[bytes], *, is_protobuf: bool) -> list[bytes]:
    """The commands or replies of these messages, one by one: lines, or delimited messages with their lengths."""
    if not is_protobuf:
        return [line for payload in payloads for line in payload.split(b"\n")]
    return [one for payload in payloads for one in _delimited(payload)]


def _delimited(payload: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(payload):
        size = shift = 0
        digits = at
        while payload[digits] & 0x80:
            size |= (payload[digits] & 0x7F) << shift
            digits, shift = digits + 1, shift + 7
        size |= payload[digits] << shift
        end = digits + 1 + size
        found.append(payload[at:end])
        at = end
    return found


def all_recorded() -> dict[str, Recorded]:
    """Every connection of every file, by name."""
    return {
        f"{path.stem} {number}": _read(one)
        for path in sorted(FOLDER.glob("*.json"))
        for number, one in enumerate(json.loads(path.read_text())["connections"], 1)
    }


def _read(one: dict) -> Recorded:
    frames = [(who, opcode, _payload(opcode, payload)) for who, opcode, payload in one["frames"]]
    return Recorded(one["request"].encode(), one["response"].encode(), frames)


def _payload(opcode: int, written: str) -> bytes:
    return written.encode() if opcode == TEXT else base64.b64decode(written)


def _write(take: Take) -> dict:
    frames = [
        (who, opcode, payload.decode() if opcode == TEXT else base64.b64encode(payload).decode())
        for who, opcode, payload in take.frames
    ]
    return {"request": take.request.decode(), "response": take.response.decode(), "frames": frames}


def record() -> None:
    """Write all files anew."""
    from tests.support.backend import Backend
    from tests.support.centrifugo import Centrifugo, merge, part_by_cpro
    from tests.support.scenario import CENTRIFUGO, WAYS, application, play
    from tests.support.service import Service

    async def session(kind: str, way: str, centrifugo: Centrifugo) -> list[Take]:
        async with Wiretap(centrifugo.url) as tap:
            await play(kind, tap, centrifugo.api, WAYS[way], kind)
            return tap.takes

    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        backend = running.enter_context(Backend(application))
        service = running.enter_context(
            Service(Path(folder) / "cpro", {"proxy": {"upstream": {"endpoint": backend.url}}})
        )
        service.settings["proxy"]["address"] = service.proxy
        service.config.write_text(json.dumps(service.settings))
        config = merge(part_by_cpro(service.config), CENTRIFUGO)
        centrifugo = running.enter_context(Centrifugo(Path(folder) / "centrifugo", config))
        for kind, way in CHOSEN:
            takes = asyncio.run(session(kind, way, centrifugo))
            found = {"client": kind, "connects by": way, "connections": [_write(take) for take in takes]}
            (FOLDER / f"{kind}-{way}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    record()
