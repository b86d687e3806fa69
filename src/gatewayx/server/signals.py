"""What signals do to `gatewayx serve`: they stop it, change its settings, have it open its log anew, or do nothing.

`prepare` is called as early as may be. The master waits for them from `take_over` on, without handlers; its worker
processes obey the master alone. SIGPIPE is ignored by Python itself.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

# The first signal drains, the second one ends the process at once.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# At the first the settings are read again, at the second the access log is opened anew. Neither is looked at more often
# than is good for the log.
TOLD = (signal.SIGHUP, signal.SIGUSR1)
# SIGTTIN and SIGTTOU would suspend a process that was started in the background of a terminal, the latter when it logs
# and the terminal has `tostop` set.
IGNORED = (signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)

# A timer of 0 s is none.
SHORTEST_WAIT_S = 1e-6


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


def take_over() -> None:
    """Let every signal that means something wait for `wait`, the end of a child among them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (*STOPPING, *TOLD, signal.SIGCHLD, signal.SIGALRM))


def wait(timeout_s: float, *, told: bool) -> signal.Signals | None:
    """The next signal, or None after so long; those that are only told are left where they are unless `told`."""
    # sigtimedwait of Python returns whatever stands in memory when its time ends in an EINTR, as after SIGCONT.
    signal.setitimer(signal.ITIMER_REAL, max(timeout_s, SHORTEST_WAIT_S))
    found = signal.sigwaitinfo((*STOPPING, signal.SIGCHLD, signal.SIGALRM, *(TOLD if told else ())))
    number = signal.Signals(found.si_signo)
    return None if number is signal.SIGALRM else number


def leave_to_master() -> None:
    """In a worker process: whoever signals a group or unit (a terminal, systemd) means the master, which says so."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*STOPPING, *TOLD, signal.SIGCHLD, signal.SIGALRM))
