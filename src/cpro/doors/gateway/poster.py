"""Posts of the gateway's own: to Centrifugo's `/emulation`, and to the workers and nodes that have a session."""

from collections.abc import Callable
from typing import Final

from cpro._fast.http1 import Response
from cpro.doors.gateway.emulation import PATH
from cpro.http.client import Failure, HttpClient, Route
from cpro.http.endpoints import Origin
from cpro.http.made import make_post

TIMEOUT_S: Final = 12.0
"""Centrifugo waits 10 s for the node that has the session."""
CONNECT_TIMEOUT_S: Final = 2.0
MAX_IDLE_S: Final = 20.0
"""Centrifugo closes connections that are idle for 30 s: none is used that is about to be."""
MOST_REPLY_BYTES: Final = 64 * 1024
_PATH: Final = PATH.decode()
NO_ANSWER: Final = 0
TIMED_OUT: Final = 1

Hear = Callable[[int], object]
"""Takes the status of an answer, or NO_ANSWER or TIMED_OUT."""


class Poster:
    """A worker's. Its client's connections are kept for the next post; no post is sent twice."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._routes: dict[str, Route] = {}  # as many as there are servers of Centrifugo's, workers and nodes of ours

    def to_centrifugo(self, origin: Origin, body: bytes, content_type: bytes, hear: Hear) -> None:
        self._post(f"{origin}{_PATH}", body, content_type, hear)

    def to_peer(self, address: str, body: bytes, content_type: bytes, hear: Hear) -> None:
        """`address` is host:port of one of us."""
        self._post(f"http://{address}{_PATH}", body, content_type, hear)

    def _post(self, url: str, body: bytes, content_type: bytes, hear: Hear) -> None:
        route = self._routes.get(url)
        if route is None:
            route = self._routes[url] = self._client.route([url], may_repeat=False)

        def on_done(outcome: Response | Failure) -> None:
            if isinstance(outcome, Failure):
                hear(TIMED_OUT if outcome is Failure.TIMED_OUT else NO_ANSWER)
            else:
                hear(outcome.status)

        route.send(make_post(body, content_type), on_done)
