"""docs/settings.md shows every setting of the model with its default and meaning, and no other.

`python -m tests.unit.test_docs_settings` brings its tables up to date.
"""

import re
from pathlib import Path

from cpro.config.model import OPERATIONS, Settings
from cpro.config.reference import tables
from cpro.config.schema import leaves

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
TABLE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def test_the_tables_are_those_of_the_model():
    shown = {match[2]: match[3].strip() for match in TABLE.finditer(PAGE.read_text())}
    assert shown == tables(), "run: python -m tests.unit.test_docs_settings"


def test_every_setting_is_on_the_page():
    page = PAGE.read_text()
    for path, _ in leaves(Settings):
        assert f"`{'.'.join(path)}`" in page or f"`{path[-1]}`" in page or path[-1] == "operations", path


def test_every_operation_is_on_the_page():
    page = PAGE.read_text()
    assert [name for name in OPERATIONS if f"`{name}`" not in page] == []


def test_every_setting_has_a_sentence():
    assert [path for path, field in leaves(Settings) if not field.description.endswith((".", ")"))] == []


if __name__ == "__main__":
    new = tables()
    PAGE.write_text(TABLE.sub(lambda match: match[1] + new[match[2]] + "\n" + match[4], PAGE.read_text()))
