"""Paths that are no transport's: 404, or passed on, but never to what is Centrifugo's operators' alone."""

import json
from collections.abc import Callable

import pytest

from tests.e2e.centrifugo.conftest import Stack, StartStack, start_alone, without_proxies
from tests.support.centrifugo import Centrifugo
from tests.support.wire import Wire

pytestmark = pytest.mark.centrifugo

EVERYTHING = {
    "init": {"enabled": True},
    "admin": {"enabled": True, "insecure": True, "password": "p", "secret": "s"},
    "prometheus": {"enabled": True},
    "debug": {"enabled": True},
    "swagger": {"enabled": True},
    "sse": {"enabled": True},
    "http_stream": {"enabled": True},
    "uni_sse": {"enabled": True, "handler_prefix": "/elsewhere"},
    "uni_http_stream": {"enabled": True, "handler_prefix": "/elsewhere-too"},
}
"""A Centrifugo that shows all it has at its one port."""


@pytest.fixture
def passing(stack: StartStack):
    def start(**gateway: object) -> Stack:
        def change(config: dict) -> None:
            without_proxies(config)
            config.update(EVERYTHING)
            config["client"] |= {"allowed_origins": ["https://app.example"], "insecure": True}

        return start_alone(stack, {}, change=change, **{"pass_unknown": True, **gateway})

    return start


def ask(address: str, target: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""):
    """Status, headers and body of the answer to a request on a connection of its own."""
    lines = {"Host": "gateway", **(headers or {}), **({"Content-Length": str(len(body))} if body else {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with Wire(address, 20.0) as wire:
        return wire.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body).answer()


def direct(centrifugo: Centrifugo) -> str:
    return centrifugo.base.removeprefix("http://")


def test_other_paths_are_answered_by_centrifugo(passing: Callable[..., Stack]):
    started = passing()
    assert ask(started.service.gateway, "/connection/init")[::2] == (200, b"{}")
    assert ask(started.service.gateway, "/health?x=1")[::2] == (200, b"{}")
    assert ask(started.service.gateway, "http://app.example/health")[0] == 200
    for target in ("/no-such-path", "/api-of-mine", "/connection/init/no"):
        assert ask(started.service.gateway, target)[::2] == ask(direct(started.centrifugo), target)[::2]
    status, headers, _ = ask(started.service.gateway, "//health")
    assert (status // 100, headers[b"location"]) == (3, b"/health")


def test_without_the_setting_they_are_not_found(passing: Callable[..., Stack]):
    started = passing(pass_unknown=False)
    for target in ("/connection/init", "/health", "/no-such-path"):
        assert ask(started.service.gateway, target)[::2] == (404, b"")


def test_preflights_of_pages_are_answered_by_centrifugo(passing: Callable[..., Stack]):
    started = passing()
    headers = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    for target in ("/emulation", "/connection/http_stream", "/connection/sse", "/connection/init"):
        status, answer, _ = ask(started.service.gateway, target, "OPTIONS", headers)
        wanted, expected, _ = ask(direct(started.centrifugo), target, "OPTIONS", headers)
        assert status == wanted
        names = {name for name in expected if name.startswith(b"access-control-")}
        assert {name: answer.get(name) for name in names} == {name: expected[name] for name in names}
        assert (b"access-control-allow-origin" in names) == (target != "/connection/init")


HIDDEN = r"""
    /api /api/ /api/info //api/info /./api/info /x/../api/info /%61pi/info /%2561pi/info /API/info
    /api%2finfo /api;x/info
    / // /index.html/.. /x/.. /%2e/ /admin/ /admin/auth /%61dmin/api /admin/../admin/init /x/..//admin/init
    /metrics /metrics/ //metrics /%6detrics /debug/pprof/ /debug/pprof/cmdline /debug/ /swagger/ /swagger/../swagger/
    http://x/api/info http://x//metrics http://x
"""


def test_what_is_for_operators_is_not_found(passing: Callable[..., Stack]):
    started = passing()
    for target in HIDDEN.split():
        for method in ("GET", "OPTIONS", "POST"):
            answer = ask(started.service.gateway, target, method, {"X-API-Key": Centrifugo.API_KEY})
            assert answer[::2] == (404, b""), (method, target)


def test_commands_find_no_other_way_to_centrifugo(passing: Callable[..., Stack]):
    started = passing()
    commands = b'{"id":1,"connect":{}}\n{"id":2,"publish":{"channel":"news","data":"slipped through"}}'
    quoted = "%7B%22id%22%3A1%2C%22connect%22%3A%7B%7D%7D"
    for target in (
        "/connection/http_stre%61m",
        "//connection/http_stream",
        "/connection/http_stream/",
        "/elsewhere-too",
    ):
        assert ask(started.service.gateway, target, "POST", body=commands)[0] == 404
        assert ask(started.service.gateway, target, "GET", body=commands)[0] == 404
    for target in ("/connection/ss%65", "/elsewhere", "/elsewhere%2f", "/x"):
        assert ask(started.service.gateway, f"{target}?cf_connect={quoted}")[0] == 404
        assert ask(started.service.gateway, f"{target}?%63f_connect={quoted}")[0] == 404
    node = started.centrifugo.api("info", {})["nodes"][0]
    assert node["num_clients"] == 0
    assert started.centrifugo.api("history", {"channel": "news", "limit": 5})["publications"] == []


def test_a_head_has_no_body(passing: Callable[..., Stack]):
    started = passing()
    with Wire(started.service.gateway, 20.0) as wire:
        wire.send(b"HEAD /no-such-path HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while piece := wire.socket.recv(65536):
            data += piece
    status_line, _, rest = data.partition(b"\r\n")
    assert status_line.split()[1] == b"404"
    assert rest.endswith(b"\r\n\r\n")
    assert b"Content-Length: 19\r\n" in rest
    assert json.loads(ask(started.service.gateway, "/health")[2]) == {}
