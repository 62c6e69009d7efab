"""Posts to Centrifugo: one at a time, in order, joined only as far as one post may hold."""

import json

from cpro.doors.gateway.outbox import ROOM_BYTES, Outbox


class Scene:
    def __init__(self, *, protobuf: bool = False, most_bytes: int = 1000):
        self.sent: list[bytes] = []
        self.waiting: list = []
        self.changes = self.failures = 0
        self.outbox = Outbox(self._send, self._change, self._fail, protobuf=protobuf, most_bytes=most_bytes)

    def _send(self, data: bytes, on_done) -> None:
        self.sent.append(data)
        self.waiting.append(on_done)

    def _change(self) -> None:
        self.changes += 1

    def _fail(self) -> None:
        self.failures += 1

    def done(self, taken: bool = True) -> None:
        self.waiting.pop(0)(taken)


def test_what_comes_while_a_post_is_under_way_goes_with_the_next():
    scene = Scene()
    for number in range(4):
        scene.outbox.put(b'{"id":%d}' % number)
    assert [json.loads(data) for data in scene.sent] == ['{"id":0}']
    scene.done()
    assert [json.loads(data) for data in scene.sent[1:]] == ['{"id":1}\n{"id":2}\n{"id":3}']
    scene.done()
    assert not scene.waiting
    assert scene.changes == 2


def test_protobuf_is_joined_as_it_is():
    scene = Scene(protobuf=True)
    for part in (b"\x00", b"\x04\x08\x01", b"\x22\x00"):
        scene.outbox.put(part)
    scene.done()
    assert scene.sent == [b"\x00", b"\x04\x08\x01\x22\x00"]


def test_a_post_holds_no_more_than_it_may_but_at_least_one_message():
    scene = Scene(most_bytes=20)
    for size in (1, 9, 9, 9, 50, 1):
        scene.outbox.put(b"x" * size)
    sizes = []
    while scene.waiting:
        scene.done()
        sizes = [len(json.loads(data)) for data in scene.sent]
    assert sizes == [1, 9 + 1 + 9, 9, 50, 1]


def test_it_is_full_beyond_its_room_and_empties():
    scene = Scene(most_bytes=ROOM_BYTES)
    scene.outbox.put(b"first")
    scene.outbox.put(b"x" * ROOM_BYTES)
    assert not scene.outbox.is_full
    scene.outbox.put(b"y")
    assert scene.outbox.is_full
    scene.done()
    assert not scene.outbox.is_full


def test_after_a_failure_nothing_more_is_sent():
    scene = Scene()
    scene.outbox.put(b"1")
    scene.outbox.put(b"2")
    scene.done(taken=False)
    assert scene.failures == 1
    assert len(scene.sent) == 1


def test_what_json_strings_escape_comes_back_the_same():
    scene = Scene()
    command = '{"id":1,"publish":{"channel":"\\"ä\\\\","data":"\u2028\\u0001"}}'
    scene.outbox.put(command.encode())
    assert json.loads(scene.sent[0]) == command
