"""Plugins and the gateway: what is theirs at the proxy door is charged and told of once, with both doors in use."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.centrifugo.conftest import OpenSdk, StartStack, eventually
from tests.support.packages import with_packages, write_plugin
from tests.support.sdks import Refusal
from tests.support.service import limits

pytestmark = pytest.mark.centrifugo

CLUB = """
    import json
    from cpro.plugins import OperationType, hookimpl, result_reply

    async def let_in(operation):
        return result_reply(user=operation.read(dict)["name"])

    async def pass_on(operation):
        return None

    async def vote(operation):
        return result_reply(data={"voted": operation.user})

    @hookimpl
    def cpro_operations(config):
        return [
            OperationType(name="entry", handle=let_in, events=["connect"]),
            OperationType(name="post", handle=pass_on, events=["publish"]),
            OperationType(name="vote", handle=vote, methods=["vote"]),
        ]

    @hookimpl
    def cpro_observe(config):
        def observe(batch):
            with open(config.options["file"], "a") as file:
                for one in batch:
                    file.write(json.dumps([one.door, one.op, one.user, one.verdict]) + "\\n")

        return observe
"""


def test_what_plugins_handle_is_charged_once_and_to_whom_they_let_in(
    stack: StartStack, sdk: OpenSdk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_plugin(tmp_path / "packages", "club", CLUB)
    monkeypatch.setenv("PYTHONPATH", with_packages(tmp_path / "packages")["PYTHONPATH"])
    seen = tmp_path / "seen"
    allowed = limits(connect=(1, "1h"), publish=(2, "1h"), vote=(1, "1h"), entry=(1, "1h"), post=(1, "1h"))
    started = stack({**allowed, "gateway": {"enabled": True}, "plugins": {"club": {"file": str(seen)}}})

    async def run() -> None:
        async with sdk(started.gateway_url, data={"name": "ann"}) as ann:
            await ann.ready()
            await ann.subscribed("news")
            await ann.publish("news", 1)
            await ann.publish("news", 2)
            assert await ann.rpc("vote", {}) == {"voted": "ann"}
            for refused in (ann.publish("news", 3), ann.rpc("vote", {})):
                with pytest.raises(Refusal) as refusal:
                    await refused
                assert refusal.value.code == 111
            async with sdk(started.gateway_url, data={"name": "ann"}) as again:
                await again.until("error", code=111)
            async with sdk(started.gateway_url, data={"name": "bob"}) as bob:
                await bob.ready()

    asyncio.run(run())

    def told() -> Counter:
        return (
            Counter(tuple(json.loads(line)) for line in seen.read_text().splitlines()) if seen.exists() else Counter()
        )

    wanted = {
        ("gateway", "connect", "ann", "admitted"): 1,
        ("gateway", "connect", "bob", "admitted"): 1,
        ("gateway", "subscribe", "ann", "admitted"): 1,
        ("gateway", "publish", "ann", "admitted"): 2,
        ("gateway", "publish", "ann", "refused"): 1,
        ("proxy", "vote", "ann", "admitted"): 1,
        ("proxy", "vote", "ann", "refused"): 1,
    }
    asyncio.run(eventually(lambda: all(told()[one] == times for one, times in wanted.items()), timeout_s=30.0))
    others = {one for one in told() if one not in wanted}
    assert others == {("gateway", "connect", "ann", "refused")}
    for kind in ("entry", "post"):
        assert started.operations(kind, "admitted") == started.operations(kind, "refused") == 0
