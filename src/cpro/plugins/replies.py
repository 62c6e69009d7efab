"""Answers in Centrifugo's proxy envelope."""

from typing import Any

import msgspec

from cpro.operation import Reply


def result_reply(**fields: Any) -> Reply:  # noqa: ANN401 -- whatever JSON can carry
    """`result_reply(data={"ok": True})` is `{"result":{"data":{"ok":true}}}`; bytes of JSON go in as msgspec.Raw."""
    return Reply(msgspec.json.encode({"result": fields}))


def disconnect_reply(code: int, reason: str) -> Reply:
    """Ends the connection: 4000 to 4499 let the client come back, 4500 to 4999 don't."""
    body = msgspec.json.encode({"disconnect": {"code": code, "reason": reason}})
    return Reply(body, disconnect=code)
