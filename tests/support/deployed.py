"""What lies in deploy/, as its tests see it: units of systemd, and the sandbox that a unit asks for."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from support.gateway import ServeProcess
from support.tools import without_sanitizer

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SERVICE = DEPLOY / "systemd" / "gatewayx.service"
TOOL_S = 120.0


def run_quietly(*command: str | Path, cwd: Path | None = None) -> str:
    """What a tool says on both outputs; fails with it if the tool is not content."""
    found = subprocess.run(
        command,
        cwd=cwd,
        env=without_sanitizer(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TOOL_S,
        check=False,
    )
    assert found.returncode == 0, found.stdout
    return found.stdout


def unit_settings(*paths: Path) -> dict[str, list[str]]:
    """The values of each setting of a unit and its drop-ins, in their order."""
    settings: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            name, separator, value = line.partition("=")
            if separator and not line.startswith("#"):
                settings[name].append(value)
    return dict(settings)


def filter_groups() -> dict[str, list[str]]:
    """The groups of system calls that systemd has here, each with the names of its calls and of other groups."""
    groups: dict[str, list[str]] = {}
    for line in run_quietly("systemd-analyze", "--no-pager", "syscall-filter").splitlines():
        if line.startswith("@"):
            groups[line] = found = []
        elif line.startswith(" ") and not line.lstrip().startswith("#"):
            found.append(line.strip())
    return groups


def allowed_system_calls(filters: list[str]) -> set[str]:
    """What the values of SystemCallFilter= allow, in their order; the first must be a list of what is allowed."""
    groups = filter_groups()

    def calls_of(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        return {call for member in groups[name] for call in calls_of(member)}

    # systemd.exec(5): these are always allowed where there is a list.
    allowed = calls_of("@default")
    for value in filters:
        calls = {call for name in value.removeprefix("~").split() for call in calls_of(name)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


class _Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp` of seccomp(3)."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


ERRNO_EPERM = 0x00050000 | 1
ALLOW = 0x7FFF0000
MASKED_EQUAL = 7
EVERY_BIT = 2**64 - 1
# mmap(2), socket(2).
PROT_WRITE, PROT_EXEC = 2, 4
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
# Which calls are allowed with some arguments alone: the number of the argument, and the bits it may have of which.
NO_EXECUTABLE_MEMORY = {
    "mmap": (2, [(PROT_WRITE | PROT_EXEC, bits) for bits in (0, PROT_WRITE, PROT_EXEC)]),
    "mprotect": (2, [(PROT_EXEC, 0)]),
    "pkey_mprotect": (2, [(PROT_EXEC, 0)]),
}


def sandbox(settings: dict[str, list[str]]) -> Callable[[], None]:
    """What puts a process and its children under the system call filter of a unit, for good; needs no privileges.

    SystemCallFilter, RestrictAddressFamilies and MemoryDenyWriteExecute, as systemd does it: with libseccomp. What they
    refuse is EPERM.
    """
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(ERRNO_EPERM)))

    assert settings["SystemCallErrorNumber"] == ["EPERM"]
    [families] = settings["RestrictAddressFamilies"]
    limited = {"socket": (0, [(EVERY_BIT, FAMILIES[name]) for name in families.split()])}
    if settings["MemoryDenyWriteExecute"] == ["yes"]:
        limited |= NO_EXECUTABLE_MEMORY
    for name in allowed_system_calls(settings["SystemCallFilter"]):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        # Negative: this machine, or this libseccomp, has no such call.
        if number < 0:
            continue
        argument, allowed = limited.get(name, (0, [(0, 0)]))
        for mask, bits in allowed:
            comparison = _Comparison(argument, MASKED_EQUAL, mask, bits)
            failed = seccomp.seccomp_rule_add_array(
                context, ctypes.c_uint32(ALLOW), number, 1 if mask else 0, ctypes.byref(comparison)
            )
            assert failed == 0, f"{name}: {failed}"

    def enter() -> None:
        """Sets no_new_privs as well."""
        if seccomp.seccomp_load(context):
            raise OSError("the filter cannot be loaded")

    return enter


def told_address(served: ServeProcess) -> tuple[str, int]:
    """Where a gateway listens that has said so already."""
    host, port = served.listens_on.search("".join(served.lines)).groups()
    return host, int(port)


def environment_variables(text: str) -> set[str]:
    """The gateway's variables that a text sets or names."""
    return set(re.findall(r"\bGATEWAYX_[A-Z_]+", text))
