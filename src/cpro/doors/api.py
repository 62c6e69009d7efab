"""The API door: health and metrics for operators, and the server API for backends."""

import hmac
from collections.abc import Callable

from cpro._fast.http1 import Request
from cpro.config.model import HttpApi
from cpro.http.server import Connection
from cpro.operation import EMPTY, Reply, status_reply

NOT_FOUND = status_reply(404)
METHOD_NOT_ALLOWED = status_reply(405)
UNAUTHORIZED = status_reply(401)
STOPPING = status_reply(503)


class ApiDoor:
    """Serves `/health`, `/metrics` and `/api`; a `http.server.Handler`."""

    def __init__(self, metrics: Callable[[], Reply] | None) -> None:
        """`metrics` renders the exposition, None where it is turned off."""
        self._metrics = metrics
        self._key = b""
        self.stopping = False

    def configure(self, api: HttpApi) -> None:
        """Put settings in force from the next request on."""
        self._key = api.key.encode()

    def __call__(self, request: Request, connection: Connection, now_ns: int) -> Reply:
        path = request.path
        if path == b"/health":
            return self._health(request)
        if path == b"/metrics" and self._metrics is not None:
            return self._metrics() if request.method == b"GET" else METHOD_NOT_ALLOWED
        if path == b"/api" or path.startswith(b"/api/"):
            return self._api(request)
        return NOT_FOUND

    def _health(self, request: Request) -> Reply:
        if request.method != b"GET":
            return METHOD_NOT_ALLOWED
        return STOPPING if self.stopping else EMPTY

    def _api(self, request: Request) -> Reply:
        if not request.is_post:
            return METHOD_NOT_ALLOWED
        return NOT_FOUND if self._is_authorized(request) else UNAUTHORIZED

    def _is_authorized(self, request: Request) -> bool:
        """Whether the request carries the key, in either of Centrifugo's ways; an empty key opens to nobody."""
        given = request.header(b"x-api-key")
        if given is None:
            scheme, _, value = (request.header(b"authorization") or b"").partition(b" ")
            given = value.strip() if scheme.lower() == b"apikey" else b""
        return bool(self._key) and hmac.compare_digest(given, self._key)
