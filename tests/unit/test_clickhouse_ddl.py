"""Which statements are run, by what is there. That they work: tests/services/test_clickhouse_schema.py."""

import pytest

from cpro.analytics.ddl import Found, Plan, literal, quote, storages

NAMES = {storage.name for storage in storages()}


def found_of(plan, **changes):
    """All that `plan` wants, as the engine would say it."""
    found = {}
    for storage in storages():
        statement = next(one for one in plan.missing(None) if f"{plan.name(storage.name)}" in one)
        comment = statement.rpartition("COMMENT ")[2].strip("'")
        engine = ("Replicated" if plan.cluster else "") + storage.engine
        found[storage.name] = Found(engine, frozenset(storage.columns), statement, comment)
        companion = "Distributed" if plan.cluster else "View"
        found[storage.name + "_distributed"] = Found(companion, frozenset(storage.columns))
    for view in ("operations_per_minute_mv", "errors_by_user_mv"):
        found[view] = Found("MaterializedView", frozenset())
    return found | changes


@pytest.mark.parametrize("plan", [Plan("c"), Plan("c", "all"), Plan("c", is_embedded=True)])
def test_where_all_is_there_nothing_is_run(plan):
    assert plan.missing(found_of(plan)) == []


def test_every_table_is_made_once():
    statements = Plan("c").missing(None)
    assert statements[0] == "CREATE DATABASE IF NOT EXISTS `c`"
    for name in NAMES:
        assert sum(f"CREATE TABLE IF NOT EXISTS `c`.`{name}` (" in one for one in statements) == 1
        assert sum(f"VIEW IF NOT EXISTS `c`.`{name}_distributed` AS" in one for one in statements) == 1
    assert Plan("c").missing({}) == statements[1:]


def test_tables_that_age_by_their_own_exports():
    statements = Plan("c", ttls={"operations": "3 DAY", "publications": "1 HOUR"}).missing(None)
    lifetimes = {
        name: next(one for one in statements if f"`{name}` (" in one).partition("TTL ")[2].partition(" SETTINGS")[0]
        for name in NAMES
    }
    assert lifetimes == {
        "operations": "time + INTERVAL 3 DAY",
        "publications": "time + INTERVAL 1 HOUR",
        "connections": "time + INTERVAL 7 DAY",
        "subscriptions": "time + INTERVAL 7 DAY",
        "operations_per_minute": "minute + INTERVAL 3 DAY",
        "errors_by_user": "minute + INTERVAL 3 DAY",
    }


def test_a_table_of_pros_gets_what_it_lacks_and_keeps_its_lifetime():
    plan = Plan("c", ttls={"connections": "1 DAY"})
    old = Found("MergeTree", frozenset({"client", "user", "time"}), "CREATE TABLE … SETTINGS index_granularity = 8192")
    statements = plan.missing(found_of(plan, connections=old))
    columns = [one.rpartition(" IF NOT EXISTS ")[2] for one in statements if "ADD COLUMN" in one]
    assert "`headers` Map(String, Array(String))" in columns
    assert len(columns) == 10
    assert statements[-1] == (
        "ALTER TABLE `c`.`connections` MODIFY SETTING non_replicated_deduplication_window = 1000"
    )  # fmt: skip


def test_a_table_of_ours_follows_the_lifetime():
    statements = Plan("c", ttls={"connections": "1 DAY"}).missing(found_of(Plan("c")))
    assert statements == [
        "ALTER TABLE `c`.`connections` MODIFY TTL time + INTERVAL 1 DAY",
        "ALTER TABLE `c`.`connections` MODIFY COMMENT 'cpro 1, ttl 1 DAY'",
    ]


def test_windows_go_by_the_engine_that_is_there():
    old = Found("ReplicatedMergeTree", frozenset(next(iter(storages())).columns), "")
    assert Plan("c").missing(found_of(Plan("c"), operations=old)) == [
        "ALTER TABLE `c`.`operations` MODIFY SETTING replicated_deduplication_window = 10000, "
        "replicated_deduplication_window_seconds = 604800"
    ]
    other = Found("Null", frozenset(next(iter(storages())).columns), "")
    assert Plan("c").missing(found_of(Plan("c"), operations=other)) == []


def test_companions_follow_new_columns():
    view = Found("View", frozenset({"client"}))
    assert Plan("c").missing(found_of(Plan("c"), subscriptions_distributed=view)) == [
        "CREATE OR REPLACE VIEW `c`.`subscriptions_distributed` AS SELECT * FROM `c`.`subscriptions`"
    ]
    table = Found("Distributed", frozenset({"client", "user", "channel", "namespace", "node"}))
    for plan, on_cluster in ((Plan("c"), ""), (Plan("c", "all"), " ON CLUSTER `all`")):
        assert plan.missing(found_of(plan, subscriptions_distributed=table)) == [
            f"ALTER TABLE `c`.`subscriptions_distributed`{on_cluster} ADD COLUMN IF NOT EXISTS `time` DateTime"
        ]


def test_a_cluster_has_replicated_tables_behind_distributed_ones():
    statements = Plan("c", "all").missing(None)
    assert all(" ON CLUSTER `all`" in statement for statement in statements)
    publications = next(one for one in statements if "`publications_distributed`" in one)
    assert publications.endswith("ENGINE = Distributed('all', 'c', 'publications', murmurHash3_64(channel))")
    operations = next(one for one in statements if "`operations_distributed`" in one)
    assert operations.endswith("ENGINE = Distributed('all', 'c', 'operations', murmurHash3_64(client))")
    made = next(one for one in statements if "`connections` ON CLUSTER" in one)
    assert "ReplicatedMergeTree('/clickhouse/tables/{cluster}/{shard}/c/connections', '{replica}')" in made
    assert "replicated_deduplication_window_seconds = 604800" in made


def test_any_name_is_quoted():
    assert quote("a`b\\") == "`a\\`b\\\\`"
    assert literal("a'b\\") == "'a\\'b\\\\'"
