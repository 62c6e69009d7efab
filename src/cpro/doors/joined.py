"""How the two doors know of each other: what passes the gateway is charged and recorded there, and only handled here.

The gateway adds a sealed header to the request that opens a connection, and Centrifugo sends it along with each event.
Only the backend's answer to a connect names the user, and Centrifugo tells clients (and the gateway) nothing of it: so
the proxy door seals the user into that answer's `data`, which comes back in the reply to the client, where the gateway
takes it out again. Nothing has to be looked up, whichever node the event went to.
"""

from base64 import b64decode
from typing import Any, Final

import msgspec

from cpro._fast.http1 import Request
from cpro.doors.answers import user_of
from cpro.doors.seal import Seal
from cpro.operation import Reply

HEADER: Final = b"X-Cpro-Connection"
_LOWER: Final = HEADER.lower()
_CONNECTION, _USER = "connection", "user"  # purposes of seals
_MARK: Final = b'{"cpro":'


class _Marked(msgspec.Struct, gc=False):
    cpro: str
    data: msgspec.Raw = msgspec.Raw()
    b64data: str = ""


_decode_marked = msgspec.json.Decoder(_Marked).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def seal_connection(seal: Seal, connection: str) -> bytes:
    """The value of `HEADER` for a connection of the gateway's."""
    return seal.close(_CONNECTION, connection).encode()


def connection_of(seal: Seal, request: Request) -> str | None:
    """The gateway's connection that an event belongs to; None when it came another way."""
    value = request.header(_LOWER)
    opened = None if value is None else seal.open(_CONNECTION, value.decode("latin-1"))
    return opened[0] if opened else None


def mark_user(seal: Seal, connection: str, reply: Reply) -> Reply:
    """An answer to a connect with its user sealed into `data`; as it is where it lets nobody in."""
    user = user_of(reply)
    if user is None:
        return reply
    answer = _members(reply.body)
    result = _members(bytes(answer.get("result", b"{}")))
    marked: dict[str, Any] = {"cpro": seal.close(_USER, connection, user)}
    marked |= {name: result.pop(name) for name in ("data", "b64data") if name in result}
    result["data"] = msgspec.Raw(msgspec.json.encode(marked))
    answer["result"] = msgspec.Raw(msgspec.json.encode(result))
    return Reply(msgspec.json.encode(answer))


def read_mark(seal: Seal, connection: str, data: bytes) -> tuple[str, bytes] | None:
    """User and original `data` (maybe empty) of a connect's reply; None where no door of ours has marked it."""
    if not data.startswith(_MARK):
        return None
    try:
        marked = _decode_marked(data)
        original = b64decode(marked.b64data) if marked.b64data else bytes(marked.data)
    except ValueError:  # msgspec's errors are such
        return None
    opened = seal.open(_USER, marked.cpro)
    return (opened[1], original) if opened and opened[0] == connection else None


def _members(content: bytes) -> dict[str, msgspec.Raw]:
    """An object's members by their names as Centrifugo reads them, in any case."""
    return {name.lower(): value for name, value in _decode_members(content).items()}
