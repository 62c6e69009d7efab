"""Gets small documents from one server, each by a request of its own."""

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from cpro.http.client import Failure, HttpClient, Response
from cpro.http.made import make_get

_HEADERS: Final = b"User-Agent: cpro\r\nAccept: application/json\r\n"


class Getter:
    """Belongs to its client. Redirects are not followed."""

    def __init__(self, client: HttpClient, url: str) -> None:
        """`url` is any of the server's."""
        parts = urlsplit(url)
        self._route = client.route([f"{parts.scheme}://{parts.netloc}/"], may_repeat=True)
        self._request = make_get()

    def get(self, url: str, hear: Callable[[bytes | None], object]) -> None:
        """Ask for another of its URLs; `hear` is called later, with None for anything but a 200."""

        def on_done(outcome: Response | Failure) -> None:
            if isinstance(outcome, Failure) or outcome.status != 200:
                hear(None)
            else:
                hear(outcome.body)

        target = urlsplit(url).path or "/"
        self._route.at(target.encode(), _HEADERS, b"GET").send(self._request, on_done)
