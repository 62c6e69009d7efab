"""What we send: forwarded requests verbatim but for what belongs to the hop, and replies."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpro._fast.http1 import RequestParser, ResponseParser, build_forward, build_reply, build_status

PREFIX = b"POST /centrifugo/publish HTTP/1.1\r\nHost: app:3000\r\n"
HOP_BY_HOP = (
    b"Connection",
    b"Keep-Alive",
    b"Proxy-Connection",
    b"Proxy-Authenticate",
    b"Proxy-Authorization",
    b"TE",
    b"Trailer",
    b"Upgrade",
)


def parse(*lines, body=b"", framing=None):
    framing = framing or b"Content-Length: %d" % len(body)
    head = b"\r\n".join([b"POST http://x/y?z HTTP/1.1", b"Host: x", *lines, framing, b"", b""])
    parser = RequestParser(65536, 1 << 20)
    parser.feed(head + body)
    request = parser.next_request()
    assert request is not None
    return request


def forwarded(request, *drop):
    """The header lines behind the prefix, and the body."""
    out = build_forward(request, PREFIX, drop)
    assert out.startswith(PREFIX)
    head, body = out[len(PREFIX) :].split(b"\r\n\r\n", 1)
    lines = head.split(b"\r\n")
    assert lines[-1] == b"Content-Length: %d" % len(request.body)
    return lines[:-1], body


def test_end_to_end_headers_and_body_are_forwarded_byte_for_byte():
    lines = [b"x-A:  spaced \t", b"COOKIE: \xe9; a=b", b"X-a:", b"Accept-Encoding: gzip", b"Cookie: c"]
    assert forwarded(parse(*lines, body=b"{\0}")) == (lines, b"{\0}")


def test_hop_by_hop_headers_are_dropped_wherever_they_stand():
    for name in HOP_BY_HOP:
        for spelt in (name, name.lower(), name.upper()):
            field = spelt + b": v"
            assert forwarded(parse(field, b"A: 1", b"B: 2"))[0] == [b"A: 1", b"B: 2"]
            assert forwarded(parse(b"A: 1", field, field, b"B: 2"))[0] == [b"A: 1", b"B: 2"]
            assert forwarded(parse(b"A: 1", b"B: 2", field))[0] == [b"A: 1", b"B: 2"]


def test_fields_named_by_connection_are_dropped():
    options = (b"Connection: close, x-HOP ,", b"Connection:X-Other")
    request = parse(b"X-Hop: 1", options[0], b"A: 1", b"x-other: 2", options[1], b"X-Hop: 3")
    assert forwarded(request)[0] == [b"A: 1"]


def test_a_name_that_connection_only_begins_with_is_kept():
    assert forwarded(parse(b"X-Hop: 1", b"X-Ho: 2", b"Connection: x-h, x-hop2"))[0] == [b"X-Hop: 1", b"X-Ho: 2"]


def test_names_that_resemble_hop_by_hop_ones_are_kept():
    lines = [b"T: 1", b"TEX: 1", b"Hosts: 1", b"X-Upgrade: 1", b"Connections: 1", b"Expects: 1", b"ab: 1"]
    assert forwarded(parse(*lines))[0] == lines


def test_dropped_names_are_left_out_in_every_spelling():
    request = parse(b"X-Cpro-Secret: s", b"A: 1", b"x-cpro-secret: t", b"X-Cpro-Connection: c")
    assert forwarded(request, b"x-cpro-secret", b"x-cpro-connection", b"absent")[0] == [b"A: 1"]


def test_our_own_headers_are_written_once():
    out = build_forward(parse(b"Expect: 100-continue", body=b"{}"), PREFIX, ())
    assert out == PREFIX + b"Content-Length: 2\r\n\r\n{}"


def test_a_chunked_body_is_forwarded_with_a_length():
    request = parse(b"A: 1", framing=b"Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\nX: y\r\n\r\n")
    assert forwarded(request) == ([b"A: 1"], b"{}")


def test_an_empty_body_has_length_0():
    assert build_forward(parse(), PREFIX, ()) == PREFIX + b"Content-Length: 0\r\n\r\n"


def test_a_head_full_of_headers_and_options_is_forwarded():
    names = [b"X-%d" % i for i in range(200)]
    request = parse(b"Connection: " + b",".join(names[::2]), *[n + b": 1" for n in names])
    assert forwarded(request)[0] == [n + b": 1" for n in names[1::2]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([b"A: 1", b"B:", b"TE: x", b"Connection: b", b"X-Drop: y", b"C:\t2 "]), max_size=24))
def test_any_mix_of_kept_and_dropped_lines_keeps_order_and_bytes(lines):
    dropped = {b"TE: x", b"Connection: b", b"X-Drop: y"} | ({b"B:"} if b"Connection: b" in lines else set())
    assert forwarded(parse(*lines), b"x-drop")[0] == [line for line in lines if line not in dropped]


def test_a_forwarded_request_parses_as_what_it_was():
    parser = RequestParser(65536, 1 << 20)
    parser.feed(build_forward(parse(b"A: 1", body=b"{}"), PREFIX, ()))
    again = parser.next_request()
    assert (again.path, again.header(b"host"), again.header(b"a"), again.body) == (
        b"/centrifugo/publish",
        b"app:3000",
        b"1",
        b"{}",
    )


@pytest.mark.parametrize("drop", [("x",), (None,), (1,)])
def test_names_to_drop_must_be_bytes(drop):
    with pytest.raises(TypeError):
        build_forward(parse(), PREFIX, drop)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 99, 100, 12345])
@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_reply_reads_back_as_it_was_built(size, keep_alive):
    parser = ResponseParser(1000, 1 << 20)
    parser.feed(build_reply(b"x" * size, keep_alive, b"text/plain"))
    response = parser.next_response()
    assert (response.status, response.body, response.keep_alive) == (200, b"x" * size, keep_alive)
    assert response.header(b"content-type") == b"text/plain"
    assert not parser.has_excess


def test_a_reply_is_json_by_default():
    expected = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    assert build_reply(b"{}") == expected


def test_a_status_has_its_phrase_and_extra_lines():
    assert build_status(405, False, b"Allow: POST\r\n") == (
        b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\nAllow: POST\r\n\r\n"
    )


def test_a_status_with_a_body_says_what_it_is():
    assert build_status(404, True, b"", b"{}", b"application/json") == (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert b"Content-Type" not in build_status(404, True, b"", b"", b"application/json")


def test_a_status_that_has_no_body_does_not_say_how_long_it_is():
    assert build_status(204, False, b"X-Y: z\r\n") == (
        b"HTTP/1.1 204 No Content\r\nConnection: close\r\nX-Y: z\r\n\r\n"
    )


@pytest.mark.parametrize("status", [204, 400, 401, 404, 405, 413, 417, 429, 431, 500, 502, 503, 599])
def test_every_status_reads_back(status):
    parser = ResponseParser(1000, 0)
    parser.feed(build_status(status))
    assert parser.next_response().status == status
    assert (b" %d \r\n" % status in build_status(status)) is (status == 599)


@pytest.mark.parametrize("status", [99, 1000])
def test_a_status_without_three_digits_is_a_mistake_of_ours(status):
    with pytest.raises(ValueError, match="three digits"):
        build_status(status)
