"""A backend's answers: never another exception than msgspec.DecodeError, and the user that Centrifugo would see.

Two differences are deliberate. An object with the same key twice means different things to different readers (RFC 8259
section 4); a backend that is trusted to name the user does not write one. And where Centrifugo refuses the connect
although the answer also names a user, we may charge that user: it errs to the safe side.
"""

import msgspec

from cpro._fast.hashing import identity
from cpro.doors.answers import read_answer, read_connect_answer, user_of
from cpro.operation import Reply
from tests.fuzz.go_json import GoRefuses, read_connect


def run(body: bytes) -> None:
    read(read_answer, body)
    reply = read(read_connect_answer, body)
    if reply is None:
        return
    user = user_of(reply)
    if user is not None:
        identity(user)
    try:
        connect = read_connect(body)
    except GoRefuses:
        return  # Centrifugo fails the connect
    if connect.repeats or connect.user is None:
        return
    assert user == connect.user, f"cpro sees {user!r}, Centrifugo {connect.user!r}"


def read(reader, body: bytes) -> Reply | None:
    try:
        reply = reader(body)
    except msgspec.DecodeError:
        return None
    assert reply.body == body
    assert reply.status == 200
    return reply
