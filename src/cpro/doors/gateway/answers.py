"""Replies of cpro's own to a client's commands: what the proxy door would tell Centrifugo, said to the SDK itself."""

import msgspec

from cpro._fast.replies import build_error_reply
from cpro.operation import Reply

_VARINT, _BYTES = 0, 2
_REPLY_ID, _REPLY_RPC, _RPC_DATA = 1, 13, 1  # field numbers of Centrifugo's client protocol


class _Error(msgspec.Struct, gc=False):
    code: int
    message: str
    temporary: bool = False


class _Result(msgspec.Struct, frozen=True, gc=False):
    data: msgspec.Raw = msgspec.Raw()


class _Answer(msgspec.Struct, gc=False):
    error: _Error | None = None
    result: _Result = _Result()


_decode = msgspec.json.Decoder(_Answer).decode


def build_answer(command_id: int, reply: Reply, *, protobuf: bool) -> bytes:
    """A reply in the proxy envelope as one of the client protocol: an error, or the result of an RPC."""
    answer = _decode(reply.body)
    if answer.error is not None:
        error = answer.error
        return build_error_reply(command_id, error.code, error.message, error.temporary, protobuf)
    data = bytes(answer.result.data)
    if not protobuf:
        return b'{"id":%d,"rpc":%s}' % (command_id, b'{"data":%s}' % data if data else b"{}")
    result = _field(_RPC_DATA, data) if data else b""
    message = _key(_REPLY_ID, _VARINT) + _varint(command_id) + _field(_REPLY_RPC, result)
    return _varint(len(message)) + message


def _field(number: int, content: bytes) -> bytes:
    return _key(number, _BYTES) + _varint(len(content)) + content


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
