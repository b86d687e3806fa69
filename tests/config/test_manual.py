"""The table of settings that the documents hold."""

from pathlib import Path

from gatewayx.config.manual import markdown_table
from gatewayx.config.settings import SETTINGS

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_readme_holds_every_setting() -> None:
    assert markdown_table() in README.read_text(encoding="utf-8"), (
        "the README's table of flags must be what gatewayx.config.manual.markdown_table() returns"
    )


def test_the_table_of_flags_is_well_formed() -> None:
    lines = markdown_table().splitlines()

    assert len(lines) == len(SETTINGS) + 3
    assert {line.count("|") for line in lines} == {6}
    for setting in SETTINGS:
        assert any(f"`{setting.flag}" in line and f"`{setting.variable}`" in line for line in lines)
