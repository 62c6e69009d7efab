"""What clients get when plugins take part: through the real door, pipeline and limits, without a network."""

import asyncio
from types import SimpleNamespace

import pytest

from cpro.plugins import OperationType, Reply, error_reply, hookimpl, result_reply
from cpro.testing import Harness
from tests.support.service import REFUSED, limits

FAULT = {"error": {"code": 100, "message": "internal server error", "temporary": True}}
BAD = {"error": {"code": 107, "message": "bad request", "temporary": False}}
NOT_AVAILABLE = {"error": {"code": 108, "message": "not available", "temporary": False}}


def returns(value):
    async def handle(operation):
        return value

    return handle


def operations(*types):
    return SimpleNamespace(cpro_operations=hookimpl(lambda config: list(types)))


def vote(handle, **fields):
    return operations(OperationType(name="vote", handle=handle, **(fields or {"methods": ["vote"]})))


def run(plugin, scenario, **harness):
    async def main():
        async with Harness(plugin, **harness) as cpro:
            return await scenario(cpro)

    return asyncio.run(main())


async def echo(operation):
    return result_reply(data={"data": operation.read(dict), "user": operation.user, "kind": operation.kind})


def test_a_handler_answers_under_its_own_name():
    async def scenario(cpro):
        assert await cpro.rpc("vote", {"a": 1}) == {
            "result": {"data": {"data": {"a": 1}, "user": "42", "kind": "vote"}}
        }
        assert await cpro.rpc("other") == NOT_AVAILABLE
        assert cpro.verdicts == {("vote", "admitted"): 1, ("rpc", "admitted"): 1}

    run(vote(echo), scenario)


def test_a_method_goes_before_its_namespace_and_that_before_the_event():
    plugin = operations(
        OperationType(name="exact", handle=returns(result_reply(data="method")), methods=["game:move"]),
        OperationType(name="space", handle=returns(result_reply(data="namespace")), namespaces=["game"]),
        OperationType(name="whole", handle=returns(result_reply(data="event")), events=["rpc"]),
    )

    async def scenario(cpro):
        answers = [await cpro.rpc(method) for method in ("game:move", "game:join", "chat:say", "")]
        return [answer["result"]["data"] for answer in answers]

    assert run(plugin, scenario) == ["method", "namespace", "event", "event"]


def test_what_is_passed_on_goes_to_the_backend_and_is_charged_once_under_its_own_name():
    asked = []

    def backend(event, body):
        asked.append((event, body["method"]))
        return {"result": {"data": "backend"}}

    async def scenario(cpro):
        answers = [await cpro.rpc("vote") for _ in range(3)]
        assert answers == [{"result": {"data": "backend"}}] * 2 + [REFUSED]
        assert cpro.verdicts == {("vote", "admitted"): 2, ("vote", "refused"): 1}

    settings = limits(vote=(2, "1m"), rpc=(1, "1m"), total=(2, "1m"))
    run(vote(returns(None)), scenario, settings=settings, backend=backend)
    assert asked == [("rpc", "vote")] * 2


def test_without_a_backend_what_is_passed_on_gets_what_without_upstream_says():
    async def scenario(cpro):
        return await cpro.rpc("vote")

    assert run(vote(returns(None)), scenario) == NOT_AVAILABLE
    allow = {"proxy": {"without_upstream": "allow"}}
    assert run(vote(returns(None)), scenario, settings=allow) == {"result": {}}


async def raise_error(operation):
    raise KeyError("bug")


async def raise_exit(operation):
    raise SystemExit(1)


async def raise_cancelled(operation):
    raise asyncio.CancelledError


async def hang(operation):
    await asyncio.sleep(3600)


async def hang_on(operation):
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await asyncio.sleep(3600)


def not_async(operation):
    return result_reply(data="plain")


@pytest.mark.parametrize(
    "handle",
    [
        raise_error,
        raise_exit,
        raise_cancelled,
        hang,
        returns("text"),
        returns({"result": {}}),
        returns(Reply(b"not json")),
        returns(Reply(b"")),
        returns(Reply(b"[]")),
        returns(Reply(b"{}", status=503)),
        returns(Reply("{}")),
    ],
)
@pytest.mark.parametrize(
    ("event", "fault"), [("rpc", FAULT), ("publish", FAULT), ("refresh", 502), ("sub_refresh", 502)]
)
def test_a_handler_that_fails_is_counted_and_answers_a_fault(handle, event, fault):
    async def scenario(cpro):
        assert await cpro.send(event) == fault
        assert cpro.errors == {"tested": 1}
        assert cpro.verdicts == {("vote", "failed"): 1}

    run(vote(handle, events=[event]), scenario, settings={"proxy": {"upstream": {"timeout": "20ms"}}})


def test_a_handler_that_ignores_its_cancellation_is_answered_for():
    async def scenario(cpro):
        assert await cpro.rpc("vote") == FAULT
        assert cpro.errors == {"tested": 1}

    run(vote(hang_on), scenario, settings={"proxy": {"upstream": {"timeout": "20ms"}}})


def test_a_plain_function_may_handle_too():
    async def scenario(cpro):
        return await cpro.rpc("vote")

    assert run(vote(not_async), scenario) == {"result": {"data": "plain"}}


def test_codes_in_a_reply_are_read_from_its_body():
    async def scenario(cpro):
        assert (await cpro.rpc("vote"))["error"]["code"] == 4242
        assert cpro.verdicts == {("vote", "admitted"): 1}

    run(vote(returns(Reply(error_reply(4242, "no").body))), scenario)


@pytest.mark.parametrize("fields", [{"transport": 5}, {"b64data": "%"}, {"channels": "a"}])
def test_an_event_that_is_not_centrifugos_never_reaches_the_plugin(fields):
    async def scenario(cpro):
        assert await cpro.rpc("vote", **fields) == BAD
        assert cpro.verdicts == {("vote", "invalid"): 1}
        assert not cpro.errors

    run(vote(echo), scenario)


def test_binary_payloads_arrive_as_bytes():
    async def scenario(cpro):
        return await cpro.rpc("vote", encoding="binary", b64data="AAH/")

    async def handle(operation):
        return result_reply(data=list(operation.data))

    assert run(vote(handle), scenario) == {"result": {"data": [0, 1, 255]}}


DEFAULTS = {"buckets": {"user_command": [{"interval": "1m", "rate": 2}]}, "methods": ["vote"]}


async def three(cpro, **fields):
    """How many of three votes are admitted."""
    answers = [await cpro.rpc("vote", **fields) for _ in range(3)]
    return 3 - answers.count(REFUSED)


@pytest.mark.parametrize(
    ("settings", "admitted"),
    [
        ({}, 2),  # no block is enabled: the plugin's own buckets hold
        (limits(default=(1, "1m")), 2),  # nothing said of votes: the same
        (limits(total=(1, "1m")), 1),  # beside `total`
        (limits(vote=(1, "1m")), 1),  # said: what is said
        (limits(vote={"enabled": True}, default=(3, "1m")), 3),  # said to use `default`
        (limits(vote={"enabled": False}), 3),  # said to have none
        (limits("client_command", vote=(1, "1m")), 1),  # another block's bucket holds as well
        ({"client": {"rate_limit": {"dry_run": True}}}, 3),
        ({"client": {"rate_limit": {"user_command": {"dry_run": True}}}}, 3),
        ({"client": {"rate_limit": {"exempt_users": ["42"]}}}, 3),
    ],
)
def test_default_buckets_hold_where_the_block_says_nothing_of_the_operation(settings, admitted):
    assert run(vote(returns(result_reply()), **DEFAULTS), three, settings=settings) == admitted


def test_default_buckets_refill_by_the_clock():
    async def scenario(cpro):
        assert await three(cpro) == 2
        cpro.clock.advance(30)
        assert await three(cpro) == 1

    run(vote(returns(result_reply()), **DEFAULTS), scenario)


def test_a_scope_keeps_own_buckets_apart_and_shares_total():
    plugin = vote(returns(result_reply()), scope=lambda operation: operation.channel, **DEFAULTS)

    async def scenario(cpro):
        return [await three(cpro, channel=channel) for channel in ("a", "b", "c")]

    assert run(plugin, scenario) == [2, 2, 2]
    assert run(plugin, scenario, settings=limits(total=(5, "1m"))) == [2, 2, 1]
    assert run(plugin, scenario, settings=limits(vote=(1, "1m"))) == [1, 1, 1]
    assert run(plugin, scenario, settings=limits(vote={"enabled": True}, default=(4, "1m"))) == [3, 1, 0]


def test_a_scope_is_beside_the_user_and_a_refusal_costs_nothing():
    plugin = vote(returns(result_reply()), scope=lambda operation: operation.channel, **DEFAULTS)

    async def scenario(cpro):
        assert [await three(cpro, channel="a", user=user) for user in ("1", "2")] == [2, 2]
        assert [await three(cpro, channel="b", user="1") for _ in range(2)] == [2, 0]

    run(plugin, scenario, settings=limits(total=(4, "1m")))


@pytest.mark.parametrize("scope", [lambda operation: 1 / 0, lambda operation: 5, lambda operation: "\ud800"])
def test_a_scope_that_fails_is_counted_and_answers_a_fault(scope):
    async def scenario(cpro):
        assert await cpro.rpc("vote") == FAULT
        assert cpro.errors == {"tested": 1}

    run(vote(echo, methods=["vote"], scope=scope), scenario)


def test_overrides_by_method_and_namespace_apply_to_a_plugins_operation():
    plugin = vote(returns(result_reply()), namespaces=["poll"])
    one = [{"interval": "1m", "rate": 1}]
    said = {"enabled": True, "buckets": [{"interval": "1m", "rate": 2}]}
    overrides = {"method_overrides": [{"method": "poll:slow", "buckets": one}]}

    async def scenario(cpro):
        return [[await cpro.rpc(method) for _ in range(3)].count(REFUSED) for method in ("poll:slow", "poll:fast")]

    assert run(plugin, scenario, settings=limits(vote={**said, **overrides})) == [2, 1]


def test_a_refresh_in_a_plugins_hands_is_never_charged_to_default_or_total():
    plugin = vote(returns(result_reply(expire_at=9)), events=["refresh"])

    async def scenario(cpro):
        return [await cpro.send("refresh") for _ in range(2)]

    settings = limits(default=(1, "1h"), total=(1, "1h"))
    assert run(plugin, scenario, settings=settings) == [{"result": {"expire_at": 9}}] * 2
    assert run(plugin, scenario, settings=limits(vote=(1, "1h"))) == [{"result": {"expire_at": 9}}, 503]


def test_a_connect_in_a_plugins_hands_is_charged_to_the_user_it_names():
    async def handle(operation):
        return result_reply(user=operation.sdk)

    async def scenario(cpro):
        names = ["ann", "ann", "bob"]
        return [await cpro.send("connect", name=name) for name in names]

    answers = run(vote(handle, events=["connect"]), scenario, settings=limits(vote=(1, "1h")))
    assert answers == [{"result": {"user": "ann"}}, REFUSED, {"result": {"user": "bob"}}]
    client = run(vote(handle, events=["connect"]), scenario, settings=limits("client_command", vote=(1, "1h")))
    assert REFUSED not in client


def identifying(function):
    return SimpleNamespace(cpro_identify=hookimpl(lambda config: function))


async def by_cookie(connect):
    return connect.header("Cookie")


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (by_cookie, {"result": {"user": "ann"}}),
        (lambda connect: connect.header("cookie"), {"result": {"user": "ann"}}),
        (lambda connect: "", {"result": {"user": ""}}),
        (lambda connect: None, {}),
        (lambda connect: 42, FAULT),
        (lambda connect: 1 / 0, FAULT),
        (hang, FAULT),
    ],
)
def test_a_plugin_finds_the_user_of_a_connect(function, answer):
    async def scenario(cpro):
        found = await cpro.send("connect", headers={"Cookie": "ann"})
        assert cpro.errors == ({"tested": 1} if answer == FAULT else {})
        return found

    settings = {"proxy": {"upstream": {"timeout": "20ms"}}}
    assert run(identifying(function), scenario, settings=settings) == answer


def test_a_trusted_header_goes_before_plugins_and_a_backend_before_both():
    async def scenario(cpro):
        return [await cpro.send("connect", headers={"X-User": user}) for user in ("bob", "")]

    settings = {"proxy": {"connect_user_header": "X-User"}}
    plugin = identifying(lambda connect: "ann")
    assert run(plugin, scenario, settings=settings) == [{"result": {"user": "bob"}}, {"result": {"user": "ann"}}]
    backend = {"result": {"user": "eve"}}
    assert run(plugin, scenario, settings=settings, backend=lambda event, body: backend) == [backend] * 2


def test_a_user_that_a_plugin_names_is_charged():
    async def scenario(cpro):
        return [await cpro.send("connect") for _ in range(2)]

    answers = run(identifying(lambda connect: "ann"), scenario, settings=limits(connect=(1, "1h")))
    assert answers == [{"result": {"user": "ann"}}, REFUSED]
