"""What `cpro centrifugoconfig` prints: only what is configured, and real Centrifugo takes it."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cpro.config.centrifugo import centrifugo_config
from cpro.config.load import load
from cpro.errors import ConfigError


def config_for(**overrides: object) -> dict[str, Any]:
    return centrifugo_config(
        load(None, {}, {key.replace("__", "."): value for key, value in overrides.items()}).settings
    )


def limits(**operations: object) -> dict[str, object]:
    return {"enabled": True, **operations}


def limit(**more: object) -> dict[str, object]:
    return {"enabled": True, "buckets": [{"interval": "1s", "rate": 1}], **more}


EVERYTHING = {
    "proxy__secret": "hush",
    "proxy__connect_user_header": "X-User",
    "proxy__upstream__endpoint": "http://app:3000",
    "channel__namespace_boundary": ".",
    "channel__private_prefix": "!",
    "channel__user_boundary": "~",
    "rpc__namespace_boundary": ".",
    "client__rate_limit": {
        "anonymous": "ip",
        "user_command": limits(
            publish=limit(namespace_overrides=[{"namespace_name": "chat", "enabled": False}]),
            map_publish=limit(namespace_overrides=[{"namespace_name": "maps"}]),
            map_remove=limit(),
            rpc=limit(namespace_overrides=[{"namespace_name": "calls"}], method_overrides=[{"method": "shop.buy"}]),
        ),
    },
}


def test_by_default_four_events_come_to_the_proxy():
    config = config_for()
    assert set(config["client"]["proxy"]) == {"connect"}
    assert config["client"]["proxy"]["connect"] == {
        "enabled": True,
        "endpoint": "http://127.0.0.1:8001/centrifugo/connect",
        "timeout": "1s",
        "http_headers": ["X-Cpro-Connection"],
    }
    assert set(config["channel"]["proxy"]) == {"subscribe", "publish"}
    assert config["channel"]["without_namespace"] == {"subscribe_proxy_enabled": True, "publish_proxy_enabled": True}
    assert config["rpc"]["without_namespace"] == {"proxy_enabled": True}
    assert "namespaces" not in config["channel"]


@pytest.mark.parametrize(
    "overrides",
    [
        {"proxy__upstream__endpoint": "http://app"},
        {"proxy__upstream__endpoints": ["http://app"]},
        {"proxy__without_upstream": "allow"},
    ],
)
def test_refreshes_come_when_somebody_answers_them(overrides: dict[str, object]):
    config = config_for(**overrides)
    assert "refresh" in config["client"]["proxy"]
    assert "sub_refresh" in config["channel"]["proxy"]
    assert config["channel"]["without_namespace"]["sub_refresh_proxy_enabled"]


def test_an_override_brings_its_own_event_only():
    config = config_for(proxy__upstream__overrides={"refresh": "http://app/r", "map_remove": "http://app/m"})
    assert set(config["client"]["proxy"]) == {"connect", "refresh"}
    assert set(config["channel"]["proxy"]) == {"subscribe", "publish", "map_remove"}
    assert config["channel"]["without_namespace"]["map"] == {"remove_proxy_enabled": True}


def test_secret_headers_and_boundaries_go_along():
    config = config_for(**EVERYTHING)
    connect = config["client"]["proxy"]["connect"]
    assert connect["http"] == {"static_headers": {"X-Cpro-Secret": "hush"}}
    assert connect["http_headers"] == ["X-Cpro-Connection", "X-Real-Ip", "X-User"]
    assert config["rpc"]["proxy"]["http_headers"] == ["X-Cpro-Connection", "X-Real-Ip"]
    assert config["channel"]["namespace_boundary"] == config["rpc"]["namespace_boundary"] == "."
    assert config["channel"]["private_prefix"] == "!"
    assert config["channel"]["user_boundary"] == "~"


def test_exported_headers_are_forwarded_once_and_only_with_connects():
    connections = {"enabled": True, "http_headers": ["origin", "x-real-ip", "X-Cpro-Connection"]}
    analytics = {"enabled": True, "export": {"connections": connections}}
    config = config_for(clickhouse_analytics=analytics, client={"rate_limit": {"anonymous": "ip"}})
    assert config["client"]["proxy"]["connect"]["http_headers"] == ["X-Cpro-Connection", "X-Real-Ip", "Origin"]
    assert config["rpc"]["proxy"]["http_headers"] == ["X-Cpro-Connection", "X-Real-Ip"]
    off = config_for(clickhouse_analytics={**analytics, "enabled": False})
    assert off["client"]["proxy"]["connect"]["http_headers"] == ["X-Cpro-Connection"]


def test_namespaces_of_overrides_are_there():
    config = config_for(**EVERYTHING)
    chat, maps = config["channel"]["namespaces"]
    assert chat["name"] == "chat"
    assert chat["publish_proxy_enabled"]
    assert "map" not in chat
    assert maps["map"] == {"publish_proxy_enabled": True, "remove_proxy_enabled": True}
    assert "subscribe_proxy_enabled" not in maps, "Centrifugo refuses map subscriptions that a proxy allowed"
    assert [entry["name"] for entry in config["rpc"]["namespaces"]] == ["calls", "shop"]


@pytest.mark.parametrize(
    ("address", "base"),
    [("0.0.0.0:81", "http://127.0.0.1:81"), ("[::]:81", "http://127.0.0.1:81"), ("[::1]:81", "http://[::1]:81")],
)
def test_the_endpoint_can_be_dialled(address: str, base: str):
    config = config_for(proxy__address=address, proxy__prefix="/")
    assert config["rpc"]["proxy"]["endpoint"] == f"{base}/rpc"


@pytest.mark.parametrize("address", ["unix:///run/x.sock", "127.0.0.1:0"])
def test_what_centrifugo_can_not_dial_is_a_fault(address: str):
    with pytest.raises(ConfigError, match=r"^proxy\.address: "):
        config_for(proxy__address=address)


@pytest.mark.centrifugo
@pytest.mark.skipif(shutil.which("centrifugo") is None, reason="no centrifugo on PATH")
@pytest.mark.parametrize("overrides", [{}, {"proxy__without_upstream": "allow"}, EVERYTHING])
def test_real_centrifugo_takes_it(overrides: dict[str, object], tmp_path: Path):
    path = tmp_path / "centrifugo.json"
    path.write_text(json.dumps(config_for(**overrides)))
    done = subprocess.run(
        ["centrifugo", "checkconfig", "--strict", "-c", str(path)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
