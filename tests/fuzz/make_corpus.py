"""Makes the corpus from the known good and bad cases: `python -m tests.fuzz.make_corpus FOLDER` writes every seed.

`run.sh --corpus` then keeps those that add coverage (libFuzzer's merge), or all where msgspec decodes and shows none.
Files named `found-*` are findings and stay.
"""

import hashlib
import sys
from pathlib import Path

from cpro._fast.rows import encode
from cpro._fast.wsframe import BINARY, CLOSE, TEXT, build_frame
from cpro.analytics.schema import TABLES
from tests.e2e.centrifugo.test_wire_quirks import PROTOBUF_QUIRKS, QUIRKS
from tests.fuzz.cuts import setup
from tests.fuzz.targets import segment
from tests.fuzz.targets.commands import PROTOBUF
from tests.fuzz.targets.frames import PROTOBUF as FRAMES_OF_PROTOBUF
from tests.fuzz.targets.response import CLOSES, IS_HEAD
from tests.fuzz.targets.segment import MARKED, SEALED, SUMMED
from tests.unit.test_http1_responses import OK
from tests.unit.test_http1_responses import REFUSED as REFUSED_RESPONSES
from tests.unit.test_http1_smuggling import CHUNKED, H
from tests.unit.test_http1_smuggling import REFUSED as REFUSED_REQUESTS
from tests.unit.test_wsframe import CLOSES as GOOD_CLOSES
from tests.unit.test_wsframe import GOOD, WRONG, masked
from tests.unit.test_wsframe_server import FAULTS, MERE_PROTOBUF, MERE_PUSHES, TELLING, TELLING_PROTOBUF

SMALLEST_LIMITS = 3
DECODED_BY_MSGSPEC = ("event", "answer")
END = b"\r\n"

REQUESTS = {
    "plain": H + END,
    "empty-line": END + H + END,
    "length": H + b"Content-Length: 005\r\n\r\nhello",
    "chunked": CHUNKED + b'3;a="b\\";";c=d\r\nabc\r\n00\r\nT: 1\r\n\r\n',
    "chunk-spaces": CHUNKED + b"3 ; a = b ;c\r\nabc\r\n0\r\n\r\n",
    "chunk-zeros": CHUNKED + b"00000000000000000000A\r\n0123456789\r\n0\r\n\r\n",
    "absolute": b"GET http://h:80?a?b HTTP/1.1\r\nHost: [::1]:9\r\n\r\n",
    "https": b"GET HTTPS://a%20b/p?q HTTP/1.0\r\nHost:\r\nConnection: x, keep-alive\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: 1.2.3.4\r\n\r\n",
    "connect": b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
    "odd-method": b"a!# / HTTP/1.1\r\nhOST: h\r\n\r\n",
    "expect": H + b"Expect: 100-Continue\r\nContent-Length: 1\r\n\r\na",
    "expect-else": H + b"Expect: x\r\n\r\n",
    "close": H + b"Connection: close,,\t\r\n\r\n" + H + END,
    "old": b"GET / HTTP/1.0\r\n\r\n",
    "values": H + b'X:\ty \xe9 z\t \r\nx:\r\nX-Y: ,;="\\\r\n\r\n',
    "two": H + b"Content-Length: 1\r\n\r\na" + H + b"A: b\r\n\r\n",
    "seventeen-headers": H + b"a:\r\n" * 17 + END,
    "too-many-headers": H + b"a:\r\n" * 256 + END,
    "too-many-options": H + b"Connection:" + b"," * 256 + b"\r\n\r\n",
    "upgrade": H + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n" + H + END,
    "large-head": H + b"X: " + b"a" * 40,
}
FORWARDS = {
    "hop": H + b"Connection: a, B\r\na: 1\r\nb: 2\r\nc: 3\r\nKeep-Alive: x\r\nTE: trailers\r\nUpgrade: y\r\n\r\n",
    "proxy": H + b"Proxy-Connection: x\r\nProxy-Authorization: y\r\nTrailer: t\r\nProxy-Authenticate: z\r\n\r\n",
    "dropped": H + b"X-CPRO-Secret: s\r\naccept-encoding: gzip\r\nCookie: c\r\nx: 1\r\nX: 2\r\nz:  3 \r\n\r\n",
    "names-length": H + b"Connection: content-length, host, x\r\nx: y\r\nContent-Length: 2\r\n\r\n{}",
}
RESPONSES = {
    "length": OK + b"Content-Length: 2\r\n\r\n{}",
    "chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n1;a\r\n{\r\n1\r\n}\r\n0\r\nX: y\r\n\r\n",
    "old": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
    "no-reason": b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    "obs-reason": b"HTTP/1.1 299 \xe9\t!\r\nContent-Length: 0\r\n\r\n",
    "no-content": b"HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n",
    "not-modified": b"HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na",
    "interim-with-length": b"HTTP/1.1 199 x\r\nContent-Length: 1\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na",
    "excess": OK + b"Content-Length: 1\r\n\r\na" + OK,
    "until-closed": OK + b"X: y\r\n\r\n{}\r\n",
    "close": b"HTTP/1.1 500 x\r\nContent-Length: 1\r\nConnection: close\r\n\r\na",
}
EVENTS = {
    "connect": b'{"client":"c","transport":"websocket","encoding":"json","data":{"a":[1,-2.5e3,null]}}',
    "publish": b'{"client":"c","user":"42","channel":"chat:x","data":{"input":"hi"},"b64data":"aGk="}',
    "rpc": b'{"client":"c","user":"u","method":"a:b","data":true}',
    "escapes": b'{"client":"\\u00e9\\ud83d\\ude00\\n","user":"\\\\\\"/"}',
    "surrogate": b'{"client":"\\ud800"}',
    "utf-8": '{"client":"é😀\u2028","user":"ж"}'.encode(),
    "not-utf-8": b'{"client":"\xff"}',
    "no-client": b'{"user":"u"}',
    "client-number": b'{"client":1}',
    "client-null": b'{"client":null}',
    "twice": b'{"client":"a","client":"b"}',
    "list": b'["client"]',
    "spaces": b' \r\n\t{ "client" : "" } ',
    "excess": b'{"client":"a"}}',
    "cut": b'{"client":"a","user":"',
    "empty": b"",
    "deep": b'{"client":"c","data":' + b"[" * 1100 + b"]" * 1100 + b"}",
}
ANSWERS = {
    "empty": b"{}",
    "user": b'{"result":{"user":"42","expire_at":1700000000,"channels":["a"]}}',
    "anonymous": b'{"result":{"user":""}}',
    "no-result": b'{"result":null}',
    "error": b'{"error":{"code":1000,"message":"no","temporary":true}}',
    "disconnect": b'{"disconnect":{"code":4500,"reason":"no"}}',
    "other-case": b'{"Result":{"USER":"42"}}',
    "error-other-case": b'{"ERROR":{"Code":5}}',
    "error-and-user": b'{"result":{"user":"a"},"ERROR":{"code":5}}',
    "error-without-code": b'{"error":{},"result":{"user":"a"}}',
    "twice": b'{"result":{"user":"a","User":"b"},"RESULT":{}}',
    "long-s": '{"re\u017fult":{"u\u017fer":"42"}}'.encode(),
    "excess": b"{} {}",
    "user-null": b'{"result":{"user":null}}',
    "user-number": b'{"result":{"user":42}}',
    "code-text": b'{"error":{"code":"1"}}',
    "code-huge": b'{"error":{"code":123456789012345678901234567890}}',
    "code-float": b'{"disconnect":{"code":1.5}}',
    "result-list": b'{"result":[]}',
    "rpc": b'{"result":{"data":[{"a":{"b":[1,"\\u20ac"]}}]}}',
    "list": b"[]",
    "deep": b'{"result":{"data":' + b"[" * 1100 + b"]" * 1100 + b"}}",
    "not-json": b"<html>",
    "not-utf-8": b'{"result":{"user":"\xff"}}',
}
CONNECT_REPLY = b'{"id":1,"connect":{"client":"c","subs":{"a":{}},"ping":25,"pong":true,"session":"s","node":"n"}}'


def frames() -> dict[str, bytes]:
    """What clients and servers send, and what neither may."""
    sent = {name: b"".join(pieces) for name, (pieces, _) in GOOD.items()}
    sent |= {f"bad-{name}": b"".join(pieces) for name, (pieces, *_) in WRONG.items()}
    sent |= {f"close-{name}": masked(CLOSE, payload) for name, (payload, *_) in GOOD_CLOSES.items()}
    sent |= {f"json-{n}": build_frame(TEXT, payload) for n, payload in enumerate(MERE_PUSHES + TELLING)}
    sent |= {f"server-{name}": frame for name, frame in FAULTS.items()}
    return {name.replace(" ", "-"): frame for name, frame in sent.items() if len(frame) < 400}


def frames_of_protobuf() -> dict[str, bytes]:
    payloads = enumerate(MERE_PROTOBUF + TELLING_PROTOBUF)
    return {f"protobuf-{n}": setup(FRAMES_OF_PROTOBUF) + build_frame(BINARY, payload) for n, payload in payloads}


def commands() -> dict[str, bytes]:
    json_lines = {f"json-{n}": b"\0" + line.encode() for n, line in enumerate(QUIRKS)}
    json_lines["two"] = b"\0" + QUIRKS[4].encode() + b"\n" + QUIRKS[5].encode() + b"\n"
    json_lines["connect"] = b'\0{"id":1,"connect":{"token":"t","flag":1,"dict":"d","headers":{"a":"b"},"name":"n"}}'
    json_lines |= {f"reply-{n}": b"\0" + line for n, line in enumerate([*MERE_PUSHES, *TELLING, CONNECT_REPLY])}
    protobuf = {name.replace(" ", "-"): bytes([PROTOBUF]) + data for name, data in PROTOBUF_QUIRKS.items()}
    replies = enumerate(MERE_PROTOBUF + TELLING_PROTOBUF)
    return json_lines | protobuf | {f"protobuf-reply-{n}": bytes([PROTOBUF]) + data for n, data in replies}


UUID = "9336a229-2400-4ebc-8c50-0123456789ab"
ROWS = {
    "operation": (0, (UUID, "42", "publish", "chat:x", "", 111, 0, 1 << 40, {"a": "b"}, "chat", "n", 1_700_000_000)),
    "connection": (
        1,
        *[("c", "é", "n", "v", "t", {"h": ["1", "2"], "": []}, {}, {"k": "😀"}, -5, "n", "p", 1, 2**32 - 1)],
    ),
    "subscription": (2, ("", "", "", "", "", 0)),
    "publication": (3, (UUID, "ch", "api", 2**64 - 1, "x" * 36, "u", "ns", "n", 7)),
}
BAD_ROWS = {
    "empty": b"",
    "count": b"\1" + bytes(1) * 5 + b"\xff" * 9 + b"\1",
    "long-varuint": b"\2" + b"\xff" * 11,
    "not-utf-8": b"\2\1\1\xff\1\xfe\1\x80\0\0" + bytes(4),
    "excess": b"\2" + bytes(10),
}


def rows() -> dict[str, bytes]:
    return {name: bytes([place]) + encode(TABLES[place].kinds, values) for name, (place, values) in ROWS.items()}


def segments() -> dict[str, bytes]:
    """Records with their lengths, for the target to put checksums in; and each state a header can be in."""
    bodies = [bytes([row[0] + 1]) + row[1:] for row in rows().values()]
    area = b"".join(bytes([len(body)]) + bytes(7) + body for body in bodies)
    bad = area[: len(area) // 2] + b"\xff" + area[len(area) // 2 :]
    twice = segment.summed(area)
    planted = bytes([len(twice) % 256 or 1]) + bytes(7) + twice + area
    flags = {"summed": SUMMED, "sealed": SUMMED | SEALED, "marked": SUMMED | MARKED, "all": 7, "none": MARKED, "not": 0}
    cases = {
        f"{name}-{kind}": bytes([flag]) + bytes(3) + data
        for kind, flag in flags.items()
        for name, data in {"good": area, "bad": bad, "planted": planted, "cut": area[:-3], "empty": b""}.items()
    }
    places = {"magic": 0, "format": 8, "id": 20, "size": 32, "check": 45, "copy": 1030, "committed": 2048, "seal": 2112}
    return cases | {
        f"{name}-wrong-{kind}": bytes([flags[kind]]) + place.to_bytes(2, "little") + b"\x41" + area
        for name, place in places.items()
        for kind in ("summed", "all")
    }


def seeds() -> dict[str, dict[str, bytes]]:
    bad_requests = {f"bad-{name}": data for name, data in REFUSED_REQUESTS.items()}
    bad_responses = {f"bad-{name}": data for name, data in REFUSED_RESPONSES.items() if len(data) < 1000}
    return {
        "request": cuts_of(REQUESTS | bad_requests),
        "forward": {f"{name}-{drop}": setup(drop) + data for drop in range(4) for name, data in FORWARDS.items()}
        | cuts_of(REQUESTS),
        "response": cuts_of(RESPONSES | bad_responses)
        | {f"{name}-closed": setup(CLOSES) + data for name, data in RESPONSES.items()}
        | {f"{name}-to-head": setup(IS_HEAD) + data for name, data in RESPONSES.items()},
        "event": {f"{name}-{flags}": bytes([flags]) + b for name, b in EVENTS.items() for flags in event_flags(name)},
        "answer": ANSWERS,
        "frames": cuts_of(frames()) | frames_of_protobuf(),
        "commands": commands(),
        "row": rows() | BAD_ROWS,
        "segment": segments(),
    }


def cuts_of(cases: dict[str, bytes]) -> dict[str, bytes]:
    """Whole, in four pieces, and with the smallest limits."""
    whole = {name: setup() + data for name, data in cases.items()}
    pieces = {f"{name}-cut": setup(sizes=(1, len(data) // 2, len(data) // 3)) + data for name, data in cases.items()}
    small = {f"{name}-small": setup(limits=SMALLEST_LIMITS) + data for name, data in cases.items()}
    return whole | pieces | small


def event_flags(name: str) -> tuple[int, ...]:
    """Every event for a good body, with and without refusal and backend; two for the others."""
    return tuple(range(32)) if name == "publish" else (0, 1)


def write(folder: Path) -> None:
    for target, cases in seeds().items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, data in cases.items():
            (folder / target / name).write_bytes(data)


def keep(seed_folder: Path, merged: Path, corpus: Path) -> None:
    """Replace the corpus of one target by the seeds that the merge kept, under their names."""
    source = seed_folder if corpus.name in DECODED_BY_MSGSPEC else merged
    kept = {digest(path) for path in source.iterdir()}
    corpus.mkdir(parents=True, exist_ok=True)
    for old in corpus.iterdir():
        if not old.name.startswith("found-"):
            old.unlink()
    for seed in sorted(seed_folder.iterdir()):
        if digest(seed) in kept:
            kept.discard(digest(seed))
            (corpus / seed.name).write_bytes(seed.read_bytes())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:]]
    write(folders[0]) if len(folders) == 1 else keep(*folders)
