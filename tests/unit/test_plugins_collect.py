"""What plugins may return at start, and what is said when they return something else."""

from types import SimpleNamespace

import msgspec
import pytest

from cpro.config.duration import Duration
from cpro.errors import PluginError
from cpro.plugins import OperationType, PluginConfig, hookimpl
from cpro.plugins.load import Plugin, collect


async def nothing(operation):
    return None


def plugin(name="p", **hooks):
    """A plugin whose hooks return these values, or call these functions."""

    def hook_of(value):
        return hookimpl(lambda config: value(config) if callable(value) else value)

    return Plugin(name, SimpleNamespace(**{f"cpro_{hook}": hook_of(value) for hook, value in hooks.items()}))


def operation(name="vote", **fields):
    return OperationType(name=name, handle=nothing, **(fields or {"methods": ["vote"]}))


def reason_of(*plugins, **options):
    with pytest.raises(PluginError) as caught:
        collect(plugins, options)
    return caught.value.plugin, caught.value.reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": "Vote", "methods": ["m"]}, "its name must be lower-case"),
        ({"name": "publish", "methods": ["m"]}, "its name is one of cpro's own"),
        ({"name": "total", "methods": ["m"]}, "its name is one of cpro's own"),
        ({"name": "enabled", "methods": ["m"]}, "its name is one of cpro's own"),
        ({"methods": "vote"}, "methods must be a list of names"),
        ({"namespaces": [""]}, "namespaces must be a list of names"),
        ({"events": ["typing"]}, "'typing' is none of the events"),
        ({"methods": []}, "it takes nothing"),
        ({"events": ["connect", "publish"]}, "can take nothing else"),
        ({"events": ["connect"], "scope": lambda connect: ""}, "can have no scope"),
        ({"methods": ["m"], "scope": "channel"}, "scope must be a function"),
        ({"methods": ["m"], "buckets": {"user": []}}, "buckets for 'user', which is none of client_command"),
        ({"methods": ["m"], "buckets": {"user_command": [{"interval": "1s"}]}}, "[0].rate: is missing"),
        ({"methods": ["m"], "buckets": {"user_command": [{"interval": "1s", "rate": 0}]}}, "[0].rate: must be"),
    ],
)
def test_an_operation_type_that_can_not_be_served_is_refused(fields, reason):
    name, said = reason_of(plugin(operations=[operation(**fields)]))
    assert name == "p"
    assert reason in said


@pytest.mark.parametrize(
    ("hooks", "reason"),
    [
        ({"operations": "vote"}, "cpro_operations: must return a list of OperationType"),
        ({"operations": ["vote"]}, "cpro_operations: must return a list of OperationType"),
        ({"identify": lambda config: "42"}, "cpro_identify: must return a function, or None"),
        ({"observe": lambda config: [nothing]}, "cpro_observe: must return plain functions"),
        ({"observe": lambda config: 1}, "cpro_observe: must return plain functions"),
        ({"operations": lambda config: 1 / 0}, "cpro_operations: ZeroDivisionError: division by zero"),
        ({"operations": lambda config: exit()}, "cpro_operations: SystemExit"),
    ],
)
def test_a_hook_that_returns_something_else_or_raises_is_refused(hooks, reason):
    name, said = reason_of(plugin(**hooks))
    assert name == "p"
    assert said.startswith(reason)


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ({"methods": ["a"]}, {"name": "vote", "methods": ["b"]}, "operation 'vote' is taken already, by plugin a"),
        ({"methods": ["a"]}, {"name": "x", "methods": ["a"]}, "RPC method 'a' is taken already, by plugin a"),
        ({"namespaces": ["a"]}, {"name": "x", "namespaces": ["a"]}, "RPC namespace 'a' is taken already, by plugin a"),
        ({"events": ["rpc"]}, {"name": "x", "events": ["rpc"]}, "event 'rpc' is taken already, by plugin a"),
    ],
)
def test_two_plugins_that_want_the_same_are_refused(one, other, reason):
    two = plugin("a", operations=[operation(**one)]), plugin("b", operations=[operation(**other)])
    assert reason_of(*two) == ("b", reason)


def test_a_plugin_without_hooks_or_with_unknown_ones_is_refused():
    with pytest.raises(PluginError, match="plugin p: has no hook"):
        Plugin("p", SimpleNamespace(cpro_operations=lambda config: []))
    with pytest.raises(PluginError, match=r"unknown hook 'cpro_operation' in plugin"):
        Plugin("p", SimpleNamespace(cpro_operation=hookimpl(lambda config: [])))
    with pytest.raises(PluginError, match="settings"):
        Plugin("p", SimpleNamespace(cpro_operations=hookimpl(lambda settings: [])))


def test_options_decide_the_order_and_the_rest_is_by_name():
    def identifier(name):
        return plugin(name, identify=lambda config: lambda connect: config.plugin)

    collected = collect([identifier(name) for name in ("a", "b", "c", "d")], {"c": {}, "b": {}})
    assert [name for name, _ in collected.identifiers] == ["c", "b", "a", "d"]


class Options(msgspec.Struct):
    key: str
    wait: Duration = Duration.parse("2s")
    names: tuple[str, ...] = ()


def test_options_are_read_into_types():
    options = PluginConfig("p", {"key": "k", "wait": "300ms", "names": ["a"]}).read(Options)
    assert options == Options("k", Duration.parse("300ms"), ("a",))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "plugins.p: Object missing required field `key`"),
        ({"key": 1}, "plugins.p.key: Expected `str`, got `int`"),
        ({"key": "k", "wait": 2}, 'plugins.p.wait: must be a duration such as "300ms"'),
        ({"key": "k", "wait": "2"}, "plugins.p.wait: must be a duration with a unit"),
        ({"key": "k", "name": []}, "plugins.p.name: is not a known option; the nearest is names"),
    ],
)
def test_options_that_are_wrong_are_named(options, reason):
    name, said = reason_of(plugin(operations=lambda config: config.read(Options)), p=options)
    assert name == "p"
    assert said.startswith(reason)


class Sink:
    def __init__(self, **attributes):
        vars(self).update(attributes)

    def open(self):
        pass

    def write(self, batch):
        pass

    def close(self):
        pass


def test_sinks_have_their_own_name_or_the_plugins():
    several = [Sink(), Sink(name="second", flush_rows=5)]
    collected = collect(
        [plugin("p", sinks=several), plugin("q", sinks=Sink()), plugin("r", sinks=lambda config: None)], {}
    )
    assert collected.sink_names == ("p", "second", "q")
    assert [name for name, _, _ in collected.sinks] == ["p", "p", "q"]


def test_workers_do_not_ask_for_sinks():
    asked = []
    one = plugin("p", sinks=lambda config: asked.append(config))
    assert collect([one], {}, with_sinks=False).sinks == ()
    assert not asked


async def later(batch):
    pass


@pytest.mark.parametrize(
    ("sinks", "reason"),
    [
        ("somewhere", "'p' must have a plain method open"),
        (Sink(write=None), "'p' must have a plain method write"),
        (Sink(write=later), "'p' must have a plain method write"),
        (Sink(name="Big Sink"), "'Big Sink' is no name"),
        (Sink(name="clickhouse"), "the name 'clickhouse' is taken already, by cpro"),
        ([Sink(), Sink()], "the name 'p' is taken already, by plugin p"),
        (Sink(flush_rows=0), "flush_rows of 'p' must be at least 1"),
        (Sink(flush_interval_s="1s"), "flush_interval_s of 'p' must be at least"),
    ],
)
def test_a_sink_that_can_not_be_used_is_refused(sinks, reason):
    name, said = reason_of(plugin(sinks=sinks))
    assert name == "p"
    assert reason in said
