"""CPRO_… variables: over the file, under flags."""

from pathlib import Path

import pytest

from cpro.config.environment import variables
from cpro.config.load import load
from cpro.config.model import Bucket, Duration, Settings
from cpro.errors import ConfigError

BLOCK = "CPRO_CLIENT_RATE_LIMIT_USER_COMMAND"


def settings_with(**environ: str) -> Settings:
    return load(None, environ).settings


def faults_with(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(None, environ)
    return caught.value.faults


def test_every_kind_of_value_can_be_set():
    settings = settings_with(
        CPRO_WORKERS="4",
        CPRO_NODE_NAME="42",
        CPRO_PROXY_UPSTREAM_TIMEOUT="300ms",
        CPRO_PROXY_UPSTREAM_ENDPOINTS="http://a http://b",
        CPRO_PROXY_UPSTREAM_OVERRIDES='{"rpc": "http://c/rpc"}',
        CPRO_PROXY_WITHOUT_UPSTREAM="allow",
        CPRO_CLIENT_RATE_LIMIT_EXEMPT_USERS='["a b", "c"]',
    )
    assert settings.workers == 4
    assert settings.node.name == "42"
    assert settings.proxy.upstream.timeout == Duration.parse("300ms")
    assert settings.proxy.upstream.endpoints == ("http://a", "http://b")
    assert settings.proxy.upstream.overrides == {"rpc": "http://c/rpc"}
    assert settings.proxy.without_upstream == "allow"
    assert settings.client.rate_limit.exempt_users == ("a b", "c")


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_truths_are_gos(text: str):
    assert settings_with(CPRO_CLIENT_RATE_LIMIT_DRY_RUN=text).client.rate_limit.dry_run
    assert faults_with(CPRO_CLIENT_RATE_LIMIT_DRY_RUN="yes") == [
        "environment: CPRO_CLIENT_RATE_LIMIT_DRY_RUN: must be true or false"
    ]


def test_a_block_is_json_and_single_settings_go_over_it():
    text = '{"enabled": true, "publish": {"enabled": true, "buckets": [{"interval": "1s", "rate": 5}]}}'
    settings = settings_with(
        **{BLOCK: text, f"{BLOCK}_DRY_RUN": "1", f"{BLOCK}_PUBLISH_BUCKETS": '[{"interval": "2s", "rate": 7}]'}
    )
    block = settings.client.rate_limit.user_command
    assert block.enabled
    assert block.dry_run
    assert block.operations["publish"].buckets == (Bucket(Duration.parse("2s"), 7),)


def test_environment_is_between_file_and_flags(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_text("workers: 2\nproxy: {address: '127.0.0.1:1', prefix: /file}\n")
    environ = {"CPRO_WORKERS": "3", "CPRO_PROXY": '{"prefix": "/env"}', "CPRO_NODE_NAME": "env"}
    settings = load(str(path), environ, {"workers": 4}).settings
    assert settings.workers == 4
    assert settings.node.name == "env"
    assert settings.proxy.prefix == "/env"
    assert settings.proxy.address == "127.0.0.1:1", "a block is laid over the file's, key by key"


def test_a_file_shared_by_alias_is_changed_in_one_place_only(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_text("proxy: {tls: &t {server_name: a}}\nhttp_api: {tls: *t}\n")
    settings = load(str(path), {"CPRO_PROXY_TLS_SERVER_NAME": "b"}).settings
    assert (settings.proxy.tls.server_name, settings.http_api.tls.server_name) == ("b", "a")


def test_empty_is_unset(tmp_path: Path):
    assert settings_with(CPRO_WORKERS="", CPRO_PROXY_PREFIX="", CPRO_UNKNOWN="") == Settings()


def test_faults_name_the_variable():
    assert faults_with(CPRO_WORKERS="many", CPRO_PROXY_PREFIX="x") == [
        "environment: CPRO_WORKERS: must be a whole number",
        "environment: CPRO_PROXY_PREFIX: must start with /",
    ]


def test_faults_inside_json_name_variable_and_key():
    assert faults_with(CPRO_PROXY='{"adress": "x", "upstream": {"timeout": 5}}') == [
        "environment: CPRO_PROXY: adress: is not a known key; the nearest is address",
        'environment: CPRO_PROXY: upstream.timeout: must be a duration with a unit, such as "800ms" or "10s", '
        "not a bare number",
    ]
    assert faults_with(**{f"{BLOCK}_PUBLISH_BUCKETS": '[{"interval": "1s"}]'}) == [
        f"environment: {BLOCK}_PUBLISH_BUCKETS: [0].rate: is missing"
    ]


def test_broken_json_is_a_fault_that_repeats_nothing():
    (fault,) = faults_with(CPRO_PROXY='{"secret": hush}')
    assert fault == "environment: CPRO_PROXY: line 1: is not valid JSON: Expecting value"


def test_a_file_fault_stays_a_file_fault(tmp_path: Path):
    path = tmp_path / "c.yaml"
    path.write_text("proxy: 5\n")
    with pytest.raises(ConfigError) as caught:
        load(str(path), {"CPRO_PROXY_SECRET": "x"})
    assert caught.value.faults == [f"{path}: proxy: must be a block of settings, `name: value`"]


def test_unknown_variables_are_warnings_with_the_nearest():
    assert load(None, {"CPRO_PROXY_ADDRES": "x"}).warnings == [
        "environment: CPRO_PROXY_ADDRES: is not a known variable; the nearest is CPRO_PROXY_ADDRESS",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "CPRO_SERVICE_HOST",
        "CPRO_SERVICE_PORT",
        "CPRO_SERVICE_PORT_HTTP",
        "CPRO_PORT",
        "CPRO_PORT_8001_TCP",
        "CPRO_PORT_8001_TCP_ADDR",
        "CPRO_PROXY_SERVICE_HOST",
        "CPRO_HTTP_API_PORT_8002_TCP_PROTO",
        "CPRO_PROXY_PORT",
    ],
)
def test_what_kubernetes_injects_is_ignored(name: str):
    assert load(None, {name: "tcp://10.0.0.1:8001"}).warnings == []


def test_no_two_settings_share_a_variable():
    by_path = {path for path, _ in variables().values()}
    assert len(by_path) == len(variables())
    assert "CPRO_PROXY_ADDRESS" in variables()
    assert not [name for name in variables() if name.endswith(("_PORT", "_SERVICE_HOST"))]
