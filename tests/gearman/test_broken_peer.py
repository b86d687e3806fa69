"""What a job server sends that it should not, or that is large: who notices, and who does not."""

from __future__ import annotations

import pytest

from gatewayx.gearman.packet import PacketType
from support.behind import upstreams_of
from support.gateway import MAX_RESULT, RunningGateway, eventually, running_gateway
from support.http import HttpClient, post
from support.job_servers import ScriptedConnection, response

pytestmark = pytest.mark.anyio

COMPLETE, DATA, FAIL = PacketType.WORK_COMPLETE, PacketType.WORK_DATA, PacketType.WORK_FAIL
JOB_CREATED, ERROR = PacketType.JOB_CREATED, PacketType.ERROR
EXCEPTION, WARNING, STATUS = PacketType.WORK_EXCEPTION, PacketType.WORK_WARNING, PacketType.WORK_STATUS

SAME = b"X-Gearman-Unique: same"
HANDLE = b"H:test:1"

# Behind what is needed of a packet: nothing in it makes the packet another one, or unknown.
BEHIND = [
    pytest.param(b"x", id="short"),
    pytest.param(b"\0\0\0", id="NULs"),
    pytest.param(b"more\0" * 3, id="arguments"),
    pytest.param(b"x" * 9000, id="above-a-name"),
    pytest.param(b"x" * 100_000, id="large"),
    pytest.param(b"x" * 10 * MAX_RESULT, id="beyond-the-limit"),
]


def malformed(packet_type: int, body: bytes, magic: bytes = b"\0RES") -> bytes:
    """A packet of any type with any body."""
    return magic + packet_type.to_bytes(4, "big") + len(body).to_bytes(4, "big") + body


class TestBrokenPeer:
    @pytest.mark.parametrize(
        "broken",
        [
            pytest.param(b"OK 1.1.20 and more\n", id="text"),
            pytest.param(malformed(PacketType.NOOP, b"", b"\0REQ"), id="request-magic"),
            pytest.param(malformed(PacketType.NOOP, b"", b"\0RER"), id="bad-magic"),
            pytest.param(malformed(5, b""), id="type-5"),
            pytest.param(malformed(0, b""), id="type-0"),
            pytest.param(malformed(99, b""), id="type-99"),
            pytest.param(malformed(0xFFFFFFFF, b""), id="type-4294967295"),
            pytest.param(malformed(COMPLETE, b"H:test:1"), id="WORK_COMPLETE-without-separator"),
            pytest.param(malformed(STATUS, b"H:test:1\0001"), id="WORK_STATUS-too-short"),
            pytest.param(malformed(ERROR, b"code"), id="ERROR-without-text"),
            pytest.param(malformed(PacketType.NOOP, b""), id="NOOP"),
            pytest.param(malformed(PacketType.JOB_ASSIGN, b"H:test:1\0f\0w"), id="JOB_ASSIGN"),
            pytest.param(malformed(PacketType.STATUS_RES, b"H:test:1\x000\x000\x000\x000"), id="STATUS_RES"),
            pytest.param(malformed(PacketType.JOB_ASSIGN, b"H:test:1\0f\0" + b"w" * 1_000_000), id="JOB_ASSIGN-large"),
            pytest.param(response(JOB_CREATED, HANDLE) * 2, id="JOB_CREATED-without-submission"),
            pytest.param(
                response(JOB_CREATED, HANDLE) + response(ERROR, b"code", b"text"), id="ERROR-without-submission"
            ),
            pytest.param(malformed(JOB_CREATED, b"H:test:1\r\nSet-Cookie: a=b"), id="handle-with-CR-LF"),
            pytest.param(malformed(JOB_CREATED, b""), id="handle-empty"),
            pytest.param(malformed(JOB_CREATED, b"H:test 1"), id="handle-with-a-blank"),
            pytest.param(malformed(JOB_CREATED, b"\0H:test:1"), id="handle-behind-a-NUL"),
            pytest.param(malformed(JOB_CREATED, b"H:t\xc3\xa9st:1"), id="handle-not-ASCII"),
            pytest.param(malformed(JOB_CREATED, b"H:" + b"x" * 62), id="handle-of-64-bytes"),
            pytest.param(malformed(JOB_CREATED, b"H:" + b"x" * 200_000), id="handle-of-200000-bytes"),
            pytest.param(malformed(DATA, b"h" * 9000 + b"\0" + b"x" * 90_000), id="huge-handle-of-a-large-packet"),
        ],
    )
    async def test_it_is_left_and_nobody_elses_job_with_it(self, server, broken):
        async with running_gateway([server.address], connections_per_server=2) as gateway:
            bad, good = await upstreams_of(gateway, server, each=2)
            async with HttpClient(gateway.address) as one, HttpClient(gateway.address) as two:
                clients = {b"one": one, b"two": two}
                for number, (name, client) in enumerate(clients.items(), 1):
                    client.send(post(b"/f", name))
                    # In one loop turn both would leave over one connection.
                    await gateway.reaches("pool.outstanding_jobs", number)
                unlucky = clients[(await bad.submission()).workload]
                lucky = clients[(await good.submission()).workload]
                good.answer(JOB_CREATED, HANDLE)
                bad.send(broken)
                await bad.closed()
                answer = await unlucky.response()
                assert (answer.status, answer.kind()) == (502, "outcome-unknown")
                assert b"set-cookie" not in answer.headers
                good.answer(COMPLETE, HANDLE, b"undisturbed")
                assert (await lucky.response()).body == b"undisturbed"

    async def test_a_longest_handle_is_fine(self, upstream, clients):
        handle = b"H:" + b"x" * 61
        clients[0].send(post(b"/f"))
        await upstream.complete(handle, b"result")
        assert (await clients[0].response()).headers[b"x-gearman-job-handle"] == handle

    @pytest.mark.parametrize(
        "unasked",
        [
            pytest.param((COMPLETE, b"H:unknown", b"x"), id="WORK_COMPLETE"),
            pytest.param((COMPLETE, b"H:unknown", b"x" * 100_000), id="WORK_COMPLETE-large"),
            pytest.param((COMPLETE, b"H:unknown", b"x" * 10 * MAX_RESULT), id="WORK_COMPLETE-beyond-the-limit"),
            pytest.param((DATA, b"H:unknown", b"x"), id="WORK_DATA"),
            pytest.param((FAIL, b"H:unknown"), id="WORK_FAIL"),
            pytest.param((EXCEPTION, b"H:unknown", b"x"), id="WORK_EXCEPTION"),
            pytest.param((STATUS, b"H:unknown", b"1", b"2"), id="WORK_STATUS"),
            pytest.param((WARNING, b"", b"x"), id="WORK_WARNING-with-an-empty-handle"),
        ],
    )
    async def test_WORK_packets_for_an_unknown_handle_are_dropped_and_counted(  # noqa: N802
        self, gateway, upstream, clients, unasked
    ):
        clients[0].send(post(b"/f"))
        await upstream.accept(HANDLE)
        upstream.answer(*unasked)
        upstream.answer(*unasked)
        upstream.answer(COMPLETE, HANDLE, b"result")
        assert (await clients[0].response()).body == b"result"
        assert gateway.count("pool.dropped_packets") == 2
        assert gateway.count("pool.connections") == 1

    async def test_a_large_warning_for_a_live_job_is_kept_out(self, upstream, clients):
        clients[0].send(post(b"/f"))
        await upstream.accept(HANDLE)
        upstream.answer(WARNING, HANDLE, b"x" * 100_000)
        upstream.answer(WARNING, HANDLE, b"x" * 10 * MAX_RESULT)
        upstream.answer(COMPLETE, HANDLE, b"result")
        assert (await clients[0].response()).body == b"result"

    async def test_numbers_that_a_status_holds_mean_nothing(self, upstream, clients):
        clients[0].send(post(b"/f"))
        await upstream.accept(HANDLE)
        upstream.answer(STATUS, HANDLE, b"-1", b"\xff" * 1000)
        upstream.answer(COMPLETE, HANDLE, b"result")
        assert (await clients[0].response()).body == b"result"


class TestWhatStandsBehind:
    @pytest.mark.parametrize("behind", BEHIND)
    async def test_a_handle_in_JOB_CREATED_does_not_belong_to_it(self, gateway, upstream, clients, behind):  # noqa: N802
        clients[0].send(post(b"/f"))
        await upstream.submission()
        upstream.send(malformed(JOB_CREATED, HANDLE + b"\0" + behind))
        upstream.answer(COMPLETE, HANDLE, b"result")
        answer = await clients[0].response()
        assert (answer.status, answer.body, answer.headers[b"x-gearman-job-handle"]) == (200, b"result", HANDLE)
        assert gateway.count("pool.dropped_packets") == 0

    @pytest.mark.parametrize("behind", BEHIND)
    async def test_a_handle_in_WORK_FAIL_is_the_reason(self, gateway, upstream, clients, behind):  # noqa: N802
        clients[0].send(post(b"/f"))
        clients[1].send(post(b"/f"))
        await upstream.accept(HANDLE)
        await upstream.accept(b"H:test:2")
        upstream.send(malformed(FAIL, HANDLE + b"\0" + behind))
        answer = await clients[0].response()
        assert (answer.status, answer.kind(), answer.headers[b"x-gearman-job-handle"]) == (500, "job-failed", HANDLE)
        detail = answer.problem()["detail"]
        assert detail.isascii()
        assert detail.isprintable()
        assert len(detail) < 2000
        reason = behind.removesuffix(b"\0")[:400].decode().replace("\0", "\\x00")
        assert detail.startswith(f"the worker reported that the job failed: {reason}")
        upstream.answer(COMPLETE, b"H:test:2", b"undisturbed")
        assert (await clients[1].response()).body == b"undisturbed"
        assert (gateway.count("pool.connections"), gateway.count("pool.dropped_packets")) == (1, 0)

    @pytest.mark.parametrize("behind", BEHIND)
    async def test_a_text_in_ERROR_is_told_from_its_start(self, upstream, clients, behind):  # noqa: N802
        clients[0].send(post(b"/f"))
        await upstream.submission()
        upstream.answer(ERROR, b"CODE", b"the text " + behind)
        answer = await clients[0].response()
        assert (answer.status, answer.kind()) == (503, "job-refused")
        assert "CODE: the text" in answer.problem()["detail"]
        assert len(answer.body) < 2500
        clients[0].send(post(b"/f"))
        await upstream.complete(HANDLE, b"served")
        assert (await clients[0].response()).body == b"served"

    @pytest.mark.parametrize("behind", BEHIND)
    async def test_numbers_in_WORK_STATUS_ends_nothing(self, gateway, upstream, clients, behind):  # noqa: N802
        clients[0].send(post(b"/f"))
        await upstream.accept(HANDLE)
        upstream.answer(STATUS, HANDLE, b"1", b"2\0" + behind)
        upstream.answer(COMPLETE, HANDLE, b"result")
        assert (await clients[0].response()).body == b"result"
        assert gateway.count("pool.connections") == 1

    @pytest.mark.parametrize("packet_type", [PacketType.OPTION_RES, PacketType.ECHO_RES])
    @pytest.mark.parametrize("behind", BEHIND)
    async def test_an_option_or_an_echo_means_nothing(self, gateway, upstream, clients, packet_type, behind):
        upstream.send(malformed(packet_type, b"exceptions\0" + behind))
        clients[0].send(post(b"/f"))
        await upstream.complete(HANDLE, b"served")
        assert (await clients[0].response()).body == b"served"
        assert gateway.count("pool.connections") == 1

    @pytest.mark.parametrize("reason", [b"disk full", b"\x1b[2J\r\nSet-Cookie: a=b", b"\xff\xfe", b'"\\'], ids=repr)
    async def test_a_reason_is_escaped(self, upstream, clients, reason):
        clients[0].send(post(b"/f"))
        await upstream.accept(HANDLE)
        upstream.send(malformed(FAIL, HANDLE + b"\0" + reason))
        answer = await clients[0].response()
        assert answer.status == 500
        detail = answer.problem()["detail"]
        assert detail.endswith(f": {reason.decode('latin-1').encode('unicode_escape').decode()}")
        assert b"set-cookie" not in answer.headers

    @pytest.mark.parametrize("size_bytes", [20, 100_000], ids=["small", "large"])
    async def test_a_reason_reaches_each_that_shares_the_job_once(self, gateway, upstream, clients, size_bytes):
        for client in clients:
            client.send(post(b"/f", b"", SAME))
            await upstream.accept(HANDLE)
        for _ in clients:
            upstream.send(malformed(FAIL, HANDLE + b"\0" + b"r" * size_bytes))
        for client in clients:
            answer = await client.response()
            assert (answer.status, answer.problem()["detail"][-20:]) == (500, "r" * 20)
        clients[0].send(post(b"/f", b"", SAME))
        await upstream.complete(b"H:test:2", b"next")
        assert (await clients[0].response()).body == b"next"
        assert gateway.count("pool.dropped_packets") == 0

    async def test_a_reason_of_which_the_end_never_comes_is_told_all_the_same(self, upstream, clients):
        clients[0].send(post(b"/f"))
        await upstream.accept(HANDLE)
        upstream.send(malformed(FAIL, HANDLE + b"\0" + b"r" * 100_000)[:5000])
        assert (await clients[0].response()).kind() == "job-failed"


class TestLargePackets:
    """A packet above 64 KiB of which a part has come."""

    BODY = b"x" * 150_000

    async def begin(self, gateway: RunningGateway, upstream: ScriptedConnection, packet_type: PacketType) -> bytes:
        """Send the first part; the rest."""
        whole = response(packet_type, HANDLE, self.BODY)
        upstream.send(whole[:80_000])
        await eventually(lambda: gateway.count("budget.held_bytes") >= len(self.BODY))
        return whole[80_000:]

    @pytest.mark.parametrize("packet_type", [COMPLETE, DATA, EXCEPTION, WARNING])
    @pytest.mark.parametrize("leaves", ["hangs up", "waits no longer"])
    async def test_one_that_nobody_waits_for_any_more_is_let_go_at_once(
        self, gateway, upstream, clients, packet_type, leaves
    ):
        async with HttpClient(gateway.address) as leaver:
            timeout = b"X-Gearman-Timeout: " + (b"0.3" if leaves == "waits no longer" else b"100")
            with gateway.within_a_tick():
                leaver.send(post(b"/f", b"", timeout))
                await upstream.accept(HANDLE)
                rest = await self.begin(gateway, upstream, packet_type)
            if leaves == "hangs up":
                leaver.reset()
            else:
                assert (await leaver.response()).status == 504
            await eventually(lambda: gateway.count("budget.held_bytes") == 0)
            # What comes behind it is read right, and nothing of the job is left.
            upstream.send(rest[:30_000])
            upstream.send(rest[30_000:])
            if packet_type in (DATA, WARNING):
                upstream.answer(COMPLETE, HANDLE, b"")
            clients[0].send(post(b"/f"))
            await upstream.complete(b"H:test:2", b"served")
            assert (await clients[0].response()).body == b"served"
            assert (gateway.count("pool.connections"), gateway.count("pool.abandoned_jobs")) == (1, 0)

    async def test_all_that_share_it_must_have_left_and_its_copies_are_still_counted(self, gateway, upstream, clients):
        async with HttpClient(gateway.address) as leaver, HttpClient(gateway.address) as other:
            for client in (leaver, other):
                client.send(post(b"/f", b"", SAME))
                await upstream.accept(HANDLE)
            rest = await self.begin(gateway, upstream, COMPLETE)
            leaver.reset()
            await eventually(lambda: gateway.count("pool.outstanding_jobs") == 1)
            assert gateway.count("budget.held_bytes") >= len(self.BODY)
            other.reset()
            await eventually(lambda: gateway.count("budget.held_bytes") == 0)
            upstream.send(rest)
            upstream.answer(COMPLETE, HANDLE, self.BODY)
            await eventually(lambda: gateway.count("pool.abandoned_jobs") == 0)
            clients[0].send(post(b"/f", b"", SAME))
            await upstream.complete(HANDLE, b"another job")
            assert (await clients[0].response()).body == b"another job"
            assert gateway.count("pool.pins") == 0

    async def test_one_that_joins_behind_data_that_was_let_go_is_told_the_truth(self, gateway, upstream, clients):
        async with HttpClient(gateway.address) as leaver:
            leaver.send(post(b"/f", b"", SAME))
            await upstream.accept(HANDLE)
            rest = await self.begin(gateway, upstream, DATA)
            leaver.reset()
            await eventually(lambda: gateway.count("budget.held_bytes") == 0)
            clients[0].send(post(b"/f", b"", SAME))
            await upstream.submission()
            upstream.send(rest)
            upstream.answer(JOB_CREATED, HANDLE)
            assert (await clients[0].response()).kind() == "outcome-unknown"
            for _ in range(2):
                upstream.answer(COMPLETE, HANDLE, b"tail")
            await eventually(lambda: gateway.count("pool.abandoned_jobs") == 0)
