"""Processor time and private memory of a process and all its descendants, through /proc (proc(5))."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from gatewayx.bench.errors import RunError, UseError


@dataclass(frozen=True)
class Sample:
    """A process tree at a moment."""

    processes: int
    cpu_s: float
    """User and kernel time since each process started; of threads that have ended meanwhile, up to the last sample."""
    memory_bytes: int
    """What nothing else shares: Private_Clean and Private_Dirty."""


class ProcessTree:
    """A process and its descendants, looked for anew at each sample. Raises RunError if it cannot be read."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._cpu_ns: dict[str, int] = {}
        self.last = self._sample()

    def sample(self) -> Sample | None:
        """Look at all of them; None once the process itself has ended."""
        try:
            self.last = self._sample()
        except RunError:
            return None
        return self.last

    def _sample(self) -> Sample:
        memory_bytes = _private_bytes(self.pid)
        members = self._members()
        for pid in members:
            with contextlib.suppress(OSError):
                self._cpu_ns.update(_cpu_ns(pid))
        for pid in members[1:]:
            with contextlib.suppress(RunError):
                memory_bytes += _private_bytes(pid)
        return Sample(len(members), sum(self._cpu_ns.values()) / 1e9, memory_bytes)

    def _members(self) -> list[int]:
        found = [self.pid]
        for pid in found:
            # One that ends while it is looked at.
            with contextlib.suppress(OSError):
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    found += [int(child) for child in children.read_text().split()]
        return found


def find_process(name: str) -> int:
    """The process of this name that is no other's descendant of the same name.

    The name is the program's file name, or the name the process has given itself. Raises UseError unless there is one.
    """
    parents: dict[int, int] = {}
    named = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(directory.name)
            parents[pid] = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            words = (directory / "cmdline").read_bytes().split(b"\0")
            names = {(directory / "comm").read_text().strip(), *(Path(os.fsdecode(word)).name for word in words[:2])}
            if name in names and pid != os.getpid():
                named.append(pid)

    def has_named_ancestor(pid: int) -> bool:
        while pid := parents.get(pid, 0):
            if pid in named:
                return True
        return False

    roots = sorted(pid for pid in named if not has_named_ancestor(pid) and pid != os.getppid())
    if len(roots) != 1:
        found = f"{len(roots)} processes are ({', '.join(map(str, roots[:10]))})" if roots else "no process is"
        raise UseError(f"{found} called {name!a}: give --pid")
    return roots[0]


def slope_per_s(points: list[tuple[float, float]]) -> float:
    """How fast values grow: the slope of the straight line that fits (time, value) best; 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    middle_s = sum(at_s for at_s, _ in points) / len(points)
    mean = sum(value for _, value in points) / len(points)
    spread = sum((at_s - middle_s) ** 2 for at_s, _ in points)
    return sum((at_s - middle_s) * (value - mean) for at_s, value in points) / spread if spread else 0.0


def _cpu_ns(pid: int) -> dict[str, int]:
    """Of each thread, by the scheduler's own count, in nanoseconds: times in stat have ticks of 10 ms."""
    used_ns = {}
    for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            used_ns[schedstat.parent.name] = int(schedstat.read_text().split()[0])
    return used_ns


def _private_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:
        raise RunError(f"process {pid} is somebody else's: its memory can be seen by its user or root only") from None
    except OSError as error:
        # ESRCH of a process that has ended and not been waited for.
        raise RunError(f"there is no process {pid}: {error.strerror}") from None
    if not lines:
        raise RunError(f"process {pid} has ended")
    kib = 0
    for line in lines[1:]:
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            kib += int(line.split()[1])
    return kib * 1024
