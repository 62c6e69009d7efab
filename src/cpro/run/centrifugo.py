"""Wires a worker's way to Centrifugo's own API."""

import asyncio

from cpro.config.model import HttpApi
from cpro.doors.api_pass_on import CONNECT_TIMEOUT_S, DROPPED_HEADERS, MAX_IDLE_S, TIMEOUT_S, PassOn
from cpro.doors.api_publications import OnPublication
from cpro.doors.claims import Record
from cpro.http.client import HttpClient

REPLY_LIMIT_BYTES = 64 * 1024 * 1024
"""A channel's whole history may be asked for."""


def connect_api(
    api: HttpApi, record: Record, on_publication: OnPublication | None
) -> tuple[HttpClient, PassOn] | tuple[None, None]:
    """A client, which opens connections as requests need them; nothing where no Centrifugo is named."""
    if not api.centrifugo:
        return None, None
    client = HttpClient(
        asyncio.get_running_loop(),
        timeout_s=TIMEOUT_S,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        max_reply_bytes=REPLY_LIMIT_BYTES,
        drop=DROPPED_HEADERS,
        max_idle_s=MAX_IDLE_S,
    )
    return client, PassOn(client, api.centrifugo, api.centrifugo_key, record, on_publication)
