"""JSON: the four fields of an event that cpro looks at, and a backend's answer."""

import msgspec

from benchmarks.micro.conftest import BODY
from cpro.doors.answers import read_answer
from cpro.doors.events import Event


def test_decode_an_event(measure):
    decode = msgspec.json.Decoder(Event).decode

    def run(calls, decode=decode):
        for _ in range(calls):
            event = decode(BODY)
        return event

    assert measure(run).user == "100042"


def test_read_an_answer(measure):
    def run(calls, read=read_answer):
        for _ in range(calls):
            read(b'{"result":{}}')

    measure(run)
