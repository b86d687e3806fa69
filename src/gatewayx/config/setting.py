"""One setting: how it is written, what it bounds, and how a change of it comes about."""

from __future__ import annotations

import msgspec

from gatewayx.config.kinds import DisallowedValueError, Kind, escaped
from gatewayx.config.settings import Settings
from gatewayx.errors import SettingError

VARIABLE_PREFIX = "GATEWAYX_"

_DEFAULTS = Settings()


class Setting(msgspec.Struct, frozen=True):
    """One setting: everything about it except its default, which is the field's in Settings."""

    # The field of Settings, with the unit as its suffix.
    name: str
    # The TOML key; the flag and the variable are made of it.
    key: str
    kind: Kind
    # The heading in --help.
    group: str
    # One sentence or two, without markup.
    help: str
    # Who else bounds the same thing, and how; empty where nobody does.
    precedent: str = ""
    # A running gateway takes a change of it, at SIGHUP; else a change needs a restart.
    live: bool = True

    @property
    def flag(self) -> str:
        """The flag, such as `--max-body`."""
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable, such as `GATEWAYX_MAX_BODY`."""
        return VARIABLE_PREFIX + self.key.upper().replace("-", "_")

    @property
    def change(self) -> str:
        """How a change of it comes about, in a word."""
        return "live" if self.live else "restart"

    @property
    def default(self) -> object:
        """The default as the field's type."""
        return getattr(_DEFAULTS, self.name)

    @property
    def default_text(self) -> str:
        """The default as it would be written."""
        return self.kind.show(self.default)

    def parse(self, value: object, origin: str) -> object:
        """Return the value as the field's type; `origin` says where it came from. Raises SettingError."""
        try:
            return self.kind.parse(value)
        except DisallowedValueError:
            raise SettingError(
                f"{self.key} = {escaped(value)} ({origin}) is not allowed: it must be {self.kind.allowed}"
            ) from None
