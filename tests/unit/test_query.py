"""Questions over the socket: answered, refused, and nobody held up by whoever asks badly."""

import asyncio
import os
import socket
import stat
import threading
from pathlib import Path

import msgspec
import pytest

from cpro.analytics import query
from cpro.analytics.query import SOCKET, QueryServer, Question, ask
from cpro.errors import StoreError, StoreUnavailableError


def answer(sql: str, form: str) -> bytes:
    if sql == "bad":
        raise StoreError("Code: 62. no such thing")
    if sql == "bug":
        raise ZeroDivisionError("oops")
    if sql == "large":
        return b"x" * 10_000_000
    return f"{form}: {sql}\n".encode()


def serve(folder: Path, scenario, ask_engine=answer):
    """Run `scenario` in a thread while a server answers in `folder`."""

    async def run():
        server = QueryServer(folder, ask_engine, lambda: {"running": True})
        await server.start()
        try:
            return await asyncio.to_thread(scenario)
        finally:
            await server.close()

    return asyncio.run(run())


def test_an_answer_is_what_the_engine_says(tmp_path):
    assert serve(tmp_path, lambda: ask(tmp_path, Question("select 1", "csv"))) == b"csv: select 1\n"
    assert len(serve(tmp_path, lambda: ask(tmp_path, Question("large")))) == 10_000_000


def test_an_empty_question_is_about_the_state(tmp_path):
    assert msgspec.json.decode(serve(tmp_path, lambda: ask(tmp_path, Question()))) == {"running": True}


@pytest.mark.parametrize(("sql", "said"), [("bad", "Code: 62. no such thing"), ("bug", "ZeroDivisionError: oops")])
def test_what_goes_wrong_is_said_and_the_next_question_is_answered(tmp_path, sql, said):
    def scenario():
        with pytest.raises(StoreError, match=said):
            ask(tmp_path, Question(sql))
        return ask(tmp_path, Question("again"))

    assert serve(tmp_path, scenario) == b"table: again\n"


def test_only_the_owner_can_ask(tmp_path):
    mode = serve(tmp_path, lambda: os.stat(tmp_path / SOCKET).st_mode)
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_a_socket_left_by_a_killed_process_is_replaced(tmp_path):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / SOCKET))
    left.close()
    assert serve(tmp_path, lambda: ask(tmp_path, Question("1"))) == b"table: 1\n"
    assert not (tmp_path / SOCKET).exists()


def test_the_folders_name_may_be_longer_than_an_address_of_a_socket(tmp_path):
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    assert serve(folder, lambda: ask(folder, Question("1"))) == b"table: 1\n"


def test_where_nothing_runs_it_is_said(tmp_path):
    with pytest.raises(StoreUnavailableError):
        ask(tmp_path, Question("1"))
    with pytest.raises(StoreUnavailableError):
        ask(tmp_path / "nosuch", Question("1"))


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0",
        b"\xff\xff\xff\xff",
        b"\0\0\0\x02{}"[:5],
        b"\0\0\0\x03abc",
        b'\0\0\0\x0f{"format":"xml"}',
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_whoever_speaks_something_else_is_let_go(tmp_path, sent):
    def scenario():
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(tmp_path / SOCKET))
            channel.sendall(sent)
            channel.shutdown(socket.SHUT_WR)
            assert channel.recv(100) == b""
        return ask(tmp_path, Question("1"))

    assert serve(tmp_path, scenario) == b"table: 1\n"


def test_whoever_asks_nothing_is_let_go_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(query, "ASKED_WITHIN_S", 0.05)

    def scenario():
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(10)
            channel.connect(str(tmp_path / SOCKET))
            assert channel.recv(100) == b""

    serve(tmp_path, scenario)


def test_the_state_is_told_while_a_query_runs(tmp_path):
    begun, go_on = threading.Event(), threading.Event()

    def slow(sql: str, form: str) -> bytes:
        begun.set()
        go_on.wait(10)
        return b"done"

    def scenario():
        results = []
        asking = threading.Thread(target=lambda: results.append(ask(tmp_path, Question("slow"))))
        asking.start()
        assert begun.wait(10)
        assert ask(tmp_path, Question()) == b'{"running":true}'
        go_on.set()
        asking.join(10)
        return results

    assert serve(tmp_path, scenario, slow) == [b"done"]


def test_a_query_whose_asker_is_gone_holds_up_nobody(tmp_path):
    def scenario():
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(tmp_path / SOCKET))
            question = msgspec.json.encode(Question("large"))
            channel.sendall(len(question).to_bytes(4, "big") + question)
        return ask(tmp_path, Question("next"))

    assert serve(tmp_path, scenario) == b"table: next\n"
