"""Forks of a process whose allocator does not survive them.

The sanitizers' allocator of gcc 12 is not locked while a process is forked: if another thread has one of its locks at
that moment the child has it, too, and nobody there ever gives it back. The child then waits for ever in its first
allocation, and who has forked waits for the child.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

# A thread that has a lock runs, or is about to; the others sleep nearly always.
LOOKS = 4000
LOOK_S = 0.0005


def until_other_threads_sleep() -> None:
    """Return once every other thread of this process sleeps, or after a while; for os.register_at_fork()."""
    for _ in range(LOOKS):
        if all_sleep():
            return
        time.sleep(LOOK_S)


def all_sleep() -> bool:
    """Whether every thread of this process but the caller's sleeps."""
    own = str(threading.get_native_id())
    return all(_sleeps(task) for task in Path("/proc/self/task").iterdir() if task.name != own)


def _sleeps(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] not in ("R", "D")
    except OSError:
        # It has ended meanwhile.
        return True
