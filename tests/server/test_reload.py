"""SIGHUP: the settings of `gatewayx serve` change in all of its processes, or in none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gatewayx.config.settings import Settings
from gatewayx.embedded.job_server import JobServer
from gatewayx.embedded.worker import AssignedJob, Worker
from gatewayx.gearman.packet import PacketType
from gatewayx.net.pem import NoRoomError
from gatewayx.server import reloading, worker
from gatewayx.server.children import Child
from gatewayx.server.tls_files import NO_TLS, ClientFiles, TlsFiles
from support.gateway import ServeProcess, eventually
from support.http import HttpClient, Response, ask, head, post
from support.job_servers import ScriptedJobServer, hand_worker
from support.proxied import line
from support.times import PROCESS_S

pytestmark = pytest.mark.anyio

OPTIONS = head(b"OPTIONS", b"*")
ALL_HAVE_THEM = "all worker processes have the settings"
# So many clients, of which the kernel gives each of two processes some: all to one in one of 10^9 runs.
CLIENTS = 30


class Configured:
    """`gatewayx serve` with a file that the test writes."""

    def __init__(self, path: Path, *arguments: str, before: str = "") -> None:
        self.path = path
        options = ("--listen", "127.0.0.1:0", "--workers", "2", "--config", str(path))
        self.served = ServeProcess(*options, *arguments, before=before)
        self.address = ("", 0)

    def write(self, *lines: str) -> None:
        """What the file says from now on."""
        # It may be read at any moment of a storm, and an empty one is sound.
        beside = self.path.with_suffix(".new")
        beside.write_text("\n".join(lines), encoding="utf-8")
        beside.replace(self.path)

    async def reload(self, *lines: str) -> str:
        """Let it read these lines, and return what it has said once all have them."""
        self.write(*lines)
        told = len(self.served.lines)
        self.served.signal(signal.SIGHUP)
        await self.served.until(ALL_HAVE_THEM)
        return "".join(self.served.lines[told:])

    async def statuses(self, *request: bytes) -> set[int]:
        """What new clients of all worker processes are answered."""
        answers: list[Response] = await asyncio.gather(*(ask(self.address, *request) for _ in range(CLIENTS)))
        return {answer.status for answer in answers}


def servers(*of: ScriptedJobServer | tuple[str, int]) -> str:
    """The line for these job servers."""
    addresses = [each if isinstance(each, tuple) else each.address for each in of]
    return f"server = {[f'{host}:{port}' for host, port in addresses]}"


@asynccontextmanager
async def configured(
    path: Path, *lines: str, arguments: tuple[str, ...] = (), before: str = ""
) -> AsyncIterator[Configured]:
    """Two worker processes whose settings these lines are. before: Python that they run first."""
    found = Configured(path / "gatewayx.toml", *arguments, before=before)
    found.write(*lines)
    async with found.served:
        found.address = await found.served.address()
        yield found


async def test_bounds_and_functions_change_for_clients_that_are_there_and_new_ones(embedded, tmp_path):
    server = servers(embedded.address)
    async with (
        hand_worker(embedded.address, b"f", b"g"),
        configured(tmp_path, server, "max-body = 3") as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        processes = gateway.served.all()
        clients = [await stack.enter_async_context(HttpClient(gateway.address)) for _ in range(CLIENTS)]
        assert {(await client.ask(OPTIONS)).status for client in clients} == {204}
        assert await gateway.statuses(post(b"/f", b"four")) == {413}
        told = await gateway.reload(server, "max-body = 4", 'function = ["g"]', "max-function-jobs = ['g=0']")
        assert "INFO SIGHUP: changed: function, max-function-jobs, max-body\n" in told
        assert {(await client.ask(post(b"/f", b"four"))).status for client in clients} == {404}
        assert await gateway.statuses(post(b"/g", b"four")) == {503}
        assert await gateway.statuses(post(b"/g", b"fivee")) == {413}
        assert gateway.served.all() == processes


async def test_job_servers_come_and_go_and_a_job_under_way_is_answered(tmp_path):
    async with (
        ScriptedJobServer() as old,
        ScriptedJobServer() as new,
        configured(tmp_path, servers(old), "connections-per-server = 1") as gateway,
        HttpClient(gateway.address) as client,
    ):
        upstreams = [await old.connection() for _ in range(2)]
        client.send(post(b"/f", b"w"))
        accepted = [asyncio.create_task(upstream.accept(b"H:1")) for upstream in upstreams]
        done, pending = await asyncio.wait(accepted, return_when=asyncio.FIRST_COMPLETED)
        upstream = upstreams[accepted.index(done.pop())]
        for task in pending:
            task.cancel()
        assert "changed: server" in await gateway.reload(servers(new), "connections-per-server = 1")
        serving = [asyncio.create_task(answer_all(await new.connection())) for _ in range(2)]
        assert await gateway.statuses(post(b"/f")) == {200}
        assert not upstream.lost.done()
        upstream.answer(PacketType.WORK_COMPLETE, b"H:1", b"result")
        assert (await client.response()).body == b"result"
        for each in upstreams:
            await each.closed()
        for task in serving:
            task.cancel()


async def answer_all(upstream) -> None:
    """Do every job that comes over the connection at once."""
    number = 0
    while True:
        number += 1
        await upstream.complete(b"H:%d" % number, b"")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("max-jobs = 0", "max-jobs = 0 "),
        ("no-such-setting = 1", "'no-such-setting' "),
        ("max-jobs = ", "is not TOML"),
        ('max-body = "1GiB"', "is not allowed with max-held"),
        ("server-key = '/none'\nserver = ['tls://127.0.0.1:1']", "server-key = '/none' is of no use"),
        ("server-ca = '/none'\nserver = ['tls://127.0.0.1:1']", "server-ca = '/none' cannot be used"),
        (None, "cannot be read"),
    ],
)
async def test_a_file_with_a_fault_changes_nothing_and_one_line_says_why(embedded, tmp_path, fault, reason):
    async with configured(tmp_path, servers(embedded.address), 'function = ["f"]') as gateway:
        gateway.write(
            servers(embedded.address) * (fault is None or "server =" not in fault), 'function = ["g"]', fault or ""
        )
        if fault is None:
            gateway.path.unlink()
        told = len(gateway.served.lines)
        gateway.served.signal(signal.SIGHUP)
        line = await gateway.served.until("SIGHUP")
        assert "ERROR SIGHUP: no setting changes: " in line
        assert reason in line
        assert await gateway.statuses(post(b"/g")) == {404}
        # What follows shows that nothing else was said.
        told_after = await gateway.reload(servers(embedded.address), 'function = ["f"]')
        assert "no live setting differs" in told_after
        assert len(gateway.served.lines) == told + 3


async def test_settings_that_need_a_restart_are_named_and_stay(embedded, tmp_path):
    server = servers(embedded.address)
    async with configured(tmp_path, server, "max-connections = 2") as gateway:
        told = await gateway.reload(server, "max-connections = 9", 'socket-mode = "600"', "max-jobs = 8")
        assert "changed: max-jobs\n" in told
        assert "WARNING SIGHUP: these need a restart and stay as they were: socket-mode, max-connections\n" in told
        # A place is made by who is idle, so the third one finds none only if all are busy.
        async with (
            hand_worker(embedded.address, b"f") as does,
            HttpClient(gateway.address) as one,
            HttpClient(gateway.address) as two,
        ):
            for client in (one, two):
                client.send(post(b"/f"))
                await does.take()
            assert (await ask(gateway.address, OPTIONS)).status == 503
        # It is told each time, as long as the file says so.
        assert "stay as they were" in await gateway.reload(server, 'socket-mode = "600"', "max-jobs = 8")


async def test_proxies_are_not_shut_out_by_addresses_that_only_a_restart_takes(embedded, tmp_path):
    proxies = 'trusted-proxy = ["127.0.0.1"]'
    listen, here = 'listen = ["127.0.0.1:0"]', servers(embedded.address)
    path = tmp_path / "gatewayx.toml"
    served = ServeProcess("--workers", "2", "--config", str(path))
    path.write_text(f'listen = ["proxy://127.0.0.1:0"]\n{proxies}\n{here}', encoding="utf-8")
    async with served:
        address = await served.address()
        # Both are sound by themselves.
        path.write_text(f"{listen}\n{here}", encoding="utf-8")
        served.signal(signal.SIGHUP)
        told = await served.until("SIGHUP: ")
        assert "no setting changes: trusted-proxy is not allowed to be without an address before a restart" in told
        async with HttpClient(address, begins=line("192.0.2.1")) as client:
            assert (await client.ask(OPTIONS)).status == 204
        path.write_text(f"{listen}\n{proxies}\n{here}", encoding="utf-8")
        served.signal(signal.SIGHUP)
        assert "need a restart and stay as they were: listen" in await served.until("SIGHUP: these")


async def test_flags_of_the_start_win_over_the_file_as_they_did_then(embedded, tmp_path):
    server = servers(embedded.address)
    async with configured(tmp_path, server, arguments=("--function", "f")) as gateway:
        assert "no live setting differs" in await gateway.reload(server, 'function = ["g"]')
        assert await gateway.statuses(post(b"/g")) == {404}


async def test_after_a_storm_all_have_the_last_settings_and_no_request_has_failed(embedded, tmp_path):
    server = servers(embedded.address)
    async with (
        hand_worker(embedded.address, b"f") as does,
        configured(tmp_path, server) as gateway,
        HttpClient(gateway.address) as client,
    ):
        processes = gateway.served.all()
        for number in range(200):
            gateway.write(server, f"max-body = {1000 + number}", f"connections-per-server = {1 + number % 3}")
            gateway.served.signal(signal.SIGHUP)
            client.send(post(b"/f"))
            does.complete((await does.take())[0])
            assert (await client.response()).status == 200
        gateway.write(server, "max-body = 3")
        gateway.served.signal(signal.SIGHUP)
        ends_s = time.monotonic() + PROCESS_S
        # The log leaves out lines of a storm, so it does not tell.
        while await gateway.statuses(post(b"/f", b"four", b"X-Gearman-Timeout: 0.1")) != {413}:
            assert time.monotonic() < ends_s
        assert gateway.served.all() == processes
        assert not [line for line in gateway.served.lines if "ERROR" in line]


async def test_no_request_fails_while_limits_functions_and_job_servers_change(tmp_path):
    async def work(job: AssignedJob) -> bytes:
        await asyncio.sleep(0.02)
        return job.workload

    async with contextlib.AsyncExitStack() as stack:
        addresses = []
        for _ in range(3):
            job_server = JobServer()
            await job_server.start()
            stack.push_async_callback(job_server.close)
            done_by = Worker(job_server.address, {b"f": work})
            await done_by.start()
            stack.push_async_callback(done_by.close)
            addresses.append(job_server.address)
        gateway = await stack.enter_async_context(configured(tmp_path, servers(addresses[0])))
        ended = asyncio.Event()
        counts = [0, 0]

        async def ask_on() -> set[int]:
            found = set()
            async with HttpClient(gateway.address) as client:
                while not ended.is_set():
                    answer = await client.ask(post(b"/f", b"w"))
                    found.add(answer.status)
                    counts[answer.body == b"w"] += 1
            return found

        clients = [asyncio.create_task(ask_on()) for _ in range(CLIENTS)]
        # The log tells of no more of one kind in ten seconds.
        for number in range(1, 10):
            used = [addresses[(number + further) % 3] for further in range(1 + number % 2)]
            mapped = "{}:{}".format(*used[0])
            told = await gateway.reload(
                servers(*used),
                f"max-body = {1000 + number}",
                f"connections-per-server = {1 + number % 3}",
                f"balance = '{('fewest', 'rotation', 'in-order')[number % 3]}'",
                f"function-server = ['{('f', 'g')[number % 2]}={mapped}']",
                f"function = ['f', 'g{number}']",
            )
            assert "changed: server," in told
            answered = counts[1]
            await eventually(lambda before=answered: counts[1] > before + 10 * CLIENTS)
        ended.set()
        assert set().union(*await asyncio.gather(*clients)) == {200}
        assert counts[0] == 0 < counts[1]


async def test_one_that_is_replaced_meanwhile_has_the_new_settings_as_well(embedded, tmp_path):
    server = servers(embedded.address)
    async with configured(tmp_path, server) as gateway:
        for number in range(5):
            before = gateway.served.workers()
            gateway.write(server, f'function = ["f{number}"]')
            os.kill(before[number % 2], signal.SIGKILL)
            gateway.served.signal(signal.SIGHUP)
            await gateway.served.until(ALL_HAVE_THEM)
            await eventually(lambda gone=before[number % 2]: gone not in gateway.served.workers())
            assert await gateway.statuses(post(b"/f")) == {404}
            # A job that is allowed waits for a worker, of which there is none.
            assert await gateway.statuses(post(b"/f%d" % number, b"", b"X-Gearman-Timeout: 0.1")) == {504}


async def test_one_that_stands_still_has_the_last_settings_when_it_goes_on(embedded, tmp_path):
    server = servers(embedded.address)
    # Each reload is told of, and waited for.
    before = "from gatewayx.server import logs\nlogs.LINES_PER_INTERVAL = 1000"
    async with configured(tmp_path, server, before=before) as gateway:
        stopped = gateway.served.workers()[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            for number in range(30):
                gateway.write(server, f'function = ["f{number}"]')
                gateway.served.signal(signal.SIGHUP)
                await gateway.served.until("SIGHUP")
        finally:
            os.kill(stopped, signal.SIGCONT)
        await gateway.served.until(ALL_HAVE_THEM)
        assert await gateway.statuses(post(b"/f28")) == {404}
        assert await gateway.statuses(post(b"/f29", b"", b"X-Gearman-Timeout: 0.1")) == {504}
        assert stopped in gateway.served.workers()


async def test_more_functions_than_fit_into_a_packet(embedded, tmp_path):
    server = servers(embedded.address)
    names = [f"{number:04}{'n' * 2000}" for number in range(1000)]
    async with configured(tmp_path, server) as gateway:
        await gateway.reload(server, f"function = {names}")
        assert await gateway.statuses(post(b"/f")) == {404}


async def test_settings_for_which_no_descriptor_was_left_are_asked_for_again():
    master_end, own_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with master_end, own_end:
        for end in (master_end, own_end):
            end.setblocking(False)
        loop = asyncio.get_running_loop()
        control = worker.Control(own_end, Settings())
        # What the kernel leaves of such a packet.
        master_end.send(worker.SETTINGS)
        assert await loop.sock_recv(master_end, 100) == worker.AGAIN
        assert not control.changed.is_set()
        reloading.send(master_end, worker.SETTINGS, Settings(max_jobs=3, max_connections=3))
        await asyncio.wait_for(control.changed.wait(), PROCESS_S)
        assert control.settings == Settings(max_jobs=3)
        master_end.send(worker.DRAIN)
        await asyncio.wait_for(control.asked.wait(), PROCESS_S)
        assert not control.orphaned


class Process:
    """One that has room for files of TLS at the second attempt, takes settings at any, and remembers."""

    def __init__(self) -> None:
        self.attempts = 0
        self.taken: list[object] = []

    def change_tokens(self, tokens: object) -> None:
        """Nothing."""

    def change_tls(self, files: object) -> None:
        """See the class."""
        self.attempts += 1
        if self.attempts == 1:
            raise NoRoomError("no file in memory")
        self.taken.append(files)

    async def reconfigure(self, settings: object, tokens: object) -> None:
        """See the class."""
        self.taken.append(settings)


@pytest.mark.parametrize("with_settings", [False, True])
async def test_files_for_which_there_is_no_room_are_asked_for_again(with_settings):
    master_end, own_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with master_end, own_end:
        for end in (master_end, own_end):
            end.setblocking(False)
        loop = asyncio.get_running_loop()
        control, process = worker.Control(own_end, Settings()), Process()
        obeying = asyncio.create_task(worker.obey(control, "a process", process))
        child = Child(process_id=0, connection=master_end, last_words=-1)
        child.needs_settings, child.needs_files = with_settings, True
        tls = TlsFiles(clients=ClientFiles(()))
        for answer in (worker.AGAIN, worker.TAKEN):
            child.offer(Settings(max_jobs=2), (), tls)
            assert not child.needs_settings
            assert await asyncio.wait_for(loop.sock_recv(master_end, 100), PROCESS_S) == answer
            child.answered(answer)
        assert process.taken == ([tls, Settings(max_jobs=2)] if with_settings else [tls])
        assert not any((child.needs_settings, child.needs_files, child.takes_settings))
        master_end.send(worker.DRAIN)
        await asyncio.wait_for(obeying, PROCESS_S)


def test_files_that_were_not_taken_are_told_apart_from_settings():
    child = Child(process_id=0, connection=socket.socket(), last_words=-1)
    with child.connection:
        child.answered(worker.NOT_TAKEN)
        assert (child.took_settings, child.took_files) == (True, False)
        child.sent_settings = True
        child.answered(worker.NOT_TAKEN)
        assert (child.took_settings, child.took_files) == (False, False)


def test_one_that_has_not_taken_settings_is_sent_no_others_until_it_has():
    master_end, own_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with master_end, own_end:
        for end in (master_end, own_end):
            end.setblocking(False)
        child = Child(process_id=0, connection=master_end, last_words=-1)
        child.offer(Settings(max_jobs=1))
        for jobs in (2, 3, 4):
            child.needs_settings = True
            child.offer(Settings(max_jobs=jobs))
        assert reloading.receive(own_end, 100, Settings()) == (worker.SETTINGS, Settings(max_jobs=2), (), NO_TLS)
        with pytest.raises(BlockingIOError):
            own_end.recv(100)
        child.takes_settings = False
        with contextlib.suppress(BlockingIOError):
            while True:
                master_end.send(bytes(1000))
        # It has no room for them now.
        child.offer(Settings(max_jobs=4))
        assert child.needs_settings
        with contextlib.suppress(BlockingIOError):
            while own_end.recv(1000):
                pass
        child.offer(Settings(max_jobs=4))
        assert reloading.receive(own_end, 100, Settings()) == (worker.SETTINGS, Settings(max_jobs=4), (), NO_TLS)
        assert not child.needs_settings


async def test_in_a_stop_nothing_changes_any_more(embedded, tmp_path):
    async with (
        hand_worker(embedded.address, b"f") as does,
        configured(tmp_path, servers(embedded.address), "drain-timeout = 600") as gateway,
        HttpClient(gateway.address) as client,
    ):
        client.send(post(b"/f"))
        handle, *_ = await does.take()
        gateway.served.signal(signal.SIGTERM)
        await gateway.served.until("stopping")
        gateway.served.signal(signal.SIGHUP)
        await gateway.served.until("SIGHUP has no effect in a stop")
        does.complete(handle)
        assert (await client.response()).status == 200
        assert await gateway.served.ended() == 0


async def test_the_time_for_the_last_answers_is_the_new_one(embedded, tmp_path):
    server = servers(embedded.address)
    async with (
        hand_worker(embedded.address, b"f") as does,
        configured(tmp_path, server) as gateway,
        HttpClient(gateway.address) as client,
    ):
        await gateway.reload(server, "drain-timeout = 0.1")
        client.send(post(b"/f"))
        await does.take()
        gateway.served.signal(signal.SIGTERM)
        assert "for up to 0.1 s" in await gateway.served.until("stopping")
        assert (await client.response()).status == 502
        assert await gateway.served.ended() == 0
