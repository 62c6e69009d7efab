"""What cpro counts, and where: a fixed layout of slots in memory shared by all processes.

Every process adds to a block of its own with plain increments; whoever answers `/metrics` sums the blocks and lets
prometheus-client write the text. Durations are counted in ns and shown in seconds.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from cpro._fast.counters import BOUNDS_NS, HISTOGRAM_SLOTS
from cpro.analytics.schema import TABLES
from cpro.operation import OPERATIONS, Verdict

if TYPE_CHECKING:
    from prometheus_client import Metric

DOORS = ("proxy", "gateway", "api")
TRANSPORTS = ("websocket", "sse", "http_stream", "uni_websocket", "uni_sse", "uni_http_stream")
"""Of the gateway, in Centrifugo's words."""
API_METHODS = ("rate_limit", "update_user_status", "get_user_status", "delete_user_status", "passed_on")
"""What the API door counts as operations."""
VERDICTS = tuple(verdict.name.lower() for verdict in Verdict)
BLOCKS = ("client", "user", "redis")
CHECK_VERDICTS = ("admitted", "refused", "dry_run")
UPSTREAM_OUTCOMES = ("ok", "refused", "timed_out", "reset", "broken", "closed", "status", "not_json")
LEASE_EVENTS = ("granted", "spent", "returned", "expired")
STORES = ("limits", "status")
RELOAD_OUTCOMES = ("ok", "failed")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its labels with their values, and the first of its slots."""

    name: str
    help: str
    labels: dict[str, tuple[str, ...]]
    first: int
    width: int = 1
    gauge_unit: int = 0
    """Of a gauge: what one of the metric's own unit is in its slot; 0: it is a counter."""

    @property
    def slots(self) -> int:
        size = self.width
        for values in self.labels.values():
            size *= len(values)
        return size

    def slot(self, *values: str) -> int:
        """The slot of one combination of label values, in the order of `labels`."""
        index = 0
        for known, value in zip(self.labels.values(), values, strict=True):
            index = index * len(known) + known.index(value)
        return self.first + index * self.width

    def samples(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """Every combination of label values, with its slot."""
        for number, values in enumerate(product(*self.labels.values())):
            yield values, self.first + number * self.width


class Catalogue:
    """All metrics of one cpro, laid out one behind the other. The same in every process of a service."""

    def __init__(
        self,
        extra_operations: Sequence[str] = (),
        plugins: Sequence[str] = (),
        shards: int = 0,
        sinks: Sequence[str] = (),
    ) -> None:
        """`shards` is how many shards of Redis there are; 0 where the node keeps everything."""
        self.families: list[Family] = []
        self.slots = 0
        kinds = (*OPERATIONS, *extra_operations)
        by_op = {"door": DOORS, "op": tuple(dict.fromkeys((*kinds, *API_METHODS)))}
        self.operations = self._add(
            "operations_total", "Operations finished, by what became of them.", {**by_op, "verdict": VERDICTS}
        )
        self.durations = self._add(
            "operation_duration_seconds", "Time from request to reply.", by_op, width=HISTOGRAM_SLOTS
        )
        self.limit_checks = self._add(
            "limit_checks_total", "Limit checks by block.", {"code": tuple(map(str, range(64)))}
        )
        self.upstream = self._add(
            "upstream_requests_total", "Requests to the backend.", {"event": kinds, "outcome": UPSTREAM_OUTCOMES}
        )
        self.upstream_durations = self._add(
            "upstream_duration_seconds", "Time the backend took.", {"event": kinds}, width=HISTOGRAM_SLOTS
        )
        self.worker_restarts = self._add("worker_restarts_total", "Workers started again after they died.", {})
        self.reloads = self._add("config_reloads_total", "Reloads by outcome.", {"outcome": RELOAD_OUTCOMES})
        by_shard = {"shard": tuple(map(str, range(shards)))}
        self.round_trips = self._add("redis_round_trips_total", "Writes of commands to a shard of Redis.", by_shard)
        self.lease_tokens = self._add(
            "lease_tokens_total", "Tokens of cluster-wide limits, by what became of them.", {"event": LEASE_EVENTS}
        )
        self.store_errors = self._add("store_errors_total", "Requests to a store that failed.", {"store": STORES})
        self.status_dropped = self._add(
            "status_dropped_updates_total",
            "Updates of users' statuses that were lost: their store was away too long.",
            {},
        )
        by_plugin = {"plugin": tuple(plugins)}
        self.plugin_errors = self._add("plugin_errors_total", "Times a plugin raised, hung or erred.", by_plugin)
        self.plugin_dropped = self._add(
            "plugin_dropped_total", "Finished operations that an observer was too slow to be told of.", by_plugin
        )
        of_table = {"table": tuple(table.name for table in TABLES)}
        self.journal_rows = self._add("journal_rows_total", "Rows of analytics recorded.", of_table)
        self.journal_dropped = self._add("journal_dropped_rows_total", "Rows that found no room.", of_table)
        self.gateway_connections = self._add(
            "gateway_connections", "Open connections of the gateway.", {"transport": TRANSPORTS}, gauge_unit=1
        )
        self.journal_bytes = self._add("journal_bytes", "Size of the journal on disk.", {}, gauge_unit=1)
        by_sink = {"sink": tuple(sinks)}
        by_table = {**by_sink, "table": tuple(table.name for table in TABLES)}
        self.sink_rows = self._add("sink_rows_total", "Rows that a sink has stored.", by_table)
        self.sink_dropped = self._add("sink_dropped_rows_total", "Rows that a sink has lost for good.", by_sink)
        self.sink_lag = self._add(
            "sink_lag_seconds", "Age of the oldest row that a sink has not stored.", by_sink, gauge_unit=1000
        )
        self.sink_errors = self._add("sink_errors_total", "Times a sink could not do its work.", by_sink)

    def _add(
        self, name: str, text: str, labels: dict[str, tuple[str, ...]], width: int = 1, gauge_unit: int = 0
    ) -> Family:
        family = Family(name, text, labels, self.slots, width, gauge_unit)
        self.families.append(family)
        self.slots += family.slots
        return family


class Exposition:
    """Renders totals as Prometheus text; imports prometheus-client only when somebody asks."""

    content_type = b"text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, catalogue: Catalogue, totals: Callable[[], list[int]], evictions: Callable[[], int]) -> None:
        self._catalogue = catalogue
        self._totals = totals
        self._evictions = evictions

    def render(self) -> bytes:
        """All metrics in the text format, version 0.0.4."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> "Iterable[Metric]":
        """Called by prometheus-client while it renders."""
        from prometheus_client.core import CounterMetricFamily

        totals = self._totals()
        catalogue = self._catalogue
        for family in catalogue.families:
            if family is catalogue.limit_checks:
                yield self._limit_checks(family, totals)
            elif family.width > 1:
                yield self._histogram(family, totals)
            elif family.gauge_unit:
                yield self._gauge(family, totals)
            else:
                yield self._counter(family, totals)
        yield CounterMetricFamily(
            "cpro_limit_evictions", "Buckets lost because the table was full.", value=self._evictions()
        )

    @staticmethod
    def _counter(family: Family, totals: list[int]) -> "Metric":
        from prometheus_client.core import CounterMetricFamily

        metric = CounterMetricFamily(_name(family), family.help, labels=list(family.labels))
        for values, slot in family.samples():
            if totals[slot] or len(family.labels) < 2:
                metric.add_metric(values, totals[slot])
        return metric

    @staticmethod
    def _gauge(family: Family, totals: list[int]) -> "Metric":
        from prometheus_client.core import GaugeMetricFamily

        metric = GaugeMetricFamily(_name(family), family.help, labels=list(family.labels))
        for values, slot in family.samples():
            metric.add_metric(values, totals[slot] / family.gauge_unit)
        return metric

    @staticmethod
    def _histogram(family: Family, totals: list[int]) -> "Metric":
        from prometheus_client.core import HistogramMetricFamily

        metric = HistogramMetricFamily(_name(family), family.help, labels=list(family.labels))
        bounds = [*(repr(bound / 1e9) for bound in BOUNDS_NS), "+Inf"]
        for values, slot in family.samples():
            counts = totals[slot : slot + len(bounds)]
            if not any(counts):
                continue
            so_far, buckets = 0, []
            for bound, count in zip(bounds, counts, strict=True):
                so_far += count
                buckets.append((bound, so_far))
            metric.add_metric(values, buckets, sum_value=totals[slot + len(bounds)] / 1e9)
        return metric

    @staticmethod
    def _limit_checks(family: Family, totals: list[int]) -> "Metric":
        """The gate counts whole answers, two bits a block (see `limits.gate`); people want them by block."""
        from prometheus_client.core import CounterMetricFamily

        metric = CounterMetricFamily(_name(family), family.help, labels=["block", "verdict"])
        for number, block in enumerate(BLOCKS):
            for digit, verdict in enumerate(CHECK_VERDICTS, start=1):
                codes = (code for code in range(64) if (code >> 2 * number) & 3 == digit)
                metric.add_metric([block, verdict], sum(totals[family.first + code] for code in codes))
        return metric


def _name(family: Family) -> str:
    return "cpro_" + family.name.removesuffix("_total")
