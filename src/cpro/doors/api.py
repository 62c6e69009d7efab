"""The API door: health and metrics for operators, and the server API for backends."""

import hmac
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import parse_qs

import msgspec

from cpro._fast.http1 import Request
from cpro.config.model import HttpApi
from cpro.doors.api_answers import BAD_REQUEST, ApiError, error_answer, result_answer, wants_transport
from cpro.doors.api_batch import decode_batch, is_all_foreign, run_batch, tell_of_batch
from cpro.doors.api_legacy import read_commands, run_legacy, tell_of_lines
from cpro.doors.api_methods import Method, warn_of
from cpro.doors.api_pass_on import PassOn
from cpro.http.server import Connection
from cpro.operation import EMPTY, UNREADABLE, Reply, status_reply

NOT_FOUND = status_reply(404)
METHOD_NOT_ALLOWED = status_reply(405)
UNAUTHORIZED = status_reply(401)
MALFORMED = status_reply(400)
STOPPING = status_reply(503)


class ApiDoor:
    """Serves `/health`, `/metrics` and `/api`; a `http.server.Handler`."""

    def __init__(self, metrics: Callable[[], Reply] | None, methods: Mapping[str, Method]) -> None:
        """`metrics` renders the exposition, None where it is turned off; `methods` are the API's, by name."""
        self._metrics = metrics
        self._methods = methods
        self._by_path = {f"/api/{name}".encode(): name for name in methods}
        self._key = b""
        self._pass_on: PassOn | None = None
        self.stopping = False

    def configure(self, api: HttpApi, pass_on: PassOn | None = None) -> None:
        """Put settings in force from the next request on; `pass_on` is the way to Centrifugo, where there is one."""
        self._key = api.key.encode()
        self._pass_on = pass_on

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
        if path == b"/api":
            return self._legacy(request, connection, now_ns)
        if path == b"/api/batch":
            return self._batch(request, connection, now_ns)
        name = self._by_path.get(path)
        if name is None:
            return self._forward(request, connection)
        return self._call(name, request, connection, now_ns)

    def _call(self, name: str, request: Request, connection: Connection, now_ns: int) -> Reply | None:
        in_transport = wants_transport(request)

        def answer_later(outcome: object) -> None:
            connection.answer(_word(outcome, in_transport=in_transport))

        try:
            outcome = self._methods[name](request.body, now_ns, answer_later)
        except UNREADABLE as error:
            warn_of(name, error)
            return error_answer(BAD_REQUEST, in_transport=in_transport) if _is_json(request.body) else MALFORMED
        return None if outcome is None else _word(outcome, in_transport=in_transport)

    def _forward(self, request: Request, connection: Connection) -> Reply | None:
        if self._pass_on is None:
            return NOT_FOUND
        self._pass_on.forward(request, connection.answer)
        return None

    def _batch(self, request: Request, connection: Connection, now_ns: int) -> Reply | None:
        try:
            batch = decode_batch(request.body)
        except UNREADABLE as error:
            warn_of("batch", error)
            return MALFORMED
        pass_on = self._pass_on
        if pass_on is None or not is_all_foreign(batch, self._methods):
            return run_batch(batch, self._methods, pass_on, now_ns, connection.answer)
        pass_on.forward(request, connection.answer, partial(tell_of_batch, batch.commands or (), pass_on))
        return None

    def _legacy(self, request: Request, connection: Connection, now_ns: int) -> Reply | None:
        try:
            commands = read_commands(request.body)
        except UNREADABLE as error:
            warn_of("", error)
            return MALFORMED
        own = [command.method in self._methods for command, _ in commands]
        pass_on = self._pass_on
        if all(own) or (pass_on is not None and any(own)):
            return run_legacy(commands, self._methods, pass_on, now_ns, connection.answer)
        if pass_on is None:
            return MALFORMED
        pass_on.forward(request, connection.answer, partial(tell_of_lines, commands, pass_on))
        return None

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


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except UNREADABLE:
        return False
    return True


def _key_in(query: bytes) -> bytes:
    if b"api_key=" not in query:
        return b""
    return parse_qs(query.decode("latin-1")).get("api_key", [""])[0].encode()
