"""The connection to a job server: how submissions, replies and jobs are paired, and what its failures mean."""

from __future__ import annotations

import asyncio
import time

import pytest

from gatewayx.config.settings import Settings
from gatewayx.core.budget import ByteBudget
from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.core.turns import Turn
from gatewayx.gateway.admission import Admission
from gatewayx.gateway.gateway import Gateway
from gatewayx.gearman.packet import Magic, PacketReader, PacketType
from gatewayx.gearman.pool import Pool
from gatewayx.http.connection import HttpServer
from gatewayx.http.limits import Limits
from gatewayx.http.response import ResponseBuilder
from gatewayx.net.stream import TransportStream
from support.behind import upstreams_of
from support.gateway import MAX_RESULT, eventually, running_gateway
from support.http import HttpClient, ask, post
from support.job_servers import FakeDialer, FakeTransport, ScriptedJobServer, response

pytestmark = pytest.mark.anyio

COMPLETE, DATA, FAIL = PacketType.WORK_COMPLETE, PacketType.WORK_DATA, PacketType.WORK_FAIL
JOB_CREATED, ERROR = PacketType.JOB_CREATED, PacketType.ERROR
EXCEPTION, WARNING, STATUS = PacketType.WORK_EXCEPTION, PacketType.WORK_WARNING, PacketType.WORK_STATUS

SAME = b"X-Gearman-Unique: same"
HANDLE = b"H:test:1"


class TestWrites:
    # 64 KiB are copied together.
    @pytest.mark.parametrize(("workload", "writes"), [(b"small", 1), (b"x" * 3000, 3)], ids=["small", "large"])
    async def test_submissions_of_one_loop_turn_leave_together_and_so_do_the_answers(self, workload, writes):
        loop = asyncio.get_running_loop()
        dialer = FakeDialer()
        wheel = DeadlineWheel(0.1, loop.time())
        budget = ByteBudget()
        pool = Pool(
            loop,
            wheel,
            [("127.0.0.1", 1)],
            connections_per_server=1,
            max_result_bytes=MAX_RESULT,
            budget=budget,
            dialer=dialer,
        )
        await pool.start()
        gateway = Gateway(pool, Admission(), content_type=b"text/plain", job_timeout_s=5)
        builder = ResponseBuilder(now_s=time.time())
        turn = Turn(loop)
        http = HttpServer(loop, wheel, Limits(Settings()), gateway, builder, budget, turn, Counters())
        clients = [(TransportStream(http.connection()), FakeTransport()) for _ in range(3)]
        for protocol, transport in clients:
            protocol.connection_made(transport)
        [(upstream, written)] = dialer.upstreams
        for protocol, _ in clients:
            protocol.data_received(b"".join(post(b"/f", workload) for _ in range(20)))
        assert written.writes == []
        await asyncio.sleep(0)
        assert len(written.writes) == writes
        reader = PacketReader(Magic.REQUEST)
        reader.feed(b"".join(written.writes))
        assert len(list(reader.packets())) == 60

        numbers = range(60)
        upstream.data_received(
            b"".join(response(JOB_CREATED, b"H:%d" % number) for number in numbers)
            + b"".join(response(COMPLETE, b"H:%d" % number, b"result %d." % number) for number in numbers)
        )
        await asyncio.sleep(0)
        for index, (_, transport) in enumerate(clients):
            [answers] = transport.writes
            assert [number for number in numbers if b"result %d." % number in answers] == [
                number for number in numbers if number // 20 == index
            ]
        assert wheel.armed == len(clients)
        for protocol, _ in clients:
            protocol.connection_lost(None)
        await pool.close()
        assert (wheel.armed, http.counters()["connections"], gateway.counters()["open_exchanges"]) == (0, 0, 0)


class TestPairing:
    async def test_replies_pair_with_submissions_in_their_order(self, upstream, clients):
        for number, client in enumerate(clients):
            client.send(post(b"/f", b"%d" % number))
            assert (await upstream.submission()).workload == b"%d" % number
        upstream.answer(JOB_CREATED, b"H:a")
        upstream.answer(ERROR, b"QUEUE_ERROR", b"Job queue is full")
        upstream.answer(JOB_CREATED, b"H:c")
        upstream.answer(COMPLETE, b"H:c", b"result of c")
        upstream.answer(COMPLETE, b"H:a", b"result of a")
        assert (await clients[0].response()).body == b"result of a"
        answer = await clients[1].response()
        assert (answer.status, answer.kind()) == (503, "job-refused")
        assert int(answer.headers[b"retry-after"]) >= 1
        assert "QUEUE_ERROR" in answer.problem()["detail"]
        assert "Job queue is full" in answer.problem()["detail"]
        assert (await clients[2].response()).body == b"result of c"

    @pytest.mark.parametrize(
        ("code", "text"),
        [(b"X\r\nSet-Cookie: a=b", b"\x1b[2J"), (b"\xff\xfe", b'"\\'), (b"", b""), (b"c" * 5000, b"t" * 50_000)],
    )
    async def test_what_an_ERROR_says_is_escaped_and_bounded(self, upstream, clients, code, text):  # noqa: N802
        clients[0].send(post(b"/f"))
        await upstream.submission()
        upstream.answer(ERROR, code, text)
        answer = await clients[0].response()
        assert answer.status == 503
        detail = answer.problem()["detail"]
        assert detail.isascii()
        assert detail.isprintable()
        assert len(detail) < 2000

    async def test_a_refused_background_job_is_503(self, upstream, clients):
        clients[0].send(post(b"/f", b"", b"X-Gearman-Background: true"))
        assert (await upstream.submission()).type == PacketType.SUBMIT_JOB_BG
        upstream.answer(ERROR, b"QUEUE_ERROR", b"full")
        assert (await clients[0].response()).status == 503

    @pytest.mark.parametrize(
        ("lines", "packet_type"),
        [
            ((), PacketType.SUBMIT_JOB),
            ((b"X-Gearman-Priority: low",), PacketType.SUBMIT_JOB_LOW),
            ((b"X-Gearman-Priority: normal",), PacketType.SUBMIT_JOB),
            ((b"X-Gearman-Priority: high",), PacketType.SUBMIT_JOB_HIGH),
            ((b"X-Gearman-Background: true",), PacketType.SUBMIT_JOB_BG),
            ((b"X-Gearman-Background: true", b"X-Gearman-Priority: low"), PacketType.SUBMIT_JOB_LOW_BG),
            ((b"X-Gearman-Priority: high", b"X-Gearman-Background: true"), PacketType.SUBMIT_JOB_HIGH_BG),
            ((b"X-Gearman-Priority: high", b"X-Gearman-Background: false"), PacketType.SUBMIT_JOB_HIGH),
        ],
    )
    async def test_priority_and_background_are_the_packet_type(self, upstream, clients, lines, packet_type):
        clients[0].send(post(b"/f", b"workload", SAME, *lines))
        assert await upstream.submission() == (packet_type, b"f", b"same", b"workload")
        upstream.answer(JOB_CREATED, HANDLE)
        if b"X-Gearman-Background: true" not in lines:
            upstream.answer(COMPLETE, HANDLE, b"")
        assert (await clients[0].response()).status == 200

    async def test_replies_may_come_byte_by_byte(self, upstream, clients):
        clients[0].send(post(b"/f"))
        await upstream.submission()
        for byte in response(JOB_CREATED, HANDLE) + response(DATA, HANDLE, b"a") + response(COMPLETE, HANDLE, b"b"):
            upstream.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await clients[0].response()).body == b"ab"

    async def test_a_handle_may_be_used_again_once_its_job_has_ended(self, upstream, clients):
        for number in range(3):
            clients[0].send(post(b"/f"))
            await upstream.complete(HANDLE, b"%d" % number)
            assert (await clients[0].response()).body == b"%d" % number


class TestMergedJobs:
    """One function and unique on one connection: every submission gets the same handle, every WORK_* comes as often."""

    @pytest.mark.parametrize(
        ("parts", "status", "body"),
        [
            pytest.param([(DATA, b"one "), (DATA, b"two "), (COMPLETE, b"end")], 200, b"one two end", id="complete"),
            pytest.param([(COMPLETE, b"end")], 200, b"end", id="complete-alone"),
            pytest.param([(DATA, b"one "), (EXCEPTION, b"what")], 500, b"what", id="exception"),
            pytest.param(
                [(DATA, b"x" * 70_000), (COMPLETE, b"y" * 90_000)], 200, b"x" * 70_000 + b"y" * 90_000, id="L"
            ),
        ],
    )
    async def test_each_client_gets_the_content_once(self, gateway, upstream, clients, parts, status, body):
        for client in clients:
            client.send(post(b"/f", b"", SAME))
            await upstream.accept(HANDLE)
        for packet_type, data in parts:
            for _ in clients:
                upstream.answer(packet_type, HANDLE, data)
        for client in clients:
            answer = await client.response()
            assert (answer.status, answer.body) == (status, body)
        clients[0].send(post(b"/f", b"", SAME))
        await upstream.complete(b"H:test:2", b"next")
        assert (await clients[0].response()).body == b"next"
        assert gateway.count("pool.dropped_packets") == 0

    async def test_a_failure_reaches_each_of_them(self, upstream, clients):
        for client in clients:
            client.send(post(b"/f", b"", SAME))
            await upstream.accept(HANDLE)
        for _ in clients:
            upstream.answer(FAIL, HANDLE)
        assert [(await client.response()).status for client in clients] == [500] * 3

    async def test_a_result_too_large_reaches_each_of_them(self, gateway, upstream, clients):
        for client in clients:
            client.send(post(b"/f", b"", SAME))
            await upstream.accept(HANDLE)
        for data in (b"x" * MAX_RESULT, b"x", b"x"):
            for _ in clients:
                upstream.answer(DATA, HANDLE, data)
        assert [(await client.response()).status for client in clients] == [502] * 3
        for _ in clients:
            upstream.answer(COMPLETE, HANDLE, b"")
        await eventually(lambda: gateway.count("pool.abandoned_jobs") == 0)
        clients[0].send(post(b"/f"))
        await upstream.complete(b"H:test:2", b"next")
        assert (await clients[0].response()).body == b"next"

    async def test_one_that_joins_in_the_middle_gets_the_whole(self, upstream, clients):
        clients[0].send(post(b"/f", b"", SAME))
        await upstream.accept(HANDLE)
        upstream.answer(DATA, HANDLE, b"before ")
        clients[1].send(post(b"/f", b"", SAME))
        await upstream.submission()
        # A packet that was under way before the second JOB_CREATED comes once.
        upstream.answer(DATA, HANDLE, b"meanwhile ")
        upstream.answer(JOB_CREATED, HANDLE)
        for data in (b"after ", b"all "):
            upstream.answer(DATA, HANDLE, data)
            upstream.answer(DATA, HANDLE, data)
        upstream.answer(COMPLETE, HANDLE, b"end")
        upstream.answer(COMPLETE, HANDLE, b"end")
        for client in clients[:2]:
            assert (await client.response()).body == b"before meanwhile after all end"

    async def test_one_that_leaves_takes_nothing_from_the_other(self, gateway, upstream, clients):
        for client in clients:
            client.send(post(b"/f", b"", SAME))
            await upstream.accept(HANDLE)
        for _ in clients:
            upstream.answer(DATA, HANDLE, b"data ")
        await clients[0].close()
        await gateway.reaches("http.requests_abandoned", 1)
        for packet_type, data in ((DATA, b"more "), (COMPLETE, b"end")):
            for _ in clients:
                upstream.answer(packet_type, HANDLE, data)
        for client in clients[1:]:
            assert (await client.response()).body == b"data more end"

    async def test_one_that_joins_a_job_nobody_waits_for_gets_the_whole_or_the_truth(self, gateway, upstream, clients):
        for handle, data in ((b"H:test:1", b""), (b"H:test:2", b"lost ")):
            async with HttpClient(gateway.address) as leaver:
                leaver.send(post(b"/f", b"", SAME))
                await upstream.accept(handle)
                await eventually(lambda: gateway.count("pool.outstanding_jobs") == 1)
            await eventually(lambda: gateway.count("pool.abandoned_jobs") == 1)
            if data:
                dropped = gateway.count("pool.dropped_packets")
                upstream.answer(DATA, handle, data)
                await gateway.reaches("pool.dropped_packets", dropped + 1)
            clients[0].send(post(b"/f", b"", SAME))
            await upstream.accept(handle)
            upstream.answer(COMPLETE, handle, b"end")
            upstream.answer(COMPLETE, handle, b"end")
            answer = await clients[0].response()
            if data:
                assert (answer.status, answer.kind()) == (502, "outcome-unknown")
            else:
                assert (answer.status, answer.body) == (200, b"end")
        await eventually(lambda: gateway.count("pool.abandoned_jobs") == 0)

    async def test_one_that_joins_after_data_that_was_too_large_is_not_given_the_rest_as_the_whole(
        self, gateway, upstream, clients
    ):
        clients[0].send(post(b"/f", b"", SAME))
        await upstream.accept(HANDLE)
        upstream.answer(DATA, HANDLE, b"x" * 10 * MAX_RESULT)
        assert (await clients[0].response()).kind() == "result-too-large"
        clients[1].send(post(b"/f", b"", SAME))
        await upstream.accept(HANDLE)
        answer = await clients[1].response()
        assert (answer.status, answer.kind()) == (502, "outcome-unknown")
        upstream.answer(COMPLETE, HANDLE, b"tail")
        upstream.answer(COMPLETE, HANDLE, b"tail")
        await eventually(lambda: gateway.count("pool.abandoned_jobs") == 0)


class TestLostConnection:
    @pytest.mark.parametrize(
        ("created", "said"), [(False, "may have been created"), (True, "had been created")], ids=["before", "after"]
    )
    async def test_a_job_that_was_sent_is_502_and_its_outcome_unknown(self, upstream, clients, created, said):
        clients[0].send(post(b"/f"))
        await upstream.submission()
        if created:
            upstream.answer(JOB_CREATED, HANDLE)
            upstream.answer(DATA, HANDLE, b"half a result")
        upstream.transport.close()
        answer = await clients[0].response()
        assert (answer.status, answer.kind()) == (502, "outcome-unknown")
        assert said in answer.problem()["detail"]
        assert b"retry-after" not in answer.headers
        assert answer.headers.get(b"x-gearman-job-handle") == (HANDLE if created else None)
        assert b"half a result" not in answer.body

    async def test_a_background_job_without_JOB_CREATED_is_502(self, upstream, clients):  # noqa: N802
        clients[0].send(post(b"/f", b"", b"X-Gearman-Background: true"))
        await upstream.submission()
        upstream.close()
        assert (await clients[0].response()).status == 502

    async def test_merged_jobs_are_lost_together(self, upstream, clients):
        for client in clients:
            client.send(post(b"/f", b"", SAME))
            await upstream.accept(HANDLE)
        upstream.close()
        assert [(await client.response()).status for client in clients] == [502] * 3

    async def test_a_job_of_which_no_byte_was_written_is_503_and_may_be_repeated(self, gateway, upstream, clients):
        upstream.transport.pause_reading()
        body = bytes(4 << 20)
        for number, workload in enumerate((body, body, b"behind"), 1):
            clients[number - 1].send(post(b"/f", workload))
            await gateway.reaches("pool.outstanding_jobs", number)
        assert gateway.count("pool.unsent_bytes") > 0
        upstream.close()
        answers = [await client.response() for client in clients]
        assert (answers[0].status, answers[0].kind()) == (502, "outcome-unknown")
        assert (answers[2].status, answers[2].kind()) == (503, "not-submitted")
        assert int(answers[2].headers[b"retry-after"]) >= 1

    async def test_it_comes_back_and_serves_again(self, gateway, server, upstream, clients):
        upstream.close()
        again = await server.connection()
        await eventually(lambda: gateway.count("pool.connections") == 1)
        clients[0].send(post(b"/f"))
        await again.complete(HANDLE, b"served again")
        assert (await clients[0].response()).body == b"served again"


class TestTimedOutJobs:
    TIMEOUT = b"X-Gearman-Timeout: 0.2"

    async def test_a_foreground_job_is_cancelled_by_its_handle(self, server, upstream, clients):
        clients[0].send(post(b"/f", b"", self.TIMEOUT))
        await upstream.accept(HANDLE)
        assert (await clients[0].response()).status == 504
        await eventually(lambda: b"cancel job " + HANDLE in server.commands)
        upstream.answer(FAIL, HANDLE)

    async def test_a_job_that_others_may_share_is_not_cancelled(self, server, upstream, clients):
        clients[0].send(post(b"/f", b"", self.TIMEOUT, SAME))
        clients[1].send(post(b"/f", b"", self.TIMEOUT))
        for handle in (HANDLE, b"H:test:2"):
            await upstream.accept(handle)
        assert [(await client.response()).status for client in clients[:2]] == [504, 504]
        await eventually(lambda: b"cancel job H:test:2" in server.commands)
        assert b"cancel job " + HANDLE not in server.commands

    async def test_one_whose_JOB_CREATED_comes_late_is_cancelled_then(self, gateway, server, upstream, clients):  # noqa: N802
        clients[0].send(post(b"/f", b"", self.TIMEOUT))
        await upstream.submission()
        answer = await clients[0].response()
        assert answer.status == 504
        assert b"x-gearman-job-handle" not in answer.headers
        upstream.answer(JOB_CREATED, HANDLE)
        await eventually(lambda: b"cancel job " + HANDLE in server.commands)
        assert gateway.count("pool.abandoned_jobs") == 1
        upstream.answer(FAIL, HANDLE)
        await eventually(lambda: gateway.count("pool.abandoned_jobs") == 0)

    async def test_a_background_job_without_JOB_CREATED_is_504_and_not_cancelled(  # noqa: N802
        self, server, upstream, clients
    ):
        clients[0].send(post(b"/f", b"", self.TIMEOUT, b"X-Gearman-Background: true"))
        await upstream.submission()
        answer = await clients[0].response()
        assert (answer.status, answer.kind()) == (504, "job-timeout")
        assert "not known" in answer.problem()["detail"]
        upstream.answer(JOB_CREATED, HANDLE)
        clients[0].send(post(b"/f"))
        await upstream.complete(b"H:test:2", b"in its place")
        assert (await clients[0].response()).body == b"in its place"
        assert server.commands == [b"version"]

    async def test_replies_to_jobs_nobody_waits_for_keep_their_place(self, upstream, clients):
        clients[0].send(post(b"/f", b"slow", self.TIMEOUT))
        await upstream.submission()
        clients[1].send(post(b"/f", b"patient"))
        await upstream.submission()
        assert (await clients[0].response()).status == 504
        upstream.answer(ERROR, b"QUEUE_ERROR", b"for the slow one")
        upstream.answer(JOB_CREATED, HANDLE)
        upstream.answer(COMPLETE, HANDLE, b"for the patient one")
        assert (await clients[1].response()).body == b"for the patient one"


class TestNotUp:
    async def test_a_connection_counts_as_up_only_after_its_OPTION_RES(self):  # noqa: N802
        async with (
            ScriptedJobServer(greets=False) as server,
            running_gateway([server.address], connections_per_server=1, is_patient=False) as gateway,
        ):
            upstream = await server.connection()
            assert gateway.count("pool.connections") == 0
            assert (await ask(gateway.address, post(b"/f"))).status == 503
            upstream.greet()
            await eventually(lambda: gateway.count("pool.connections") == 1)
            async with HttpClient(gateway.address) as client:
                client.send(post(b"/f"))
                await upstream.complete(HANDLE, b"up")
                assert (await client.response()).body == b"up"


class TestFrozenServer:
    async def test_what_waits_for_it_is_bounded_and_the_rest_is_503_at_once(self, server):
        body = bytes(8 << 20)
        async with running_gateway(
            [server.address],
            connections_per_server=1,
            job_timeout_s=60.0,
            max_held_bytes=1 << 30,
        ) as gateway:
            [upstream] = await upstreams_of(gateway, server)
            upstream.transport.pause_reading()
            clients = [await HttpClient(gateway.address).connect() for _ in range(14)]
            refused = 0
            for client in clients:
                client.send(post(b"/f", body))
                before = gateway.count("pool.outstanding_jobs") + gateway.count("http.requests_answered")
                await eventually(
                    lambda before=before: (
                        gateway.count("pool.outstanding_jobs") + gateway.count("http.requests_answered") > before
                    )
                )
            refused = gateway.count("http.requests_answered")
            assert 1 <= refused <= 6
            assert gateway.count("pool.unsent_bytes") <= (64 << 20) + len(body) + 1000
            for client in clients[-refused:]:
                answer = await client.response()
                assert (answer.status, answer.kind()) == (503, "no-job-server")
            upstream.close()
            statuses = [(await client.response()).status for client in clients[:-refused]]
            assert set(statuses) == {502, 503}
            for client in clients:
                await client.close()

    async def test_one_that_thaws_gets_everything_in_order(self, gateway, upstream, clients):
        upstream.transport.pause_reading()
        bodies = [bytes([65 + number]) * (3 << 20) for number in range(3)]
        for number, (client, body) in enumerate(zip(clients, bodies, strict=True)):
            client.send(post(b"/f", body))
            await eventually(lambda number=number: gateway.count("pool.outstanding_jobs") == number + 1)
        upstream.transport.resume_reading()
        for number, body in enumerate(bodies):
            handle = b"H:test:%d" % number
            assert (await upstream.complete(handle, b"%d" % number)).workload == body
        for number, client in enumerate(clients):
            assert (await client.response()).body == b"%d" % number
