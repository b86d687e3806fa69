"""The log rotation: logrotate reads its configuration, renames the file, and has systemd signal the master."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.deployed import DEPLOY, TOOL_S, run_quietly, unit_settings
from support.tools import without_sanitizer

CONFIGURATION = DEPLOY / "logrotate" / "gatewayx"
TEXT = CONFIGURATION.read_text(encoding="utf-8")

# In systemd's place: tells what it was asked, and whether the service runs.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>{asked}
test "$1" != is-active || exit {state}
"""


def rotate(folder: Path, *, runs: bool) -> list[str]:
    """Have the log in a folder rotated; what systemctl is asked meanwhile."""
    programs = folder / "bin"
    programs.mkdir()
    asked = folder / "asked"
    asked.touch()
    systemctl = programs / "systemctl"
    systemctl.write_text(SYSTEMCTL.format(asked=asked, state=0 if runs else 3))
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
