"""The tables of settings in docs/settings.md."""

from __future__ import annotations

from gatewayx.config.kinds import Switch
from gatewayx.config.loading import CONFIG_FLAG, CONFIG_HELP, CONFIG_VARIABLE, NO_ENTRIES
from gatewayx.config.setting_table import SETTINGS, Setting

HEADER = ("Flag", "Variable", "Default", "Allowed", "Change", "Meaning", "Precedent")


def markdown_tables() -> str:
    """Return a table of settings for each group, below its heading, without a line end after the last row."""
    parts = ["### The file", "", *_table([_file_row()])]
    for group in dict.fromkeys(setting.group for setting in SETTINGS):
        rows = [_row(setting) for setting in SETTINGS if setting.group == group]
        parts += ["", f"### {group}", "", *_table(rows)]
    return "\n".join(parts)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    return [_line(row) for row in (HEADER, ("---",) * len(HEADER), *rows)]


def _line(row: tuple[str, ...]) -> str:
    # A bar within a cell would end it.
    cells = [cell.replace("|", r"\|") for cell in row]
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _file_row() -> tuple[str, ...]:
    return (f"`{CONFIG_FLAG} FILE`", f"`{CONFIG_VARIABLE}`", NO_ENTRIES, "a readable TOML file", "", CONFIG_HELP, "")


def _row(setting: Setting) -> tuple[str, ...]:
    flag = setting.flag if isinstance(setting.kind, Switch) else f"{setting.flag} {setting.kind.metavar}"
    return (
        f"`{flag}`",
        f"`{setting.variable}`",
        f"`{setting.default_text or NO_ENTRIES}`",
        setting.kind.allowed,
        setting.change,
        setting.help,
        setting.precedent,
    )
