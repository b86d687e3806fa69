"""The log rotation: logrotate reads its configuration, renames the file, and has systemd signal the master."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.deployed import DEPLOY, TOOL_S, run_quietly, unit_settings
from support.gateway import ServeProcess, eventually
from support.http import HttpClient, head
from support.job_servers import nobody_listens
from support.tools import without_sanitizer

CONFIGURATION = DEPLOY / "logrotate" / "gatewayx"
TEXT = CONFIGURATION.read_text(encoding="utf-8")

# In systemd's place: tells what it was asked, whether the service runs, and signals its main process.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>{asked}
test "$1" != is-active || exit {state}
{main}
"""


def rotate(folder: Path, *, runs: bool, main: int | None = None) -> list[str]:
    """Have the log in a folder rotated; what systemctl is asked meanwhile. main: the main process, if there is one."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    asked = folder / "asked"
    asked.write_text("")
    systemctl = programs / "systemctl"
    signalled = f"kill -USR1 {main}" if main else ""
    systemctl.write_text(SYSTEMCTL.format(asked=asked, state=0 if runs else 3, main=signalled))
    systemctl.chmod(0o755)
    configuration = folder / "configuration"
    configuration.write_text(TEXT.replace("/var/log/gatewayx/", f"{folder}/"))
    # It refuses a configuration that others may write.
    configuration.chmod(0o644)
    found = subprocess.run(
        ["logrotate", "--force", "--state", folder / "state", configuration],
        env={**without_sanitizer(), "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=TOOL_S,
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, "")
    return asked.read_text().splitlines()


def test_logrotate_reads_the_configuration(tmp_path: Path):
    said = run_quietly("logrotate", "--debug", "--state", tmp_path / "state", CONFIGURATION)

    assert "rotating pattern: /var/log/gatewayx/*.log  after 1 days (14 rotations)" in said
    assert "error:" not in said


def test_the_log_lies_where_the_service_may_write():
    [folder] = unit_settings(DEPLOY / "systemd" / "gatewayx.service")["LogsDirectory"]

    assert f"\n/var/log/{folder}/*.log {{" in TEXT


def test_the_master_is_told_when_its_file_was_renamed(tmp_path: Path):
    (tmp_path / "access.log").write_text("a line\n")

    asked = rotate(tmp_path, runs=True)

    assert asked == [
        "is-active --quiet gatewayx.service",
        "kill --kill-whom=main --signal=USR1 gatewayx.service",
    ]
    assert (tmp_path / "access.log.1").read_text() == "a line\n"
    assert not (tmp_path / "access.log").exists()


def test_a_log_is_rotated_also_while_the_service_does_not_run(tmp_path: Path):
    (tmp_path / "access.log").write_text("a line\n")

    assert rotate(tmp_path, runs=False) == ["is-active --quiet gatewayx.service"]
    assert (tmp_path / "access.log.1").exists()


def has_open(process_id: int, path: Path) -> bool:
    """Whether a process has a file open that has this name now."""
    found = Path(f"/proc/{process_id}/fd")
    return any(os.path.realpath(descriptor) == str(path) for descriptor in found.iterdir())


@pytest.mark.anyio
async def test_no_line_is_lost_when_a_log_is_rotated_under_traffic(tmp_path: Path):
    log = tmp_path / "access.log"
    server = ("--server", "{}:{}".format(*nobody_listens()))
    ids: list[str] = []
    rotated = asyncio.Event()

    async def ask_on(address: tuple[str, int]) -> None:
        async with HttpClient(address) as client:
            while not rotated.is_set():
                answer = await client.ask(head(b"OPTIONS", b"*"))
                ids.append(answer.headers[b"x-request-id"].decode())

    async with ServeProcess("--listen", "127.0.0.1:0", *server, "--workers", "2", "--access-log", str(log)) as served:
        address = await served.address()
        clients = [asyncio.create_task(ask_on(address)) for _ in range(8)]
        for _ in range(3):
            # Each of them has lines: an empty file would not be rotated.
            await eventually(lambda: log.exists() and log.stat().st_size)
            asked = await asyncio.to_thread(rotate, tmp_path, runs=True, main=served.process.pid)
            assert asked[-1].startswith("kill --kill-whom=main")
            # The next rotation compresses the file that they had.
            await eventually(lambda: all(has_open(worker, log) for worker in served.workers()))
        rotated.set()
        await asyncio.gather(*clients)
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0

    written = log.read_text() + (tmp_path / "access.log.1").read_text()
    for compressed in (tmp_path / "access.log.2.gz", tmp_path / "access.log.3.gz"):
        written += gzip.decompress(compressed.read_bytes()).decode()
    assert sorted(json.loads(line)["id"] for line in written.splitlines()) == sorted(ids)
