"""docs/user-status.md: its configuration, its client and its backend, put together and running."""

import asyncio
import re
import time
from pathlib import Path

import cent
import pytest
import yaml

from tests.support.backend import Backend
from tests.support.centrifugo import Centrifugo, free_port, merge, part_by_cpro
from tests.support.sdks import open_sdk
from tests.support.service import REFUSED, Service, event
from tests.support.status import UPDATED

PAGE = (Path(__file__).parents[3] / "docs" / "user-status.md").read_text()
CONFIGURATION = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
CLIENT, BACKEND = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ADDRESS = "http://127.0.0.1:8002/"
PERSONAL = {"channel": {"without_namespace": {"allow_user_limited_channels": True, "subscribe_proxy_enabled": False}}}


def run_piece(source: str) -> dict:
    made: dict[str, object] = {}
    exec(compile(source, "docs/user-status.md", "exec"), made)
    return made


def backend_of(cpro: Service) -> dict:
    """The page's backend, with the address of this cpro in place of the default one."""
    assert BACKEND.count(ADDRESS) == 1
    return run_piece(BACKEND.replace(ADDRESS, f"http://{cpro.api}/"))


def test_the_backend_finds_out_who_is_there(service):
    settings = merge(CONFIGURATION, {"http_api": {"centrifugo": "", "centrifugo_key": ""}})
    cpro = service(settings)
    assert cpro.post("rpc", event("bob", method="update_user_status", data={})) == (200, UPDATED)
    cpro.post("publish", event("eve", channel="news"))
    backend, now = backend_of(cpro), time.time()
    backend["api"].update_user_status(cent.UpdateUserStatusRequest(users=["ann"]))

    def said(later_s: float = 0.0) -> dict:
        return {one["user"]: one["is"] for one in backend["buddy_list"](["zoe", "eve", "bob", "ann"], now + later_s)}

    assert said() == {"ann": "active", "bob": "active", "eve": "away", "zoe": "not seen lately"}
    assert list(said())[-1] == "zoe"
    assert said(600) == {
        "ann": "not seen lately", "bob": "last seen 10 minutes ago", "eve": "last seen 10 minutes ago",
        "zoe": "not seen lately",
    }  # fmt: skip


def test_the_override_of_the_page_limits_updates(service):
    cpro = service(merge(CONFIGURATION, {"http_api": {"centrifugo": "", "centrifugo_key": ""}}))
    answers = [cpro.post("rpc", event(method="update_user_status", data={}))[1] for _ in range(31)]
    assert answers == [UPDATED] * 30 + [REFUSED]


@pytest.mark.centrifugo
def test_client_and_backend_of_the_page_work_together_through_a_real_centrifugo(tmp_path, service):
    port = free_port()

    def knows_everybody(received):
        if received.path.endswith("/connect"):
            return {"result": {"user": received.json["data"]["name"]}}
        return {"result": {}}

    with Backend(knows_everybody) as app:
        proxy = {"address": f"127.0.0.1:{free_port()}", "upstream": {"endpoint": app.url}}
        assert CONFIGURATION["http_api"]["centrifugo"] == "http://127.0.0.1:8000"
        cpro = service(merge(CONFIGURATION, {"proxy": proxy, "http_api": {"centrifugo": f"http://127.0.0.1:{port}"}}))
        own = {"http_server": {"port": port}, "http_api": {"key": CONFIGURATION["http_api"]["centrifugo_key"]}}
        config = merge(merge(part_by_cpro(cpro.config), own), PERSONAL)
        backend, client = backend_of(cpro), run_piece(CLIENT)

        async def scenario(url: str) -> None:
            async with (
                open_sdk("python-json", url, data={"name": "ann"}) as ann,
                open_sdk("python-json", url, data={"name": "bob"}) as bob,
                open_sdk("python-json", url, data={"name": "eve"}) as eve,
            ):
                for one in (ann, bob, eve):
                    await one.ready()
                await client["on_user_input"](bob.client)
                await ann.subscribed("buddies#ann")
                await asyncio.to_thread(backend["send_buddy_list"], "ann", ["eve", "bob", "zoe"], time.time())
                told = await ann.until("publication")
                assert {one["user"]: one["is"] for one in told["data"]} == {
                    "bob": "active", "eve": "away", "zoe": "not seen lately",
                }  # fmt: skip

        with Centrifugo(tmp_path / "centrifugo", config) as centrifugo:
            asyncio.run(scenario(centrifugo.url))
        assert not [one for one in app.received if one.path.endswith("/rpc")]
