"""Which publications a backend made by a request to Centrifugo's API: read from the request and its answer.

Only done where somebody wants to know.
"""

import binascii
from collections.abc import Callable
from typing import Final

import msgspec

OnPublication = Callable[[str, int], None]
"""Told of a publication that Centrifugo has taken: its channel, and the size of its data in bytes."""

PUBLISHING: Final = frozenset({"publish", "broadcast"})


class _Request(msgspec.Struct, gc=False):
    channel: str = ""
    channels: list[str] = []
    data: msgspec.Raw = msgspec.Raw()
    b64data: str = ""


class _Outcome(msgspec.Struct, gc=False):
    error: msgspec.Raw = msgspec.Raw()


class _Result(msgspec.Struct, gc=False):
    responses: list[_Outcome] = []


class _Answer(msgspec.Struct, gc=False):
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_decode_request: Final = msgspec.json.Decoder(_Request).decode
_decode_result: Final = msgspec.json.Decoder(_Result).decode
_decode_answer: Final = msgspec.json.Decoder(_Answer).decode


def tell_of_answer(tell: OnPublication, method: str, params: bytes | msgspec.Raw, answer: bytes) -> None:
    """Tell of what a `publish` or `broadcast` with these parameters has done, `answer` being `{"result": …}`."""
    try:
        result = _decode_answer(answer).result
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    if result:
        tell_of_result(tell, method, params, result)


def tell_of_result(tell: OnPublication, method: str, params: bytes | msgspec.Raw, result: bytes | msgspec.Raw) -> None:
    """The same for the result alone."""
    try:
        request = _decode_request(params)
        size = _size_of(request)
        if method == "publish":
            tell(request.channel, size)
            return
        for channel, outcome in zip(request.channels, _decode_result(result).responses, strict=False):
            if not outcome.error:
                tell(channel, size)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return  # Centrifugo has read it in a way of its own


def _size_of(request: _Request) -> int:
    if request.b64data:
        return len(binascii.a2b_base64(request.b64data))
    return len(bytes(request.data))
