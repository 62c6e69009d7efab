"""`python -m tests.support.clickhouse_process FOLDER PORT [CERT KEY CA]`: ClickHouse over HTTP, with its engine.

Enough of the interface for clickhouse-connect, and for a test that wants the transport to fail: `POST /faults` with a
JSON list arms one fault for each of the next inserts, `GET /inserts` lists the tokens that came, in order. Faults:

500, 503, 429           answers that without having done anything
code:N                  answers an error of ClickHouse with this number, nothing done
close, hang, cut        reads the whole body, then closes; says nothing more; or closes before it has read it all
lie                     answers 200 with the text of an error, nothing done
after:X                 does it first, then X (close, hang, 500, lie)
"""

import json
import re
import ssl
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import chdb
from backports import zstd

TRANSPORT = {
    "query", "database", "wait_end_of_query", "query_id", "session_id", "compress", "enable_http_compression",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms", "client_protocol_version",
}  # fmt: skip
OF_VIEWS = 2  # servers count what an insert wrote into the targets of views, too
INSERT = re.compile(r"\s*INSERT\s+INTO\s+(?P<target>.*)\s+FORMAT\s+(?P<format>\w+)\s*\Z", re.DOTALL | re.IGNORECASE)


class Engine:
    """Queries take turns, each on a handle of its own: settings and the database are a handle's."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.turn = threading.Lock()
        self.open = chdb.connect(folder)  # keeps the engine running

    def run(self, sql: str, options: dict[str, str]) -> tuple[bytes, int]:
        """Answer and rows read; RuntimeError has the engine's words."""
        with self.turn:
            handle = chdb.connect(self.folder)
            try:
                if options.get("database"):
                    handle.query(f"USE {quoted(options['database'], '`')}")
                settings = {name: value for name, value in options.items() if is_setting(name)}
                for name in sorted(settings, key=lambda name: name == "readonly"):
                    handle.query(f"SET {name} = {quoted(settings[name])}")
                named = {name[6:]: value for name, value in options.items() if name.startswith("param_")}
                result = handle.query(sql, "TabSeparated", params=named)
                return result.bytes(), result.rows_read()
            finally:
                handle.close()


def is_setting(name: str) -> bool:
    return name not in TRANSPORT and not name.startswith("param_")


def quoted(text: str, mark: str = "'") -> str:
    return mark + text.replace("\\", "\\\\").replace(mark, "\\" + mark) + mark


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: str, port: int, certificates: list[str]) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        if certificates:
            cert, key, authority = certificates
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cert, key)
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.engine = Engine(folder)
        self.faults: list[str] = []
        self.tokens: list[str] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/inserts":
            self.answer(200, json.dumps(self.server.tokens).encode())
        elif self.path.startswith("/ping"):
            self.answer(200, b"Ok.\n")
        else:
            self.do_POST()

    def do_POST(self) -> None:
        options = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        size = int(self.headers.get("Content-Length", 0))
        is_insert = "insert_deduplication_token" in options
        fault = self.server.faults.pop(0) if is_insert and self.server.faults else ""
        if fault == "cut":
            self.rfile.read(size // 2)
            self.close_connection = True
            return
        body = self.rfile.read(size)
        if self.path == "/faults":
            self.server.faults = json.loads(body)
            return self.answer(200, b"")
        if is_insert:
            self.server.tokens.append(options["insert_deduplication_token"])
        if fault.startswith("after:"):
            self.execute(options, body)
            fault = fault.removeprefix("after:")
        if fault:
            return self.fail(fault)
        try:
            answer, rows = self.execute(options, body)
        except RuntimeError as error:
            return self.refuse(str(error))
        self.answer(200, answer, rows, is_insert)

    def execute(self, options: dict[str, str], body: bytes) -> tuple[bytes, int]:
        if self.headers.get("Content-Encoding") == "zstd":
            body = zstd.decompress(body)
        insert = INSERT.match(options.get("query", ""))
        if insert is None:
            sql = (options.get("query", "") + "\n" + body.decode()).strip()
            return self.server.engine.run(sql, options)
        with tempfile.NamedTemporaryFile(suffix=".block") as file:
            file.write(body)
            file.flush()
            sql = f"INSERT INTO {insert['target']} FROM INFILE '{file.name}' FORMAT {insert['format']}"
            return self.server.engine.run(sql, options)

    def fail(self, fault: str) -> None:
        if fault == "hang":
            time.sleep(3600)
        elif fault == "close":
            self.close_connection = True
        elif fault == "lie":
            self.answer(200, b"Code: 241. DB::Exception: Memory limit exceeded. (MEMORY_LIMIT_EXCEEDED)\n")
        elif fault.startswith("code:"):
            self.refuse(f"Code: {fault[5:]}. DB::Exception: as the test wants it. (AS_THE_TEST_WANTS)")
        else:
            self.answer(int(fault), b"<html>of some proxy</html>")

    def refuse(self, text: str) -> None:
        code = re.search(r"Code: (\d+)", text)
        self.answer(500, text.encode(), code=code[1] if code else "1001")

    def answer(self, status: int, body: bytes, rows: int = 0, is_insert: bool = False, code: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-ClickHouse-Timezone", "UTC")
        if is_insert:
            self.send_header("X-ClickHouse-Summary", json.dumps({"written_rows": str(rows + OF_VIEWS)}))
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        if body and status == 200:
            self.send_header("X-ClickHouse-Format", "TabSeparated")
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    folder, port, *certificates = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    Server(folder, int(port), certificates).serve_forever()


if __name__ == "__main__":
    main()
