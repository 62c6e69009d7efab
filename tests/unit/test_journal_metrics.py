"""The journal's counts as metrics: what each has more than at the last look."""

from pathlib import Path

from cpro._fast.counters import CounterFile
from cpro._fast.journal import Journal, RowWriter
from cpro._fast.segment import Segment
from cpro.analytics.schema import SUBSCRIPTIONS, VERSION
from cpro.metrics import Catalogue, Exposition
from cpro.run.analytics import Meter

ROW = ("c", "u", "chat:x", "chat", "n", 1)


def test_rows_and_drops_are_counted_once_each(tmp_path: Path):
    catalogue = Catalogue()
    (tmp_path / "counters").touch()
    counter_file = CounterFile.create(str(tmp_path / "counters"), 2, catalogue.slots)
    segment = Segment.create(str(tmp_path / "1.seg"), 64 * 1024, VERSION)
    journal = Journal()
    append = RowWriter(journal, SUBSCRIPTIONS.number, SUBSCRIPTIONS.kinds).append
    append(ROW)  # before anybody looks, and without a segment
    meter = Meter(journal, counter_file.block(0), catalogue)
    journal.switch(segment)
    for _ in range(3):
        append(ROW)
        append(ROW)
        meter.count()
    journal.switch(None)
    append(ROW)
    meter.count()
    meter.count()
    text = Exposition(catalogue, counter_file.totals, lambda: 0).render().decode()
    assert 'cpro_journal_rows_total{table="subscriptions"} 6.0' in text
    assert 'cpro_journal_dropped_rows_total{table="subscriptions"} 2.0' in text
    assert 'cpro_journal_rows_total{table="operations"} 0.0' in text
    segment.close()
    counter_file.close()


def test_the_size_is_a_gauge(tmp_path: Path):
    catalogue = Catalogue()
    (tmp_path / "counters").touch()
    counter_file = CounterFile.create(str(tmp_path / "counters"), 2, catalogue.slots)
    counters = counter_file.block(1)
    for size in (5 << 30, 3 << 30):
        counters.set(catalogue.journal_bytes.first, size)
        text = Exposition(catalogue, counter_file.totals, lambda: 0).render().decode()
        (sample,) = (line for line in text.splitlines() if line.startswith("cpro_journal_bytes "))
        assert float(sample.split()[1]) == size
    assert "# TYPE cpro_journal_bytes gauge" in text
    counter_file.close()
