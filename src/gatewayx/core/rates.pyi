"""GCRA in a table that processes share; the .pxd has the C-level interface."""

from typing import Any, final

from gatewayx.core.counters import Counters

RATES_BYTES: int

def alone(counters: Counters | None = None) -> Rates:
    """The table of a process that shares it with nobody."""

@final
class Rates:
    """Rates of a process. memory: a writable buffer with RATES_BYTES bytes from `offset` on."""

    def __init__(self, memory: Any, counters: Counters, offset: int = 0) -> None: ...
    def take_at(self, key: int, interval_ns: int, burst: int, now_ns: int) -> tuple[int, int]:
        """Take one; returns the nanoseconds to wait, 0 if one was taken, and how many more can be had at once."""
    def wait_at(self, key: int, interval_ns: int, burst: int, now_ns: int) -> int:
        """What take_at() would return first."""
    def give_back_at(self, key: int, interval_ns: int, burst: int, now_ns: int) -> int:
        """Give back one; returns how many can be had at once."""
    def keys(self, now_ns: int) -> int:
        """How many keys have not all of their burst at this time."""
