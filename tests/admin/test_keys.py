"""What the admin address tells of idempotency keys and of batches, of a gateway that runs."""

from __future__ import annotations

import os
import signal

import pytest

from support.admin import ADMIN, AdminAddress, admin_of, until
from support.batches import BatchClient, batch, job
from support.deployed import told_address
from support.gateway import ServeProcess
from support.http import HttpClient, post
from support.job_servers import hand_worker

pytestmark = pytest.mark.anyio

KEYS = [b"Idempotency-Key: 8e03978e-40d5-43dd-bc93-%012d" % number for number in range(8)]
HOWS = ("begun", "joined", "replayed", "reused")


async def told(admin: AdminAddress) -> tuple[dict[str, int], int]:
    """What became of requests, and how many keys are known; fails where /status and /metrics differ for long."""
    found: list[tuple[dict[str, int], int]] = []

    async def agree() -> bool:
        status = await admin.status()
        uses, limits = status["idempotency_keys"], status["limits"]["idempotency_keys"]
        metrics = await admin.metrics()
        assert metrics["gatewayx_idempotency_keys_limit", frozenset()] == limits["limit"] == 5
        found[:] = [(uses, limits["held"])]
        exported = {how: metrics["gatewayx_idempotent_requests_total", frozenset({("how", how)})] for how in HOWS}
        return exported == uses and metrics["gatewayx_idempotency_keys", frozenset()] == limits["held"]

    await until(agree)
    return found[0]


async def tells(admin: AdminAddress, known: int, **expected: int) -> None:
    """Return once it tells of so many keys, and of requests."""

    async def does() -> bool:
        uses, held = await told(admin)
        return held == known and {how: uses[how] for how in expected} == expected

    await until(does)


async def test_what_became_of_requests_and_how_many_are_known_in_which_life(embedded, function):
    host, port = embedded.address
    flags = ("--server", f"{host}:{port}", "--workers", "2", "--max-keys", "5")
    async with ServeProcess(*ADMIN, *flags) as served:
        admin = await admin_of(served)
        await tells(admin, 0, begun=0, joined=0, replayed=0, reused=0)
        address = told_address(served)
        async with (
            HttpClient(address) as first,
            HttpClient(address) as second,
            hand_worker(embedded.address, function) as worker,
        ):
            first.send(post(b"/" + function, b"w", KEYS[0]))
            handle, _, _, _ = await worker.take()
            second.send(post(b"/" + function, b"w", KEYS[0]))
            await tells(admin, 1, begun=1, joined=1, replayed=0)
            worker.complete(handle, b"once")
            answers = [await client.response() for client in (first, second)]
            answers.append(await first.ask(post(b"/" + function, b"w", KEYS[0])))
            assert [(answer.status, answer.body) for answer in answers] == [(200, b"once")] * 3
            assert (await first.ask(post(b"/" + function, b"other", KEYS[0]))).status == 422
            await tells(admin, 1, begun=1, joined=1, replayed=1, reused=1)

            background = b"X-Gearman-Background: true"
            statuses = [(await first.ask(post(b"/" + function, b"w", background, key))).status for key in KEYS[1:]]
            assert statuses == [200] * 4 + [503] * 3
            await tells(admin, 5, begun=5)
            before = [found["started"] for found in (await admin.status())["workers"]]
        # Each is lost with its process, and no count falls.
        for process_id in served.workers():
            os.kill(process_id, signal.SIGKILL)
        await tells(admin, 0, begun=5, joined=1, replayed=1, reused=1)

        async def are_replaced() -> bool:
            workers = (await admin.status())["workers"]
            return all(
                found["state"] == "ready" and found["started"] > began
                for found, began in zip(workers, before, strict=True)
            )

        await until(are_replaced)
        async with hand_worker(embedded.address, function) as worker:
            for _ in range(4):
                handle, _, _, _ = await worker.take()
                worker.complete(handle)


async def test_batches_and_their_jobs(embedded, samples):
    host, port = embedded.address
    async with ServeProcess(*ADMIN, "--server", f"{host}:{port}", "--workers", "2", "--max-batch", "3") as served:
        admin = await admin_of(served)

        async def are(begun: int, jobs: int) -> None:
            async def does() -> bool:
                metrics = [await admin.metric(f"gatewayx_{name}_total") for name in ("batches", "batch_jobs")]
                return (await admin.status())["batches"] == {"begun": begun, "jobs": jobs} and metrics == [begun, jobs]

            await until(does)

        await are(0, 0)
        line = job("reverse", "ab")
        async with BatchClient(told_address(served)) as client:
            answered = await client.run(line, line, b"{}")
            assert {number: line.status for number, line in answered.items()} == {1: 200, 2: 200, 3: 400}
            # What is no job counts as none, and what is refused as a whole as no batch.
            await are(1, 2)
            assert (await client.ask(batch(line, line, line, line))).status == 413
            assert (await client.run(line))[1].status == 200
            await are(2, 3)
