"""What the service manager is told. What it hands over: test_inherited_sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayx.embedded.job_server import JobServer
from gatewayx.server.systemd import Manager, watchdog_interval_s
from support.gateway import ServeProcess, eventually
from support.http import HttpClient, head
from support.times import HANGS_S, PROCESS_S

pytestmark = pytest.mark.anyio

LISTEN = ("--listen", "127.0.0.1:0")
OPTIONS = head(b"OPTIONS", b"*")


class Receiver:
    """The manager's end: `name` is for NOTIFY_SOCKET."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.environment = {**os.environ, "NOTIFY_SOCKET": name}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(name.replace("@", "\0", 1))

    def waiting(self) -> list[dict[str, str]]:
        """What has come and was not taken, each datagram by its names."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(assignments(self.socket.recv(4096)))
        return found

    async def until(self, name: str) -> dict[str, str]:
        """The next datagram that has this name; those before it may only be signs of life."""
        loop = asyncio.get_running_loop()
        while True:
            found = assignments(await asyncio.wait_for(loop.sock_recv(self.socket, 4096), PROCESS_S))
            if name in found:
                return found
            assert found == {"WATCHDOG": "1"}


def assignments(datagram: bytes) -> dict[str, str]:
    """The datagram as a mapping; no name may stand in it twice."""
    pairs = [line.split("=", 1) for line in datagram.decode().split("\n")]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="gx", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(params=["file", "abstract"])
def receiver(request: pytest.FixtureRequest, folder: Path) -> Iterator[Receiver]:
    """The manager's end, by either kind of name."""
    made = Receiver(f"{folder}/notify" if request.param == "file" else f"@{folder}/notify")
    with made.socket:
        yield made


def server_at(embedded: JobServer) -> tuple[str, str]:
    """The flag for the job server."""
    return ("--server", f"{embedded.address[0]}:{embedded.address[1]}")


class TestManager:
    def test_each_message_is_one_datagram(self, receiver):
        manager = Manager({"NOTIFY_SOCKET": receiver.name})
        manager.ready("serves")
        before_us = time.monotonic_ns() // 1000
        manager.reloading()
        after_us = time.monotonic_ns() // 1000
        manager.reloaded()
        manager.stopping("drains", 1.5)
        ready, reloading, reloaded, stopping = receiver.waiting()
        assert ready == {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "serves"}
        assert reloading.pop("RELOADING") == "1"
        assert before_us <= int(reloading.pop("MONOTONIC_USEC")) <= after_us
        assert not reloading
        assert reloaded == {"READY": "1"}
        assert stopping == {"STOPPING": "1", "STATUS": "drains", "EXTEND_TIMEOUT_USEC": "1500000"}

    def test_there_is_no_reload_before_it_is_ready_and_nothing_after_the_stop(self, receiver):
        manager = Manager({"NOTIFY_SOCKET": receiver.name})
        manager.reloading()
        manager.reloaded()
        assert not receiver.waiting()
        manager.stopping("drains", 1.0)
        manager.stopping("drains", 1.0)
        manager.ready("serves")
        manager.reloading()
        manager.reloaded()
        assert [next(iter(found)) for found in receiver.waiting()] == ["STOPPING"]

    def test_a_status_is_one_line(self, receiver):
        Manager({"NOTIFY_SOCKET": receiver.name}).ready("unix:/a\nSTOPPING=1\udcff")
        (found,) = receiver.waiting()
        assert found["STATUS"] == r"unix:/a\nSTOPPING=1\udcff"
        assert "STOPPING" not in found

    def test_what_a_full_queue_does_not_take_comes_at_the_next_tick_but_signs_of_life_do_not(self, receiver, caplog):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.sendto(b"OTHER=1", receiver.socket.getsockname())
        manager = Manager({"NOTIFY_SOCKET": receiver.name, "WATCHDOG_USEC": "2000000"})
        manager.ready("serves")
        manager.tick(100.0, alive=True)
        assert {"OTHER": "1"} in receiver.waiting()
        manager.tick(100.1, alive=True)
        assert [next(iter(found)) for found in receiver.waiting()] == ["READY"]
        manager.tick(100.2, alive=True)
        assert not receiver.waiting()
        assert not caplog.records

    def test_what_waits_for_a_full_queue_keeps_its_order(self, receiver):
        manager = Manager({"NOTIFY_SOCKET": receiver.name})
        manager.ready("serves")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.sendto(b"OTHER=1", receiver.socket.getsockname())
        manager.reloading()
        receiver.waiting()
        manager.reloaded()
        manager.tick(100.0, alive=True)
        assert [next(iter(found)) for found in receiver.waiting()] == ["RELOADING", "READY"]

    def test_signs_of_life_come_twice_in_the_time_while_it_is_alive(self, receiver):
        manager = Manager({"NOTIFY_SOCKET": receiver.name, "WATCHDOG_USEC": "2000000"})
        told = []
        for now_s, alive in (
            (100.0, True),
            (100.9, True),
            (101.0, True),
            (102.0, False),
            (102.25, True),
            (103.0, True),
        ):
            manager.tick(now_s, alive=alive)
            told.append(receiver.waiting())
        assert told == [[{"WATCHDOG": "1"}], [], [{"WATCHDOG": "1"}], [], [{"WATCHDOG": "1"}], []]
        assert manager.pause_s(103.0) == 0.25
        assert Manager({}).pause_s(103.0) == float("inf")

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("", None),
            ("relative", "it is neither a path nor an abstract socket"),
            ("vsock:2:1234", "it is neither a path nor an abstract socket"),
            ("/nowhere/at/all", "No such file or directory"),
            ("/dev/null", "Connection refused"),
            ("@nobody-has-this-name", "Connection refused"),
            ("/" + 200 * "x", "AF_UNIX path too long"),
        ],
    )
    def test_one_that_cannot_be_reached_is_told_of_once(self, name, reason, caplog):
        manager = Manager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1"})
        manager.ready("serves")
        manager.tick(100.0, alive=True)
        manager.stopping("drains", 1.0)
        expected = [] if reason is None else [f"NOTIFY_SOCKET = {name} cannot be used: {reason}"]
        assert [record.getMessage() for record in caplog.records] == expected


@pytest.mark.parametrize(
    ("variables", "interval_s"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "own"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, 0.0),
        *(({"WATCHDOG_USEC": odd}, 0.0) for odd in ("", "0", "-5", "1.5", "many", "9" * 5000, "\u0665")),
    ],
)
def test_how_often_a_sign_of_life_is_given(variables, interval_s):
    own = {name: str(os.getpid()) if value == "own" else value for name, value in variables.items()}
    assert watchdog_interval_s(own) == interval_s


async def test_the_manager_hears_of_start_reload_and_stop(receiver, embedded):
    async with ServeProcess(*LISTEN, *server_at(embedded), environment=receiver.environment) as served:
        ready = await receiver.until("READY")
        address = await served.address()
        assert ready["MAINPID"] == str(served.process.pid)
        assert f"listens on http://127.0.0.1:{address[1]}; " in ready["STATUS"]
        async with HttpClient(address) as client:
            assert (await client.ask(OPTIONS)).status == 204
        served.signal(signal.SIGHUP)
        assert set(await receiver.until("RELOADING")) == {"RELOADING", "MONOTONIC_USEC"}
        assert await receiver.until("READY") == {"READY": "1"}
        served.signal(signal.SIGTERM)
        stopping = await receiver.until("STOPPING")
        # Accepting, --drain-timeout, the last answers, and what the master adds.
        assert stopping["EXTEND_TIMEOUT_USEC"] == "43000000"
        assert await served.ended() == 0
        assert not receiver.waiting()


async def test_the_stop_is_told_before_the_shutdown_delay(receiver, embedded):
    arguments = (*LISTEN, *server_at(embedded), "--shutdown-delay", "600")
    async with ServeProcess(*arguments, environment=receiver.environment) as served:
        address = await served.address()
        await receiver.until("READY")
        served.signal(signal.SIGTERM)
        assert (await receiver.until("STOPPING"))["EXTEND_TIMEOUT_USEC"] == "643000000"
        async with HttpClient(address) as client:
            assert b"connection" not in (await client.ask(OPTIONS)).headers
        served.signal(signal.SIGTERM)
        assert await served.ended() == 1


async def test_a_manager_that_is_not_there_is_no_reason_not_to_serve(folder, embedded):
    environment = {**os.environ, "NOTIFY_SOCKET": f"{folder}/nobody"}
    async with ServeProcess(*LISTEN, *server_at(embedded), environment=environment) as served:
        async with HttpClient(await served.address()) as client:
            assert (await client.ask(OPTIONS)).status == 204
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
    assert sum("cannot be used" in line for line in served.lines) == 1


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_signs_of_life_go_on_while_one_that_hangs_is_replaced(receiver, embedded, workers):
    arguments = (*LISTEN, *server_at(embedded), "--worker-timeout", str(HANGS_S), "--workers", workers)
    environment = {**receiver.environment, "WATCHDOG_USEC": "200000"}
    async with ServeProcess(*arguments, environment=environment) as served:
        address = await served.address()
        await receiver.until("READY")
        hangs = served.workers()[0]
        os.kill(hangs, signal.SIGSTOP)
        await served.until("has not turned its loop")
        await receiver.until("WATCHDOG")
        await eventually(lambda: hangs not in served.workers(), PROCESS_S)
        async with HttpClient(address) as client:
            assert (await client.ask(OPTIONS)).status == 204
        receiver.waiting()
        await receiver.until("WATCHDOG")
        served.signal(signal.SIGTERM)
        await receiver.until("STOPPING")
        assert await served.ended() == 0
        assert not [line for line in served.lines if "CRITICAL" in line]


async def test_signs_of_life_end_when_nobody_turns_any_more_and_begin_again_with_the_first(folder, receiver, embedded):
    # Every worker process but the first hangs before its loop has turned, until it may go on.
    before = f"""
import os, time
from gatewayx.server import master, process
master.OVERDUE_S = 0.0
begin = process.GatewayProcess.start
async def start(self):
    if os.path.exists("{folder}/began"):
        while not os.path.exists("{folder}/go"):
            time.sleep(0.01)
    open("{folder}/began", "w").close()
    await begin(self)
process.GatewayProcess.start = start
"""
    arguments = (*LISTEN, *server_at(embedded), "--worker-timeout", str(HANGS_S), "--workers", "1")
    environment = {**receiver.environment, "WATCHDOG_USEC": "200000"}
    async with ServeProcess(*arguments, before=before, environment=environment) as served:
        await served.address()
        await receiver.until("READY")
        await receiver.until("WATCHDOG")
        os.kill(served.workers()[0], signal.SIGSTOP)
        await served.until("no worker process has served for")
        receiver.waiting()
        # Between these is the whole worker timeout, in which several would be due.
        await served.until("it is aborted")
        await served.until("it is aborted")
        assert not receiver.waiting()
        (folder / "go").touch()
        await receiver.until("WATCHDOG")
        async with HttpClient(told_address(served)) as client:
            assert (await client.ask(OPTIONS)).status == 204


def told_address(served: ServeProcess) -> tuple[str, int]:
    """Where it listens, from what it has said already."""
    found = next(match for line in served.lines if (match := ServeProcess.listens_on.search(line)))
    return found[1], int(found[2])
