"""PRO's example queries, and others of docs/analytics.md, on the rows of what clients did at the proxy door."""

import json
from collections.abc import Callable
from uuid import uuid4

from tests.support.analytics_service import analytics, drained
from tests.support.backend import Backend, Received
from tests.support.deeds import Deeds
from tests.support.processes import eventually
from tests.support.rows import TABLES
from tests.support.service import REFUSED, Service, event, exchange, limits

PUBLISHES = 4
"""That each user may make."""


def answer(received: Received) -> object:
    return {"result": {"user": received.json["data"]} if received.path.endswith("/connect") else {}}


def live(deeds: Deeds, cpro: Service, post: Callable[[str, dict], object], number: int) -> None:
    """One client's life, as Centrifugo tells it. The same user comes with every other client of the same number."""
    user, client, channel = f"user_{number % 9}", str(uuid4()), ("chat:index", "news")[number % 2]
    assert post("connect", event(client=client, data=user)) == {"result": {"user": user}}
    deeds.clients[user] += 1
    assert post("subscribe", event(user, client, channel=channel)) == {"result": {}}
    deeds.subscribed.add((channel, user))
    for turn in range(number % 9):
        data = {"text": "é" * turn}
        done = post("publish", event(user, client, channel=channel, data=data))
        if deeds.attempts()[user] < PUBLISHES:
            assert done == {"result": {}}
            deeds.published.append((channel, user, len(json.dumps(data))))
        else:
            assert done == REFUSED
            deeds.refused[user] += 1


def test_pros_example_queries_answer_rightly_on_what_clients_did(service):
    deeds = Deeds()
    with Backend(answer) as backend:
        upstream = {"endpoint": backend.url, "timeout": "20s"}
        settings = {**analytics(*TABLES), **limits(publish=(PUBLISHES, "24h")), "proxy": {"upstream": upstream}}
        cpro = service({**settings, "workers": 2})

        def post(kind: str, body: dict) -> object:  # another connection each time: another worker
            connection = cpro.connect()
            try:
                return exchange(connection, f"/centrifugo/{kind}", body)[1]
            finally:
                connection.close()

        for number in range(24):
            live(deeds, cpro, post, number)
        assert eventually(lambda: drained(cpro))
        deeds.check(cpro)
