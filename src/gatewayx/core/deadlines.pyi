"""Deadlines in coarse lists that one tick a process sweeps; the .pxd has the C-level interface."""

import logging
from typing import final

logger: logging.Logger

class Expiring:
    """Whatever can run out of time; a subclass says in `deadline_passed` what happens then."""

    def deadline_passed(self) -> int: ...

@final
class DeadlineWheel:
    """All deadlines of a process.

    tick_s: seconds between two sweeps, above 0. now_s: the loop's time at the start.
    """

    def __new__(cls, tick_s: float, now_s: float) -> DeadlineWheel: ...
    @property
    def tick_s(self) -> float: ...
    @property
    def tick(self) -> int: ...
    @property
    def armed(self) -> int: ...
    def arm(self, entry: Expiring, after_s: float) -> int:
        """Let entry.deadline_passed() be called after_s seconds from now, instead of when it was armed for before."""
    def put_off(self, entry: Expiring) -> int:
        """Forget entry's deadline, since it will be armed soon again; the wheel may keep the entry alive until then."""
    def disarm(self, entry: Expiring) -> int:
        """Forget entry's deadline, and let go of it; nothing happens when it has none."""
    def advance(self, now_s: float) -> int:
        """Make due what is so at loop time now_s, to be fired by fire(); returns how many those are."""
    def fire(self, most: int) -> int:
        """Fire what is due, at most so many; returns how many fired. An entry's exception is logged, not raised."""
    def quiet_ticks(self, most: int) -> int:
        """How many of the next sweeps, up to so many, would find nothing; 0 while what is due has not fired."""
