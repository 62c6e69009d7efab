"""What the gateway does per frame: a client's publish, and a push on its way to a client."""

import pytest

from cpro._fast.commands import parse_commands
from cpro._fast.replies import build_error_reply
from cpro._fast.wsframe import BINARY, TEXT, ClientFrames, build_frame
from cpro._fast.wsscan import ServerScan

DATA = b'{"text":"Message 42, as people write them"}'
COMMANDS = {
    "json": b'{"id":42,"publish":{"channel":"chat:room42","data":' + DATA + b"}}",
    "protobuf": bytes([62, 0x08, 42, 0x3A, 58, 0x0A, 11]) + b"chat:room42" + bytes([0x12, len(DATA)]) + DATA,
}
PUSHES = {
    "json": b'{"push":{"channel":"chat:room42","pub":{"data":' + DATA + b',"offset":1042}}}',
    "protobuf": bytes([65, 0x22, 63, 0x12, 11])
    + b"chat:room42"
    + bytes([0x22, 48, 0x22, len(DATA)])
    + DATA
    + b"\x30\x92\x08",
}


@pytest.mark.parametrize("encoding", COMMANDS)
def test_read_a_publish(measure, encoding):
    """And its kind and channel, which a check needs."""
    payload, protobuf = COMMANDS[encoding], encoding == "protobuf"

    def run(calls, parse=parse_commands):
        for _ in range(calls):
            (command,) = parse(payload, protobuf)
            seen = command.kind, command.channel
        return seen

    assert measure(run) == ("publish", "chat:room42")


def test_unmask_a_frame(measure):
    frame = build_frame(TEXT, COMMANDS["json"], mask_key=0x37FA213D)
    frames = ClientFrames(65536)

    def run(calls, feed=frames.feed):
        for _ in range(calls):
            (event,) = feed(frame)
        return event

    assert measure(run).payload == COMMANDS["json"]


def test_mask_a_frame(measure):
    def run(calls, build=build_frame, payload=COMMANDS["json"]):
        for _ in range(calls):
            build(TEXT, payload, mask_key=0x37FA213D)

    measure(run)


@pytest.mark.parametrize("encoding", PUSHES)
def test_scan_a_push(measure, encoding):
    """One frame that is passed on as it is."""
    scan = ServerScan(encoding == "protobuf", 1 << 20, holds=False)
    frame = build_frame(BINARY if encoding == "protobuf" else TEXT, PUSHES[encoding])

    def run(calls, feed=scan.feed):
        for _ in range(calls):
            told = feed(frame)
        return told

    assert measure(run) is None


def test_build_an_error_reply(measure):
    def run(calls, build=build_error_reply):
        for _ in range(calls):
            build(42, 111, "too many requests", True, False)

    measure(run)
