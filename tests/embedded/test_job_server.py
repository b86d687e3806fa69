"""The embedded job server answers as gearmand does; each behaviour is checked on both where both have it."""

from __future__ import annotations

import struct

import anyio
import pytest

from gatewayx.embedded import encode
from gatewayx.embedded.job_server import JobServer
from gatewayx.gearman import packet
from gatewayx.gearman.packet import PacketType
from support.job_servers import hand_worker
from support.peer import Peer, ask_text
from support.times import WAIT_S
from support.tools import run_tool

pytestmark = pytest.mark.anyio

BACKGROUND = PacketType.SUBMIT_JOB_BG
COMPLETE, DATA, FAIL = PacketType.WORK_COMPLETE, PacketType.WORK_DATA, PacketType.WORK_FAIL


class TestForeground:
    async def test_every_work_packet_reaches_the_client_in_order(self, address, function):
        async with Peer(address) as client, Peer(address) as worker:
            await worker.can_do(function)
            handle = await client.submit(function, b"", b"work\0load")
            assert handle.startswith(b"H:")
            assert await worker.grab() == (handle, function, b"", b"work\0load")
            worker.send(
                encode.work_data(handle, b"a\0b"),
                encode.work_warning(handle, b"w"),
                encode.work_status(handle, 3, 4),
                encode.work_complete(handle, b"end"),
            )
            assert await client.expect(DATA) == (handle, b"a\0b")
            assert await client.expect(PacketType.WORK_WARNING) == (handle, b"w")
            assert await client.expect(PacketType.WORK_STATUS) == (handle, b"3", b"4")
            assert await client.expect(COMPLETE) == (handle, b"end")
            await worker.no_job()

    async def test_answers_keep_the_order_of_pipelined_submits(self, address, function):
        async with Peer(address) as client, Peer(address) as worker:
            client.send(*[encode.submit_job(7, function, b"", b"%d" % n) for n in range(100)])
            handles = [(await client.expect(PacketType.JOB_CREATED))[0] for _ in range(100)]
            assert len(set(handles)) == 100
            await worker.can_do(function)
            assert [(await worker.grab())[::3] for _ in range(100)] == [(h, b"%d" % n) for n, h in enumerate(handles)]

    async def test_failure(self, address, function):
        async with Peer(address) as client, Peer(address) as worker:
            await worker.can_do(function)
            handle = await client.submit(function, b"", b"")
            await worker.grab()
            worker.send(encode.work_fail(handle))
            assert await client.expect(FAIL) == (handle,)

    @pytest.mark.parametrize("wanted", [True, False])
    async def test_exception_is_a_failure_to_who_did_not_ask_for_exceptions(self, address, function, wanted):
        async with Peer(address) as client, Peer(address) as worker:
            if wanted:
                client.send(encode.option_req(b"exceptions"))
                assert await client.expect(PacketType.OPTION_RES) == (b"exceptions",)
            await worker.can_do(function)
            handle = await client.submit(function, b"", b"")
            await worker.grab()
            worker.send(encode.work_exception(handle, b"why"))
            if wanted:
                assert await client.expect(PacketType.WORK_EXCEPTION) == (handle, b"why")
            else:
                assert await client.expect(FAIL) == (handle,)
            assert await client.settle() == []

    @pytest.mark.parametrize("size", [100_000, 3_000_000])
    async def test_large_workload_and_result_arrive_whole(self, address, function, size):
        data = bytes(range(250)) * (size // 250)
        async with Peer(address) as client, Peer(address) as worker:
            await worker.can_do(function)
            handle = await client.submit(function, b"", data)
            assert (await worker.grab())[3] == data
            worker.send(encode.work_data(handle, data), encode.work_complete(handle, data))
            assert await client.expect(DATA) == (handle, data)
            assert await client.expect(COMPLETE) == (handle, data)

    async def test_client_gone_drops_a_queued_job(self, address, function):
        async with Peer(address) as worker:
            async with Peer(address) as client:
                dropped = await client.submit(function, b"", b"dropped")
            async with Peer(address) as other:
                await wait_until_dropped(address, dropped)
                kept = await other.submit(function, b"", b"kept")
                await worker.can_do(function)
                assert (await worker.grab())[0] == kept
                await worker.no_job()

    async def test_client_gone_leaves_a_running_job_alone(self, address, function):
        async with Peer(address) as worker:
            await worker.can_do(function)
            async with Peer(address) as client:
                handle = await client.submit(function, b"", b"")
                await worker.grab()
            worker.send(encode.work_data(handle, b"x"), encode.work_complete(handle, b""))
            assert await worker.settle() == []


async def wait_until_dropped(address, handle: bytes) -> None:
    """Until the job server has seen that the job's last client is gone."""
    with anyio.fail_after(WAIT_S):
        while handle + b"\t0\t1\t" not in await ask_text(address, b"show jobs"):
            pass


class TestQueue:
    async def test_priorities(self, address, function):
        types = [
            PacketType.SUBMIT_JOB_LOW,
            PacketType.SUBMIT_JOB,
            PacketType.SUBMIT_JOB_HIGH,
            PacketType.SUBMIT_JOB_LOW_BG,
            PacketType.SUBMIT_JOB_BG,
            PacketType.SUBMIT_JOB_HIGH_BG,
        ]
        async with Peer(address) as client, Peer(address) as worker:
            for packet_type in types:
                await client.submit(function, b"", packet_type.name.encode(), packet_type)
            await worker.can_do(function)
            order = [(await worker.grab())[3].decode() for _ in types]
            assert order == [
                "SUBMIT_JOB_HIGH",
                "SUBMIT_JOB_HIGH_BG",
                "SUBMIT_JOB",
                "SUBMIT_JOB_BG",
                "SUBMIT_JOB_LOW",
                "SUBMIT_JOB_LOW_BG",
            ]

    async def test_background_job_tells_its_client_nothing_and_outlives_it(self, address, function):
        async with Peer(address) as worker:
            async with Peer(address) as client:
                handle = await client.submit(function, b"", b"x", BACKGROUND)
            await worker.can_do(function)
            assert (await worker.grab())[0] == handle
            worker.send(encode.work_complete(handle, b"nobody hears"))
            assert await worker.settle() == []
            worker.send(encode.get_status(handle))
            assert await worker.expect(PacketType.STATUS_RES) == (handle, b"0", b"0", b"0", b"0")

    async def test_worker_gone_queues_its_job_again(self, address, function):
        async with Peer(address) as client:
            async with Peer(address) as lost:
                await lost.can_do(function)
                handle = await client.submit(function, b"", b"again")
                await lost.grab()
            async with Peer(address) as worker:
                await worker.can_do(function)
                worker.send(encode.pre_sleep())
                await worker.expect(PacketType.NOOP)
                assert await worker.grab() == (handle, function, b"", b"again")
                worker.send(encode.work_complete(handle, b"done"))
                assert await client.expect(COMPLETE) == (handle, b"done")

    async def test_sleeping_worker_is_woken_once(self, address, function):
        async with Peer(address) as client, Peer(address) as worker:
            await worker.can_do(function)
            worker.send(encode.pre_sleep())
            assert await worker.settle() == []
            await client.submit(function, b"", b"1")
            await client.submit(function, b"", b"2")
            assert [found.type for found in await worker.settle()] == [PacketType.NOOP]
            await worker.grab()
            worker.send(encode.pre_sleep())
            await worker.expect(PacketType.NOOP)

    async def test_abilities_can_be_withdrawn(self, address, function):
        async with Peer(address) as client, Peer(address) as worker:
            await worker.can_do(function, function + b"2")
            worker.send(encode.cant_do(function))
            await client.submit(function, b"", b"")
            await worker.no_job()
            second = await client.submit(function + b"2", b"", b"")
            assert (await worker.grab())[0] == second
            worker.send(encode.work_complete(second, b""), encode.reset_abilities())
            assert await worker.settle() == []
            await client.expect(COMPLETE)
            await client.submit(function + b"2", b"", b"")
            await worker.no_job()

    async def test_job_that_runs_longer_than_can_do_timeout_is_queued_again(self, address, function):
        async with Peer(address) as client, Peer(address) as slow:
            slow.send(encode.can_do_timeout(function, 1))
            assert await slow.settle() == []
            handle = await client.submit(function, b"", b"")
            await slow.grab()
            async with hand_worker(address, function) as worker:
                assert (await worker.take(awake=True))[0] == handle
                slow.send(encode.work_complete(handle, b"too late"))
                assert (await slow.expect(PacketType.ERROR))[0] == b"JOB_NOT_FOUND"
                worker.send(encode.work_complete(handle, b"in time"))
                assert await client.expect(COMPLETE) == (handle, b"in time")
                second = await client.submit(function, b"", b"")
                assert (await slow.grab())[0] == second

    async def test_grab_job_variants(self, address, function):
        async with Peer(address) as client, Peer(address) as worker:
            await worker.can_do(function)
            first = await client.submit(function, b"u1", b"1")
            second = await client.submit(function, b"u2", b"2")
            worker.send(encode.grab_job(), encode.grab_job_all(), encode.grab_job_all())
            assert await worker.expect(PacketType.JOB_ASSIGN) == (first, function, b"1")
            assert await worker.expect(PacketType.JOB_ASSIGN_UNIQ) == (second, function, b"u2", b"2")
            assert await worker.expect(PacketType.NO_JOB) == ()

    async def test_full_queue_answers_error(self, address, function):
        async with Peer(address) as client:
            await client.submit(function, b"", b"1", BACKGROUND)
            assert await ask_text(address, b"maxqueue " + function + b" 1") == b"OK\r\n"
            client.send(encode.submit_job(7, function, b"", b"2"))
            assert await client.expect(PacketType.ERROR) == (b"QUEUE_ERROR", b"Job queue is full")


class TestCoalescing:
    async def run_both(self, address, function, first: tuple[bytes, bytes], second: tuple[bytes, bytes]) -> bool:
        """Whether two submits share one job; checks that each gets every packet."""
        async with Peer(address) as client, Peer(address) as worker:
            await worker.can_do(function)
            handles = [await client.submit(function, *first), await client.submit(function, *second)]
            count = len(set(handles))
            for _ in range(count):
                handle, _, unique, workload = await worker.grab()
                assert (unique, workload) in (first, second)
                worker.send(encode.work_data(handle, b"d"), encode.work_complete(handle, b"c"))
            await worker.no_job()
            found = [await client.receive() for _ in range(4)]
            assert sorted((p.type, p.arguments[0]) for p in found) == sorted(
                (packet_type, handle) for handle in handles for packet_type in (DATA, COMPLETE)
            )
            assert await client.settle() == []
            return count == 1

    @pytest.mark.parametrize(
        ("first", "second", "one_job"),
        [
            ((b"u", b"1"), (b"u", b"2"), True),
            ((b"u", b"1"), (b"v", b"1"), False),
            ((b"", b"1"), (b"", b"1"), False),
            ((b"-", b"1"), (b"-", b"1"), True),
            ((b"-", b"1"), (b"-", b"2"), False),
            ((b"-", b""), (b"-", b""), False),
            ((b"u" * 63, b"1"), (b"u" * 63, b"2"), True),
        ],
    )
    async def test_on_one_connection(self, address, function, first, second, one_job):
        assert await self.run_both(address, function, first, second) is one_job

    async def test_is_per_function(self, address, function):
        async with Peer(address) as client:
            assert await client.submit(function, b"u", b"") != await client.submit(function + b"2", b"u", b"")

    async def test_late_joiner_gets_only_what_comes_later(self, address, function):
        async with Peer(address) as first, Peer(address) as second, Peer(address) as worker:
            await worker.can_do(function)
            handle = await first.submit(function, b"u", b"")
            await worker.grab()
            worker.send(encode.work_data(handle, b"1"))
            await first.expect(DATA)
            assert await second.submit(function, b"u", b"") == handle
            worker.send(encode.work_complete(handle, b"2"))
            assert await first.expect(COMPLETE) == (handle, b"2")
            assert await second.expect(COMPLETE) == (handle, b"2")

    @pytest.mark.parametrize("unique", [b"u", b"-"])
    async def test_ended_job_is_not_joined(self, address, function, unique):
        async with Peer(address) as client, Peer(address) as worker:
            await worker.can_do(function)
            handle = await client.submit(function, unique, b"x")
            await worker.grab()
            worker.send(encode.work_complete(handle, b""))
            await client.expect(COMPLETE)
            assert await client.submit(function, unique, b"x") != handle

    async def test_background_job_joined_by_a_client_that_leaves_is_dropped(self, address, function):
        async with Peer(address) as peer:
            handle = await peer.submit(function, b"u", b"", BACKGROUND)
            async with Peer(address) as client:
                assert await client.submit(function, b"u", b"") == handle
            await wait_until_dropped(address, handle)
            # A dropped job is still joined, and never runs.
            assert await peer.submit(function, b"u", b"") == handle
            await peer.can_do(function)
            await peer.no_job()


class TestStatus:
    async def test_by_handle(self, address, function):
        async with Peer(address) as client, Peer(address) as worker:
            await worker.can_do(function)
            handle = await client.submit(function, b"", b"")
            client.send(encode.get_status(handle))
            assert await client.expect(PacketType.STATUS_RES) == (handle, b"1", b"0", b"0", b"0")
            await worker.grab()
            worker.send(encode.work_status(handle, 5, 10))
            await client.expect(PacketType.WORK_STATUS)
            client.send(encode.get_status(handle))
            assert await client.expect(PacketType.STATUS_RES) == (handle, b"1", b"1", b"5", b"10")
            client.send(encode.get_status(b"H:nobody:1"))
            assert await client.expect(PacketType.STATUS_RES) == (b"H:nobody:1", b"0", b"0", b"0", b"0")

    async def test_by_unique(self, address, function):
        unique = function[:63]
        async with Peer(address) as client:
            await client.submit(function, unique, b"", BACKGROUND)
            client.send(encode.get_status_unique(unique))
            answer = await client.expect(PacketType.STATUS_RES_UNIQUE)
            assert answer == (unique, b"1", b"0", b"0", b"0", b"0")
            await client.submit(function, unique, b"")
            client.send(encode.get_status_unique(unique), encode.get_status_unique(b"unknown"))
            assert (await client.expect(PacketType.STATUS_RES_UNIQUE))[5] == b"1"
            answer = await client.expect(PacketType.STATUS_RES_UNIQUE)
            assert answer == (b"unknown", b"0", b"0", b"0", b"0", b"0")


class TestErrors:
    @pytest.mark.parametrize(
        ("request_bytes", "code"),
        [
            (encode.packet(packet.Magic.REQUEST, PacketType.NOOP), b"INVALID_COMMAND"),
            (encode.packet(packet.Magic.REQUEST, PacketType.JOB_CREATED, b"H"), b"INVALID_COMMAND"),
            (encode.submit_job_sched(b"f", b"u", 1, 2, 3, 4, 5, b"w"), b"INVALID_COMMAND"),
            (encode.option_req(b"nonsense"), b"UNKNOWN_OPTION"),
            (encode.work_complete(b"H:nobody:1", b""), b"JOB_NOT_FOUND"),
            (encode.work_fail(b"H:nobody:1"), b"JOB_NOT_FOUND"),
            (encode.work_status(b"H:nobody:1", 1, 2), b"JOB_NOT_FOUND"),
            (encode.packet(packet.Magic.REQUEST, 7, b"f", b"u" * 66, b""), b"ARGUMENT_TOO_LARGE"),
        ],
    )
    async def test_unexpected_packet_is_answered_and_the_connection_lives(self, address, request_bytes, code):
        async with Peer(address) as peer:
            peer.send(request_bytes)
            assert (await peer.expect(PacketType.ERROR))[0] == code
            assert await peer.settle() == []

    @pytest.mark.parametrize("stream", [b"\0BAD" + bytes(8), b"\0REQ" + struct.pack(">II", 99, 0)])
    async def test_broken_stream_is_closed(self, address, stream):
        async with Peer(address) as peer:
            peer.send(stream)
            with pytest.raises(ConnectionResetError):
                await peer.receive()

    async def test_another_workers_job_cannot_be_ended(self, address, function):
        async with Peer(address) as client, Peer(address) as worker, Peer(address) as stranger:
            await worker.can_do(function)
            handle = await client.submit(function, b"", b"")
            await worker.grab()
            stranger.send(encode.work_complete(handle, b"forged"))
            assert (await stranger.expect(PacketType.ERROR))[0] == b"JOB_NOT_FOUND"
            assert await client.settle() == []


class TestTextCommands:
    async def test_status_and_workers(self, address, function):
        async with Peer(address) as client, Peer(address) as worker:
            worker.send(encode.set_client_id(b"me-" + function))
            await worker.can_do(function)
            for number in range(3):
                await client.submit(function, b"", b"%d" % number)
            await worker.grab()
            status = await ask_text(address, b"status")
            assert status.endswith(b"\n.\n")
            assert function + b"\t3\t1\t1\n" in status
            workers = await ask_text(address, b"workers")
            assert b" 127.0.0.1 me-" + function + b" : " + function + b"\n" in workers

    async def test_cancel_tells_the_client_and_the_job_never_runs(self, address, function):
        async with Peer(address) as client, Peer(address) as worker:
            handle = await client.submit(function, b"", b"")
            assert await ask_text(address, b"cancel job " + handle) == b"OK\r\n"
            assert await client.expect(FAIL) == (handle,)
            await worker.can_do(function)
            await worker.no_job()
            assert await ask_text(address, b"cancel job " + handle) == b"ERR UNKNOWN_JOB\r\n"

    async def test_cancel_of_a_running_job_does_not_stop_it(self, address, function):
        async with Peer(address) as client, Peer(address) as worker:
            await worker.can_do(function)
            handle = await client.submit(function, b"", b"")
            await worker.grab()
            assert await ask_text(address, b"cancel job " + handle) == b"OK\r\n"
            assert await client.expect(FAIL) == (handle,)
            worker.send(encode.work_complete(handle, b"late"))
            assert await client.expect(COMPLETE) == (handle, b"late")

    async def test_show_jobs(self, address, function):
        unique = function[:63]
        async with Peer(address) as client:
            handle = await client.submit(function, unique, b"", BACKGROUND)
            assert handle + b"\t0\t0\t1\n" in await ask_text(address, b"show jobs")
            assert b"\n" + unique + b"\n" in b"\n" + await ask_text(address, b"show unique jobs")

    @pytest.mark.parametrize(
        ("line", "answer"),
        [
            (b"version", b"OK "),
            (b"VERSION", b"OK "),
            (b"getpid", b"OK "),
            (b"verbose", b"OK "),
            (b"version\r", b"OK "),
            (b"nonsense", b"ERR UNKNOWN_COMMAND "),
            (b"maxqueue", b"ERR INVALID_ARGUMENTS "),
            (b"create", b"ERR INVALID_ARGUMENTS "),
            (b"create function text-created", b"OK\r\n"),
            (b"drop", b"ERR INVALID_ARGUMENTS "),
            (b"drop function nobody-knows", b"ERR function not found\r\n"),
            (b"show nonsense", b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"),
            (b"cancel job H:nobody:1", b"ERR UNKNOWN_JOB\r\n"),
            (b"shutdown now", b"ERR UNKNOWN_COMMAND "),
        ],
    )
    async def test_answers(self, address, line, answer):
        assert (await ask_text(address, line)).startswith(answer)


class TestTools:
    async def test_gearman_client_and_worker(self, address, function):
        async with Peer(address) as worker:
            await worker.can_do(function)
            worker.send(encode.pre_sleep())
            code, output = await run_tool("gearman", address[1], "-b", "-f", function.decode(), "hello")
            assert (code, output) == (0, b"")
            await worker.expect(PacketType.NOOP)
            assert (await worker.grab())[3] == b"hello"
            await worker.no_job()

    async def test_gearman_worker_counts_lines_of_a_gearman_client(self, address, function):
        name = function.decode()
        async with Peer(address) as client:
            handle = await client.submit(function, b"u", b"a\nb\n")
            code, _ = await run_tool("gearman", address[1], "-w", "-c", "1", "-f", name, "--", "wc", "-l")
            assert code == 0
            found = [await client.receive()]
            while found[-1].type != COMPLETE:
                found.append(await client.receive())
            assert b"".join(p.arguments[1] for p in found).strip() == b"2"
            assert {p.arguments[0] for p in found} == {handle}

    async def test_gearadmin(self, address, function):
        async with Peer(address) as worker:
            await worker.can_do(function)
            code, output = await run_tool("gearadmin", address[1], "--status")
            assert code == 0
            assert function + b"\t0\t0\t1" in output
            code, output = await run_tool("gearadmin", address[1], "--workers")
            assert code == 0
            assert b" : " + function in output
            code, output = await run_tool("gearadmin", address[1], "--server-version")
            assert code == 0
            handle = await worker.submit(function, b"", b"", BACKGROUND)
            code, output = await run_tool("gearadmin", address[1], f"--cancel-job={handle.decode()}")
            assert (code, output) == (0, b"OK\n")
            await worker.no_job()
            code, output = await run_tool("gearadmin", address[1], "--getpid")
            assert code == 0
            assert output.strip().isdigit()


class TestEmbedded:
    async def test_counts(self, embedded, function):
        async with Peer(embedded.address) as client, Peer(embedded.address) as worker:
            await worker.can_do(function)
            handles = [await client.submit(function, unique, b"1234") for unique in (b"u", b"u", b"v")]
            await worker.grab()
            assert (embedded.connections, embedded.job_count, embedded.queued, embedded.running) == (2, 2, 1, 1)
            assert (embedded.submitted, embedded.coalesced, embedded.workload_bytes) == (3, 1, 8)
            await worker.grab()
            worker.send(*[encode.work_complete(handle, b"") for handle in set(handles)])
            assert await worker.settle() == []
            assert (embedded.job_count, embedded.queued, embedded.running, embedded.finished) == (0, 0, 0, 2)

    async def test_handles_start_at_one(self, embedded):
        async with Peer(embedded.address) as client:
            assert (await client.submit(b"f", b"", b"")).endswith(b":1")
            assert (await client.submit(b"f", b"", b"")).endswith(b":2")

    @pytest.mark.parametrize(
        ("options", "submits"),
        [
            ({"max_queue": 2}, [(b"f", b"", b""), (b"f", b"", b""), (b"f", b"", b"")]),
            ({"max_queue": 2}, [(b"f", b"u", b""), (b"f", b"u", b""), (b"f", b"u", b"")]),
            ({"max_workload_bytes": 10}, [(b"f", b"", b"12345678"), (b"g", b"", b"123")]),
            ({"max_functions": 1}, [(b"f", b"", b""), (b"g", b"", b"")]),
        ],
    )
    async def test_bounds_answer_error(self, options, submits):
        async with JobServer(**options) as server, Peer(server.address) as client:
            for arguments in submits[:-1]:
                await client.submit(*arguments)
            client.send(encode.submit_job(7, *submits[-1]))
            assert (await client.expect(PacketType.ERROR))[0] == b"QUEUE_ERROR"

    async def test_too_large_a_packet_closes_the_connection(self):
        async with JobServer(max_body_bytes=100) as server, Peer(server.address) as client:
            client.send(encode.echo_req(bytes(100)))
            await client.expect(PacketType.ECHO_RES)
            client.send(encode.echo_req(bytes(101)))
            with pytest.raises(ConnectionResetError):
                await client.receive()

    async def test_endless_text_line_closes_the_connection(self, embedded):
        async with Peer(embedded.address) as client:
            client.send(b"status " + b"x" * 20_000)
            with pytest.raises(ConnectionResetError):
                await client.receive()

    async def test_peer_that_does_not_read_is_disconnected(self):
        async with JobServer(max_output_bytes=1_000_000) as server, Peer(server.address) as flooder:
            # Far more than socket buffers on both sides hold.
            flooder.send(encode.echo_req(bytes(1_000_000)) * 50)
            with pytest.raises(ConnectionResetError):
                await flooder.writer.drain()

    async def test_shutdown_closes_everything(self, embedded):
        async with Peer(embedded.address) as client:
            client.send(b"shutdown\n")
            assert await client.reader.read(100) == b"OK\r\n"
            assert await client.reader.read(100) == b""
        with pytest.raises(ConnectionRefusedError):
            await Peer(embedded.address).connect()

    async def test_everything_at_once_in_single_bytes(self, embedded, function):
        async with Peer(embedded.address) as peer:
            stream = encode.can_do(function) + encode.submit_job(7, function, b"u", b"w")
            for start in range(len(stream)):
                peer.send(stream[start : start + 1])
                await peer.writer.drain()
            (handle,) = await peer.expect(PacketType.JOB_CREATED)
            assert await peer.grab() == (handle, function, b"u", b"w")
