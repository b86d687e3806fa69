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

# The first signal drains, the second one ends the process at once.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# At these, other servers read their settings or open their log files anew. Here they are logged and have no effect.
TOLD = (signal.SIGHUP, signal.SIGUSR1)
# SIGTTIN and SIGTTOU would suspend a process that was started in the background of a terminal, the latter when it logs
# and the terminal has `tostop` set.
IGNORED = (signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)

# How often the signals that are told are asked for.
POLL_S = 0.1


def prepare() -> None:
    """Let no signal end the process except those that stop it, and those with exit code 0: nothing has begun yet.

    What is only told is blocked in this thread and in those that it starts, so that it waits in the kernel, once each,
    until it is asked for: handlers in Python nest, and a storm of signals would exhaust the stack.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)
    for number in (*TOLD, *IGNORED):
        signal.signal(number, signal.SIG_IGN)
    for number in STOPPING:
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    # An exception could be caught by whatever is being imported.
    os._exit(0)


class Signals:
    """Handles the signals in the running loop, up to `close()`.

    stop: called for each that stops. told: called with the name of each that is only told, at most once in POLL_S.
    """

    def __init__(self, stop: Callable[[], None], told: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = told
        for number in STOPPING:
            self._loop.add_signal_handler(number, stop)
        self._next = self._loop.call_later(POLL_S, self._poll)

    def _poll(self) -> None:
        if (found := signal.sigtimedwait(TOLD, 0)) is not None:
            self._told(signal.Signals(found.si_signo).name)
        self._next = self._loop.call_later(POLL_S, self._poll)

    def close(self) -> None:
        """Tell nothing more; what comes up to the end of the process has no effect."""
        self._next.cancel()
