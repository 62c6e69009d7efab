"""The API door: health and metrics for operators, and the server API for backends."""

import hmac
import logging
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import parse_qs

import msgspec

from cpro._fast.http1 import Request
from cpro.config.model import HttpApi
from cpro.doors.api_answers import BAD_REQUEST, ApiError, error_answer, result_answer, wants_transport
from cpro.doors.api_answers import NOT_FOUND as METHOD_NOT_FOUND
from cpro.http.server import Connection
from cpro.logs import Occasional
from cpro.operation import EMPTY, UNREADABLE, Reply, status_reply

NOT_FOUND = status_reply(404)
METHOD_NOT_ALLOWED = status_reply(405)
UNAUTHORIZED = status_reply(401)
MALFORMED = status_reply(400)
STOPPING = status_reply(503)

log = logging.getLogger(__name__)


class Method(Protocol):
    """One method of the server API."""

    def __call__(self, params: bytes | msgspec.Raw, now_ns: int, answer: Callable[[object], None], /) -> object | None:
        """A result, or an ApiError; None: `answer` hears it later. Raises msgspec.ValidationError for bad params."""


class _Command(msgspec.Struct, gc=False):
    """What the legacy endpoint takes: a method by name."""

    method: str = ""
    params: msgspec.Raw = msgspec.Raw(b"{}")


_decode_command = msgspec.json.Decoder(_Command).decode


class ApiDoor:
    """Serves `/health`, `/metrics` and `/api`; a `http.server.Handler`."""

    def __init__(self, metrics: Callable[[], Reply] | None, methods: Mapping[str, Method]) -> None:
        """`metrics` renders the exposition, None where it is turned off; `methods` are the API's, by name."""
        self._metrics = metrics
        self._methods = methods
        self._by_path = {f"/api/{name}".encode(): name for name in methods}
        self._key = b""
        self._occasional = Occasional(log)
        self.stopping = False

    def configure(self, api: HttpApi) -> None:
        """Put settings in force from the next request on."""
        self._key = api.key.encode()

    def __call__(self, request: Request, connection: Connection, now_ns: int) -> Reply | None:
        path = request.path
        if path == b"/health":
            return self._health(request)
        if path == b"/metrics" and self._metrics is not None:
            return self._metrics() if request.method == b"GET" else METHOD_NOT_ALLOWED
        if path == b"/api" or path.startswith(b"/api/"):
            return self._api(path, request, connection, now_ns)
        return NOT_FOUND

    def _health(self, request: Request) -> Reply:
        if request.method != b"GET":
            return METHOD_NOT_ALLOWED
        return STOPPING if self.stopping else EMPTY

    def _api(self, path: bytes, request: Request, connection: Connection, now_ns: int) -> Reply | None:
        if not request.is_post:
            return METHOD_NOT_ALLOWED
        if not self._is_authorized(request):
            return UNAUTHORIZED
        in_transport = wants_transport(request)
        if path == b"/api":
            return self._legacy(request, connection, now_ns, in_transport=in_transport)
        name = self._by_path.get(path)
        if name is None:
            return NOT_FOUND
        return self._call(name, request.body, connection, now_ns, in_transport=in_transport)

    def _legacy(self, request: Request, connection: Connection, now_ns: int, *, in_transport: bool) -> Reply | None:
        try:
            command = _decode_command(request.body)
        except UNREADABLE as error:
            return self._refuse("", request.body, error, in_transport=in_transport)
        if command.method not in self._methods:
            return error_answer(METHOD_NOT_FOUND, in_transport=in_transport)
        return self._call(command.method, command.params, connection, now_ns, in_transport=in_transport)

    def _call(
        self, name: str, params: bytes | msgspec.Raw, connection: Connection, now_ns: int, *, in_transport: bool
    ) -> Reply | None:
        def answer_later(outcome: object) -> None:
            connection.answer(_word(outcome, in_transport=in_transport))

        try:
            outcome = self._methods[name](params, now_ns, answer_later)
        except UNREADABLE as error:
            return self._refuse(name, params, error, in_transport=in_transport)
        return None if outcome is None else _word(outcome, in_transport=in_transport)

    def _refuse(self, name: str, body: bytes | msgspec.Raw, error: Exception, *, in_transport: bool) -> Reply:
        self._occasional.warning(name, "bad request to the server API", method=name, error=str(error))
        return error_answer(BAD_REQUEST, in_transport=in_transport) if _is_json(body) else MALFORMED

    def _is_authorized(self, request: Request) -> bool:
        """Whether the request carries the key, in any of Centrifugo's ways; an empty key opens to nobody."""
        given = request.header(b"x-api-key")
        if given is None:
            scheme, _, value = (request.header(b"authorization") or b"").partition(b" ")
            given = value.strip() if scheme.lower() == b"apikey" else _key_in(request.query)
        return bool(self._key) and hmac.compare_digest(given, self._key)


def _word(outcome: object, *, in_transport: bool) -> Reply:
    if isinstance(outcome, ApiError):
        return error_answer(outcome, in_transport=in_transport)
    return result_answer(outcome)


def _is_json(body: bytes | msgspec.Raw) -> bool:
    try:
        msgspec.json.decode(body)
    except UNREADABLE:
        return False
    return True


def _key_in(query: bytes) -> bytes:
    if b"api_key=" not in query:
        return b""
    return parse_qs(query.decode("latin-1")).get("api_key", [""])[0].encode()
