"""What a job server must answer before it gets jobs: OPTION_REQ is a wish, ECHO_REQ is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gatewayx.embedded import encode
from gatewayx.gearman import keeper
from gatewayx.gearman.packet import PacketType
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import HttpClient, ask, post
from support.job_servers import ScriptedConnection, ScriptedJobServer, hand_worker, response
from support.times import WAIT_S

pytestmark = pytest.mark.anyio

ERROR, ECHO_RES = PacketType.ERROR, PacketType.ECHO_RES
UNKNOWN = response(ERROR, b"UNKNOWN_COMMAND", b"no such\x1b thing")
WITHOUT_EXCEPTIONS = "sends no exceptions"


@asynccontextmanager
async def gateway_before(server: ScriptedJobServer, connections: int = 1) -> AsyncIterator[RunningGateway]:
    """A gateway before this job server, whatever it answers."""
    async with running_gateway([server.address], connections_per_server=connections) as gateway:
        yield gateway


async def serves(gateway: RunningGateway, upstream: ScriptedConnection) -> None:
    """The next job goes over this connection and is answered."""
    async with HttpClient(gateway.address) as client:
        client.send(post(b"/f"))
        await upstream.complete(b"H:served", b"served")
        assert (await client.response()).body == b"served"


def lines(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    """The messages so far with `part` in them."""
    return [record.getMessage() for record in caplog.records if part in record.getMessage()]


async def test_both_leave_together():
    first = asyncio.get_running_loop().create_future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(65536)
        if data.startswith(b"\0") and not first.done():
            first.set_result(data)
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with running_gateway([listener.sockets[0].getsockname()], connections_per_server=1):
        found = await asyncio.wait_for(first, WAIT_S)
    listener.close()
    assert found == encode.option_req(b"exceptions") + encode.echo_req(b"gatewayx")


class TestWithoutExceptions:
    @pytest.mark.parametrize("connections", [1, 3])
    async def test_an_ERROR_is_the_options_and_said_once(self, caplog, connections):  # noqa: N802
        async with ScriptedJobServer() as server:
            server.option_answer = UNKNOWN
            async with gateway_before(server, connections) as gateway:
                upstreams = [await server.connection() for _ in range(connections)]
                await eventually(lambda: gateway.count("pool.connections") == connections)
                if connections == 1:
                    await serves(gateway, upstreams[0])
                for upstream in upstreams:
                    upstream.close()
                for _ in range(connections):
                    await server.connection()
                await eventually(lambda: gateway.count("pool.connections") == connections)
        [line] = lines(caplog, WITHOUT_EXCEPTIONS)
        assert "ERROR UNKNOWN_COMMAND: no such\\x1b thing" in line

    async def test_who_does_not_answer_the_option_owes_no_ERROR_for_it(self, caplog):  # noqa: N802
        async with ScriptedJobServer() as server:
            server.option_answer = b""
            async with gateway_before(server) as gateway, HttpClient(gateway.address) as client:
                upstream = await server.connection()
                await gateway.reaches("pool.connections", 1)
                client.send(post(b"/f"))
                await upstream.submission()
                upstream.answer(ERROR, b"QUEUE_ERROR", b"full")
                assert (await client.response()).kind() == "job-refused"
                await serves(gateway, upstream)
        [line] = lines(caplog, WITHOUT_EXCEPTIONS)
        assert "does not answer OPTION_REQ" in line

    async def test_an_ERROR_for_the_option_that_comes_too_late_is_no_submissions(self):  # noqa: N802
        async with ScriptedJobServer() as server:
            server.option_answer = b""
            async with gateway_before(server, 2) as gateway, HttpClient(gateway.address) as client:
                upstreams = [await server.connection() for _ in range(2)]
                await gateway.reaches("pool.connections", 2)
                # Nothing is pending there: it can be told.
                for upstream in upstreams:
                    upstream.send(UNKNOWN)
                await serves_any(gateway, upstreams)
                server.option_answer = b""
                for upstream in upstreams:
                    upstream.close()
                upstreams = [await server.connection() for _ in range(2)]
                await eventually(lambda: gateway.count("pool.connections") == 2)
                client.send(post(b"/f"))
                upstream = await pending(upstreams)
                upstream.answer(ERROR, b"UNKNOWN_OPTION", b"Server does not recognize given option")
                upstream.answer(PacketType.JOB_CREATED, b"H:2")
                upstream.answer(PacketType.WORK_COMPLETE, b"H:2", b"it ran")
                assert (await client.response()).body == b"it ran"
                assert gateway.count("pool.connections") == 2

    async def test_a_real_job_server_sends_them(self, address, caplog):
        async with (
            running_gateway([address]) as gateway,
            HttpClient(gateway.address) as client,
            hand_worker(address, b"raises") as worker,
        ):
            client.send(post(b"/raises"))
            handle, _, _, _ = await worker.take()
            worker.send(encode.work_exception(handle, b"what"))
            assert (await client.response()).body == b"what"
        assert lines(caplog, WITHOUT_EXCEPTIONS) == []


async def pending(upstreams: list[ScriptedConnection]) -> ScriptedConnection:
    """The connection over which the next submission comes."""
    await eventually(lambda: any(not upstream.submissions.empty() for upstream in upstreams))
    [upstream] = [upstream for upstream in upstreams if not upstream.submissions.empty()]
    await upstream.submission()
    return upstream


async def serves_any(gateway: RunningGateway, upstreams: list[ScriptedConnection]) -> None:
    """The next job goes over one of these connections and is answered."""
    async with HttpClient(gateway.address) as client:
        client.send(post(b"/f"))
        upstream = await pending(upstreams)
        upstream.answer(PacketType.JOB_CREATED, b"H:1")
        upstream.answer(PacketType.WORK_COMPLETE, b"H:1", b"served")
        assert (await client.response()).body == b"served"


class TestHangsUp:
    async def test_the_next_attempt_goes_without_the_option_and_the_one_after_a_loss_with_it(self, caplog):
        async with ScriptedJobServer() as server:
            server.hangs_up_on_option = True
            async with gateway_before(server) as gateway:
                first, second = await server.connection(), await server.connection()
                assert (first.asked_option, second.asked_option) == (True, False)
                await gateway.reaches("pool.connections", 1)
                await serves(gateway, second)
                # Another job server takes its place.
                server.hangs_up_on_option = False
                second.close()
                third = await server.connection()
                await eventually(lambda: gateway.count("pool.connections") == 1)
                assert third.asked_option
                await serves(gateway, third)
        [line] = lines(caplog, WITHOUT_EXCEPTIONS)
        assert "hangs up on OPTION_REQ" in line

    @pytest.mark.parametrize("sent_bytes", [1, 12, 20, None])
    async def test_an_error_for_the_option_or_the_start_of_one_before_it_changes_nothing(self, sent_bytes):
        async with ScriptedJobServer() as server:
            server.hangs_up_on_option = True
            server.last_words = response(PacketType.ERROR, b"UNKNOWN_OPTION", b"what?")[:sent_bytes]
            async with gateway_before(server) as gateway:
                first, second = await server.connection(), await server.connection()
                assert (first.asked_option, second.asked_option) == (True, False)
                await gateway.reaches("pool.connections", 1)
                await serves(gateway, second)

    async def test_one_that_always_hangs_up_is_asked_again_every_other_time(self):
        asked = []

        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.read(65536)
            if data.startswith(b"\0"):
                asked.append(data.startswith(encode.option_req(b"exceptions")))
            writer.close()

        listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with running_gateway([listener.sockets[0].getsockname()], connections_per_server=1):
            await eventually(lambda: len(asked) >= 4)
        listener.close()
        assert asked[:4] == [True, False, True, False]

    async def test_it_is_asked_again_beside_the_one_in_use_which_ends_with_its_jobs(self, monkeypatch):
        monkeypatch.setattr(keeper, "OPTION_RETRY_S", 0.05)
        monkeypatch.setattr(keeper, "RETIRED_CHECK_S", 0.02)
        async with ScriptedJobServer() as server:
            server.hangs_up_on_option = True
            async with (
                running_gateway([server.address], connections_per_server=1, server_check_interval_s=0.5) as gateway,
                HttpClient(gateway.address) as client,
            ):
                await server.connection()
                plain = await server.connection()
                await gateway.reaches("pool.connections", 1)
                client.send(post(b"/f", b"", b"X-Gearman-Unique: same"))
                await plain.accept(b"H:1")
                # It is asked again, in vain, while the plain one serves.
                assert (await server.connection()).asked_option
                await serves(gateway, plain)
                server.hangs_up_on_option = False
                while not (successor := await server.connection()).asked_option or successor.transport.is_closing():
                    continue
                await eventually(lambda: gateway.count("pool.connections") == 2)
                await serves(gateway, successor)
                # What is merged with a job there still goes there.
                async with HttpClient(gateway.address) as joiner:
                    joiner.send(post(b"/f", b"", b"X-Gearman-Unique: same"))
                    await plain.accept(b"H:1")
                    for _ in range(2):
                        plain.answer(PacketType.WORK_COMPLETE, b"H:1", b"both")
                    assert (await joiner.response()).body == b"both"
                    assert (await client.response()).body == b"both"
                await plain.closed()
                await eventually(lambda: gateway.count("pool.connections") == 1)
                await serves(gateway, successor)


class TestUnused:
    @pytest.mark.parametrize(
        ("answers", "reason"),
        [
            pytest.param(b"", "no answer to ECHO_REQ within", id="nothing"),
            pytest.param(UNKNOWN, "no answer to ECHO_REQ (it answers OPTION_REQ with ERROR UNKNOWN", id="ERROR"),
            pytest.param(UNKNOWN * 2, "answers ECHO_REQ with ERROR UNKNOWN_COMMAND: no such", id="two-ERRORs"),
        ],
    )
    async def test_who_does_not_answer_ECHO_REQ_gets_no_job_and_the_log_says_why(  # noqa: N802
        self, caplog, monkeypatch, answers, reason
    ):
        monkeypatch.setattr(keeper, "CONNECT_TIMEOUT_S", 0.2)
        async with ScriptedJobServer() as server:
            server.option_answer = answers
            server.answers_first_echo = False
            async with gateway_before(server) as gateway:
                for _ in range(3):
                    upstream = await server.connection()
                    assert upstream.asked_option
                    assert (await ask(gateway.address, post(b"/f"))).kind() == "no-job-server"
                    await upstream.closed()
                    assert upstream.submissions.empty()
                await eventually(lambda: lines(caplog, reason))
                assert gateway.count("pool.connections") == 0
