"""What clients get, and what Centrifugo is asked to publish: through cpro's pipeline, with HTTP recorded."""

import asyncio

import pytest

from cpro.plugins import HttpError, PluginError
from cpro.testing import Harness
from cpro_typing.plugin import TypingPlugin

DONE = {"result": {"data": {}}}
BAD = {"error": {"code": 107, "message": "bad request", "temporary": False}}
DENIED = {"error": {"code": 103, "message": "permission denied", "temporary": False}}
TOO_MANY = {"error": {"code": 111, "message": "too many requests", "temporary": True}}


def run(scenario, settings=None, **options):
    async def main():
        harness = Harness(
            TypingPlugin(), name="typing", options={"api_key": "k", **options}, settings=settings, backend=backend
        )
        async with harness as cpro:
            return await scenario(cpro)

    return asyncio.run(main())


def backend(event, body):
    return {"result": {"data": "backend"}}


def published(cpro):
    return [(body["channel"], body["data"]) for _, _, body in cpro.http.posts]


def test_everybody_in_the_channel_is_told():
    async def scenario(cpro):
        assert await cpro.rpc("typing", {"channel": "news"}) == DONE
        await cpro.idle()
        [(url, headers, body)] = cpro.http.posts
        assert url == "http://127.0.0.1:8000/api/publish"
        assert headers == {"X-API-Key": "k", "Content-Type": "application/json"}
        assert body.pop("idempotency_key").startswith("cpro-typing:42:")
        assert body == {"channel": "news", "data": {"type": "typing", "user": "42"}, "skip_history": True}

    run(scenario)


def test_one_publication_per_user_channel_and_two_seconds():
    async def scenario(cpro):
        for user, channel in [("42", "a"), ("42", "a"), ("7", "a"), ("42", "b")]:
            assert await cpro.rpc("typing", {"channel": channel}, user=user) == DONE
        cpro.clock.advance(1.9)
        await cpro.rpc("typing", {"channel": "a"})
        cpro.clock.advance(0.2)
        await cpro.rpc("typing", {"channel": "a"})
        await cpro.idle()
        return [(channel, data["user"]) for channel, data in published(cpro)]

    assert run(scenario) == [("a", "42"), ("a", "7"), ("b", "42"), ("a", "42")]


def test_a_client_that_calls_at_every_key_is_throttled_in_that_channel_alone():
    async def scenario(cpro):
        answers = [await cpro.rpc("typing", {"channel": "a"}) for _ in range(5)]
        assert answers == [DONE] * 4 + [TOO_MANY]
        assert await cpro.rpc("typing", {"channel": "b"}) == DONE
        cpro.clock.advance(0.5)
        assert await cpro.rpc("typing", {"channel": "a"}) == DONE

    run(scenario)


def test_the_operator_can_throttle_otherwise():
    bucket = {"enabled": True, "buckets": [{"interval": "1m", "rate": 1}]}
    settings = {"client": {"rate_limit": {"user_command": {"enabled": True, "typing": bucket}}}}

    async def scenario(cpro):
        return [await cpro.rpc("typing", {"channel": "a"}) for _ in range(2)]

    assert run(scenario, settings) == [DONE, TOO_MANY]


@pytest.mark.parametrize("data", [None, {}, [], "news", {"channel": 5}, {"channel": ""}, {"channel": "x" * 256}])
def test_a_bad_payload_is_107_and_publishes_nothing(data):
    async def scenario(cpro):
        assert await cpro.rpc("typing", data) == BAD
        assert not cpro.errors
        assert not cpro.http.posts

    run(scenario)


@pytest.mark.parametrize(
    ("channel", "user", "options", "answer"),
    [
        ("news", "", {}, DENIED),
        ("dialog#42,43", "42", {}, DONE),
        ("dialog#41,43", "42", {}, DENIED),
        ("$room", "42", {}, DENIED),
        ("$room", "42", {"private_channels": True}, DONE),
        ("chat:1", "42", {"namespaces": ["chat"]}, DONE),
        ("news", "42", {"namespaces": ["chat"]}, DENIED),
        ("news", "42", {"namespaces": ["chat", ""]}, DONE),
        ("audit:1", "42", {"namespaces": ["chat"]}, DENIED),
    ],
)
def test_who_may_type_where(channel, user, options, answer):
    async def scenario(cpro):
        assert await cpro.rpc("typing", {"channel": channel}, user=user) == answer
        await cpro.idle()
        assert len(cpro.http.posts) == (answer == DONE)

    run(scenario, **options)


def test_method_and_payload_are_the_operators_choice():
    async def scenario(cpro):
        assert await cpro.rpc("typing", {"channel": "a"}) == {"result": {"data": "backend"}}
        assert await cpro.rpc("im:typing", {"channel": "a"}) == DONE
        await cpro.idle()
        return published(cpro)

    payload = {"t": "typing", "who": "{user}", "where": "{channel}", "v": 1}
    told = run(scenario, methods=["im:typing"], payload=payload)
    assert told == [("a", {"t": "typing", "who": "42", "where": "a", "v": 1})]


@pytest.mark.parametrize(
    "answer",
    [HttpError("refused"), (500, b""), (401, b""), (200, b'{"error":{"code":102,"message":"unknown channel"}}')],
)
def test_a_centrifugo_that_fails_is_counted_and_the_client_never_knows(answer):
    async def scenario(cpro):
        cpro.http.answer = answer
        assert await cpro.rpc("typing", {"channel": "a"}) == DONE
        await cpro.idle()
        assert cpro.errors == {"typing": 1}

    run(scenario)


def test_without_a_key_it_does_nothing():
    async def scenario(cpro):
        assert await cpro.rpc("typing", {"channel": "a"}) == {"result": {"data": "backend"}}

    run(scenario, api_key="")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"api_kye": "k"}, "plugins.typing.api_kye: is not a known option; the nearest is api_key"),
        ({"fold": 2}, "plugins.typing.fold: must be a duration"),
        ({"fold": "0s"}, "plugins.typing.fold: must be at least 1ms"),
        ({"api_url": "centrifugo:8000"}, "can't post to that URL"),
    ],
)
def test_wrong_options_stop_the_start(options, reason):
    with pytest.raises(PluginError, match=reason):
        run(lambda cpro: asyncio.sleep(0), **options)
