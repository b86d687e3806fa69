"""The tables of settings that the documents hold."""

import re

from gatewayx.config.manual import HEADER, markdown_tables
from gatewayx.config.setting_table import SETTINGS

# The border of a cell; one with a backslash stands within it.
BAR = re.compile(r"(?<!\\)\|")


def test_every_setting_stands_once_below_its_group_with_its_default_and_precedent() -> None:
    group = ""
    found = []
    for line in markdown_tables().splitlines():
        if line.startswith("### "):
            group = line.removeprefix("### ")
        if line.startswith("| `--") and not line.startswith("| `--config "):
            flag, variable, default, allowed, change, meaning, precedent = (
                cell.strip() for cell in BAR.split(line)[1:-1]
            )
            setting = next(setting for setting in SETTINGS if re.match(rf"`{setting.flag}[` ]", flag))
            found.append(setting)
            assert group == setting.group
            assert variable == f"`{setting.variable}`"
            assert default == f"`{setting.default_text or 'none'}`"
            assert (allowed, meaning, precedent) == (setting.kind.allowed, setting.help, setting.precedent)
            assert change == ("live" if setting.live else "restart")

    assert sorted(setting.name for setting in found) == sorted(setting.name for setting in SETTINGS)


def test_the_tables_are_well_formed() -> None:
    lines = [line for line in markdown_tables().splitlines() if line.startswith("|")]

    assert {len(BAR.findall(line)) for line in lines} == {len(HEADER) + 1}
    assert len(lines) == len(SETTINGS) + 1 + 2 * (len({setting.group for setting in SETTINGS}) + 1)
