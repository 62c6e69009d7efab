"""What cpro's API does not have itself goes on to Centrifugo's, and its answers come back as they are."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from cpro._fast.http1 import Request, Response
from cpro.clock import boot_ns
from cpro.doors.api_answers import INTERNAL_ERROR, error_answer, wants_transport
from cpro.doors.api_publications import PUBLISHING, OnPublication, tell_of_answer
from cpro.http.client import Failure, HttpClient
from cpro.http.made import make_post
from cpro.logs import Occasional
from cpro.operation import Reply, Verdict

log = logging.getLogger(__name__)

DROPPED_HEADERS: Final = (b"x-api-key", b"authorization", b"accept-encoding", b"expect", b"x-cpro-secret")
"""Not for Centrifugo: keys to our own door, and the offer of a compressed answer (we read some)."""
TIMEOUT_S: Final = 10.0
"""Centrifugo's `info` asks every node and may take as long."""
CONNECT_TIMEOUT_S: Final = 1.0
MAX_IDLE_S: Final = 20.0
"""Centrifugo closes connections that are idle for 30 s: none is used that is about to be."""

Record = Callable[[Verdict, int], None]


class PassOn:
    """The way to one Centrifugo. Belongs to the client it is given."""

    def __init__(
        self, client: HttpClient, url: str, key: str, record: Record, on_publication: OnPublication | None = None
    ) -> None:
        """`url` with or without `/api` at its end. `record` counts each request that goes on."""
        self._route = client.route([url.removesuffix("/").removesuffix("/api") + "/"], may_repeat=False)
        self._key = f"X-API-Key: {key}\r\n".encode() if key else b""
        self._record = record
        self._on_publication = on_publication
        self._occasional = Occasional(log)

    @property
    def on_publication(self) -> OnPublication | None:
        return self._on_publication

    def forward(
        self, request: Request, answer: Callable[[Reply], None], tell: Callable[[bytes], None] | None = None
    ) -> None:
        """Send a request on unchanged, but for the key; `answer` hears what comes back, later, and so does `tell`."""
        target = request.path + (b"?" + query if (query := _without_key(request.query)) else b"")
        fault = error_answer(INTERNAL_ERROR, in_transport=wants_transport(request) and request.path != b"/api")
        method = request.path[5:].decode("latin-1")
        if tell is None and self._on_publication is not None and method in PUBLISHING:
            tell = partial(tell_of_answer, self._on_publication, method, request.body)

        def on_done(outcome: Response | None) -> None:
            if outcome is None:
                answer(fault)
                return
            if tell is not None and outcome.status == 200:
                tell(outcome.body)
            answer(Reply(outcome.body, status=outcome.status))

        self._send(request, target, on_done)

    def ask(self, path: bytes, body: bytes, hear: Callable[[Response | None], None]) -> None:
        """Send a request of our own; `hear` gets the response, None where there is none."""
        self._send(make_post(body), path, hear)

    def _send(self, request: Request, target: bytes, hear: Callable[[Response | None], None]) -> None:
        began_ns = boot_ns()

        def on_done(outcome: Response | Failure) -> None:
            failed = isinstance(outcome, Failure)
            self._record(Verdict.FAILED if failed else Verdict.ADMITTED, boot_ns() - began_ns)
            if isinstance(outcome, Failure):
                self._occasional.warning("away", "Centrifugo's API does not answer", outcome=outcome.value)
                hear(None)
                return
            if outcome.status == 401:
                self._occasional.warning("key", "Centrifugo's API refuses http_api.centrifugo_key")
            hear(outcome)

        self._route.at(target, self._key).send(request, on_done)


def _without_key(query: bytes) -> bytes:
    """A query less the key to our door."""
    if b"api_key" not in query:
        return query
    return b"&".join(part for part in query.split(b"&") if not part.startswith(b"api_key="))
