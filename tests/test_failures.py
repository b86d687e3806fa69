"""A test that fails does not make the tests after it fail, whatever it has left open."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

FAILING = """
import asyncio
import socket

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture
async def address():
    ended = []

    async def serve(reader, writer):
        try:
            ended.append(await reader.read())
        except ConnectionResetError:
            ended.append(None)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()
        for _ in range(500):
            if ended:
                break
            await asyncio.sleep(0.01)
    print("the fixture saw the end of", len(ended))


async def test_fails(address):
    reader, writer = await asyncio.open_connection(*address)
    left_open = socket.create_server(("127.0.0.1", 0))
    assert reader is left_open


async def test_passes():
    import gc

    gc.collect()
"""


def test_what_a_failed_test_has_left_open_is_closed_before_its_fixtures_and_the_next_test(tmp_path: Path):
    file = tmp_path / "test_failing.py"
    file.write_text(FAILING)
    options = ("-p", "support.failures", "-p", "no:cacheprovider", "-W", "error", "-v", "-rA", "-c", os.devnull)
    process = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", tmp_path, file],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
    )
    outcomes = re.findall(r"^\S+::(\w+) (\w+)", process.stdout, re.MULTILINE)
    assert outcomes == [("test_fails", "FAILED"), ("test_passes", "PASSED")], process.stdout
    assert "the fixture saw the end of 1" in process.stdout
