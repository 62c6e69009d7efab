"""What two parsers could read in two ways is refused, at the first byte that shows it."""

import pytest

from cpro._fast.http1 import RequestParser
from cpro.errors import ProtocolError

H = b"POST / HTTP/1.1\r\nHost: h\r\n"
CHUNKED = H + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    # line ends
    "bare_lf_after_request_line": b"POST / HTTP/1.1\n",
    "bare_lf_after_header": H + b"X: 1\n",
    "bare_lf_ends_head": H + b"\n",
    "bare_lf_before_request": b"\n",
    "bare_cr_in_value": H + b"X: 1\r2",
    "bare_cr_in_name": H + b"X\rY",
    "bare_cr_in_request_line": b"POST /\r ",
    "bare_cr_before_request": b"\rP",
    "cr_cr_lf": H + b"\r\r",
    "two_empty_lines_before_request": b"\r\n\r\n",
    "space_before_request": b" POST / HTTP/1.1\r\n",
    # header names
    "folded_line_with_space": H + b"X: 1\r\n 2\r\n",
    "folded_line_with_tab": H + b"X: 1\r\n\t2\r\n",
    "folded_first_header": b"POST / HTTP/1.1\r\n Host: h\r\n",
    "space_before_colon": H + b"Content-Length : 1\r\n",
    "tab_before_colon": H + b"Content-Length\t: 1\r\n",
    "space_in_name": H + b"X Y: 1\r\n",
    "empty_name": H + b": 1\r\n",
    "no_colon": H + b"X\r\n",
    "nul_in_name": H + b"X\0",
    "non_ascii_name": H + b"X\xe9: 1\r\n",
    "bracket_in_name": H + b"X[0]: 1\r\n",
    # values
    "nul_in_value": H + b"X: \0",
    "del_in_value": H + b"X: \x7f",
    "escape_in_value": H + b"X: \x1b",
    "vertical_tab_in_value": H + b"X:\x0b",
    # request line
    "two_spaces_before_target": b"POST  / HTTP/1.1\r\n",
    "two_spaces_before_version": b"POST /  HTTP/1.1\r\n",
    "space_after_version": b"POST / HTTP/1.1 \r\n",
    "tab_between": b"POST\t/ HTTP/1.1\r\n",
    "space_in_target": b"POST /a b HTTP/1.1\r\n",
    "non_ascii_target": b"POST /\xe9 HTTP/1.1\r\n",
    "control_in_target": b"POST /\x01",
    "fragment_in_target": b"POST /a#b HTTP/1.1\r\n",
    "relative_target": b"POST a/b HTTP/1.1\r\n",
    "other_scheme": b"POST ftp://h/ HTTP/1.1\r\n",
    "one_slash_after_scheme": b"POST http:/h HTTP/1.1\r\n",
    "no_authority": b"POST http:///a HTTP/1.1\r\n",
    "user_in_authority": b"POST http://u@h/ HTTP/1.1\r\n",
    "asterisk_with_post": b"POST * HTTP/1.1\r\n",
    "asterisk_and_more": b"OPTIONS *a HTTP/1.1\r\n",
    "authority_with_post": b"POST h:80 HTTP/1.1\r\n",
    "connect_to_path": b"CONNECT / HTTP/1.1\r\n",
    "connect_without_port": b"CONNECT h HTTP/1.1\r\n",
    "connect_with_empty_port": b"CONNECT h: HTTP/1.1\r\n",
    "no_method": b" / HTTP/1.1\r\n",
    "method_with_colon": b"PO:ST / HTTP/1.1\r\n",
    "no_target": b"POST HTTP/1.1\r\n",
    "http_0_9": b"GET /\r\n",
    "http_2_0": b"POST / HTTP/2.0\r\n",
    "http_1_2": b"POST / HTTP/1.2\r\n",
    "http_1_10": b"POST / HTTP/1.10\r\n",
    "http_01_1": b"POST / HTTP/01.1\r\n",
    "lower_case_http": b"POST / http/1.1\r\n",
    "other_protocol": b"POST / ICAP/1.1\r\n",
    "http_2_preface": b"PRI * HTTP/2.0\r\n",
    # Host
    "no_host": b"POST / HTTP/1.1\r\n\r\n",
    "two_hosts": H + b"Host: h\r\n\r\n",
    "two_hosts_on_1_0": b"POST / HTTP/1.0\r\nHost: h\r\nHost: h\r\n\r\n",
    "two_hosts_one_empty": H + b"Host:\r\n\r\n",
    "host_with_path": b"POST / HTTP/1.1\r\nHost: h/x\r\n\r\n",
    "host_with_space": b"POST / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "host_with_user": b"POST / HTTP/1.1\r\nHost: u@h\r\n\r\n",
    "host_with_letters_for_port": b"POST / HTTP/1.1\r\nHost: h:x\r\n\r\n",
    "host_with_two_ports": b"POST / HTTP/1.1\r\nHost: h:1:2\r\n\r\n",
    "host_port_alone": b"POST / HTTP/1.1\r\nHost: :80\r\n\r\n",
    "host_open_bracket": b"POST / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "host_empty_bracket": b"POST / HTTP/1.1\r\nHost: []\r\n\r\n",
    "host_text_after_bracket": b"POST / HTTP/1.1\r\nHost: [::1]x\r\n\r\n",
    "host_broken_escape": b"POST / HTTP/1.1\r\nHost: a%2\r\n\r\n",
    "host_non_ascii": b"POST / HTTP/1.1\r\nHost: \xe9\r\n\r\n",
    # Content-Length
    "two_lengths": H + b"Content-Length: 1\r\nContent-Length: 2\r\n",
    "two_equal_lengths": H + b"Content-Length: 1\r\ncontent-length: 1\r\n",
    "length_list": H + b"Content-Length: 1, 1\r\n",
    "length_plus": H + b"Content-Length: +1\r\n",
    "length_minus": H + b"Content-Length: -1\r\n",
    "length_hex": H + b"Content-Length: 0x1\r\n",
    "length_space_inside": H + b"Content-Length: 1 0\r\n",
    "length_underscore": H + b"Content-Length: 1_0\r\n",
    "length_fraction": H + b"Content-Length: 1.0\r\n",
    "length_empty": H + b"Content-Length:\r\n",
    "length_arabic_digit": H + b"Content-Length: \xd9\xa1\r\n",
    "length_2_to_64": H + b"Content-Length: 18446744073709551616\r\n",
    "length_2_to_63": H + b"Content-Length: 9223372036854775808\r\n",
    "length_endless": H + b"Content-Length: " + b"9" * 1000 + b"\r\n",
    # Transfer-Encoding
    "length_then_chunked": H + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked_then_length": H + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
    "chunked_with_length_0": H + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    "chunked_twice": H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "chunked_list": H + b"Transfer-Encoding: chunked, chunked\r\n",
    "gzip_chunked": H + b"Transfer-Encoding: gzip, chunked\r\n",
    "identity": H + b"Transfer-Encoding: identity\r\n",
    "xchunked": H + b"Transfer-Encoding: xchunked\r\n",
    "chunked_with_parameter": H + b"Transfer-Encoding: chunked;a=b\r\n",
    "quoted_chunked": H + b'Transfer-Encoding: "chunked"\r\n',
    "empty_coding": H + b"Transfer-Encoding:\r\n",
    "chunked_on_1_0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    # chunks
    "chunk_without_digits": CHUNKED + b"\r",
    "chunk_0x": CHUNKED + b"0x",
    "chunk_plus": CHUNKED + b"+",
    "chunk_minus": CHUNKED + b"-",
    "chunk_space_before_size": CHUNKED + b" ",
    "chunk_space_after_size": CHUNKED + b"1 \r",
    "chunk_space_inside_size": CHUNKED + b"1 1",
    "chunk_17_digits": CHUNKED + b"1" + b"0" * 16,
    "chunk_bare_lf_after_size": CHUNKED + b"1\n",
    "chunk_bare_cr_after_size": CHUNKED + b"1\rx",
    "chunk_bare_lf_after_extension": CHUNKED + b"1;a\n",
    "chunk_cr_in_extension": CHUNKED + b"1;a\rb",
    "chunk_extension_without_name": CHUNKED + b"1;\r",
    "chunk_extension_without_value": CHUNKED + b"1;a=\r",
    "chunk_cr_in_quotes": CHUNKED + b'1;a="\r',
    "chunk_lf_in_quotes": CHUNKED + b'1;a="\n',
    "chunk_nul_in_quotes": CHUNKED + b'1;a="\0',
    "chunk_text_after_quotes": CHUNKED + b'1;a="b"c',
    "chunk_data_too_long": CHUNKED + b"1\r\nab",
    "chunk_data_then_lf": CHUNKED + b"1\r\na\n",
    "chunk_data_then_cr": CHUNKED + b"1\r\na\rx",
    "chunk_two_line_ends": CHUNKED + b"1\r\na\r\n\r",
    "last_chunk_then_bare_lf": CHUNKED + b"0\r\n\n",
    "last_chunk_then_bare_cr": CHUNKED + b"0\r\n\rx",
    "trailer_folded": CHUNKED + b"0\r\nX: 1\r\n ",
    "trailer_space_before_colon": CHUNKED + b"0\r\nX ",
    "trailer_without_name": CHUNKED + b"0\r\n:",
    "trailer_bare_lf": CHUNKED + b"0\r\nX: 1\n",
    "trailer_control": CHUNKED + b"0\r\nX: \x01",
}


def end_of(pieces):
    parser = RequestParser(65536, 1 << 20)
    for at, piece in enumerate(pieces):
        parser.feed(piece)
        try:
            request = parser.next_request()
        except ProtocolError as fault:
            return fault.status, at
        assert request is None
    return None, None


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_refused(data):
    assert end_of([data]) == (400, 0)
    # nothing behind the last byte is needed to see it, and nothing before it was held to be wrong
    assert end_of([data[i : i + 1] for i in range(len(data))]) == (400, len(data) - 1)
