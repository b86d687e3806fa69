"""What the settings mean: `SETTINGS` says of each how it is written, what it bounds, and how a change comes about.

The TOML keys, the variables, the flags with their help, the output of `gatewayx check` and the table in
docs/settings.md all come from this and from `Settings`. A setting is called the same everywhere: flag `--max-body`, key
`max-body`, variable `GATEWAYX_MAX_BODY`; only the field in code adds the unit, `max_body_bytes`.
"""

from __future__ import annotations

from gatewayx.config.answer_settings import ANSWER_SETTINGS
from gatewayx.config.client_settings import CLIENT_SETTINGS
from gatewayx.config.job_server_settings import ROUTE_SETTINGS
from gatewayx.config.limit_settings import LIMIT_SETTINGS
from gatewayx.config.setting import VARIABLE_PREFIX, Setting

__all__ = ["SETTINGS", "VARIABLE_PREFIX", "Setting"]

# In the order of --help and the documents.
SETTINGS: tuple[Setting, ...] = (*ROUTE_SETTINGS, *CLIENT_SETTINGS, *LIMIT_SETTINGS, *ANSWER_SETTINGS)
