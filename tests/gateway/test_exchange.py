"""What a job's end means to its client: the tables of docs/http-api.md, on both job servers."""

from __future__ import annotations

import email.utils
import time
from collections.abc import AsyncIterator

import pytest

from gatewayx import __version__
from gatewayx.embedded import encode
from gatewayx.gateway import exchange, headers
from gatewayx.gearman.packet import Magic, PacketType
from support.fence import upstream_has_read
from support.gateway import MAX_RESULT, RunningGateway, running_gateway
from support.http import HttpClient, ask, head, post
from support.job_servers import hand_worker, nobody_listens
from support.peer import ask_text, dropped
from support.times import NOT_BEFORE, SOON_S

pytestmark = pytest.mark.anyio

BINARY = bytes(range(256))
LARGE = BINARY * 4096


async def known_functions(address: tuple[str, int]) -> set[bytes]:
    """The functions of which the job server has ever heard."""
    return {line.split(b"\t")[0] for line in (await ask_text(address, b"status")).splitlines()}


class TestOutcome:
    async def test_every_answer_carries_the_common_headers(self, client, worker, function):
        client.send(post(b"/" + function), head(b"DELETE", b"/"), head(b"OPTIONS", b"*"))
        handle, _, _, _ = await worker.take()
        worker.complete(handle)
        for status in (200, 405, 204):
            answer = await client.response()
            assert answer.status == status
            assert answer.headers[b"server"] == f"gatewayx/{__version__}".encode()
            said_s = email.utils.parsedate_to_datetime(answer.headers[b"date"].decode()).timestamp()
            assert abs(said_s - time.time()) < SOON_S

    async def test_WORK_DATA_is_joined_and_warnings_and_status_stay_out(self, client, worker, function):  # noqa: N802
        client.send(post(b"/" + function))
        handle, _, _, _ = await worker.take()
        worker.send(
            encode.work_status(handle, 1, 2),
            encode.work_data(handle, b"one "),
            encode.work_warning(handle, b"WARNING"),
            encode.work_data(handle, b""),
            encode.work_data(handle, b"two\0 "),
            encode.work_status(handle, 2, 2),
        )
        worker.complete(handle, b"end")
        answer = await client.response()
        assert (answer.status, answer.body) == (200, b"one two\0 end")
        assert answer.headers[b"content-length"] == b"12"

    async def test_an_empty_completion_ends_the_gathered_data(self, client, worker, function):
        client.send(post(b"/" + function))
        handle, _, _, _ = await worker.take()
        worker.send(*(encode.work_data(handle, b"%d," % number) for number in range(1000)))
        worker.complete(handle)
        assert (await client.response()).body == b"".join(b"%d," % number for number in range(1000))

    async def test_an_exception_is_500_with_its_data(self, client, worker, function):
        client.send(post(b"/" + function))
        handle, _, unique, _ = await worker.take()
        worker.send(encode.work_data(handle, b"dropped"), encode.work_exception(handle, b"what\0ever"))
        answer = await client.response()
        assert (answer.status, answer.body) == (500, b"what\0ever")
        assert answer.headers[b"content-type"] == b"text/plain"
        assert answer.headers[b"x-gearman-command"] == b"WORK_EXCEPTION"
        assert answer.headers[b"x-gearman-job-handle"] == handle
        assert answer.headers[b"x-gearman-unique"] == unique

    async def test_a_failure_is_500_and_drops_the_gathered_data(self, client, worker, function):
        client.send(post(b"/" + function))
        handle, _, unique, _ = await worker.take()
        worker.send(encode.work_data(handle, b"GATHERED"), encode.work_fail(handle))
        answer = await client.response()
        assert (answer.status, answer.kind()) == (500, "job-failed")
        assert b"GATHERED" not in answer.body
        assert answer.headers[b"x-gearman-command"] == b"WORK_FAIL"
        assert answer.headers[b"x-gearman-job-handle"] == handle
        assert answer.headers[b"x-gearman-unique"] == unique

    # gearmand drops the connection of a worker that gives more than 8 KiB.
    @pytest.mark.parametrize("size_bytes", [9, 5000])
    async def test_a_reason_behind_a_failure_is_in_the_detail(self, client, worker, function, size_bytes):
        client.send(post(b"/" + function))
        handle, _, _, _ = await worker.take()
        worker.send(encode.packet(Magic.REQUEST, PacketType.WORK_FAIL, handle + b"\0" + b"disk full".ljust(size_bytes)))
        answer = await client.response()
        assert (answer.status, answer.kind()) == (500, "job-failed")
        assert answer.headers[b"x-gearman-command"] == b"WORK_FAIL"
        assert answer.headers[b"x-gearman-job-handle"] == handle
        assert "disk full" in answer.problem()["detail"]
        assert len(answer.problem()["detail"]) < 2000

    # Sizes of the WORK_DATA, then of the WORK_COMPLETE.
    @pytest.mark.parametrize(
        "sizes",
        [
            pytest.param((50_000,) * 6 + (1,), id="all-together"),
            pytest.param((MAX_RESULT + 1,), id="one-completion"),
            pytest.param((MAX_RESULT + 1, 0), id="one-data"),
            pytest.param((1, MAX_RESULT), id="data-then-completion"),
            pytest.param((MAX_RESULT * 20, 0), id="far-too-large"),
        ],
    )
    async def test_a_result_too_large_is_502_and_disturbs_no_other_job(self, gateway, worker, function, sizes):
        async with HttpClient(gateway.address) as one, HttpClient(gateway.address) as two:
            one.send(post(b"/" + function, b"large"))
            large, _, _, _ = await worker.take()
            two.send(post(b"/" + function, b"small"))
            small, _, _, _ = await worker.take()
            worker.send(encode.work_data(small, b"before, "))
            worker.send(*(encode.work_data(large, b"x" * size) for size in sizes[:-1]))
            worker.complete(large, b"x" * sizes[-1])
            worker.complete(small, b"after")
            answer = await one.response()
            assert (answer.status, answer.kind()) == (502, "result-too-large")
            assert answer.headers[b"x-gearman-job-handle"] == large
            assert (await two.response()).body == b"before, after"
            assert gateway.count("pool.connections") == 1
            one.send(post(b"/" + function))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"still there")
            assert (await one.response()).body == b"still there"

    @pytest.mark.parametrize("sizes", [(MAX_RESULT,), (MAX_RESULT - 1, 1), (66_000, 67_000, 67_000)])
    async def test_a_result_of_the_largest_size_is_whole(self, client, worker, function, sizes):
        parts = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
        client.send(post(b"/" + function))
        handle, _, _, _ = await worker.take()
        worker.send(*(encode.work_data(handle, part) for part in parts[:-1]))
        worker.complete(handle, parts[-1])
        answer = await client.response()
        assert answer.status == 200
        assert answer.body == b"".join(parts)

    async def test_an_exception_too_large_is_502(self, client, worker, function):
        client.send(post(b"/" + function))
        handle, _, _, _ = await worker.take()
        worker.send(encode.work_exception(handle, b"x" * (MAX_RESULT + 1)))
        answer = await client.response()
        assert (answer.status, answer.kind()) == (502, "result-too-large")

    async def test_a_background_job_is_200_once_it_is_queued(self, gateway, client, job_server, function):
        answer = await client.ask(post(b"/" + function, b"workload", b"x-gearman-background:\ttrue "))
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers[b"x-gearman-command"] == b"JOB_CREATED"
        assert gateway.count("pool.outstanding_jobs") == 0
        async with hand_worker(job_server.address, function) as worker:
            handle, _, unique, workload = await worker.take()
            assert workload == b"workload"
            assert answer.headers[b"x-gearman-job-handle"] == handle
            assert answer.headers[b"x-gearman-unique"] == unique
            worker.complete(handle)

    async def test_a_background_job_outlives_its_client(self, gateway, job_server, function):
        async with HttpClient(gateway.address) as client:
            client.send(post(b"/" + function, b"kept", b"X-Gearman-Background: true"))
            assert (await client.response()).status == 200
        await gateway.let_go()
        async with hand_worker(job_server.address, function) as worker:
            handle, _, _, workload = await worker.take()
            assert workload == b"kept"
            worker.complete(handle)

    async def test_large_workloads_and_results_pass_unchanged(self, job_server, function):
        async with (
            running_gateway([job_server.address]) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            client.send(post(b"/" + function, LARGE))
            handle, _, _, workload = await worker.take()
            assert workload == LARGE
            worker.complete(handle, LARGE[::-1])
            answer = await client.response()
            assert answer.status == 200
            assert answer.body == LARGE[::-1]

    async def test_many_clients_get_each_their_own_result(self, gateway, worker, function):
        clients = [await HttpClient(gateway.address).connect() for _ in range(50)]
        for number, client in enumerate(clients):
            client.send(post(b"/" + function, b"%d" % number))
        taken = [await worker.take() for _ in clients]
        for handle, _, _, workload in reversed(taken):
            worker.complete(handle, b"result of " + workload)
        for number, client in enumerate(clients):
            assert (await client.response()).body == b"result of %d" % number
            await client.close()


class TestTimeout:
    @pytest.mark.parametrize(
        ("configured_s", "asked"),
        [
            pytest.param(30.0, b"0.2", id="asked-for-less"),
            pytest.param(0.2, b"3600", id="clamped-to-the-setting"),
            pytest.param(0.2, b"9" * 32, id="clamped-however-large"),
            pytest.param(0.2, None, id="the-setting-is-the-default"),
        ],
    )
    async def test_a_job_without_end_is_504_after_its_timeout(self, job_server, function, configured_s, asked):
        lines = () if asked is None else (b"X-Gearman-Timeout: " + asked,)
        async with (
            running_gateway([job_server.address], job_timeout_s=configured_s) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            began_s = time.monotonic()
            with gateway.within_a_tick():
                client.send(post(b"/" + function, b"slow", *lines))
                handle, _, unique, _ = await worker.take()
            answer = await client.response()
            assert NOT_BEFORE * 0.2 <= time.monotonic() - began_s < SOON_S
            assert (answer.status, answer.kind()) == (504, "job-timeout")
            assert answer.headers[b"x-gearman-job-handle"] == handle
            assert answer.headers[b"x-gearman-unique"] == unique
            worker.complete(handle, b"TOO LATE")
            with gateway.within_a_tick():
                client.send(post(b"/" + function, b"next"))
                handle, _, _, _ = await worker.take()
                worker.complete(handle, b"in time")
                assert (await client.response()).body == b"in time"

    async def test_a_timeout_of_a_job_that_nobody_takes_requests_its_cancellation(self, gateway, job_server, function):
        async with HttpClient(gateway.address) as client:
            with gateway.within_a_tick():
                client.send(post(b"/" + function, b"", b"X-Gearman-Timeout: 0.2"))
                await gateway.reaches("pool.outstanding_jobs", 1)
                await upstream_has_read(gateway, function)
            answer = await client.response()
        assert answer.status == 504
        await dropped(job_server.address, answer.headers[b"x-gearman-job-handle"])
        async with hand_worker(job_server.address, function) as worker:
            await worker.no_job()

    async def test_a_late_completion_is_dropped_and_counted(self, gateway, client, worker, function):
        with gateway.within_a_tick():
            client.send(post(b"/" + function, b"", b"X-Gearman-Timeout: 0.2"))
            handle, _, _, _ = await worker.take()
        assert (await client.response()).status == 504
        before = gateway.count("pool.dropped_packets")
        worker.send(encode.work_data(handle, b"late"))
        worker.complete(handle, b"later")
        await gateway.reaches("pool.dropped_packets", before + 2)
        assert gateway.count("pool.connections") == 1
        assert gateway.count("pool.abandoned_jobs") == 0


class TestHangUp:
    @pytest.mark.parametrize("reset", [False, True])
    async def test_a_client_that_is_gone_frees_its_exchange_and_disturbs_nobody(self, gateway, worker, function, reset):
        async with HttpClient(gateway.address) as one, HttpClient(gateway.address) as two:
            one.send(post(b"/" + function, b"gone"))
            gone, _, _, _ = await worker.take()
            two.send(post(b"/" + function, b"stays"))
            stays, _, _, _ = await worker.take()
            if reset:
                one.reset()
            else:
                await one.close()
            await gateway.reaches("http.requests_abandoned", 1)
            assert (gateway.count("gateway.open_exchanges"), gateway.count("pool.outstanding_jobs")) == (1, 1)
            worker.complete(gone, b"for nobody")
            worker.complete(stays, b"for two")
            assert (await two.response()).body == b"for two"
            assert gateway.count("pool.connections") == 1
            assert gateway.count("pool.abandoned_jobs") == 0


class TestWithoutJobServer:
    async def test_a_request_is_503_at_once_and_may_be_repeated(self):
        async with running_gateway([nobody_listens(), nobody_listens()]) as gateway:
            began_s = time.monotonic()
            answer = await ask(gateway.address, post(b"/function", b"workload"))
            assert time.monotonic() - began_s < SOON_S
            assert (answer.status, answer.kind()) == (503, "no-job-server")
            assert int(answer.headers[b"retry-after"]) >= 1
            assert b"connection" not in answer.headers


class TestPluginCompat:
    @pytest.fixture
    async def gateway(self, job_server) -> AsyncIterator[RunningGateway]:
        """A gateway that answers as gearmand's HTTP plugin."""
        async with running_gateway([job_server.address], plugin_compat=True, max_result_bytes=1000) as gateway:
            yield gateway

    async def test_the_default_unique_coalesces_on_the_workload(self, client, worker, function):
        client.send(post(b"/" + function, b"workload"))
        handle, _, unique, _ = await worker.take()
        assert unique == b"-"
        worker.complete(handle, b"result")
        answer = await client.response()
        assert (answer.status, answer.body, answer.headers[b"x-gearman-unique"]) == (200, b"result", b"-")

    async def test_a_unique_that_is_given_is_used(self, client, worker, function):
        client.send(post(b"/" + function, b"workload", b"X-Gearman-Unique: mine"))
        handle, _, unique, _ = await worker.take()
        assert unique == b"mine"
        worker.complete(handle)
        assert (await client.response()).status == 200

    @pytest.mark.parametrize(
        ("end", "command"),
        [
            pytest.param(encode.work_fail, b"WORK_FAIL", id="fail"),
            pytest.param(
                lambda handle: encode.packet(Magic.REQUEST, PacketType.WORK_FAIL, handle + b"\0why"),
                b"WORK_FAIL",
                id="fail-with-a-reason",
            ),
            pytest.param(lambda handle: encode.work_exception(handle, b"what"), b"WORK_EXCEPTION", id="raise"),
        ],
    )
    async def test_a_job_that_fails_is_200_with_the_headers_alone(self, client, worker, function, end, command):
        client.send(post(b"/" + function))
        handle, _, _, _ = await worker.take()
        worker.send(encode.work_data(handle, b"dropped"), end(handle))
        answer = await client.response()
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers[b"x-gearman-command"] == command
        assert answer.headers[b"x-gearman-job-handle"] == handle

    @pytest.mark.parametrize(
        ("request_bytes", "status"),
        [(post(b"/"), 404), (head(b"DELETE", b"/f"), 405), (post(b"/f", b"", b"X-Gearman-Unique: " + b"u" * 64), 400)],
    )
    async def test_errors_have_no_body(self, client, request_bytes, status):
        answer = await client.ask(request_bytes)
        assert (answer.status, answer.body) == (status, b"")
        assert b"content-type" not in answer.headers


class Broken:
    """Stands in for a table of the gateway's own code, and fails."""

    def __getitem__(self, value: object) -> str:
        raise RuntimeError("our own fault")


class TestOurOwnFaults:
    async def test_an_exception_while_a_head_is_read_is_500_and_ends_nothing_else(
        self, gateway, client, worker, function, monkeypatch, caplog
    ):
        async with HttpClient(gateway.address) as other:
            other.send(post(b"/" + function, b"undisturbed"))
            handle, _, _, _ = await worker.take()
            monkeypatch.setattr(headers, "HEADER_NAMES", Broken())
            answer = await client.ask(post(b"/" + function, b"body", *[b"X-Gearman-Priority: low"] * 2))
            monkeypatch.undo()
            assert (answer.status, answer.kind()) == (500, "internal-error")
            assert "our own fault" not in answer.body.decode()
            assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("our own fault",)]
            worker.complete(handle, b"served")
            assert (await other.response()).body == b"served"
        # Nor the connection it came over.
        client.send(post(b"/" + function, b"next", b"X-Gearman-Priority: low"))
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"next")
        assert (await client.response()).body == b"next"

    async def test_an_exception_while_a_job_is_submitted_is_500_and_holds_nothing(
        self, gateway, client, worker, function, monkeypatch
    ):
        client.send(post(b"/" + function, b"w", b"X-Gearman-Unique: same"))
        handle, _, _, _ = await worker.take()
        # The problem of a 409, which is looked up when it is answered.
        monkeypatch.setattr(exchange, "UNIQUE_IN_USE", 409)
        async with HttpClient(gateway.address) as other:
            request = post(b"/" + function, b"w", b"X-Gearman-Unique: same", b"X-Gearman-Background: true")
            answer = await other.ask(request)
            assert (answer.status, answer.kind()) == (500, "internal-error")
            worker.complete(handle, b"served")
            assert (await client.response()).body == b"served"
            other.send(post(b"/" + function, b"next"))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"next")
            assert (await other.response()).body == b"next"
