"""What the signals that people send to servers do to `gatewayx serve`: they stop it or nothing.

`prepare` is called as early as may be, `Signals` while the loop runs. SIGPIPE is ignored by Python itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

# The first one drains, the second one ends at once.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# Other servers read their settings or open their log files anew: logged, and without an effect.
TOLD = (signal.SIGHUP, signal.SIGUSR1)
# SIGTTIN and SIGTTOU would suspend a process that was started in the background of a terminal, the latter when it logs
# and the terminal has `tostop` set.
IGNORED = (signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)


def prepare() -> None:
    """Let no signal end the process except those that stop it, and those with exit code 0: nothing has begun yet."""
    for number in (*TOLD, *IGNORED):
        signal.signal(number, signal.SIG_IGN)
    for number in STOPPING:
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    # An exception could be caught by whatever is being imported.
    os._exit(0)


class Signals:
    """Handles the signals in the running loop, up to `close()`.

    stop: called for each that stops. told: called with the name of each that is only told.
    """

    def __init__(self, stop: Callable[[], None], told: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = told
        for number in STOPPING:
            self._loop.add_signal_handler(number, stop)
        for number in TOLD:
            # Not by the loop, which gives a signal back its deadly default before it has ended.
            signal.signal(number, self._tell)

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._told, signal.Signals(number).name)

    def close(self) -> None:
        """Ignore what was told, until the process has ended."""
        for number in TOLD:
            signal.signal(number, signal.SIG_IGN)
