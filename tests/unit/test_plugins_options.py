"""`plugins` in the configuration: whose options, from where, and that nobody gets to see them."""

import json
from pathlib import Path

import pytest

from cpro.config.load import load, read_plugin_options, redacted
from cpro.errors import ConfigError

INSTALLED = ["vote", "who"]


@pytest.fixture
def file(tmp_path: Path):
    def write(plugins: object) -> str:
        path = tmp_path / "cpro.json"
        path.write_text(json.dumps({"plugins": plugins}))
        return str(path)

    return write


def test_options_are_taken_as_they_stand_there(file):
    options = {"vote": {"a": [1, {"b": None}], "c": "10s"}, "who": None}
    expected = {"vote": options["vote"], "who": {}}
    assert load(file(options), {}, plugins=INSTALLED).settings.plugins == expected
    assert read_plugin_options(file(options), {}, INSTALLED) == expected


def test_the_environment_is_laid_over_the_file(file):
    environ = {"CPRO_PLUGINS": '{"vote": {"key": "new"}, "who": {"x": 1}}'}
    expected = {"vote": {"key": "new", "more": 1}, "who": {"x": 1}}
    path = file({"vote": {"key": "old", "more": 1}})
    assert load(path, environ, plugins=INSTALLED).settings.plugins == expected
    assert read_plugin_options(path, environ, INSTALLED) == expected


@pytest.mark.parametrize("plugins", [[], {"vote": "text"}, {"nobody": {}}])
def test_what_is_wrong_is_left_to_the_loader(file, plugins):
    assert read_plugin_options(file(plugins), {"CPRO_PLUGINS": ""}, INSTALLED) == {}
    with pytest.raises(ConfigError, match="plugins"):
        load(file(plugins), {}, plugins=INSTALLED)


def test_options_are_never_shown(file):
    settings = load(file({"vote": {"key": "hush"}}), {}, plugins=INSTALLED).settings
    assert "hush" not in repr(settings) + str(redacted(settings))
