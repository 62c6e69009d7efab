"""Publishes, each by a user of its own, and which of them were answered: their rows must be there, once."""

import json
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException

from tests.support.processes import eventually
from tests.support.service import event

OK = {"result": {}}


class Publishers:
    """Threads that publish over keep-alive connections. A context manager: leaving it ends them."""

    def __init__(self, address: Callable[[], str], threads: int = 8, pause_s: float = 0.0):
        self._address = address
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._publish, args=(number,)) for number in range(threads)]
        self.answered: list[str] = []
        """Users whose publish was answered."""
        self.unknown: list[str] = []
        """Those whose answer never came: their row may be there or not."""

    def __enter__(self) -> "Publishers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, publishes: int) -> None:
        """Until so many more have been answered."""
        enough = len(self.answered) + publishes
        assert eventually(lambda: len(self.answered) >= enough)

    def _publish(self, number: int) -> None:
        turn = 0
        while not self._stopping.is_set():
            host, port = self._address().rsplit(":", 1)
            connection = HTTPConnection(host, int(port), timeout=30)
            try:
                connection.connect()
            except OSError:
                time.sleep(0.02)
                continue
            user = ""
            try:
                while not self._stopping.is_set():
                    turn += 1
                    user = f"{number}-{turn}"
                    body = json.dumps(event(user=user, channel="chat:1", data={}))
                    connection.request("POST", "/centrifugo/publish", body)
                    assert json.loads(connection.getresponse().read()) == OK
                    self.answered.append(user)
                    user = ""
                    time.sleep(self._pause_s)
            except (OSError, HTTPException, ValueError):
                self.unknown.append(user)
            finally:
                connection.close()


def faults(publishers: Publishers, stored: dict[str, int]) -> dict[str, list[str]]:
    """What is wrong with the rows that are stored, by user; empty when each is there as often as it must be."""
    known = {*publishers.answered, *publishers.unknown}
    found = {
        "lost": [user for user in publishers.answered if user not in stored],
        "doubled": [user for user, count in stored.items() if count > 1],
        "strange": [user for user in stored if user not in known],
    }
    return {what: users[:5] for what, users in found.items() if users}
