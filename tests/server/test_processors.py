"""How many processors there are, on machines made of files: affinity, and cgroup quotas of both versions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayx.config.settings import MOST_WORKERS
from gatewayx.server.processors import MOST_FILE_BYTES, MOST_LEVELS, MOST_MOUNTS, available_processors, worker_processes

AFFINITY = range(8)

# Mounts as the kernel lists them.
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "34 25 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct"
V1_NAMED = "33 25 0:29 / /sys/fs/cgroup/systemd rw,nosuid - cgroup cgroup rw,xattr,name=systemd"
V1_OTHER = "35 25 0:31 / /sys/fs/cgroup/cpuset rw,nosuid,relatime shared:10 - cgroup cgroup rw,cpuset"
HYBRID = "32 25 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:7 - cgroup2 cgroup2 rw,nsdelegate"

POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod5f.slice"
CONTAINER = f"{POD}/cri-containerd-2b7a.scope"


class Machine(NamedTuple):
    """What a process sees of its machine."""

    # Lines of /proc/self/cgroup and /proc/self/mountinfo.
    cgroup: list[str]
    mounts: list[str]
    # Folders of cgroups, each with its quota and its period.
    v2: Mapping[str, str] = MappingProxyType({})
    v1: Mapping[str, tuple[str, str]] = MappingProxyType({})


class Answer(NamedTuple):
    """The processors that a machine has, and of the quota that decides how much it is and where."""

    count: int
    quota: str = ""
    path: str = ""


AFFINITY_DECIDES = Answer(8)

MACHINES: dict[str, tuple[Machine, Answer]] = {
    "v2, a container with a cgroup namespace of its own": (
        Machine(["0::/"], [V2], v2={"/sys/fs/cgroup": "150000 100000"}),
        Answer(2, "1.5 processors", "/sys/fs/cgroup/cpu.max"),
    ),
    "v2, a unit of systemd": (
        Machine(
            ["0::/system.slice/gatewayx.service"],
            [V2],
            v2={
                "/sys/fs/cgroup/system.slice": "max 100000",
                "/sys/fs/cgroup/system.slice/gatewayx.service": "300000 100000",
            },
        ),
        Answer(3, "3 processors", "/sys/fs/cgroup/system.slice/gatewayx.service/cpu.max"),
    ),
    "v2, no quota anywhere": (
        Machine(["0::/a/b"], [V2], v2={"/sys/fs/cgroup/a": "max 100000", "/sys/fs/cgroup/a/b": "max 100000"}),
        AFFINITY_DECIDES,
    ),
    "v2, the smallest in the middle": (
        Machine(
            ["0::/a/b/c"],
            [V2],
            v2={
                "/sys/fs/cgroup/a": "600000 100000",
                "/sys/fs/cgroup/a/b": "550000 250000",
                "/sys/fs/cgroup/a/b/c": "400000 100000",
            },
        ),
        Answer(3, "2.2 processors", "/sys/fs/cgroup/a/b/cpu.max"),
    ),
    "v2, equal quotas: the process's own is named": (
        Machine(["0::/a/b"], [V2], v2={"/sys/fs/cgroup/a": "200000 100000", "/sys/fs/cgroup/a/b": "200000 100000"}),
        Answer(2, "2 processors", "/sys/fs/cgroup/a/b/cpu.max"),
    ),
    "v2, quotas beside the path and below it": (
        Machine(
            ["0::/a/b"],
            [V2],
            v2={
                "/sys/fs/cgroup/b": "100000 100000",
                "/sys/fs/cgroup/a/b/c": "100000 100000",
                "/sys/fs/cgroup/ab": "100000 100000",
            },
        ),
        AFFINITY_DECIDES,
    ),
    "v2, kubernetes seen from the node": (
        Machine(
            [f"0::{CONTAINER}"],
            [V2],
            v2={
                "/sys/fs/cgroup/kubepods.slice": "max 100000",
                f"/sys/fs/cgroup{POD}": "250000 100000",
                f"/sys/fs/cgroup{CONTAINER}": "max 100000",
            },
        ),
        Answer(3, "2.5 processors", f"/sys/fs/cgroup{POD}/cpu.max"),
    ),
    "v2, the cgroup that is gone leaves those above it": (
        Machine(["0::/a/gone"], [V2], v2={"/sys/fs/cgroup/a": "50000 100000"}),
        Answer(1, "0.5 processors", "/sys/fs/cgroup/a/cpu.max"),
    ),
    "v2, the host's tree bound into a container: names on the way down are not told": (
        Machine(
            ["0::/"],
            [V2.replace(" / ", " /../.. ", 1)],
            v2={"/sys/fs/cgroup": "400000 100000", "/sys": "100000 100000"},
        ),
        Answer(4, "4 processors", "/sys/fs/cgroup/cpu.max"),
    ),
    "v2, a process outside its namespace, below the root of the mount": (
        Machine(
            ["0::/../../init.scope"],
            [V2.replace(" / ", " /../.. ", 1)],
            v2={"/sys/fs/cgroup/init.scope": "200000 100000"},
        ),
        Answer(2, "2 processors", "/sys/fs/cgroup/init.scope/cpu.max"),
    ),
    "v2, a process that was moved out of what is mounted": (
        Machine(["0::/../other"], [V2], v2={"/sys/fs/cgroup": "100000 100000", "/sys/fs/other": "100000 100000"}),
        AFFINITY_DECIDES,
    ),
    "v2, mounts of the cgroup's child, of one whose name it only begins with, and of one outside": (
        Machine(
            ["0::/a/bc"],
            [
                V2.replace(" / ", " /a/bc/d ", 1).replace("/sys/fs/cgroup", "/one"),
                V2.replace(" / ", " /a/b ", 1).replace("/sys/fs/cgroup", "/two"),
                V2.replace(" / ", " /../x ", 1).replace("/sys/fs/cgroup", "/three"),
            ],
            v2=dict.fromkeys(("/one", "/two", "/three"), "100000 100000"),
        ),
        AFFINITY_DECIDES,
    ),
    "v2, several mounts: each shows another part of the way": (
        Machine(
            ["0::/a/b"],
            [
                V2.replace(" / ", " /other ", 1).replace("/sys/fs/cgroup", "/one"),
                V2.replace(" / ", " /a/b ", 1).replace("/sys/fs/cgroup", "/two"),
                V2.replace(" / ", " /a ", 1).replace("/sys/fs/cgroup", "/three"),
            ],
            v2={"/one": "100000 100000", "/two": "300000 100000", "/three": "200000 100000"},
        ),
        Answer(2, "2 processors", "/three/cpu.max"),
    ),
    "v2, names with blanks, backslashes, colons and foreign letters": (
        Machine(
            ["0::/a b/c:d\u2028\u00e4"],
            [V2.replace(" / ", r" /a\040b ", 1).replace("/sys/fs/cgroup", r"/sys/x\134y\011z")],
            v2={"/sys/x\\y\tz/c:d\u2028\u00e4": "200000 100000"},
        ),
        Answer(2, "2 processors", r"/sys/x\\y\tz/c:d\u2028\xe4/cpu.max"),
    ),
    "v1, docker: the container's cgroup is the root of the mount": (
        Machine(
            ["11:cpuset:/docker/abc", "4:cpu,cpuacct:/docker/abc", "1:name=systemd:/docker/abc", "0::/docker/abc"],
            [V1_NAMED, V1.replace(" / ", " /docker/abc ", 1), V1_OTHER],
            v1={"/sys/fs/cgroup/cpu,cpuacct": ("150000", "100000")},
        ),
        Answer(2, "1.5 processors", "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us"),
    ),
    "v1, a cgroup within a container": (
        Machine(
            ["4:cpuacct,cpu:/docker/abc/inner"],
            [V1.replace(" / ", " /docker/abc ", 1)],
            v1={
                "/sys/fs/cgroup/cpu,cpuacct": ("-1", "100000"),
                "/sys/fs/cgroup/cpu,cpuacct/inner": ("250000", "50000"),
            },
        ),
        Answer(5, "5 processors", "/sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us"),
    ),
    "v1, kubernetes: the smallest in the middle": (
        Machine(
            ["5:cpu,cpuacct:/kubepods/burstable/pod1/c1"],
            [V1],
            v1={
                "/sys/fs/cgroup/cpu,cpuacct/kubepods": ("-1", "100000"),
                "/sys/fs/cgroup/cpu,cpuacct/kubepods/burstable": ("700000", "100000"),
                "/sys/fs/cgroup/cpu,cpuacct/kubepods/burstable/pod1": ("100000", "100000"),
                "/sys/fs/cgroup/cpu,cpuacct/kubepods/burstable/pod1/c1": ("600000", "100000"),
            },
        ),
        Answer(1, "1 processor", "/sys/fs/cgroup/cpu,cpuacct/kubepods/burstable/pod1/cpu.cfs_quota_us"),
    ),
    "v1, lxc: cpu without cpuacct, and a namespace": (
        Machine(
            ["3:cpuacct:/", "2:cpu:/", "1:cpuset:/"],
            ["58 57 0:38 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"],
            v1={"/sys/fs/cgroup/cpu": ("400000", "100000")},
        ),
        Answer(4, "4 processors", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
    ),
    "v1, none": (
        Machine(["4:cpu,cpuacct:/"], [V1], v1={"/sys/fs/cgroup/cpu,cpuacct": ("-1", "100000")}),
        AFFINITY_DECIDES,
    ),
    "v1, a mount of another cgroup": (
        Machine(
            ["4:cpu,cpuacct:/nomad/shared"],
            [V1.replace(" / ", " /system.slice/docker-1.scope ", 1)],
            v1={"/sys/fs/cgroup/cpu,cpuacct": ("100000", "100000")},
        ),
        AFFINITY_DECIDES,
    ),
    "v1, other controllers and a hierarchy that is named cpu": (
        Machine(
            ["4:cpuset:/", "3:cpuacct:/", "2:name=cpu:/"],
            [V1_OTHER, V1_NAMED.replace("name=systemd", "name=cpu"), V1],
            v1=dict.fromkeys(("/sys/fs/cgroup/cpuset", "/sys/fs/cgroup/systemd"), ("100000", "100000")),
        ),
        AFFINITY_DECIDES,
    ),
    "v1, the cgroup of another controller, whose name begins with cpu": (
        Machine(
            ["5:cpu:/a", "4:cpuset:/b"],
            [V1_OTHER, V1],
            v1={
                "/sys/fs/cgroup/cpuset/a": ("100000", "100000"),
                "/sys/fs/cgroup/cpu,cpuacct/b": ("200000", "100000"),
                "/sys/fs/cgroup/cpu,cpuacct/a": ("300000", "100000"),
            },
        ),
        Answer(3, "3 processors", "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us"),
    ),
    "hybrid: the controller is in v1": (
        Machine(
            ["4:cpu,cpuacct:/system.slice/g.service", "1:name=systemd:/x", "0::/system.slice/g.service"],
            [HYBRID, V1_NAMED, V1],
            v1={"/sys/fs/cgroup/cpu,cpuacct/system.slice/g.service": ("200000", "100000")},
        ),
        Answer(2, "2 processors", "/sys/fs/cgroup/cpu,cpuacct/system.slice/g.service/cpu.cfs_quota_us"),
    ),
    "hybrid: the controller is in v2": (
        Machine(["1:name=systemd:/x", "0::/a"], [V1_NAMED, HYBRID], v2={"/sys/fs/cgroup/unified/a": "200000 100000"}),
        Answer(2, "2 processors", "/sys/fs/cgroup/unified/a/cpu.max"),
    ),
    "a quota of just more than the affinity": (
        Machine(["0::/"], [V2], v2={"/sys/fs/cgroup": "800001 100000"}),
        AFFINITY_DECIDES,
    ),
    "a quota that is the affinity once it is rounded up": (
        Machine(["0::/"], [V2], v2={"/sys/fs/cgroup": "700001 100000"}),
        AFFINITY_DECIDES,
    ),
    "no mounts": (Machine(["0::/"], [], v2={"/sys/fs/cgroup": "100000 100000"}), AFFINITY_DECIDES),
    "no cgroup": (Machine([], [V2, V1], v2={"/sys/fs/cgroup": "100000 100000"}), AFFINITY_DECIDES),
    "lines that are cut short, and good ones between them": (
        Machine(
            ["", "0", ":", "0:", "4:cpu", "x", "0::/a", "\x00"],
            ["", "30", V2.partition(" - ")[0], "30 23 0:26 / /x - cgroup2", " - cgroup2 cgroup2 rw", V2, "\x00 - \x00"],
            v2={"/sys/fs/cgroup/a": "200000 100000"},
        ),
        Answer(2, "2 processors", "/sys/fs/cgroup/a/cpu.max"),
    ),
    "a path that is none": (Machine(["0::a"], [V2], v2={"/sys/fs/cgroup/a": "100000 100000"}), AFFINITY_DECIDES),
    "a path that turns back": (
        Machine(["0::/a/../../x"], [V2], v2={"/sys/fs/x": "100000 100000", "/sys/fs/cgroup": "100000 100000"}),
        AFFINITY_DECIDES,
    ),
    "a path with a NUL": (
        Machine(["0::/a\x00b"], [V2], v2={"/sys/fs/cgroup": "200000 100000"}),
        Answer(2, "2 processors", "/sys/fs/cgroup/cpu.max"),
    ),
    "a path longer than the kernel takes": (
        Machine(["0::/" + "a/" * 20_000], [V2], v2={"/sys/fs/cgroup": "200000 100000"}),
        Answer(2, "2 processors", "/sys/fs/cgroup/cpu.max"),
    ),
}

# What a file may hold instead of a quota: (quota, period).
NO_QUOTAS = [
    ("", ""),
    ("100000", ""),
    ("", "100000"),
    ("0", "100000"),
    ("-1", "100000"),
    ("-100000", "100000"),
    ("100000", "0"),
    ("100000", "-100000"),
    ("-100000", "-100000"),
    ("999", "100000"),
    ("1000", "999"),
    ("1000", "1000001"),
    ("max", "100000"),
    ("100000", "max"),
    ("100000", "100000 100000"),
    ("1e5", "100000"),
    ("100000.0", "100000"),
    ("1_00000", "100000"),
    ("+100000", "100000"),
    ("\uff11\uff10\uff10\uff10\uff10\uff10", "100000"),
    ("nan", "100000"),
    ("1" * 5000, "100000"),
    ("100000", "1" * 5000),
    ("9" * 19, "100000"),
    ("100000", " " * MOST_FILE_BYTES + "100000"),
]


def build(root: Path, machine: Machine) -> None:
    """Write the files of a machine below `root`."""
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("".join(f"{line}\n" for line in machine.cgroup))
    (proc / "mountinfo").write_text("".join(f"{line}\n" for line in machine.mounts))
    for folder, text in machine.v2.items():
        place(root, folder).joinpath("cpu.max").write_text(f"{text}\n")
    for folder, (quota, period) in machine.v1.items():
        place(root, folder).joinpath("cpu.cfs_quota_us").write_text(f"{quota}\n")
        place(root, folder).joinpath("cpu.cfs_period_us").write_text(f"{period}\n")


def place(root: Path, folder: str) -> Path:
    """A folder of the machine, which is made if it is not there."""
    path = root / folder.lstrip("/")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize(("machine", "answer"), MACHINES.values(), ids=MACHINES)
def test_the_smaller_of_affinity_and_the_smallest_quota_decides(tmp_path: Path, machine: Machine, answer: Answer):
    build(tmp_path, machine)

    available = available_processors(str(tmp_path), AFFINITY)

    assert available.count == answer.count
    if answer.quota:
        assert available.decided_by == f"cgroup quota of {answer.quota} in {answer.path}"
    else:
        assert available.decided_by == "CPU affinity of 8 processors"


@pytest.mark.parametrize(("affinity", "text"), [(1, "1 processor"), (2, "2 processors")])
def test_affinity_decides_where_the_quota_is_no_smaller(tmp_path: Path, affinity: int, text: str):
    build(tmp_path, Machine(["0::/"], [V2], v2={"/sys/fs/cgroup": "150000 100000"}))

    available = available_processors(str(tmp_path), range(affinity))

    assert available.count == affinity
    assert available.decided_by == f"CPU affinity of {text}"


def test_without_any_file_or_processor_there_is_one(tmp_path: Path):
    assert available_processors(str(tmp_path), ()).count == 1


@pytest.mark.parametrize(("quota", "period"), NO_QUOTAS)
def test_what_cannot_be_a_quota_is_passed_over_and_those_above_it_hold(tmp_path: Path, quota: str, period: str):
    build(
        tmp_path,
        Machine(
            ["4:cpu:/a/b", "0::/a/b"],
            [V2, V1],
            v2={"/sys/fs/cgroup/a/b": f"{quota} {period}", "/sys/fs/cgroup/a": "400000 100000"},
            v1={
                "/sys/fs/cgroup/cpu,cpuacct/a/b": (quota, period),
                "/sys/fs/cgroup/cpu,cpuacct/a": ("500000", "100000"),
            },
        ),
    )

    assert available_processors(str(tmp_path), AFFINITY).count == 4
    (tmp_path / "sys/fs/cgroup/a/cpu.max").unlink()
    assert available_processors(str(tmp_path), AFFINITY).count == 5


@pytest.mark.parametrize("name", ["proc/self/cgroup", "proc/self/mountinfo", "sys/fs/cgroup/cpu.max"])
@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "loop", "bytes"])
def test_a_file_that_is_none_is_passed_over(tmp_path: Path, name: str, kind: str):
    build(tmp_path, Machine(["0::/"], [V2], v2={"/sys/fs/cgroup": "200000 100000"}))
    assert available_processors(str(tmp_path), AFFINITY).count == 2
    path = tmp_path / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "bytes":
        path.write_bytes(bytes(range(256)) * 300)

    assert available_processors(str(tmp_path), AFFINITY).decided_by == "CPU affinity of 8 processors"


def test_of_a_long_list_of_mounts_the_whole_lines_at_its_begin_are_read(tmp_path: Path):
    other = "90 22 8:1 /x /y rw - ext4 /dev/sda1 rw"
    build(tmp_path, Machine(["0::/"], [V2, *[other] * 5000], v2={"/sys/fs/cgroup": "200000 100000", "/s": "1000 1000"}))
    assert available_processors(str(tmp_path), AFFINITY).count == 2

    # The bound cuts the line so that its mount point would be another.
    last = V2.replace("/sys/fs/cgroup", "/s")
    mounts = tmp_path / "proc/self/mountinfo"
    mounts.write_text(f"{V2}\n{'x' * (MOST_FILE_BYTES - len(V2) - len(last) - 2)}\n{last}-not-it\n")
    assert available_processors(str(tmp_path), AFFINITY).count == 2


def test_a_path_is_followed_so_deep_and_no_deeper(tmp_path: Path):
    names = [f"{level}" for level in range(MOST_LEVELS + 1)]
    deepest = "/".join(["/sys/fs/cgroup", *names])
    build(
        tmp_path,
        Machine(
            [f"0::/{'/'.join(names)}"],
            [V2],
            v2={deepest: "100000 100000", deepest.rpartition("/")[0]: "200000 100000"},
        ),
    )

    assert available_processors(str(tmp_path), AFFINITY).count == 2


def test_so_many_mounts_are_looked_at_and_no_more(tmp_path: Path):
    places = [f"/sys/{number}" for number in range(MOST_MOUNTS + 1)]
    mounts = [V2.replace("/sys/fs/cgroup", place) for place in places]
    # What does not show the process's cgroup does not count.
    other = V2.replace(" / ", " /other ", 1)
    build(
        tmp_path,
        Machine(
            ["0::/"],
            [*[other] * MOST_MOUNTS, *mounts],
            v2={places[-2]: "200000 100000", places[-1]: "100000 100000"},
        ),
    )

    assert available_processors(str(tmp_path), AFFINITY).count == 2


@given(cgroup=st.binary(max_size=200), mounts=st.binary(max_size=200), quota=st.binary(max_size=40))
def test_no_bytes_raise_or_leave_no_processor(
    tmp_path_factory: pytest.TempPathFactory, cgroup: bytes, mounts: bytes, quota: bytes
):
    root = tmp_path_factory.mktemp("machine")
    build(root, Machine([], [], v2={"/sys/fs/cgroup": ""}))
    (root / "proc/self/cgroup").write_bytes(b"0::/\n" + cgroup)
    (root / "proc/self/mountinfo").write_bytes(V2.encode() + b"\n" + mounts)
    (root / "sys/fs/cgroup/cpu.max").write_bytes(quota)

    available = available_processors(str(root), AFFINITY)

    assert 1 <= available.count <= 8
    assert available.decided_by.isascii()
    assert available.decided_by.isprintable()


def test_of_this_machine_the_answer_is_sane():
    available = available_processors()
    allowed = len(os.sched_getaffinity(0))

    assert 1 <= available.count <= allowed
    assert available.decided_by.startswith("CPU affinity" if available.count == allowed else "cgroup quota")


def test_affinity_is_this_process_s_where_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7} if pid == 0 else set())

    assert available_processors(str(tmp_path)).count == 3


def test_the_setting_makes_as_many_worker_processes_or_auto_as_there_are_processors(tmp_path: Path):
    build(tmp_path, Machine(["0::/"], [V2], v2={"/sys/fs/cgroup": "50000 100000"}))
    root = str(tmp_path)

    assert worker_processes(3, root, AFFINITY).told == "3 worker processes: as set"
    assert worker_processes(1, root, AFFINITY).told == "1 worker process: as set"
    by_quota = worker_processes(None, root, AFFINITY)
    assert by_quota.told == "1 worker process: cgroup quota of 0.5 processors in /sys/fs/cgroup/cpu.max"


def test_auto_makes_no_more_worker_processes_than_may_be_set(tmp_path: Path):
    planned = worker_processes(None, str(tmp_path), range(MOST_WORKERS + 1))

    assert planned.count == MOST_WORKERS
    assert planned.decided_by == f"the most there may be; CPU affinity of {MOST_WORKERS + 1} processors"
    assert worker_processes(None, str(tmp_path), range(MOST_WORKERS)).decided_by == "CPU affinity of 512 processors"
