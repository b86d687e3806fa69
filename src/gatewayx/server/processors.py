"""How many processors this process may use, and how many worker processes that makes.

Two things bound it: the CPU affinity (taskset(1), cpusets), which says where it may run, and the cgroups' CPU quotas,
which say for how long. A quota holds for all that is below its cgroup, so the smallest on the way up decides. What the
kernel tells of them is in cgroups(7), cgroup_namespaces(7), proc_pid_mountinfo(5) and its own cgroup-v2.rst.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

import msgspec

from gatewayx.config.settings import MOST_WORKERS, Settings

# So much of a file is read. The cgroups are mounted early, before what may fill the list of mounts.
MOST_FILE_BYTES = 64 * 1024
# Mounts of cgroups that are looked at, and levels below each; containers have one or two, and less than ten.
MOST_MOUNTS = 16
MOST_LEVELS = 64
# What the kernel takes as a quota and its period (kernel/sched/core.c, tg_set_cfs_bandwidth).
LEAST_US = 1_000
MOST_PERIOD_US = 1_000_000

# The kernel writes blanks, line ends and backslashes in the list of mounts so.
_ESCAPED = re.compile(r"\\([01][0-7]{2})")
_NUMBER = re.compile(r"[0-9]{1,19}")


class Processors(msgspec.Struct, frozen=True):
    """How many processors the process may use, at least 1, and what says so, for operators."""

    count: int
    decided_by: str


class WorkerProcesses(msgspec.Struct, frozen=True):
    """How many worker processes there are to be, and why so many, for operators."""

    count: int
    decided_by: str

    @property
    def told(self) -> str:
        """Both, as in "2 worker processes: CPU affinity of 2 processors"."""
        return f"{self.count} worker {'process' if self.count == 1 else 'processes'}: {self.decided_by}"


def connections_told(settings: Settings, processes: int, *, with_admin: bool) -> str:
    """How many connections to job servers so many worker processes make, for operators.

    with_admin: there is an admin process as well.
    """
    for_jobs = settings.connections_per_server
    to_each = processes * (for_jobs + 1) + with_admin
    told = (
        f"{to_each} connections to each job server: {for_jobs} for jobs and 1 for text from each worker process"
        f"{', and 1 for text from the admin process' if with_admin else ''}; {to_each * len(settings.server)} in all"
    )
    if any(server.each for server in settings.server):
        told += ", and with each:// as many more as a name has further addresses"
    return told


class _Quota(NamedTuple):
    """What the processes of one cgroup may use together."""

    quota_us: int
    period_us: int
    # The file that says so.
    path: str

    @property
    def processors(self) -> float:
        return self.quota_us / self.period_us

    @property
    def rounded_up(self) -> int:
        return -(-self.quota_us // self.period_us)


class _Mount(NamedTuple):
    """Where a hierarchy of cgroups that may have CPU quotas is to be seen."""

    # 1 or 2, of the hierarchy.
    version: int
    # The cgroup at the mount point, as /proc/self/cgroup would call it.
    root: str
    mount_point: str


def worker_processes(workers: int | None, root: str = "/", affinity: Collection[int] | None = None) -> WorkerProcesses:
    """How many worker processes the setting `workers` makes; the rest is as in `available_processors`."""
    if workers is not None:
        return WorkerProcesses(workers, "as set")
    available = available_processors(root, affinity)
    if available.count > MOST_WORKERS:
        return WorkerProcesses(MOST_WORKERS, f"the most there may be; {available.decided_by}")
    return WorkerProcesses(available.count, available.decided_by)


def available_processors(root: str = "/", affinity: Collection[int] | None = None) -> Processors:
    """Return the smaller of the CPU affinity and of the smallest cgroup quota, rounded up; at least 1.

    root: where proc and the mounts are looked up. affinity: the processors that the process may run on, by default
    the kernel's word. What cannot be read or understood, or cannot be a quota, is passed over.
    """
    allowed = max(1, len(os.sched_getaffinity(0) if affinity is None else affinity))
    quota = min(_quotas(root.rstrip("/")), key=lambda each: each.processors, default=None)
    if quota is None or quota.rounded_up >= allowed:
        return Processors(allowed, f"CPU affinity of {_counted(allowed)}")
    # A cgroup's name may hold any byte but a line end.
    return Processors(quota.rounded_up, f"cgroup quota of {_counted(quota.processors)} in {ascii(quota.path)[1:-1]}")


def _counted(processors: float) -> str:
    return f"{processors:g} {'processor' if processors == 1 else 'processors'}"


def _quotas(root: str) -> Iterator[_Quota]:
    """Every quota that holds for the process, in each hierarchy from its own cgroup upwards.

    With both versions in use the controller `cpu` is in one of them, and the other has no files of it.
    """
    paths = _own_cgroups(_read(f"{root}/proc/self/cgroup"))
    found = 0
    for mount in _mounts(_read(f"{root}/proc/self/mountinfo")):
        below = _below(mount.root, paths[mount.version]) if mount.version in paths else None
        if below is None:
            continue
        found += 1
        if found > MOST_MOUNTS:
            return
        for depth in range(min(len(below), MOST_LEVELS), -1, -1):
            cgroup = "/".join([mount.mount_point.rstrip("/"), *below[:depth]])
            quota = _quota_v2(root, cgroup) if mount.version == 2 else _quota_v1(root, cgroup)
            if quota is not None:
                yield quota


def _own_cgroups(text: str) -> dict[int, str]:
    """The cgroup of the process for each version that may hold its CPU quota."""
    paths = {}
    for line in text.split("\n"):
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # A hierarchy with a name and without controllers stands as `name=systemd`.
        if "cpu" in controllers.split(","):
            paths[1] = path
        elif hierarchy == "0":
            paths[2] = path
    return paths


def _mounts(text: str) -> Iterator[_Mount]:
    for line in text.split("\n"):
        # Blanks within the fields are escaped, so the dash between two blanks is the separator.
        mount, _, filesystem = line.partition(" - ")
        fields, kind = mount.split(" "), filesystem.split(" ")
        if len(fields) < 6 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            version = 2
        elif kind[0] == "cgroup" and "cpu" in kind[2].split(","):
            version = 1
        else:
            continue
        yield _Mount(version, _unescaped(fields[3]), _unescaped(fields[4]))


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def _below(root: str, path: str) -> list[str] | None:
    """The way from the cgroup `root` down to the cgroup `path`; None if `path` is not below it.

    Both are seen from the process's cgroup namespace, where `/..` is above its root. The names of cgroups between a
    root above the namespace and the namespace are not told: of those that the mount shows only the first is known.
    """
    seen_root, seen_path = _steps(root), _steps(path)
    if seen_root is None or seen_path is None:
        return None
    (root_ups, root_names), (path_ups, path_names) = seen_root, seen_path
    if root_ups > path_ups and not root_names:
        return []
    if root_ups == path_ups and path_names[: len(root_names)] == root_names:
        return path_names[len(root_names) :]
    return None


def _steps(path: str) -> tuple[int, list[str]] | None:
    """How many levels a path goes up, and the names that it then goes down; None if it is no cgroup's."""
    if not path.startswith("/"):
        return None
    names = [name for name in path.split("/") if name]
    ups = 0
    while ups < len(names) and names[ups] == "..":
        ups += 1
    names = names[ups:]
    return None if ".." in names else (ups, names)


def _quota_v2(root: str, cgroup: str) -> _Quota | None:
    path = f"{cgroup}/cpu.max"
    # Without a quota "max" stands in its place.
    quota, _, period = _read(root + path).strip().partition(" ")
    return _quota(quota, period, path)


def _quota_v1(root: str, cgroup: str) -> _Quota | None:
    path = f"{cgroup}/cpu.cfs_quota_us"
    # Without a quota it is -1.
    quota = _read(root + path).strip()
    return _quota(quota, _read(f"{root}{cgroup}/cpu.cfs_period_us").strip(), path)


def _quota(quota: str, period: str, path: str) -> _Quota | None:
    if not _NUMBER.fullmatch(quota) or not _NUMBER.fullmatch(period):
        return None
    quota_us, period_us = int(quota), int(period)
    if quota_us < LEAST_US or not LEAST_US <= period_us <= MOST_PERIOD_US:
        return None
    return _Quota(quota_us, period_us, path)


def _read(path: str) -> str:
    """The whole lines in the first MOST_FILE_BYTES of a file; nothing if it cannot be read."""
    chunks = []
    left = MOST_FILE_BYTES
    try:
        # Nothing that stands in a file's place, such as a pipe, is waited for.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while left and (chunk := os.read(opened, left)):
                chunks.append(chunk)
                left -= len(chunk)
        finally:
            os.close(opened)
    # A NUL in a path is a ValueError.
    except (OSError, ValueError):
        return ""
    text = os.fsdecode(b"".join(chunks))
    return text if left else text.rpartition("\n")[0]
