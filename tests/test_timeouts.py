"""A test that hangs fails, whatever it waits for, and the tests after it run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HANGING = """
import asyncio
import threading
import time

import pytest


@pytest.fixture
def anyio_backend():
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture
async def ended():
    ends = []
    yield ends
    print("the fixture ended", *ends)


@pytest.mark.anyio
async def test_awaits(ended):
    ended.append("after test_awaits")
    await asyncio.get_running_loop().create_future()


@pytest.mark.anyio
async def test_blocks(ended):
    ended.append("after test_blocks")
    time.sleep(1000)


def test_locks():
    threading.Event().wait()


@pytest.mark.timeout(60)
@pytest.mark.anyio
async def test_passes(ended):
    await asyncio.sleep(0)
"""


def test_tests_that_await_block_or_lock_for_ever_fail_and_the_next_one_passes(tmp_path: Path):
    file = tmp_path / "test_hanging.py"
    file.write_text(HANGING)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "support.timeouts",
        "-p",
        "no:cacheprovider",
        "-v",
        "-rA",
        "-c",
        os.devnull,
    ]
    process = subprocess.run(
        [*command, "--rootdir", tmp_path, "--timeout", "2", file],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
    )
    outcomes = dict(re.findall(r"^\S+::(\w+) (\w+)", process.stdout, re.MULTILINE))
    assert outcomes == {
        "test_awaits": "FAILED",
        "test_blocks": "FAILED",
        "test_locks": "FAILED",
        "test_passes": "PASSED",
    }
    assert process.stdout.count("Failed: no end within 2 s") >= 3
    assert re.findall(r"the fixture ended(.*)", process.stdout) == [" after test_awaits", " after test_blocks", ""]
