"""What the admin address tells of jobs that outlive their request, of a gateway that runs."""

from __future__ import annotations

import json
import os
import signal
from contextlib import AsyncExitStack

import pytest

from support.admin import ADMIN, AdminAddress, admin_of, until
from support.gateway import ServeProcess
from support.http import HttpClient, get, head, post
from support.job_servers import hand_worker
from support.kept import ASYNC, EVENTS

pytestmark = pytest.mark.anyio


async def tells(admin: AdminAddress, **expected: int) -> None:
    """Return once /status tells this of kept jobs, and /metrics, which may come later, the same of their ends."""

    async def does() -> bool:
        status = await admin.status()
        metrics = await admin.metrics()
        kept = status["kept_jobs"]
        assert metrics["gatewayx_kept_jobs_limit", frozenset()] == status["limits"]["kept_jobs"]["limit"] == 50
        assert metrics["gatewayx_kept_limit_bytes", frozenset()] == status["limits"]["kept_bytes"]["limit"] == 64 << 20
        ends = {
            state: metrics["gatewayx_kept_jobs_ended_total", frozenset({("state", state)})]
            for state in ("succeeded", "failed", "cancelled", "lost", "timeout")
        }
        return {**kept, **ends} == kept and {name: kept[name] for name in expected} == expected

    await until(does)


async def streams(admin: AdminAddress) -> tuple[int, int, int]:
    """How many streams of events are open, have begun and were cut."""
    found = (await admin.status())["event_streams"]
    return found["open"], found["begun"], found["cut"]


async def test_states_ends_streams_and_questions(embedded, function):
    host, port = embedded.address
    flags = ("--server", f"{host}:{port}", "--workers", "2", "--max-kept-jobs", "50", "--max-status-polls", "1")
    async with ServeProcess(*ADMIN, *flags) as served, AsyncExitStack() as stack:
        admin = await admin_of(served)
        [(listens, on)] = [found.groups() for line in served.lines if (found := served.listens_on.search(line))]
        address = (listens, int(on))
        client = await stack.enter_async_context(HttpClient(address))
        await tells(admin, queued=0, running=0, ended=0, begun=0)
        jobs = [json.loads((await client.ask(post(b"/" + function, b"w", ASYNC))).body)["id"] for _ in range(4)]
        await tells(admin, queued=4, running=0, ended=0, begun=4)
        limits = (await admin.status())["limits"]
        assert (limits["kept_jobs"]["held"], limits["kept_bytes"]["held"] > 0) == (4, True)
        cancel = head(b"POST", f"/v1/jobs/{jobs[3]}/cancel".encode(), b"Content-Length: 0")
        assert (await client.ask(cancel)).status == 200
        watching = await stack.enter_async_context(HttpClient(address))
        watching.send(get(f"/v1/jobs/{jobs[2]}/events".encode(), EVENTS))

        async def is_open() -> bool:
            return await streams(admin) == (1, 1, 0)

        await until(is_open)
        async with hand_worker(embedded.address, function) as worker:
            handle, _, _, _ = await worker.take()
            worker.send_data(handle, b"sign")
            await tells(admin, queued=2, running=1, ended=1, cancelled=1, succeeded=0)
            worker.complete(handle)
            await tells(admin, queued=2, running=0, ended=2, cancelled=1, succeeded=1)
            # Those that its process had are lost with it, and no count falls.
            for process_id in served.workers():
                os.kill(process_id, signal.SIGKILL)
            await tells(admin, queued=0, running=0, ended=0, begun=4, cancelled=1, succeeded=1, lost=2)

            async def is_gone() -> bool:
                status = await admin.status()
                return status["event_streams"]["open"] == 0 and status["limits"]["kept_jobs"]["held"] == 0

            await until(is_gone)
        client = await stack.enter_async_context(HttpClient(address))
        locations = []
        for _ in range(3):
            answer = await client.ask(post(b"/" + function, b"w", b"X-Gearman-Background: true"))
            locations.append(answer.headers[b"location"])
        statuses = [(await client.ask(get(location))).status for location in locations]
        asked, refused = statuses.count(200), statuses.count(503)
        assert asked >= 1

        async def are_told() -> bool:
            # What is told was so a moment ago.
            told = (await admin.status())["status_polls"] == {"asked": asked, "refused": refused}
            metrics = [await admin.metric(f"gatewayx_status_polls{kind}_total") for kind in ("", "_refused")]
            return told and metrics == [asked, refused]

        await until(are_told)
        async with hand_worker(embedded.address, function) as worker:
            for _ in range(3):
                handle, _, _, _ = await worker.take()
                worker.complete(handle)
