"""What the documents hold of the settings."""

from __future__ import annotations

from gatewayx.config.kinds import Switch
from gatewayx.config.loading import CONFIG_FLAG, CONFIG_HELP, CONFIG_VARIABLE, NO_ENTRIES
from gatewayx.config.settings import SETTINGS


def markdown_table() -> str:
    """Return the table of all flags as the README holds it, without a line end after the last row."""
    rows = [
        "| Flag | Variable | Default | Allowed | Meaning |",
        "|---|---|---|---|---|",
        f"| `{CONFIG_FLAG} FILE` | `{CONFIG_VARIABLE}` | none | a readable TOML file | {CONFIG_HELP} |",
    ]
    for setting in SETTINGS:
        flag = setting.flag if isinstance(setting.kind, Switch) else f"{setting.flag} {setting.kind.metavar}"
        precedent = f" ({setting.precedent})" if setting.precedent else ""
        rows.append(
            f"| `{flag}` | `{setting.variable}` | `{setting.default_text or NO_ENTRIES}` | {setting.kind.allowed} "
            f"| {setting.help}{precedent} |"
        )
    return "\n".join(rows)
