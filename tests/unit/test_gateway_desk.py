"""Which way a post goes, and who answers it."""

import json

import pytest

from cpro._fast.emulation import build_emulation, parse_emulation
from cpro.doors.gateway.desk import MOST_PARKED, Desk, Place
from cpro.doors.gateway.emulation import OCTETS, Owner, seal_owner
from cpro.doors.gateway.poster import NO_ANSWER, TIMED_OUT
from cpro.doors.seal import Seal
from cpro.http.made import make_post

SEAL = Seal(b"secret")
WORKERS = ("127.0.0.1:1001", "127.0.0.1:1002")
COMMAND = '{"id":2,"presence":{"channel":"x"}}'


class Stream:
    def __init__(self, protobuf: bool = False):
        self.protobuf = protobuf
        self.is_full = False
        self.taken: list[bytes] = []
        self.waiting: list = []

    @property
    def parked(self) -> int:
        return len(self.waiting)

    def park(self, go_on) -> None:
        self.waiting.append(go_on)

    def take(self, commands: bytes) -> None:
        self.taken.append(commands)


class Scene:
    """The desk of worker 0, with a stream of session `s`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.hear: list = []
        self.answers: list[int] = []
        self.desk = Desk(Place("here", 0, "10.0.0.1:9000", WORKERS), self)
        self.desk.configure(SEAL, 1000)
        self.stream = Stream()
        self.desk.add("s", self.stream)

    def to_peer(self, address: str, body: bytes, content_type: bytes, hear) -> None:
        assert content_type == OCTETS
        self.sent.append((address, body))
        self.hear.append(hear)

    def answer(self, reply) -> None:
        self.answers.append(reply.status)

    def post(self, owner: Owner | str, session: str = "s", data: str = COMMAND) -> int | None:
        node = owner if isinstance(owner, str) else seal_owner(SEAL, owner)
        body = json.dumps({"session": session, "node": node, "data": data}).encode()
        reply = self.desk.take(make_post(body), self)
        return None if reply is None else reply.status


HERE = Owner("here", "0", "10.0.0.1:9000", "n")
OTHER_WORKER = HERE._replace(worker="1")
OTHER_NODE = Owner("there", "5", "10.0.0.2:9000", "n")


def test_a_post_for_a_stream_here_is_taken():
    scene = Scene()
    assert scene.post(scene.desk.seal_node("n")) == 204
    assert scene.stream.taken == [COMMAND.encode()]
    assert not scene.sent


@pytest.mark.parametrize(("owner", "address"), [(OTHER_WORKER, WORKERS[1]), (OTHER_NODE, "10.0.0.2:9000")])
@pytest.mark.parametrize(("heard", "status"), [(204, 204), (400, 400), (404, 404), (NO_ANSWER, 404), (TIMED_OUT, 500)])
def test_one_for_another_is_passed_on_and_so_is_the_answer(owner, address, heard, status):
    scene = Scene()
    assert scene.post(owner) is None
    ((to, body),) = scene.sent
    assert to == address
    node, session, data = parse_emulation(body)
    assert (node.decode(), session, json.loads(data)) == (seal_owner(SEAL, owner), b"s", COMMAND)
    scene.hear[0](heard)
    assert scene.answers == [status]
    assert not scene.stream.taken


@pytest.mark.parametrize(
    "owner",
    [
        "",
        "n",
        seal_owner(Seal(b"another"), HERE),
        OTHER_WORKER._replace(worker="2"),
        HERE._replace(service="an earlier start"),
        HERE._replace(service="alone", internal=""),
    ],
    ids=["none", "Centrifugo's", "forged", "no such worker", "an earlier start", "a node without others"],
)
def test_one_for_nobody_is_for_an_unknown_node(owner):
    scene = Scene()
    assert scene.post(owner) == 404
    assert not scene.sent
    assert not scene.stream.taken


def test_a_session_that_is_not_here_is_answered_as_if_it_were():
    scene = Scene()
    assert scene.post(HERE, session="another") == 204
    scene.desk.discard("s", Stream())  # of an earlier one by that name
    assert scene.post(HERE) == 204
    scene.desk.discard("s", scene.stream)
    assert scene.post(HERE) == 204
    assert len(scene.stream.taken) == 1


def from_peer(owner: Owner, target: bytes = b"/emulation", body: bytes | None = None):
    said = build_emulation(seal_owner(SEAL, owner).encode(), b"s", json.dumps(COMMAND).encode())
    return make_post(said if body is None else body, OCTETS, target)


def test_what_another_node_passes_on_stays_on_this_one():
    scene = Scene()
    assert scene.desk.take_from_node(from_peer(HERE), scene, 0).status == 204
    assert scene.stream.taken == [COMMAND.encode()]
    assert scene.desk.take_from_node(from_peer(OTHER_WORKER), scene, 0) is None
    assert [address for address, _ in scene.sent] == [WORKERS[1]]
    assert scene.desk.take_from_node(from_peer(OTHER_NODE), scene, 0).status == 404


def test_what_another_worker_passes_on_stays_with_this_one():
    scene = Scene()
    assert scene.desk.take_from_worker(from_peer(HERE), scene, 0).status == 204
    for owner in (OTHER_WORKER, OTHER_NODE):
        assert scene.desk.take_from_worker(from_peer(owner), scene, 0).status == 404
    assert not scene.sent


def test_peers_say_nothing_else():
    scene = Scene()
    for take in (scene.desk.take_from_node, scene.desk.take_from_worker):
        assert take(from_peer(HERE, target=b"/connection/http_stream"), scene, 0).status == 404
        assert take(from_peer(HERE, body=b"\x0a\x05n"), scene, 0).status == 400
    assert not scene.stream.taken


def test_the_seal_before_the_last_change_is_good_and_the_one_before_that_is_not():
    scene = Scene()
    node = scene.desk.seal_node("n")
    for _ in range(3):
        scene.desk.configure(Seal(b"second"), 1000)
    assert scene.post(node) == 204
    assert scene.post(scene.desk.seal_node("n")) == 204
    scene.desk.configure(Seal(b"third"), 1000)
    assert scene.post(node) == 404


def test_what_is_too_large_or_unreadable_is_refused_and_pages_may_read_so():
    scene = Scene()
    request = make_post(b"x" * 5000)
    assert scene.desk.take(request, scene).status == 413
    reply = scene.desk.take(make_post(b"[]"), scene)
    assert (reply.status, reply.extra) == (400, b"")


def test_posts_wait_for_room_in_order_and_only_so_many():
    scene = Scene()
    scene.stream.is_full = True
    for number in range(MOST_PARKED):
        assert scene.post(HERE, data=str(number)) is None
    assert scene.post(HERE) == 503
    scene.stream.is_full = False
    assert scene.post(HERE) == 503, "those before it still wait"
    for go_on in scene.stream.waiting:
        go_on()
    assert scene.stream.taken == [str(number).encode() for number in range(MOST_PARKED)]
    assert scene.answers == [204] * MOST_PARKED


def test_a_protobuf_session_takes_the_data_as_it_is():
    scene = Scene()
    scene.stream.protobuf = True
    body = build_emulation(scene.desk.seal_node("n").encode(), b"s", b"\x00")
    assert scene.desk.take(make_post(body, OCTETS), scene).status == 204
    assert scene.stream.taken == [b"\x00"]
