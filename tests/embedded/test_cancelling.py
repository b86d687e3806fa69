"""`cancel job`, and what a job server knows of a job: on the embedded one as on gearmand."""

from __future__ import annotations

import contextlib

import pytest

from gatewayx.embedded import encode
from gatewayx.gearman.packet import Magic, PacketType
from support.peer import Peer, ask_text

pytestmark = pytest.mark.anyio

BACKGROUND = PacketType.SUBMIT_JOB_BG
COMPLETE, DATA, FAIL = PacketType.WORK_COMPLETE, PacketType.WORK_DATA, PacketType.WORK_FAIL

UNKNOWN = (b"0", b"0", b"0", b"0")
QUEUED = (b"1", b"0", b"0", b"0")


async def cancel(address: tuple[str, int], handle: bytes) -> bytes:
    """What is said to `cancel job`."""
    return (await ask_text(address, b"cancel job " + handle)).strip()


async def known(asking: Peer, handle: bytes) -> tuple[bytes, ...]:
    """Known, running, numerator and denominator of the job with this handle."""
    asking.send(encode.get_status(handle))
    named, *answer = await asking.expect(PacketType.STATUS_RES)
    assert named == handle
    return tuple(answer)


async def known_unique(asking: Peer, unique: bytes) -> tuple[bytes, ...]:
    """The same by its unique, and how many clients wait."""
    asking.send(encode.get_status_unique(unique))
    named, *answer = await asking.expect(PacketType.STATUS_RES_UNIQUE)
    assert named == unique
    return tuple(answer)


class TestCancelling:
    async def test_a_queued_job_fails_at_once_and_is_known_until_a_worker_would_get_it(self, address, function):
        unique = function[:63]
        async with Peer(address) as client, Peer(address) as worker, Peer(address) as asking:
            handle = await client.submit(function, unique, b"w")
            assert await known(asking, handle) == QUEUED
            assert await cancel(address, handle) == b"OK"
            assert await client.expect(FAIL) == (handle,)
            assert await known(asking, handle) == QUEUED
            assert await known_unique(asking, unique) == (*QUEUED, b"1")
            await worker.can_do(function)
            await worker.no_job()
            assert await known(asking, handle) == UNKNOWN
            assert await known_unique(asking, unique) == (*UNKNOWN, b"0")
            assert await cancel(address, handle) == b"ERR UNKNOWN_JOB"
            assert await client.settle() == []

    async def test_a_running_job_fails_at_once_and_what_its_worker_sends_comes_all_the_same(self, address, function):
        async with Peer(address) as client, Peer(address) as worker, Peer(address) as asking:
            await worker.can_do(function)
            handle = await client.submit(function, b"", b"w")
            await worker.grab()
            worker.send(encode.work_status(handle, 3, 9))
            assert await client.expect(PacketType.WORK_STATUS) == (handle, b"3", b"9")
            for _ in range(2):
                assert await cancel(address, handle) == b"OK"
                assert await client.expect(FAIL) == (handle,)
                assert await known(asking, handle) == (b"1", b"1", b"3", b"9")
            worker.send(encode.work_data(handle, b"d"), encode.work_complete(handle, b"end"))
            assert await client.expect(DATA) == (handle, b"d")
            assert await client.expect(COMPLETE) == (handle, b"end")
            assert await known(asking, handle) == UNKNOWN

    async def test_cancelled_twice_it_fails_twice(self, address, function):
        async with Peer(address) as client:
            handle = await client.submit(function, b"", b"w")
            for _ in range(2):
                assert await cancel(address, handle) == b"OK"
                assert await client.expect(FAIL) == (handle,)

    async def test_a_cancelled_job_whose_worker_dies_is_not_run_again(self, address, function):
        async with Peer(address) as client, Peer(address) as asking:
            async with Peer(address) as worker:
                await worker.can_do(function)
                handle = await client.submit(function, b"", b"w")
                await worker.grab()
                assert await cancel(address, handle) == b"OK"
                assert await known(asking, handle) == (b"1", b"1", b"0", b"0")
            while await known(asking, handle) != QUEUED:
                pass
            async with Peer(address) as worker:
                await worker.can_do(function)
                await worker.no_job()
            assert await known(asking, handle) == UNKNOWN
            assert [found.type for found in await client.settle()] == [FAIL]

    @pytest.mark.parametrize("packet_type", [PacketType.SUBMIT_JOB, BACKGROUND])
    async def test_its_unique_is_poisoned_until_a_worker_would_get_it(self, address, function, packet_type):
        unique = function[:63]
        async with Peer(address) as client, Peer(address) as worker:
            handle = await client.submit(function, unique, b"w", BACKGROUND)
            assert await cancel(address, handle) == b"OK"
            assert await client.submit(function, unique, b"w", packet_type) == handle
            assert (await known_unique(client, unique))[:2] == (b"1", b"0")
            await worker.can_do(function)
            await worker.no_job()
            assert await client.settle() == []
            assert await client.submit(function, unique, b"w", packet_type) != handle
            await worker.grab()

    async def test_a_worker_that_was_woken_for_it_sleeps_on(self, address, function):
        async with Peer(address) as client, Peer(address) as worker:
            await worker.can_do(function)
            await worker.no_job()
            worker.send(encode.pre_sleep())
            assert await worker.settle() == []
            handle = await client.submit(function, b"", b"w")
            await worker.expect(PacketType.NOOP)
            assert await cancel(address, handle) == b"OK"
            worker.send(encode.pre_sleep())
            assert await worker.settle() == []
            assert await client.expect(FAIL) == (handle,)
            assert await known(client, handle) == UNKNOWN

    @pytest.mark.parametrize(
        ("line", "answer"),
        [
            (b"cancel", b"ERR UNKNOWN_COMMAND Unknown+server+commandcancel\r\n"),
            (b"cancel job", b"ERR UNKNOWN_COMMAND Unknown+server+commandcancel\r\n"),
            (b"cancel job H:nobody:1 more", b"ERR UNKNOWN_ERROR\r\n"),
            (b"cancel jobs H:nobody:1", b"ERR UNKNOWN_ERROR\r\n"),
            (b"CANCEL JOB H:nobody:1", b"ERR UNKNOWN_JOB\r\n"),
            (b"cancel job " + b"x" * 70, b"ERR UNKNOWN_JOB\r\n"),
        ],
    )
    async def test_what_cannot_be_cancelled(self, address, line, answer):
        assert await ask_text(address, line) == answer


class TestKnowing:
    async def test_progress_is_forgotten_with_the_worker(self, address, function):
        async with Peer(address) as client, Peer(address) as asking:
            async with Peer(address) as worker:
                await worker.can_do(function)
                handle = await client.submit(function, b"", b"w")
                await worker.grab()
                worker.send(encode.work_status(handle, 3, 9))
                assert await worker.settle() == []
                assert await known(asking, handle) == (b"1", b"1", b"3", b"9")
            while await known(asking, handle) == (b"1", b"1", b"3", b"9"):
                pass
            assert await known(asking, handle) == QUEUED

    @pytest.mark.parametrize(
        ("sent", "kept"),
        [
            ((b"4294967295", b"4294967296"), (b"4294967295", b"0")),
            ((b"-1", b""), (b"4294967295", b"0")),
            ((b"1.5", b"2e3"), (b"1", b"2")),
            ((b" 7", b"+8"), (b"7", b"8")),
            ((b"x", b"9999999999"), (b"0", b"1410065407")),
        ],
    )
    async def test_of_progress_a_number_is_kept_and_what_was_sent_is_passed_on(self, address, function, sent, kept):
        async with Peer(address) as client, Peer(address) as worker:
            await worker.can_do(function)
            handle = await client.submit(function, b"", b"w")
            await worker.grab()
            worker.send(encode.packet(Magic.REQUEST, PacketType.WORK_STATUS, handle, *sent))
            assert await client.expect(PacketType.WORK_STATUS) == (handle, *sent)
            assert await known(client, handle) == (b"1", b"1", *kept)

    @pytest.mark.parametrize("packet_type", [PacketType.GET_STATUS, PacketType.GET_STATUS_UNIQUE])
    async def test_a_name_that_is_too_long_is_asked_for_in_vain(self, address, packet_type):
        answer = {
            PacketType.GET_STATUS: PacketType.STATUS_RES,
            PacketType.GET_STATUS_UNIQUE: PacketType.STATUS_RES_UNIQUE,
        }[packet_type]
        async with Peer(address) as asking:
            asking.send(encode.packet(Magic.REQUEST, packet_type, b"x" * 63))
            assert (await asking.expect(answer))[0] == b"x" * 63
            asking.send(encode.packet(Magic.REQUEST, packet_type, b"x" * 64))
            # gearmand closes the connection if more has come over it before it looks.
            with contextlib.suppress(ConnectionResetError):
                assert await asking.settle() == []

    @pytest.mark.parametrize(
        ("packet_type", "answer"),
        [
            (PacketType.GET_STATUS, PacketType.STATUS_RES),
            (PacketType.GET_STATUS_UNIQUE, PacketType.STATUS_RES_UNIQUE),
        ],
    )
    async def test_a_name_ends_at_its_NUL(self, address, packet_type, answer):  # noqa: N802
        async with Peer(address) as asking:
            asking.send(encode.packet(Magic.REQUEST, packet_type, b"a\0b"))
            assert (await asking.expect(answer))[:3] == (b"a", b"0", b"0")

    @pytest.mark.parametrize("unique", [b"-", b""])
    async def test_what_is_no_unique_of_one_job_is_never_known(self, address, function, unique):
        async with Peer(address) as client:
            handle = await client.submit(function, unique, b"w", BACKGROUND)
            assert await known_unique(client, unique) == (*UNKNOWN, b"0")
            assert await known(client, handle) == QUEUED
            assert await cancel(address, handle) == b"OK"
