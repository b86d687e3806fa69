"""A `gatewayx serve` that is forked by a prepared interpreter is like one that is started anew."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.gateway import ServeProcess
from support.http import ask, head
from support.prepared import PreparedProcess, program

pytestmark = pytest.mark.anyio

LISTEN = ("--listen", "127.0.0.1:0", "--workers", "1")


def opened(process_id: int) -> set[int]:
    """The numbers of the descriptors that the process has open."""
    return {int(path.name) for path in Path(f"/proc/{process_id}/fd").iterdir()}


def signals(process_id: int) -> list[str]:
    """Which signals the process ignores and catches."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return [line for line in lines if line.startswith(("SigIgn", "SigCgt"))]


async def test_it_has_no_descriptors_or_signals_of_whoever_forked_it():
    async with ServeProcess(*LISTEN) as forked, ServeProcess(*LISTEN, fresh=True) as fresh:
        for served in (forked, fresh):
            assert (await ask(await served.address(), head(b"OPTIONS", b"*"))).status == 204
        assert isinstance(forked.process, PreparedProcess)
        assert not isinstance(fresh.process, PreparedProcess)
        # To those that it starts itself uvloop leaves some.
        assert opened(forked.process.pid) <= opened(fresh.process.pid)
        assert signals(forked.process.pid) == signals(fresh.process.pid)
        forked.signal(signal.SIGTERM)
        assert await forked.ended() == 0


@pytest.mark.parametrize("fresh", [False, True])
async def test_it_tells_how_it_ends(fresh):
    async with ServeProcess(*LISTEN, "--max-body", "nothing", fresh=fresh) as served:
        assert await served.ended() == 2
        assert "max-body" in "".join(served.lines)
    async with ServeProcess(*LISTEN, fresh=fresh) as served:
        await served.address()
        assert served.process.returncode is None
        for process_id in served.workers():
            os.kill(process_id, signal.SIGKILL)
        served.process.kill()
        assert await served.ended() == -signal.SIGKILL


async def test_it_has_the_folder_of_whoever_asks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.toml").write_text("nonsense = 1")
    async with ServeProcess("--config", "here.toml") as served:
        assert await served.ended() == 2
        assert "nonsense" in "".join(served.lines)


async def test_in_another_environment_it_is_started_anew(monkeypatch):
    assert program().has(os.environ)
    monkeypatch.setenv("TZ", "Pacific/Chatham")
    async with ServeProcess(*LISTEN) as served:
        await served.address()
        assert not isinstance(served.process, PreparedProcess)
