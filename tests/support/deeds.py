"""What a test has had people do, and what the questions of docs/analytics.md must answer about it.

Five of them are the examples of Centrifugo PRO's own page about analytics: the same tables, columns and answers.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cpro.analytics.query import Question, ask
from tests.support.service import Service

PAGE = (Path(__file__).parents[2] / "docs" / "analytics.md").read_text()
QUERIES = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TOO_MANY = 111
Rows = list[dict[str, object]]


def question(mark: str) -> str:
    """The query of the page that has these words in it."""
    (query,) = (query for query in QUERIES if mark in query)
    return query


def unhurried(query: str) -> str:
    """The same over a longer time: what was done on a slow machine is older than it should be."""
    return query.replace("toIntervalMinute(1)", "toIntervalMinute(30)").replace("INTERVAL 5 MINUTE", "INTERVAL 1 HOUR")


@dataclass
class Deeds:
    """All that happened, as those know it who did it."""

    clients: Counter[str] = field(default_factory=Counter)
    """Connections, by user."""
    subscribed: set[tuple[str, str]] = field(default_factory=set)
    """(channel, user)"""
    published: list[tuple[str, str, int]] = field(default_factory=list)
    """(channel, user, bytes) of what was taken."""
    refused: Counter[str] = field(default_factory=Counter)
    """Publications that were one too many, by user."""

    def attempts(self) -> Counter[str]:
        """To publish, by user."""
        return Counter(user for _, user, _ in self.published) + self.refused

    def check(self, cpro: Service) -> None:
        """Every answer is what happened. Call it when all has arrived."""
        assert self.refused
        assert self.published
        for query, expected in self._answers():
            found = json.loads(ask(Path(cpro.settings["data_dir"]), Question(unhurried(query), "json")))
            if "ORDER BY" not in query:
                found.sort(key=json.dumps)
            assert found == expected, query

    def _answers(self) -> Iterator[tuple[str, Rows]]:
        yield from self._answers_of_pro()
        busiest = [{"user": user, "refused": count} for user, count in _most(self.refused)]
        yield question("count() AS refused"), busiest
        yield question("sum(count) AS refused"), busiest
        yield question("sum(size) AS bytes"), self._channels()
        yield (
            question("AS users, uniqExact(client)"),
            [{"users": len(self.clients), "connections": self.clients.total()}],
        )

    def _answers_of_pro(self) -> Iterator[tuple[str, Rows]]:
        yield question("SELECT DISTINCT user"), [{"user": user} for user in sorted(self.clients)]
        yield question("error = 111 AND op = 'publish'\n"), [{"count()": self.refused.total()}]
        for user in {*self.clients, "nobody"}:
            of_one = question("user = '200'").replace("'200'", f"'{user}'")
            yield of_one, [{"count()": self.refused[user]}]
        for channel in {channel for channel, _ in self.subscribed} | {"chat:nowhere"}:
            users = len({user for of_it, user in self.subscribed if of_it == channel})
            yield question("count(DISTINCT user)").replace("chat:index", channel), [{"users": users}]
        yield (
            question("count(op) AS num_ops"),
            [{"num_ops": count, "user": user} for user, count in _most(self.attempts())[:10]],
        )

    def _channels(self) -> Rows:
        messages = Counter(channel for channel, _, _ in self.published)
        return [
            {
                "channel": channel,
                "messages": count,
                "bytes": sum(size for of_it, _, size in self.published if of_it == channel),
                "users": len({user for of_it, user, _ in self.published if of_it == channel}),
            }
            for channel, count in _most(messages)
        ]


def _most(counted: Counter[str]) -> list[tuple[str, int]]:
    """The largest first, those of the same number by name."""
    return sorted(counted.items(), key=lambda one: (-one[1], one[0]))
