import pytest

from cpro.config.address import TcpAddress
from cpro.config.clickhouse_dsn import ClickhouseServer, parse_dsn


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("http://ch", ClickhouseServer(TcpAddress("ch", 8123))),
        ("http://ch/", ClickhouseServer(TcpAddress("ch", 8123))),
        ("https://ch", ClickhouseServer(TcpAddress("ch", 8443), True)),
        ("http://ch:80", ClickhouseServer(TcpAddress("ch", 80))),
        ("http://[::1]:8123", ClickhouseServer(TcpAddress("::1", 8123))),
        ("http://[::1]", ClickhouseServer(TcpAddress("::1", 8123))),
        ("http://u:p%40s%2Fs@ch", ClickhouseServer(TcpAddress("ch", 8123), False, "u", "p@s/s")),
        ("http://u@ch?password=x", ClickhouseServer(TcpAddress("ch", 8123), False, "u", "x")),
        ("http://ch?username=u&password=x&secure=true", ClickhouseServer(TcpAddress("ch", 8443), True, "u", "x")),
        ("https://ch?skip_verify=1", ClickhouseServer(TcpAddress("ch", 8443), True, skip_verify=True)),
    ],
)
def test_http_is_taken_as_it_is(text, server):
    assert parse_dsn(text) == (server, [])


@pytest.mark.parametrize(
    ("text", "port", "is_tls"),
    [
        ("tcp://ch", 8123, False),
        ("tcp://u:p@ch:9000", 8123, False),
        ("tcp://ch:9440", 8443, True),
        ("clickhouse://ch:9000", 8123, False),
        ("tcp://ch?secure=true", 8443, True),
    ],
)
def test_the_native_protocols_ports_mean_those_of_http(text, port, is_tls):
    server, warnings = parse_dsn(text)
    assert (server.address.port, server.is_tls) == (port, is_tls)
    assert any(str(port) in warning for warning in warnings)


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("http://ch/events", "clickhouse_database"),
        ("http://ch?database=events", "clickhouse_database"),
        ("http://ch?dial_timeout=5s&compress=lz4", "compress, dial_timeout"),
    ],
)
def test_what_has_no_effect_is_warned_of(text, warned):
    (warning,) = parse_dsn(text)[1]
    assert warned in warning


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ch:8123",
        "ftp://ch",
        "http://",
        "http://user:hidden@",
        "http://user:hidden@a,b",
        "http://ch:0",
        "http://ch:x",
        "http://user:hidden@ch:9000",
        "https://ch:9440",
        "tcp://ch:9001",
        "http://c h",
        "http://ch#x",
        "http://[::1",
        "chdb:///x",
    ],
)
def test_what_can_not_work_is_refused_without_repeating_it(text):
    with pytest.raises(ValueError, match=r"must|has a") as error:
        parse_dsn(text)
    assert "hidden" not in str(error.value)


def test_a_server_is_named_without_its_password():
    server, _ = parse_dsn("https://user:secret@ch:8443")
    assert str(server) == "https://ch:8443"
    assert "secret" not in repr(server)
