"""The units of systemd: read by systemd's own tools, as strict as is claimed, and the gateway runs under their filter.

systemd itself does not run where the tests do, so no unit is started.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.admin import ADMIN, admin_of, until
from support.deployed import DEPLOY, SERVICE, run_quietly, sandbox, told_address, unit_settings
from support.gateway import ServeProcess, eventually
from support.gearmand import die_with_parent
from support.http import ask, post
from support.tools import without_sanitizer

UNITS = DEPLOY / "systemd"
DROP_INS = sorted((UNITS / "drop-ins").iterdir())
# The highest exposure that the service and each of its drop-ins may have, of 10.
MOST_EXPOSED = 2.0
# Before it, systemd says this of the type that the unit has, and nothing else.
FIRST_WITH_NOTIFY_RELOAD = 253
UNKNOWN_TYPE = "Failed to parse service type, ignoring: notify-reload"

with_each_drop_in = pytest.mark.parametrize(
    "drop_in", [None, *DROP_INS], ids=lambda path: path.stem if path else "none"
)


def systemd_version() -> int:
    """Of the tools that are here."""
    return int(run_quietly("systemd-analyze", "--version").split()[1])


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with the units, whose service starts a program that is here."""
    for path in (SERVICE, UNITS / "gatewayx.socket"):
        shutil.copy(path, tmp_path)
    program = Path(sys.executable).parent / "gatewayx"
    text = SERVICE.read_text(encoding="utf-8")
    (tmp_path / SERVICE.name).write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={program}", text, flags=re.MULTILINE))
    return tmp_path


@pytest.fixture
def runtime_directory() -> Iterator[Path]:
    """One whose name is short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="gx", dir="/tmp") as name:
        yield Path(name)


def add(units: Path, drop_in: Path | None) -> None:
    """Put a drop-in where an operator does."""
    if drop_in is not None:
        folder = units / f"{SERVICE.name}.d"
        folder.mkdir()
        shutil.copy(drop_in, folder)


@with_each_drop_in
def test_systemd_reads_the_units_without_complaint(units, drop_in):
    add(units, drop_in)

    said = run_quietly("systemd-analyze", "verify", f"./{SERVICE.name}", "./gatewayx.socket", cwd=units)

    complaints = {line.partition(f"{SERVICE.name}:")[2].partition(": ")[2] or line for line in said.splitlines()}
    assert complaints == ({UNKNOWN_TYPE} if systemd_version() < FIRST_WITH_NOTIFY_RELOAD else set())


@with_each_drop_in
def test_the_service_is_exposed_to_little(units, drop_in):
    add(units, drop_in)

    said = run_quietly("systemd-analyze", "security", "--offline=true", "--no-pager", f"./{SERVICE.name}", cwd=units)

    exposure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+) ", said)[1])
    assert 0.0 < exposure <= MOST_EXPOSED, said


def test_the_service_says_what_the_gateway_tells_and_reads():
    settings = unit_settings(SERVICE)

    assert settings["Type"] == ["notify-reload"]
    assert (
        settings["ConfigurationDirectory"] == settings["RuntimeDirectory"] == settings["LogsDirectory"] == ["gatewayx"]
    )
    assert settings["ExecStart"][0].endswith("serve --config /etc/gatewayx/gatewayx.toml")
    # Wrong use, and no other exit code, is for good.
    assert settings["RestartPreventExitStatus"] == ["2"]
    older = unit_settings(UNITS / "drop-ins" / "before-253.conf")
    assert older == {"Type": ["notify"], "ExecReload": ["/bin/kill -HUP $MAINPID"]}


@pytest.mark.anyio
@pytest.mark.parametrize("drop_in", [None, UNITS / "drop-ins" / "socket-owner.conf"], ids=["none", "socket-owner"])
async def test_the_gateway_lives_under_the_system_call_filter(samples, embedded, runtime_directory, drop_in):
    settings = unit_settings(SERVICE, *([drop_in] if drop_in else []))
    enter = sandbox(settings)
    path = str(runtime_directory / "http.sock")
    log = runtime_directory / "access.log"
    owner = ("--socket-owner", f"{os.geteuid()}:{os.getegid()}") if drop_in else ()

    def preexec() -> None:
        die_with_parent()
        enter()

    async with ServeProcess(
        *(*ADMIN, "--listen", f"unix:{path}", *owner, "--workers", "2", "--access-log", str(log)),
        # By its name, which is looked up.
        *("--server", f"localhost:{embedded.address[1]}"),
        preexec=preexec,
        environment={**without_sanitizer(), "RUNTIME_DIRECTORY": str(runtime_directory)},
    ) as served:
        admin = await admin_of(served)
        address = told_address(served)
        # Both worker processes own some of these, so that some are relayed, in sockets in the runtime directory.
        relays = list(runtime_directory.glob("gatewayx-relay-*"))
        assert [stat.S_ISSOCK(relay.stat().st_mode) for relay in relays] == [True, True]
        for number in range(16):
            unique = b"X-Gearman-Unique: filter-%d" % number
            where = address if number % 2 else path
            answer = await ask(where, post(b"/reverse", b"x" * 100_000 + b"y", unique))
            assert (answer.status, answer.body[:1]) == (200, b"y")

        # A worker process that is killed is replaced, and settings are read anew.
        before = await admin.workers()
        os.kill(before[0], signal.SIGKILL)

        async def is_replaced() -> bool:
            return before[0] not in await admin.workers() and await admin.metric("gatewayx_workers", state="ready") == 2

        await until(is_replaced)
        for process in (await admin.status())["processes"]:
            assert process["memory_bytes"] > 0
        served.signal(signal.SIGHUP)
        await served.until("all worker processes have the settings")
        assert (await ask(address, post(b"/reverse", b"ab"))).body == b"ba"

        # The access log is written, and opened anew.
        await eventually(lambda: log.exists() and log.stat().st_size)
        log.rename(f"{log}.1")
        served.signal(signal.SIGUSR1)
        await eventually(log.exists)

        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
    assert not [line for line in served.lines if "ermission" in line or "not permitted" in line]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "attempt",
    [
        "import os; os.chown('.', os.geteuid(), os.getegid())",
        "import os; os.setuid(os.getuid())",
        "import os; os.sched_setaffinity(0, [0])",
        "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    ],
    ids=["chown", "setuid", "affinity", "executable memory", "netlink"],
)
async def test_what_the_filter_is_there_to_refuse_is_refused(attempt):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-S", "-c", attempt),
        env=without_sanitizer(),
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=sandbox(unit_settings(SERVICE)),
    )
    _, said = await process.communicate()

    assert process.returncode == 1
    assert os.strerror(errno.EPERM).encode() in said.splitlines()[-1]
