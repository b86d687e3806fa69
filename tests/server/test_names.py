"""`gatewayx serve` while name servers are silent."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from support.gateway import ServeProcess, eventually
from support.http import HttpClient, post
from support.job_servers import hand_worker
from support.times import PROCESS_S, SOON_S

pytestmark = pytest.mark.anyio

LISTEN = ("--listen", "127.0.0.1:0")
# Lookups of dead-….test hang for longer than any test; the others are as ever.
HANGING = """
import time
from gatewayx.net import names
look_up = names.look_up
names.SLOW_S = 1.0
names.look_up = lambda host: time.sleep(3600) if host.startswith("dead-") else look_up(host)
"""


def servers(*addresses: str) -> list[str]:
    """The flags for job servers."""
    return [argument for address in addresses for argument in ("--server", address)]


def threads_of(process_id: int) -> int:
    """How many threads the process has."""
    return len(list(Path(f"/proc/{process_id}/task").iterdir()))


async def test_a_healthy_job_server_serves_and_the_process_ends_while_lookups_hang(embedded):
    dead = [f"dead-{number}.test:4730" for number in range(8)]
    good = f"localhost:{embedded.address[1]}"
    began_s = time.monotonic()
    async with (
        ServeProcess(*LISTEN, *servers(*dead, good), before=HANGING, is_patient=False) as served,
        hand_worker(embedded.address, b"f") as worker,
        HttpClient(await served.address()) as client,
    ):
        assert time.monotonic() - began_s < PROCESS_S
        await served.has_said(f"job server {good} is connected")
        client.send(post(b"/f", b"w"))
        handle, _, _, workload = await worker.take()
        worker.complete(handle, workload)
        assert (await client.response()).body == b"w"
        served.signal(signal.SIGTERM)
        await served.until("stopped")
        stopped_s = time.monotonic()
        assert await served.ended() == 0
        assert time.monotonic() - stopped_s < SOON_S


async def test_no_thread_lives_on_after_a_lookup_and_the_loop_makes_none(embedded):
    async with ServeProcess(*LISTEN, *servers(f"localhost:{embedded.address[1]}", "[fe80::1%lo]:1")) as served:
        await served.address()
        await served.has_said("localhost")
        await eventually(lambda: all(threads_of(process_id) == 1 for process_id in served.all()))
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0


async def test_a_name_to_listen_on_that_hangs_does_not_hold_up_the_stop(embedded):
    async with ServeProcess(
        "--listen",
        "dead-0.test:0",
        *servers(f"127.0.0.1:{embedded.address[1]}"),
        before=HANGING,
        is_patient=False,
    ) as served:
        await served.until("cannot listen on dead-0.test:0 yet: its name is not resolved within")
        stopped_s = time.monotonic()
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
        assert time.monotonic() - stopped_s < SOON_S


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nowhere.invalid:0", "Name or service not known"),
        (f"{'a' * 64}.test:0", "too long"),
        ("192.0.2.1:0", "Cannot assign requested address"),
        ("[fe80::1%none0]:0", "none0 is no interface of this machine"),
    ],
)
async def test_an_address_that_cannot_be_had_is_told_in_one_line(address, reason):
    before = """
from gatewayx.net import names
look_up = names.look_up
def unknown(host):
    if host == "nowhere.invalid":
        raise OSError(-2, "Name or service not known")
    return look_up(host)
names.look_up = unknown
"""
    async with ServeProcess("--listen", address, before=before) as served:
        line = await served.until("cannot listen on")
        assert await served.ended() == 1
        assert served.lines[-1] == line
        assert reason in line
