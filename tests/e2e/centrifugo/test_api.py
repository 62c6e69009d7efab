"""cpro's API in front of a real Centrifugo's: answers are Centrifugo's own, byte for byte; cent works unmodified."""

import asyncio
import json
import time
from urllib.parse import urlsplit

import pytest
from cent import (
    AsyncClient,
    BatchRequest,
    BroadcastRequest,
    CentApiResponseError,
    CentUnauthorizedError,
    Client,
    DeleteUserStatusRequest,
    GetUserStatusRequest,
    HistoryRequest,
    InfoRequest,
    PresenceRequest,
    PublishRequest,
    UpdateUserStatusRequest,
)

from tests.e2e.centrifugo.conftest import StartStack, eventually
from tests.support.centrifugo import Centrifugo, free_port
from tests.support.sdks import Refusal, open_sdk
from tests.support.service import Service
from tests.support.status import USER_STATUS, result, statuses

pytestmark = pytest.mark.centrifugo

ROOMS = {
    "channel": {
        "namespaces": [{"name": "room", "history_size": 10, "history_ttl": "60s", "presence": True}],
        "without_namespace": {"presence": True},
    }
}


@pytest.fixture(scope="module")
def centrifugo(tmp_path_factory):
    with Centrifugo(tmp_path_factory.mktemp("centrifugo"), ROOMS) as one:
        yield one


@pytest.fixture(scope="module")
def cpro(centrifugo, tmp_path_factory):
    api = {"key": "k", "centrifugo": centrifugo.base, "centrifugo_key": Centrifugo.API_KEY}
    with Service(tmp_path_factory.mktemp("cpro"), {**USER_STATUS, "http_api": api, "workers": 2}) as one:
        yield one


@pytest.fixture
def client(cpro):
    return Client(f"http://{cpro.api}/api", "k")


def ask(cpro: Service, url: str, path: str, body: str, key: str, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = cpro.connect(urlsplit(url).netloc)
    connection.request("POST", path, body.encode(), {"X-API-Key": key, **headers})
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


STATS = '{"method":"presence_stats","params":{"channel":"room:x"}}'
PUBLISH = '{"publish":{"channel":"plain","data":1}}'
TRANSPORT = {"X-Centrifugo-Error-Mode": "transport"}


@pytest.mark.parametrize("headers", [{}, TRANSPORT], ids=["envelope", "transport"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/publish", '{"channel":"plain","data":{"a":1}}'),
        ("/api/publish", '{"channel":"plain"}'),
        ("/api/publish", '{"channel":5}'),
        ("/api/publish", '{"channel":"nope:x","data":{}}'),
        ("/api/publish", "[]"),
        ("/api/publish", "x"),
        ("/api/publish", ""),
        ("/api/publish?a=b&api_key=k", '{"channel":"plain","data":{}}'),
        ("/api/broadcast", '{"channels":["plain","nope:x"],"data":{}}'),
        ("/api/presence_stats", '{"channel":"room:x"}'),
        ("/api/channels", "{}"),
        ("/api/rpc", '{"method":"x","params":{}}'),
        ("/api/nothere", "{}"),
        ("/api/publish/", "{}"),
        ("/api/", STATS),
        ("/api/batch", f'{{"commands":[{PUBLISH},{PUBLISH.replace("plain", "nope:x")}]}}'),
        ("/api/batch", '{"commands":[{"publish":{"channel":"plain","data":1}},{}],"parallel":true}'),
        ("/api/batch", '{"commands":[null]}'),
        ("/api/batch", '{"commands":[{"publish":null}]}'),
        ("/api/batch", '{"Commands":[{"Publish":{"channel":"plain","data":1}}]}'),
        ("/api/batch", '{"commands":[{"publish":{"channel":5}}]}'),
        ("/api/batch", '{"commands":[]}'),
        ("/api/batch", "{}"),
        ("/api", STATS),
        ("/api", f"{STATS}\n{STATS}\n"),
        ("/api", f"{STATS}{STATS}"),
        ("/api", STATS.replace('{"m', '{"id":7,"m')),
        ("/api", '{"method":"publish","params":{"channel":"nope:x","data":1}}'),
        ("/api", '{"method":"publish","params":{"channel":5}}'),
        ("/api", '{"method":"publish"}'),
        ("/api", '{"method":"nothere"}'),
        ("/api", f'{STATS}\n{{"method":"nothere"}}'),
        ("/api", '{"method":"batch","params":{"commands":[]}}'),
    ],
)  # fmt: skip
def test_what_goes_on_is_answered_as_centrifugo_answers_it(centrifugo, cpro, path, body, headers):
    own = ask(cpro, centrifugo.base, path, body, Centrifugo.API_KEY, headers)
    assert ask(cpro, f"http://{cpro.api}", path, body, "k", headers) == own


@pytest.mark.parametrize("body", ["", "x", "[]", f"{STATS}\nx", '{"id":-1,"method":"info"}', '{"id":4294967296}'])
@pytest.mark.parametrize("path", ["/api", "/api/batch"])
def test_what_cannot_be_read_has_the_same_status_in_both(centrifugo, cpro, path, body):
    theirs = ask(cpro, centrifugo.base, path, body, Centrifugo.API_KEY, {})[0]
    assert ask(cpro, f"http://{cpro.api}", path, body, "k", {})[0] == theirs
    assert theirs == 400 or path == "/api/batch"


def test_our_key_does_not_open_centrifugo_nor_centrifugos_ours(centrifugo, cpro):
    assert ask(cpro, centrifugo.base, "/api/info", "{}", "k", {})[0] == 401
    assert ask(cpro, f"http://{cpro.api}", "/api/info", "{}", Centrifugo.API_KEY, {}) == (401, b"")


def test_in_an_error_mode_own_errors_look_like_centrifugos(centrifugo, cpro):
    theirs = ask(cpro, centrifugo.base, "/api/rpc", '{"method":"x"}', Centrifugo.API_KEY, TRANSPORT)
    ours = ask(cpro, f"http://{cpro.api}", "/api/get_user_status", "{}", "k", TRANSPORT)
    assert theirs == (404, b'{"code":104,"message":"not found"}')
    assert ours == (400, b'{"code":107,"message":"bad request"}')


def test_cent_works_unmodified(client):
    epoch = client.publish(PublishRequest(channel="room:cent", data={"n": 1})).epoch
    sent = client.broadcast(BroadcastRequest(channels=["room:cent", "nope:x"], data={"n": 2})).responses
    assert (sent[0].result.offset, sent[1].error.code) == (2, 102)
    history = client.history(HistoryRequest(channel="room:cent", limit=-1))
    assert [one.data for one in history.publications] == [{"n": 1}, {"n": 2}]
    assert history.epoch == epoch
    assert client.presence(PresenceRequest(channel="room:cent")).presence == {}
    assert len(client.info(InfoRequest()).nodes) == 1
    with pytest.raises(CentApiResponseError) as caught:
        client.publish(PublishRequest(channel="nope:x", data={}))
    assert caught.value.code == 102


def test_cent_has_its_user_status_methods(client):
    client.update_user_status(UpdateUserStatusRequest(users=["cent-1"]))
    found = client.get_user_status(GetUserStatusRequest(users=["cent-1", "cent-2"])).statuses
    assert [one.user for one in found] == ["cent-1", "cent-2"]
    assert time.time() - found[0].active < 10
    assert (found[0].online, found[1].active, found[1].online) == (0, 0, 0)
    client.delete_user_status(DeleteUserStatusRequest(users=["cent-1"]))
    assert client.get_user_status(GetUserStatusRequest(users=["cent-1"])).statuses[0].active == 0


def test_cent_sees_a_batch_of_both_kinds_in_order(client):
    """Without an error among them: cent 5.2 can't read those of a batch."""
    for is_parallel in (False, True):
        channel, user = f"room:batch-{is_parallel}", f"batch-{is_parallel}"
        commands = [
            PublishRequest(channel=channel, data={"n": 1}),
            GetUserStatusRequest(users=[user]),
            PublishRequest(channel=channel, data={"n": 2}),
            UpdateUserStatusRequest(users=[user]),
            GetUserStatusRequest(users=[user]),
            HistoryRequest(channel=channel, limit=-1),
        ]
        replies = client.batch(BatchRequest(requests=commands, parallel=is_parallel)).replies
        published, before, again, _, after, history = replies
        assert published.epoch == again.epoch
        assert before.statuses[0].user == after.statuses[0].user == user
        if not is_parallel:
            assert before.statuses[0].active == 0
            assert time.time() - after.statuses[0].active < 10
            assert [one.data for one in history.publications] == [{"n": 1}, {"n": 2}]


def test_cents_async_client_works_too(cpro):
    async def run():
        client = AsyncClient(f"http://{cpro.api}/api", "k")
        try:
            calls = (client.publish(PublishRequest(channel="plain", data=n)) for n in range(50))
            await asyncio.gather(*calls, client.get_user_status(GetUserStatusRequest(users=["a"])))
        finally:
            await client.close()

    asyncio.run(run())


def test_cent_is_told_of_a_wrong_key_and_of_what_nobody_has(cpro, client):
    with pytest.raises(CentUnauthorizedError):
        Client(f"http://{cpro.api}/api", "wrong").info(InfoRequest())
    connection = cpro.connect(cpro.api)
    connection.request("POST", "/api/nothere", "{}", {"X-API-Key": "k"})
    assert connection.getresponse().status == 404


def test_lines_of_both_kinds_are_answered_in_order(centrifugo, cpro):
    update = '{"method":"update_user_status","params":{"users":["lines"]}}'
    missing = '{"id":9,"method":"get_user_status","params":{}}'
    body = "\n".join([STATS, update, missing, STATS.replace('{"m', '{"id":7,"m')])
    status, answer = ask(cpro, f"http://{cpro.api}", "/api", body, "k", {})
    assert status == 200
    assert answer.decode().split("\n") == [
        '{"result":{"num_clients":0,"num_users":0}}',
        '{"result":{}}',
        '{"id":9,"error":{"code":107,"message":"bad request"}}',
        '{"id":7,"result":{"num_clients":0,"num_users":0}}',
    ]
    assert ask(cpro, f"http://{cpro.api}", "/api", f'{update}\n{{"method":"nothere"}}', "k", {})[0] == 400


def test_a_large_body_comes_and_goes_whole(cpro, client):
    data = "x" * 500_000
    client.publish(PublishRequest(channel="room:large", data=data))
    (publication,) = client.history(HistoryRequest(channel="room:large", limit=-1)).publications
    assert publication.data == data


def test_with_centrifugo_away_callers_are_told_and_it_works_again_afterwards(tmp_path):
    port = free_port()
    api = {"key": "k", "centrifugo": f"http://127.0.0.1:{port}", "centrifugo_key": Centrifugo.API_KEY}
    away = {"error": {"code": 100, "message": "internal server error"}}
    with Service(tmp_path / "cpro", {**USER_STATUS, "http_api": api}) as cpro:
        url = f"http://{cpro.api}"

        def said(path: str, body: object, headers: dict[str, str]) -> tuple[int, object]:
            status, answer = ask(cpro, url, path, json.dumps(body), "k", headers)
            return status, json.loads(answer)

        publish = {"channel": "plain", "data": {}}
        assert said("/api/publish", publish, {}) == (200, away)
        assert said("/api/publish", publish, TRANSPORT) == (500, away["error"])
        assert said("/api", {"method": "publish", "params": publish}, TRANSPORT) == (200, away)
        users = {"users": ["42"]}
        batch = {"commands": [{"publish": publish}, {"get_user_status": users}, {"publish": publish}]}
        own = {"get_user_status": {"statuses": [{"user": "42"}]}}
        assert said("/api/batch", batch, {}) == (200, {"replies": [away, own, away]})
        with Centrifugo(tmp_path / "centrifugo", {"http_server": {"port": port}}):
            assert said("/api/publish", publish, {}) == (200, {"result": {}})
            assert said("/api/batch", batch, {}) == (200, {"replies": [{"publish": {}}, own, {"publish": {}}]})


# --- the clients' side


def test_a_clients_rpc_reaches_the_backend_that_asks_who_is_there(stack: StartStack):
    started = stack({**USER_STATUS})
    cpro = started.service

    async def run():
        async with open_sdk("python-json", started.url, data={"name": "ann"}) as ann:
            await ann.ready()
            assert statuses(cpro, "ann")["ann"][0] == 0
            assert time.time() - statuses(cpro, "ann")["ann"][1] < 10
            for _ in range(3):
                assert await ann.rpc("update_user_status", {}) == {}
            active, online = statuses(cpro, "ann")["ann"]
            assert time.time() - active < 10
            assert time.time() - online < 10

    asyncio.run(run())
    assert started.received("rpc") == [], "it is never forwarded"


def test_who_only_stays_connected_stays_online(stack: StartStack):
    """By its refreshes."""

    def answer(received):
        user = received.json.get("data", {}).get("name") if received.path.endswith("/connect") else None
        return {"result": {"expire_at": int(time.time()) + 1, **({"user": user} if user else {})}}

    started = stack({**USER_STATUS}, answer=answer, centrifugo={"client": {"expired_close_delay": "500ms"}})
    cpro = started.service

    async def run():
        async with open_sdk("python-json", started.url, data={"name": "bob"}) as bob:
            await bob.ready()
            await asyncio.to_thread(result, cpro, "delete_user_status", "bob")
            await eventually(lambda: statuses(cpro, "bob")["bob"][1] > 0)

    asyncio.run(run())
    assert started.received("refresh")


def test_anonymous_clients_are_told_that_they_have_no_status(stack: StartStack):
    def nobody(received):
        return {"result": {"user": ""}}

    started = stack({**USER_STATUS}, answer=nobody)

    async def run():
        async with open_sdk("python-json", started.url) as somebody:
            await somebody.ready()
            with pytest.raises(Refusal) as refused:
                await somebody.rpc("update_user_status", {})
            assert refused.value.error["code"] == 103

    asyncio.run(run())
