"""What a setting is tested with."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Sample(NamedTuple):
    """What one setting is tested with."""

    # The documented default, as the field's type.
    default: object
    # For each level a value in its own spelling, and what the field is then.
    toml: tuple[str, object]
    variable: tuple[str, object]
    flag: tuple[object, object]
    # Arguments of the command line, and the value that `check` shows for them.
    arguments: list[str]
    shown: str
    # Texts that are no value.
    bad: list[str]
    # Texts of the settings without which these values are not allowed, by name.
    beside: Mapping[str, str] = MappingProxyType({})
