"""What a reader of /metrics sees of a slot."""

from cpro.metrics import Catalogue, Exposition


def lines_of(catalogue: Catalogue, **values: int) -> list[str]:
    totals = [0] * catalogue.slots
    for name, value in values.items():
        totals[getattr(catalogue, name).first] = value
    return Exposition(catalogue, lambda: totals, lambda: 0).render().decode().splitlines()


def test_lag_is_a_gauge_in_seconds():
    lines = lines_of(Catalogue(sinks=["clickhouse", "parquet"]), sink_lag=1500)
    assert "# TYPE cpro_sink_lag_seconds gauge" in lines
    assert 'cpro_sink_lag_seconds{sink="clickhouse"} 1.5' in lines
    assert 'cpro_sink_lag_seconds{sink="parquet"} 0.0' in lines


def test_without_analytics_no_sink_is_shown():
    assert not [line for line in lines_of(Catalogue()) if line.startswith("cpro_sink")]


def test_rows_are_counted_by_sink_and_table():
    lines = lines_of(Catalogue(sinks=["clickhouse"]), sink_rows=7)
    assert 'cpro_sink_rows_total{sink="clickhouse",table="operations"} 7.0' in lines
