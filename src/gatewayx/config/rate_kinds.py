"""Kinds of settings that say how often something may be."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from gatewayx.config.kinds import DisallowedValueError, FunctionList, Kind, escaped
from gatewayx.errors import SettingError

LOWEST_PER_S = 0.001
HIGHEST_PER_S = 1_000_000
HIGHEST_BURST = 1_000_000
# It takes so long at most until all of a burst can be had again.
LONGEST_BURST_S = 86_400

_TEXT = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,6})?)/s(?::([0-9]{1,7}))?", re.ASCII)
_ALLOWED = (
    f"N/s or N/s:BURST, as in 10/s, 0.5/s or 10/s:50, N from {LOWEST_PER_S} to {HIGHEST_PER_S}, BURST a whole number "
    f"from 1 to {HIGHEST_BURST} and at most a day's worth of N"
)


class RateBound(NamedTuple):
    """So many a second on average, and so many at once."""

    per_s: float
    burst: int

    def __str__(self) -> str:
        return f"{str(self.per_s).removesuffix('.0')}/s:{self.burst}"


class FunctionRate(NamedTuple):
    """How often a function may be asked for; a name with `*` at its end stands for all that begin so."""

    name: str
    rate: RateBound


def default_burst(per_s: float) -> int:
    """What a rate without a burst allows at once: what it allows in a second, so that nobody has to space requests."""
    return max(1, math.ceil(per_s))


def rate_bound(per_s: float, burst: int | None = None) -> RateBound:
    """The rate, with a burst of its own or the default one. Raises DisallowedValueError."""
    if burst is None:
        burst = default_burst(per_s)
    if not LOWEST_PER_S <= per_s <= HIGHEST_PER_S or not 1 <= burst <= HIGHEST_BURST:
        raise DisallowedValueError
    # One at once is not put off for longer than its interval, whatever that is.
    if burst > 1 and burst / per_s > LONGEST_BURST_S:
        raise DisallowedValueError
    return RateBound(float(per_s), burst)


def parse_rate(text: object) -> RateBound:
    """Read N/s or N/s:BURST. Raises DisallowedValueError."""
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise DisallowedValueError
    return rate_bound(float(match[1]), None if match[2] is None else int(match[2]))


def rate_of_flag(flag: str, text: str) -> RateBound:
    """parse_rate() of what a flag was given that is no setting's. Raises SettingError."""
    try:
        return parse_rate(text)
    except DisallowedValueError:
        raise SettingError(f"{flag} {escaped(text)} is not allowed: it must be {_ALLOWED}") from None


class Rate(Kind):
    """How often something may be: N/s or N/s:BURST; or empty, for any number."""

    metavar = "N/s[:BURST]"

    @property
    def allowed(self) -> str:
        """See Kind."""
        return _ALLOWED

    def parse(self, value: object) -> RateBound | None:
        """See Kind."""
        return None if value == "" else parse_rate(value)

    def show(self, value: object) -> str:
        """See Kind."""
        return "" if value is None else str(value)


class FunctionRates(FunctionList):
    """None or several NAME=RATE: the names as in FunctionList, the rates as in Rate."""

    metavar = "NAME=N/s[:BURST]"

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"1 to {self.most} NAME=RATE, the names different and * only last, each RATE {_ALLOWED}"

    def _parse_one(self, text: object) -> object:
        name, equals, rate = text.rpartition("=") if isinstance(text, str) else ("", "", "")
        if not equals:
            raise DisallowedValueError
        return FunctionRate(str(super()._parse_one(name)), parse_rate(rate))

    def _name(self, entry: object) -> object:
        assert isinstance(entry, FunctionRate)
        return entry.name

    def show(self, value: object) -> str:
        """See Kind."""
        assert isinstance(value, tuple)
        return ",".join(f"{entry.name}={entry.rate}" for entry in value)
