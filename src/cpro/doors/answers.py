"""Reading a backend's answer just enough: has it an error or a disconnect; and which user, for a connect.

The body itself is relayed untouched. Centrifugo matches keys in any case (Go's encoding/json), so a spelling that only
Centrifugo would understand must not slip past the limits.
"""

from typing import Annotated, Any

import msgspec

from cpro.operation import UNREADABLE, Reply


class _Code(msgspec.Struct, gc=False):
    code: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0


class _Answer(msgspec.Struct, gc=False):
    result: msgspec.Raw = msgspec.Raw()
    error: _Code | None = None
    disconnect: _Code | None = None


class _User(msgspec.Struct, gc=False):
    user: str = ""


class _ConnectAnswer(msgspec.Struct, gc=False):
    result: _User | None = None
    error: _Code | None = None
    disconnect: _Code | None = None


class _Payload(msgspec.Struct, gc=False):
    data: msgspec.Raw = msgspec.Raw()
    b64data: str = ""


class _PublishAnswer(msgspec.Struct, gc=False):
    result: _Payload | None = None


class _Subscriptions(msgspec.Struct, gc=False):
    channels: list[str] | None = None
    subs: dict[str, Any] | None = None


class _SubscribedAnswer(msgspec.Struct, gc=False):
    result: _Subscriptions | None = None


_decode = msgspec.json.Decoder(_Answer).decode
_decode_connect = msgspec.json.Decoder(_ConnectAnswer).decode
_decode_publish = msgspec.json.Decoder(_PublishAnswer).decode
_decode_subscribed = msgspec.json.Decoder(_SubscribedAnswer).decode


PLAIN = {body: Reply(body) for body in (b"{}", b'{"result":{}}', b'{"result": {}}')}
"""What most backends say most of the time, as Go, JavaScript and Python write it."""


def read_answer(body: bytes) -> Reply:
    """The reply that relays `body`; raises msgspec.DecodeError where Centrifugo could not read it either."""
    plain = PLAIN.get(body)
    if plain is not None:
        return plain
    try:
        answer = _decode(body)
        if answer.error is None and answer.disconnect is None:
            if answer.result:
                return Reply(body)
            folded = _fold(body)
            folded.pop("result", None)
            answer = msgspec.convert(folded, _Answer)
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(str(error)) from error
    return _reply(body, answer)


def read_connect_answer(body: bytes) -> Reply:
    """The same for a connect, whose result must be one that `user_of` can read."""
    try:
        return _reply(body, _understand_connect(body))
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(str(error)) from error


def user_of(reply: Reply) -> str | None:
    """The user a connect's answer establishes: empty for an anonymous one, None when it establishes nobody."""
    if reply.status != 200 or reply.error or reply.disconnect:
        return None
    result = _understand_connect(reply.body).result
    return None if result is None else result.user


def is_success(reply: Reply) -> bool:
    """Whether what the user asked for is done, as far as Centrifugo asks us."""
    return not (reply.error or reply.disconnect or reply.status != 200)


def channels_of(reply: Reply) -> list[str] | None:
    """Channels in which a connect's answer puts the connection; None when it establishes none."""
    if not is_success(reply):
        return None
    try:
        result = _decode_subscribed(reply.body).result
        if result is None or not (result.channels or result.subs):
            result = msgspec.convert(_fold(reply.body), _SubscribedAnswer).result
    except UNREADABLE:
        return None
    return None if result is None else list(dict.fromkeys([*(result.channels or ()), *(result.subs or ())]))


def published_bytes(reply: Reply) -> int | None:
    """Size of the payload that a publish's answer puts in the place of the user's; None when it leaves that."""
    if b"data" not in reply.body.lower():
        return None
    try:
        result = _decode_publish(reply.body).result
        if result is None or not (result.data or result.b64data):
            return _folded_bytes(_fold(reply.body).get("result"))
    except UNREADABLE:
        return None
    return len(result.data) or base64_bytes(result.b64data)


def base64_bytes(text: str) -> int:
    """How many bytes standard base64 stands for."""
    return max(0, len(text) * 3 // 4 - text[-2:].count("="))


def _folded_bytes(result: Any) -> int | None:  # noqa: ANN401 -- any JSON
    if not isinstance(result, dict):
        return None
    if "data" in result:
        return len(msgspec.json.encode(result["data"]))
    text = result.get("b64data")
    return base64_bytes(text) if text and isinstance(text, str) else None


def _understand_connect(body: bytes) -> _ConnectAnswer:
    answer = _decode_connect(body)
    if answer.result is None or not answer.result.user:
        answer = msgspec.convert(_fold(body), _ConnectAnswer)
    return answer


def _reply(body: bytes, answer: _Answer | _ConnectAnswer) -> Reply:
    return Reply(
        body,
        error=answer.error.code if answer.error else 0,
        disconnect=answer.disconnect.code if answer.disconnect else 0,
    )


def _fold(body: bytes) -> dict[str, Any]:
    """The answer with its keys in lower case, two levels deep: that is as far as we look.

    Go folds by Unicode's simple rules, where a long s is an `s` and the Kelvin sign a `k`.
    """
    return {key: _lower(value) for key, value in _lower(msgspec.json.decode(body)).items()}


def _lower(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    return {key.casefold(): inner for key, inner in value.items()} if isinstance(value, dict) else value
