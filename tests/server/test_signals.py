"""What signals do to the commands, each as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.gateway import ServeProcess, eventually
from support.gearmand import die_with_parent
from support.http import HttpClient, ask, head, post
from support.job_servers import ScriptedJobServer, hand_worker
from support.times import PROCESS_S, SOON_S

LISTEN = ("--listen", "127.0.0.1:0")
POST = post(b"/f", b"workload")
OPTIONS = head(b"OPTIONS", b"*")


def by_name(number: signal.Signals) -> str:
    """The name of a test's case."""
    return number.name


STOPPING = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=by_name)
TOLD = (signal.SIGHUP, signal.SIGUSR1)
HARMLESS = (*TOLD, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)


def server_at(address: tuple[str, int]) -> tuple[str, str]:
    """The flag for a job server."""
    return ("--server", f"{address[0]}:{address[1]}")


def ignores_or_catches(process_id: int, number: signal.Signals) -> bool:
    """Whether a signal does not do to the process what the kernel does by default."""
    status = Path(f"/proc/{process_id}/status").read_text()
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigIgn", "SigCgt"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


# The command, which waits for a file before it loads anything slow.
WAITS = """
import os, runpy, sys, time
class Waits:
    def find_spec(self, name, path=None, target=None):
        while name == "gatewayx.cli" and not os.path.exists({path!r}):
            time.sleep(0.005)
sys.meta_path.insert(0, Waits())
runpy.run_module("gatewayx", run_name="__main__", alter_sys=True)
"""


async def prepared(served: ServeProcess) -> None:
    """Return once the process has seen to its signals, and waits."""
    await eventually(lambda: ignores_or_catches(served.process.pid, signal.SIGQUIT))


@pytest.mark.anyio
class TestServe:
    async def test_it_goes_on_with_a_request_in_flight_and_in_a_drain(self, embedded):
        async with (
            hand_worker(embedded.address, b"f") as worker,
            ServeProcess(*LISTEN, *server_at(embedded.address)) as served,
        ):
            address = await served.address()
            async with HttpClient(address) as client:
                client.send(POST)
                handle, _, _, _ = await worker.take()
                for number in HARMLESS:
                    served.signal(number)
                for number in TOLD:
                    await served.until(number.name)
                assert (await ask(address, OPTIONS)).status == 204
                served.signal(signal.SIGTERM)
                await served.until("stopping")
                for number in HARMLESS:
                    served.signal(number)
                for number in TOLD:
                    await served.until(number.name)
                worker.complete(handle, b"result")
                assert (await client.response()).body == b"result"
            assert await served.ended() == 0
        for number in HARMLESS:
            assert sum(number.name in line for line in served.lines) == 2 * (number in TOLD)

    async def test_a_storm_of_signals_that_mean_nothing_is_ignored_up_to_the_last_moment(self, embedded):
        async with ServeProcess(*LISTEN, *server_at(embedded.address)) as served:
            await served.address()
            served.signal(signal.SIGTERM)
            while served.process.returncode is None:
                served.process.send_signal(signal.SIGHUP)
                served.process.send_signal(signal.SIGUSR1)
                await asyncio.sleep(0)
            assert await served.ended() == 0

    async def test_the_start_goes_on(self, tmp_path):
        goes_on = tmp_path / "goes-on"
        async with (
            ScriptedJobServer(greets=False) as silent,
            ServeProcess(
                *LISTEN, *server_at(silent.address), before=WAITS.format(path=str(goes_on)), is_patient=False
            ) as served,
        ):
            await prepared(served)
            for number in HARMLESS:
                served.signal(number)
            goes_on.touch()
            await silent.connection()
            for number in HARMLESS:
                served.signal(number)
            assert (await ask(await served.address(), OPTIONS)).status == 204

    @STOPPING
    async def test_a_stop_before_anything_is_loaded_ends_it_at_once_with_exit_code_0(self, number, tmp_path):
        before = WAITS.format(path=str(tmp_path / "goes-on"))
        async with ServeProcess(*LISTEN, before=before, is_patient=False) as served:
            await prepared(served)
            served.signal(number)
            assert await served.ended() == 0
        assert served.lines == []

    @pytest.mark.parametrize(
        ("number", "second"), [(signal.SIGQUIT, signal.SIGTERM), (signal.SIGTERM, signal.SIGQUIT)], ids=by_name
    )
    async def test_a_second_one_ends_it_at_once(self, embedded, number, second):
        async with (
            hand_worker(embedded.address, b"f") as worker,
            ServeProcess(*LISTEN, *server_at(embedded.address)) as served,
            HttpClient(await served.address()) as client,
        ):
            client.send(POST)
            await worker.take()
            served.signal(number)
            await served.until("stopping")
            began_s = time.monotonic()
            served.signal(second)
            assert await served.ended() == 1
            assert time.monotonic() - began_s < SOON_S


@pytest.mark.anyio
class TestOtherCommands:
    @pytest.mark.parametrize("command", ["demo", "bench"])
    async def test_it_ends_with_its_terminal(self, command):
        async with ScriptedJobServer(greets=False) as never_answers:
            host, port = never_answers.address
            arguments = {
                "demo": ("demo", *LISTEN),
                "bench": ("bench", "run", "--duration", "60", f"http://{host}:{port}/"),
            }[command]
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gatewayx",
                *arguments,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                preexec_fn=die_with_parent,
            )
            try:
                await asyncio.wait_for(process.stdout.readline(), PROCESS_S)
                process.send_signal(signal.SIGHUP)
                await asyncio.wait_for(process.communicate(), PROCESS_S)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            assert process.returncode == -signal.SIGHUP
