"""docs/plugins.md: every piece of Python in it runs, and every hook and public name is there."""

import asyncio
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import cpro.plugins
from cpro import hookspecs
from cpro.extension import Finished, OperationType, PluginConfig, PluginOperation
from cpro.testing import Harness, SinkHarness, batch

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
PIECE = re.compile(r"<!-- (module|test): (\w+) -->\n```python\n(.*?)```", re.DOTALL)
MODULES = {name: source for kind, name, source in PIECE.findall(PAGE) if kind == "module"}
TESTS = {name: source for kind, name, source in PIECE.findall(PAGE) if kind == "test"}

HOOKS = [name for name in vars(hookspecs) if name.startswith("cpro_")]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    """Import a module from the page."""

    def load(name: str) -> ModuleType:
        made = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, made)
        exec(compile(MODULES[name], f"docs/plugins.md: {name}", "exec"), made.__dict__)
        return made

    return load


def plugin_of(made: ModuleType) -> object:
    return getattr(made, "plugin", made)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_its_place_in_the_guide_and_in_a_piece_of_code(hook: str):
    assert re.search(rf"^### .*`{hook}\(", PAGE, re.MULTILINE)
    assert any(f"def {hook}(" in source for source in MODULES.values())
    assert inspect.getdoc(getattr(hookspecs, hook))


@pytest.mark.parametrize("name", [name for name in cpro.plugins.__all__ if not name.endswith("_namespace")])
def test_every_public_name_is_in_the_guide(name: str):
    assert re.search(rf"\b{name}\b", PAGE) or name == "HttpEndpoint"


def test_every_field_is_in_the_guide():
    hidden = {"request", "failed", "address", "started_ns", "noted"}
    fields = {*OperationType.__dataclass_fields__, *PluginOperation.__struct_fields__, *Finished.__struct_fields__}
    assert [name for name in sorted(fields - hidden) if f"`{name}`" not in PAGE] == []


def test_every_piece_of_python_is_run_here():
    assert len(PIECE.findall(PAGE)) == PAGE.count("```python")


def test_the_tests_in_the_guide_pass(module):
    ran = 0
    for name, source in TESTS.items():
        module(name)
        made: dict[str, object] = {}
        exec(compile(source, f"docs/plugins.md: test of {name}", "exec"), made)
        for function in _tests(made):
            function()
            ran += 1
    assert ran == 1


def _tests(made: dict[str, object]) -> Iterator:
    return (value for name, value in made.items() if name.startswith("test_"))


def run(plugin: object, scenario, **harness: object):
    async def main():
        async with Harness(plugin, **harness) as cpro:
            return await scenario(cpro)

    return asyncio.run(main())


def test_scopes_are_as_the_guide_says(module):
    async def scenario(cpro):
        channels = ["a", "a", "b"]
        return ["error" in await cpro.rpc("react:like", {"channel": channel}) for channel in channels]

    assert run(plugin_of(module("cpro_react")), scenario) == [False, True, False]


def test_identification_is_as_the_guide_says(module):
    async def scenario(cpro):
        return [await cpro.send("connect", headers={"Cookie": cookie}) for cookie in ("s-1", "s-2")]

    assert run(plugin_of(module("cpro_cookie")), scenario) == [{"result": {"user": "42"}}, {}]


def test_observation_is_as_the_guide_says(module):
    made = module("cpro_busy")
    bucket = {"enabled": True, "buckets": [{"interval": "1h", "rate": 1}]}
    settings = {"client": {"rate_limit": {"user_command": {"enabled": True, "publish": bucket}}}}

    async def scenario(cpro):
        for _ in range(3):
            await cpro.send("publish")

    run(plugin_of(made), scenario, settings=settings)
    assert made.refused == {"42": 2}


def test_a_sink_is_as_the_guide_says(module, tmp_path):
    made = module("cpro_ledger")
    sink = made.cpro_sinks(PluginConfig("ledger", {"folder": str(tmp_path / "mount")}))
    with SinkHarness(sink) as cpro:
        cpro.record("operations", user="42", op="publish", error=111, time=7)
        cpro.record("operations", user="43", op="publish", time=8)
        assert cpro.until(lambda: cpro.errors > 0)
        (tmp_path / "mount").mkdir()
        assert cpro.shipped(2)
        assert (cpro.rows, cpro.dropped) == ({"operations": 2}, 0)
    (file,) = (tmp_path / "mount").iterdir()
    assert file.read_text() == "7,42,publish,111\n"
    sink.write(batch("operations", [{"user": "42", "error": 111}], file.stem))
    assert len(list((tmp_path / "mount").iterdir())) == 1


def test_background_posts_are_as_the_guide_says(module):
    async def scenario(cpro):
        assert await cpro.rpc("audit", {"a": 1}) == {"result": {"data": {}}}
        await cpro.idle()
        return cpro.http.posts

    url = "http://audit.example/"
    posts = run(plugin_of(module("cpro_audit")), scenario, options={"url": url})
    assert posts == [(url, {"Content-Type": "application/json"}, {"a": 1})]
