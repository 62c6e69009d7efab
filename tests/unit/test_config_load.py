"""What a good configuration becomes, whatever its format."""

from pathlib import Path

import pytest

from cpro.config.load import changes_needing_restart, load, redacted
from cpro.config.model import Bucket, Duration, MethodOverride, NamespaceOverride, Settings
from cpro.errors import ConfigError

YAML = """
workers: 2
proxy:
  upstream: {endpoints: [http://a:1/x/, https://b/y]}
client:
  rate_limit:
    exempt_users: root
    user_command:
      enabled: true
      publish:
        enabled: true
        buckets: [{interval: 1s, rate: 10, burst: 20}]
        namespace_overrides: [{namespace_name: chat, enabled: false}]
      rpc:
        enabled: true
        buckets: [{interval: 1m30s, rate: 5}]
        method_override: {search: {buckets: [{interval: 1s, rate: 1}]}}
"""
JSON = """
{"workers": 2, "proxy": {"upstream": {"endpoints": ["http://a:1/x/", "https://b/y"]}},
 "client": {"rate_limit": {"exempt_users": ["root"], "user_command": {"enabled": true,
  "publish": {"enabled": true, "buckets": [{"interval": "1s", "rate": 10, "burst": 20}],
              "namespace_overrides": [{"namespace_name": "chat", "enabled": false}]},
  "rpc": {"enabled": true, "buckets": [{"interval": "1m30s", "rate": 5}],
          "method_overrides": [{"method": "search", "buckets": [{"interval": "1s", "rate": 1}]}]}}}}}
"""
TOML = """
workers = 2
[proxy.upstream]
endpoints = ["http://a:1/x/", "https://b/y"]
[client.rate_limit]
exempt_users = ["root"]
[client.rate_limit.user_command]
enabled = true
[client.rate_limit.user_command.publish]
enabled = true
buckets = [{interval = "1s", rate = 10, burst = 20}]
namespace_overrides = [{namespace_name = "chat", enabled = false}]
[client.rate_limit.user_command.rpc]
enabled = true
buckets = [{interval = "1m30s", rate = 5}]
method_override = {search = {buckets = [{interval = "1s", rate = 1}]}}
"""


def settings_of(tmp_path: Path, text: str, name: str = "cpro.yaml", **more: object) -> Settings:
    path = tmp_path / name
    path.write_text(text)
    return load(str(path), {}, **more).settings


@pytest.mark.parametrize(("name", "text"), [("c.yaml", YAML), ("c.yml", YAML), ("c.json", JSON), ("c.toml", TOML)])
def test_all_formats_say_the_same(tmp_path: Path, name: str, text: str):
    settings = settings_of(tmp_path, text, name)
    block = settings.client.rate_limit.user_command
    second = Duration.parse("1s")
    assert settings.workers == 2
    assert settings.proxy.upstream.endpoints == ("http://a:1/x", "https://b/y")
    assert settings.client.rate_limit.exempt_users == ("root",)
    assert block.enabled
    assert block.operations["publish"].buckets == (Bucket(second, 10, 20),)
    assert block.operations["publish"].namespace_overrides == (NamespaceOverride("chat", False),)
    assert block.operations["rpc"].buckets == (Bucket(Duration.parse("90s"), 5),)
    assert block.operations["rpc"].method_overrides == (MethodOverride("search", True, (Bucket(second, 1),)),)


def test_without_a_file_there_are_defaults():
    loaded = load(None, {})
    assert loaded.settings == Settings()
    assert loaded.warnings == []
    assert loaded.source == "defaults"


@pytest.mark.parametrize("text", ["", "# nothing\n", "proxy:\n  upstream:\n", "null\n"])
def test_what_is_left_empty_keeps_its_default(tmp_path: Path, text: str):
    assert settings_of(tmp_path, text) == Settings()


def test_a_missing_file_is_a_fault(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path / "none.yaml"), {})
    assert caught.value.faults == [f"{tmp_path}/none.yaml: can't be read: No such file or directory"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: \x01", b"[" * 100_000, b"9" * 5000, b"- " * 5000])
def test_rubbish_is_a_fault_not_a_crash(tmp_path: Path, content: bytes):
    for name in ("c.yaml", "c.json", "c.toml"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError):
            load(str(tmp_path / name), {})


def test_a_yaml_circle_is_a_fault_not_a_crash(tmp_path: Path):
    with pytest.raises(ConfigError, match="is not a known key"):
        settings_of(tmp_path, "proxy: &a {x: *a}")


def test_yaml_anchors_and_merges_work(tmp_path: Path):
    text = """
client:
  rate_limit:
    user_command:
      enabled: true
      publish: &each {enabled: true, buckets: [{interval: 1s, rate: 10}]}
      subscribe: {<<: *each, enabled: false}
"""
    operations = settings_of(tmp_path, text).client.rate_limit.user_command.operations
    assert operations["subscribe"].buckets == operations["publish"].buckets
    assert not operations["subscribe"].enabled


def test_yaml_words_and_clock_times_stay_text(tmp_path: Path):
    settings = settings_of(tmp_path, "node: {name: 12:30}\nclient: {rate_limit: {exempt_users: [on, no, 2020-01-01]}}")
    assert settings.node.name == "12:30"
    assert settings.client.rate_limit.exempt_users == ("on", "no", "2020-01-01")


@pytest.mark.parametrize("prefix", ["", "/"])
def test_no_prefix_can_be_said_in_two_ways(tmp_path: Path, prefix: str):
    assert settings_of(tmp_path, f'proxy: {{prefix: "{prefix}"}}').proxy.prefix == ""


@pytest.mark.parametrize(
    "address", ["0.0.0.0:0", "[::1]:8001", "localhost:1", "a-b.c_d:65535", "unix:///run/cpro.sock"]
)
def test_addresses_are_taken(tmp_path: Path, address: str):
    text = f'proxy: {{address: "{address}", secret: x}}'
    assert settings_of(tmp_path, text).proxy.address == address


def test_operations_of_plugins_are_known(tmp_path: Path):
    vote = "{enabled: true, buckets: [{interval: 1s, rate: 1}]}"
    text = f"client: {{rate_limit: {{user_command: {{enabled: true, vote: {vote}}}}}}}"
    assert "vote" in settings_of(tmp_path, text, operations=["vote"]).client.rate_limit.user_command.operations
    with pytest.raises(ConfigError, match="vote: is not a known key"):
        settings_of(tmp_path, text)


def test_flags_win_and_are_named_in_faults(tmp_path: Path):
    assert settings_of(tmp_path, YAML, overrides={"workers": 7, "node.name": "x"}).workers == 7
    with pytest.raises(ConfigError) as caught:
        settings_of(tmp_path, YAML, overrides={"proxy.prefix": "x/"})
    assert caught.value.faults == ["command line: proxy.prefix: must start with /"]


@pytest.mark.parametrize(
    ("field", "expected"),
    [({"interval": "1s", "rate": 10_000_000}, True), ({"interval": "1s", "rate": 10_000_001}, False),
     ({"interval": "8760h", "rate": 1, "burst": 10}, True), ({"interval": "8760h", "rate": 1, "burst": 11}, False)],
)  # fmt: skip
def test_bucket_bounds_hold_at_the_edge(field: dict, expected: bool):
    overrides = {"client.rate_limit.user_command": {"enabled": True, "publish": {"enabled": True, "buckets": [field]}}}
    try:
        load(None, {}, overrides)
    except ConfigError:
        assert not expected
    else:
        assert expected


def test_redacted_settings_hold_no_secret():
    environ = {"CPRO_SECRET": "hush1", "CPRO_PROXY_SECRET": "hush2", "CPRO_HTTP_API_KEY": "hush3"}
    environ["CPRO_PROXY_TLS_KEY_PEM"] = "hush4"
    settings = load(None, environ).settings
    plain = redacted(settings)
    assert settings.proxy.secret == "hush2"
    assert "hush" not in str(plain)
    assert "hush" not in repr(settings)
    assert plain["proxy"]["secret"] == "***"
    assert plain["proxy"]["upstream"]["timeout"] == "800ms"


def test_redacted_settings_read_back_the_same(tmp_path: Path):
    settings = settings_of(tmp_path, YAML)
    assert load(None, {}, redacted(settings)).settings == settings


def test_changes_are_sorted_into_reloadable_and_not(tmp_path: Path):
    old = settings_of(tmp_path, YAML)
    overrides = {
        "workers": 3,
        "data_dir": "/x",
        "proxy.address": "127.0.0.1:1",
        "proxy.tls.server_name": "x",
        "secret": "x",
        "proxy.secret": "x",
        "proxy.upstream.timeout": "1ms",
        "client.rate_limit.user_command.publish.buckets": [],
        "log.level": "debug",
        "rpc.namespace_boundary": ".",
    }
    new = settings_of(tmp_path, YAML, overrides=overrides)
    assert changes_needing_restart(old, new) == ["workers", "data_dir", "proxy.address", "proxy.tls.server_name"]
    assert changes_needing_restart(old, old) == []


def test_passwords_of_clickhouse_are_not_shown(tmp_path: Path):
    settings = settings_of(tmp_path, 'clickhouse_analytics: {clickhouse_dsn: ["http://me:hush@c:8123"]}')
    assert "hush" not in repr(settings)
    assert redacted(settings)["clickhouse_analytics"]["clickhouse_dsn"] == "***"
    assert redacted(settings)["clickhouse_analytics"]["max_journal_size"] == "8GiB"


@pytest.mark.parametrize(
    ("change", "needs_restart"),
    [
        ("enabled: true", ["clickhouse_analytics.enabled"]),
        ("max_journal_size: 1GiB", ["clickhouse_analytics.max_journal_size"]),
        ("export: {operations: {ttl: 8 DAY}}", ["clickhouse_analytics.export.operations.ttl"]),
        ("export: {operations: {enabled: true, export_users: [a]}}", []),
        ("export: {connections: {http_headers: [origin]}, publications: {export_channels: [a]}}", []),
    ],
)
def test_what_is_exported_can_be_reloaded_and_the_rest_of_analytics_cant(
    tmp_path: Path, change: str, needs_restart: list[str]
):
    changed = settings_of(tmp_path, f"clickhouse_analytics: {{{change}}}")
    assert changes_needing_restart(Settings(), changed) == needs_restart
