"""Replies of cpro's own to a client's commands: what the proxy door would tell Centrifugo, said to the SDK itself."""

import msgspec

from cpro._fast.replies import build_error_reply
from cpro.doors.gateway.proto import bytes_field, delimited, int_field
from cpro.operation import Reply

_REPLY_ID, _REPLY_PUSH, _REPLY_RPC = 1, 4, 13  # field numbers of Centrifugo's client protocol
_RPC_DATA, _PUSH_DISCONNECT, _DISCONNECT_CODE, _DISCONNECT_REASON = 1, 11, 1, 2


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
    result = bytes_field(_RPC_DATA, data) if data else b""
    return delimited(int_field(_REPLY_ID, command_id) + bytes_field(_REPLY_RPC, result))


def build_disconnect(code: int, reason: str, *, protobuf: bool) -> bytes:
    """The push by which a stream ends, where a WebSocket has its close frame."""
    if not protobuf:
        return msgspec.json.encode({"push": {"disconnect": {"code": code, "reason": reason}}})
    body = int_field(_DISCONNECT_CODE, code) + bytes_field(_DISCONNECT_REASON, reason.encode())
    return delimited(bytes_field(_REPLY_PUSH, bytes_field(_PUSH_DISCONNECT, body)))
