"""`gatewayx serve` as the operator meets it: start, stop, drain, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gatewayx.embedded.job_server import JobServer
from support.gateway import ServeProcess, eventually
from support.gearmand import die_with_parent
from support.http import HttpClient, ask, chunked, head, post, refused
from support.job_servers import HandWorker, ScriptedJobServer, hand_worker, nobody_listens
from support.ports import free_port
from support.process_state import open_descriptors
from support.times import NOT_BEFORE, PROCESS_S, SOON_S

LISTEN = ("--listen", "127.0.0.1:0")
POST = post(b"/f", b"workload")
SIGNALS = pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=["SIGTERM", "SIGINT", "SIGQUIT"]
)


def server_at(address: tuple[str, int]) -> tuple[str, str]:
    """The flag for a job server."""
    return ("--server", f"{address[0]}:{address[1]}")


@pytest.fixture
async def worker(embedded: JobServer) -> AsyncIterator[HandWorker]:
    """A worker for /f, by hand."""
    async with hand_worker(embedded.address, b"f") as worker:
        yield worker


@pytest.fixture
def arguments() -> tuple[str, ...]:
    """Further flags; a test changes them by parametrizing `arguments`."""
    return ()


@pytest.fixture
async def served(embedded: JobServer, arguments: tuple[str, ...]) -> AsyncIterator[ServeProcess]:
    """The gateway in front of the embedded job server."""
    async with ServeProcess(*LISTEN, *server_at(embedded.address), *arguments) as served:
        yield served


def all_descriptors(served: ServeProcess) -> int:
    """How many files and sockets the gateway's processes have open."""
    return sum(open_descriptors(process_id) for process_id in served.all())


def cpu_time_s(served: ServeProcess) -> float:
    """Processor time of its processes so far."""
    ticks = 0
    for process_id in served.all():
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def cpu_share(served: ServeProcess) -> float:
    """The part of the next second in which it has a processor."""
    began_s, before_s = time.monotonic(), cpu_time_s(served)
    await asyncio.sleep(1)
    return (cpu_time_s(served) - before_s) / (time.monotonic() - began_s)


@pytest.mark.anyio
class TestStop:
    @SIGNALS
    async def test_what_is_in_flight_is_answered_and_the_rest_closed(self, served, worker, number):
        address = await served.address()
        async with (
            HttpClient(address) as busy,
            HttpClient(address) as pipelining,
            HttpClient(address) as idle,
            HttpClient(address) as silent,
        ):
            busy.send(POST)
            pipelining.send(POST, POST)
            handles = [(await worker.take())[0] for _ in range(3)]
            assert (await idle.ask(head(b"OPTIONS", b"*"))).status == 204
            served.signal(number)
            await served.until("stopping")
            assert await idle.rest() == b""
            assert await silent.rest() == b""
            # One of its processes may be later than the others.
            await refused(address)
            for handle in handles:
                worker.complete(handle, b"result")
            answer = await busy.response()
            assert (answer.status, answer.body, answer.headers[b"connection"]) == (200, b"result", b"close")
            assert await busy.rest() == b""
            first, second = await pipelining.response(), await pipelining.response()
            assert (first.body, second.body) == (b"result", b"result")
            assert b"connection" not in first.headers
            assert second.headers[b"connection"] == b"close"
        assert await served.ended() == 0

    async def test_an_answer_that_a_client_takes_slowly_arrives_whole(self, served, worker):
        result = bytes(6 << 20)
        async with HttpClient(await served.address(), receive_buffer_bytes=65536) as slow:
            slow.writer.transport.pause_reading()
            slow.send(POST)
            handle, _, _, _ = await worker.take()
            worker.complete(handle, result)
            await asyncio.sleep(0.2)
            served.signal(signal.SIGTERM)
            await served.until("stopping")
            await asyncio.sleep(0.2)
            slow.writer.transport.resume_reading()
            assert (await slow.response()).body == result
            assert await slow.rest() == b""
        assert await served.ended() == 0

    async def test_a_request_that_was_arriving_is_served(self, served, worker):
        async with HttpClient(await served.address()) as client:
            assert (await client.ask(head(b"POST", b"/f", b"Content-Length: 8", b"Expect: 100-continue"))).status == 100
            served.signal(signal.SIGTERM)
            await served.until("stopping")
            client.send(b"workload")
            handle, _, _, workload = await worker.take()
            assert workload == b"workload"
            worker.complete(handle, b"result")
            answer = await client.response()
            assert (answer.body, answer.headers[b"connection"]) == (b"result", b"close")
        assert await served.ended() == 0

    async def test_a_body_that_nobody_needs_any_more_does_not_hold_up_the_end(self, served):
        async with HttpClient(await served.address()) as client:
            client.send(head(b"POST", b"/f", b"X-Gearman-Timeout: no", b"Content-Length: 10"), b"12345")
            assert (await client.response()).status == 400
            served.signal(signal.SIGTERM)
            await served.until("stopping")
            client.send(b"67890")
            assert await client.rest() == b""
        assert await served.ended() == 0

    async def test_an_empty_line_that_was_arriving_does_not_hold_up_the_end(self, served):
        async with HttpClient(await served.address()) as client:
            client.send(head(b"OPTIONS", b"*"), b"\r")
            assert (await client.response()).status == 204
            served.signal(signal.SIGTERM)
            await served.until("stopping")
            client.send(b"\n")
            assert await client.rest() == b""
        assert await served.ended() == 0

    @pytest.mark.parametrize("arguments", [("--drain-timeout", "0.3")])
    async def test_what_is_still_open_after_the_drain_timeout_hears_the_truth(self, served, worker):
        address = await served.address()
        async with (
            HttpClient(address) as submitted,
            HttpClient(address) as half_a_body,
            HttpClient(address) as half_a_chunk,
            HttpClient(address) as half_a_head,
        ):
            submitted.send(POST)
            handle, _, _, _ = await worker.take()
            assert (
                await half_a_body.ask(head(b"POST", b"/f", b"Content-Length: 8", b"Expect: 100-continue"))
            ).status == 100
            half_a_body.send(b"work")
            await half_a_chunk.ask(head(b"POST", b"/f", b"Transfer-Encoding: chunked", b"Expect: 100-continue"))
            half_a_chunk.send(chunked(b"workload")[:-5])
            half_a_head.send(head(b"OPTIONS", b"*"), b"POST /f HTTP/1.1\r\nHost: ")
            assert (await half_a_head.response()).status == 204
            began_s = time.monotonic()
            served.signal(signal.SIGTERM)
            answer = await submitted.response()
            assert time.monotonic() - began_s >= NOT_BEFORE * 0.3
            assert (answer.status, answer.kind(), answer.headers[b"connection"]) == (502, "outcome-unknown", b"close")
            assert answer.headers[b"x-gearman-job-handle"] == handle
            for client in (half_a_body, half_a_chunk, half_a_head):
                answer = await client.response()
                assert (answer.status, answer.headers[b"connection"]) == (503, b"close")
                assert int(answer.headers[b"retry-after"]) >= 1
        assert await served.ended() == 0

    @pytest.mark.parametrize("arguments", [("--drain-timeout", "0.3")])
    async def test_a_client_that_does_not_read_its_last_answer_does_not_hold_up_the_end(self, served, worker):
        async with HttpClient(await served.address(), receive_buffer_bytes=4096) as deaf:
            deaf.writer.transport.pause_reading()
            deaf.send(POST)
            handle, _, _, _ = await worker.take()
            worker.complete(handle, bytes(16 << 20))
            began_s = time.monotonic()
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0
            assert time.monotonic() - began_s < SOON_S

    @SIGNALS
    async def test_a_second_signal_ends_at_once(self, served, worker, number):
        async with HttpClient(await served.address()) as client:
            client.send(POST)
            await worker.take()
            served.signal(signal.SIGTERM)
            await served.until("stopping")
            began_s = time.monotonic()
            served.signal(number)
            assert await served.ended() != 0
            assert time.monotonic() - began_s < SOON_S

    async def test_without_clients_it_ends_at_once(self, served):
        await served.address()
        began_s = time.monotonic()
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
        assert time.monotonic() - began_s < SOON_S
        assert not [line for line in served.lines if "WARNING" in line or "ERROR" in line or "Traceback" in line]

    async def test_a_signal_during_the_start_ends_it_cleanly(self):
        async with (
            ScriptedJobServer(greets=False) as silent,
            ServeProcess(*LISTEN, *server_at(silent.address)) as served,
        ):
            await silent.connection()
            served.signal(signal.SIGTERM)
            began_s = time.monotonic()
            assert await served.ended() == 0
            assert time.monotonic() - began_s < SOON_S
            assert not any("listens on" in line or "Traceback" in line for line in served.lines)


@pytest.mark.anyio
class TestStart:
    async def test_a_port_already_taken_is_one_line_and_exit_code_1(self, embedded):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            async with ServeProcess("--listen", address, *server_at(embedded.address)) as served:
                assert await served.ended() == 1
        [line] = served.lines
        assert address in line

    async def test_without_a_job_server_it_starts_and_says_so(self):
        address = nobody_listens()
        async with ServeProcess(*LISTEN, *server_at(address)) as served:
            listens_at = await served.address()
            warnings = [line for line in served.lines if "WARNING" in line]
            assert len(warnings) == len(served.workers())
            assert all(f"{address[0]}:{address[1]}" in warning for warning in warnings)
            assert (await ask(listens_at, POST)).status == 503
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0

    async def test_it_listens_only_after_the_job_servers_were_tried(self):
        async with ScriptedJobServer(greets=False) as silent, ScriptedJobServer() as other:
            listen = ("127.0.0.1", free_port())
            async with ServeProcess(
                *("--listen", f"127.0.0.1:{listen[1]}", *server_at(silent.address), *server_at(other.address)),
                *("--workers", "1"),
                before="from gatewayx.gearman import roster\nroster.FIRST_ATTEMPT_S = 3600.0",
            ) as served:
                upstreams = [await silent.connection() for _ in range(2)]
                await other.connection()
                with pytest.raises(ConnectionRefusedError):
                    await HttpClient(listen).connect()
                for upstream in upstreams:
                    upstream.greet()
                await served.address()
                assert (await ask(listen, head(b"OPTIONS", b"*"))).status == 204

    async def test_it_listens_on_every_address(self, embedded):
        async with ServeProcess(*LISTEN, *LISTEN, *server_at(embedded.address)) as served:
            line = await served.until("listens on")
            ports = [int(port) for port in re.findall(r"http://127\.0\.0\.1:([0-9]+)", line)]
            assert len(set(ports)) == 2
            for port in ports:
                assert (await ask(("127.0.0.1", port), head(b"OPTIONS", b"*"))).status == 204

    @pytest.mark.parametrize("arguments", [("--max-connections", "500")])
    async def test_the_soft_limit_of_open_files_is_raised(self, embedded, arguments):
        def lower_the_soft_limit() -> None:
            die_with_parent()
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

        async with ServeProcess(
            *LISTEN, *server_at(embedded.address), *arguments, preexec=lower_the_soft_limit
        ) as served:
            address = await served.address()
            assert not [line for line in served.lines if "WARNING" in line]
            soft, _ = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
            assert soft >= 500
            clients = [await HttpClient(address).connect() for _ in range(100)]
            assert [(await client.ask(head(b"OPTIONS", b"*"))).status for client in clients] == [204] * 100
            before = all_descriptors(served)
            for client in clients:
                await client.close()
            await eventually(lambda: all_descriptors(served) <= before - 100)

    async def test_a_hard_limit_of_open_files_in_the_way_is_told(self, embedded):
        def lower_the_hard_limit() -> None:
            die_with_parent()
            resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))

        async with ServeProcess(*LISTEN, *server_at(embedded.address), preexec=lower_the_hard_limit) as served:
            await served.address()
            [warning] = [line for line in served.lines if "WARNING" in line]
            assert "max-connections" in warning
            assert "128" in warning
            assert resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE) == (128, 128)


async def eventually_answers(address: tuple[str, int]) -> bool:
    """Whether a new client is answered at last."""
    ends_s = time.monotonic() + PROCESS_S
    while time.monotonic() < ends_s:
        with contextlib.suppress(ConnectionError, EOFError, asyncio.IncompleteReadError):
            return (await ask(address, head(b"OPTIONS", b"*"))).status == 204
        await asyncio.sleep(0.05)
    return False


@pytest.mark.anyio
async def test_running_out_of_descriptors_neither_spins_nor_ends_the_listening(embedded, worker):
    def few_descriptors() -> None:
        die_with_parent()
        resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))

    async with ServeProcess(*LISTEN, *server_at(embedded.address), preexec=few_descriptors) as served:
        address = await served.address()
        async with HttpClient(address) as kept:
            assert (await kept.ask(head(b"OPTIONS", b"*"))).status == 204
            clients = [await HttpClient(address).connect() for _ in range(100)]
            ends_s = time.monotonic() + PROCESS_S
            # It accepts those for which it has descriptors first.
            while await cpu_share(served) >= 0.3:
                assert time.monotonic() < ends_s, "it spins"
            # Who is in is served on.
            assert (await kept.ask(head(b"OPTIONS", b"*"))).status == 204
            for client in clients:
                await client.close()
            # The gateway accepts again once it has read that they are gone.
            assert await eventually_answers(address)
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
        assert sum("Traceback" in line for line in served.lines) == 0
        assert len(served.lines) < 20


@pytest.mark.anyio
async def test_a_process_that_serves_keeps_no_descriptor_and_says_nothing(embedded):
    async with (
        hand_worker(embedded.address, b"f") as worker,
        ServeProcess(*LISTEN, *server_at(embedded.address)) as served,
    ):
        address = await served.address()
        before = all_descriptors(served)
        for number in range(20):
            async with HttpClient(address) as client:
                client.send(POST)
                handle, _, _, _ = await worker.take()
                worker.complete(handle)
                if number % 2:
                    assert (await client.response()).status == 200
        await eventually(lambda: all_descriptors(served) <= before)
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
        assert not [line for line in served.lines if "WARNING" in line or "ERROR" in line]
