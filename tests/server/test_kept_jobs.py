"""Jobs that outlive their requests in gateways of several worker processes: to the clients they are like one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import signal
from contextlib import AsyncExitStack

import pytest

from gatewayx.core.shared import KEPT_BYTES, KEPT_JOBS
from gatewayx.embedded import encode
from support.admin import until
from support.gateway import eventually
from support.http import HttpClient, Response, get, head, post
from support.job_servers import hand_worker
from support.kept import ASYNC, at, job_of
from support.peer import ask_text, dropped, handles
from support.relaying import Relaying, relaying, unique_line
from support.times import PROCESS_S, SOON_S
from support.tokens import TokenFile

pytestmark = pytest.mark.anyio

COUNTED = itertools.count()
# Headers that differ from answer to answer.
OF_ONE_ANSWER = (b"date", b"x-request-id", b"retry-after")
# Of so many uniques each of two processes owns some: all belong to one in one of 10^6 runs.
ENOUGH = 20


def place_in(job_id: str) -> int:
    """The place that an id tells."""
    return int.from_bytes(base64.urlsafe_b64decode(job_id[1:])[:2], "big")


async def submitted(client: HttpClient, function: bytes, *lines: bytes, body: bytes = b"w") -> str:
    """The id of a job that is kept."""
    answer = await client.ask(post(b"/" + function, body, ASYNC, *lines))
    assert answer.status == 202, answer
    job = job_of(answer)
    assert answer.headers[b"location"] == at(job["id"])
    assert answer.headers[b"preference-applied"] == b"respond-async"
    return str(job["id"])


def likeness(answer: Response) -> tuple[object, ...]:
    """An answer but for what differs from one to the next."""
    headers = {name: b"" if name in OF_ONE_ANSWER else value for name, value in answer.headers.items()}
    if answer.status >= 400:
        problem = answer.problem()
        return answer.status, {**headers, b"content-length": b""}, problem["type"], problem["detail"]
    return answer.status, headers, answer.body


async def same(
    gateway: Relaying, clients: list[HttpClient], place: int, *request: bytes, is_head: bool = False
) -> Response:
    """The answer to a request, which is the same at each place; relayed by all but the one of the job."""
    found = []
    for at_place, client in enumerate(clients):
        relayed, answer = await gateway.asked(client, *request, to_head=is_head)
        assert relayed == (at_place != place)
        found.append(answer)
    assert all(likeness(answer) == likeness(found[0]) for answer in found), found
    return found[0]


async def ended(client: HttpClient, job_id: str) -> dict[str, object]:
    """The job, once it has ended."""
    job = job_of(await client.ask(get(at(job_id, "", "wait=60"))))
    assert job["ended"] is not None
    return job


async def forgotten(gateway: Relaying) -> None:
    """Return once nothing is kept any more."""
    shared = gateway.memory.shared
    await eventually(lambda: (shared.taken(KEPT_JOBS), shared.taken(KEPT_BYTES)) == (0, 0), PROCESS_S)
    await gateway.jobs_left(0)


class TestAnyProcess:
    @pytest.mark.parametrize("workers", [2, 4])
    async def test_answers_for_a_job(self, address, function, workers):
        async with (
            relaying([address], workers=workers) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            for place, client in enumerate(clients):
                job_id = await submitted(client, function)
                assert place_in(job_id) == place
                answer = await same(gateway, clients, place, get(at(job_id)))
                assert job_of(answer)["state"] == "queued"
                tag = b"If-None-Match: " + answer.headers[b"etag"]
                assert (await same(gateway, clients, place, get(at(job_id), tag))).status == 304
                assert (await same(gateway, clients, place, head(b"HEAD", at(job_id)), is_head=True)).status == 200
                assert (await same(gateway, clients, place, get(at(job_id, "result")))).status == 202
                handle, _, _, _ = await worker.take()
                worker.send(encode.work_status(handle, 1, 2))
                await eventually_running(clients[0], job_id)
                worker.complete(handle, b"result \0" * 20_000)
                await ended(client, job_id)
                assert job_of(await same(gateway, clients, place, get(at(job_id), tag)))["state"] == "succeeded"
                answer = await same(gateway, clients, place, get(at(job_id, "result")))
                assert (answer.status, answer.body) == (200, b"result \0" * 20_000)
                assert (await same(gateway, clients, place, post(at(job_id, "cancel")))).kind() == "not-cancellable"
                other = clients[(place + 1) % workers]
                relayed, answer = await gateway.asked(other, head(b"DELETE", at(job_id)))
                assert (relayed, answer.status) == (True, 204)
                assert (await same(gateway, clients, place, get(at(job_id)))).kind() == "job-unknown"
            await forgotten(gateway)

    async def test_refuses_what_is_none_by_itself(self, address, function):
        async with relaying([address]) as gateway, AsyncExitStack() as stack:
            clients = await gateway.clients(stack)
            job_id = await submitted(clients[0], function)
            details = set()
            for client in clients:
                for wrong in ("k" + "A" * 40, job_id[:-1], job_id + "A", job_id[:20] + "AAAA" + job_id[24:]):
                    relayed, answer = await gateway.asked(client, get(at(wrong)))
                    assert (relayed, answer.status, answer.kind()) == (False, 404, "job-unknown")
                    details.add(answer.problem()["detail"])
                for method, part in ((b"PUT", ""), (b"POST", "result"), (b"GET", "cancel")):
                    relayed, answer = await gateway.asked(client, head(method, at(job_id, part), b"Content-Length: 0"))
                    assert (relayed, answer.status) == (False, 405)
                relayed, answer = await gateway.asked(client, head(b"OPTIONS", at(job_id)))
                assert (relayed, answer.status) == (False, 204)
                relayed, answer = await gateway.asked(client, get(at(job_id, "", "wait=x")))
                assert (relayed, answer.status) == (False, 400)
            assert len(details) == 1
            assert (await clients[1].ask(head(b"DELETE", at(job_id)))).status == 204
            await forgotten(gateway)

    async def test_waits_for_a_job(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            job_id = await submitted(clients[0], function)
            answer = await clients[1].ask(get(at(job_id, "", "wait=0.2")))
            assert job_of(answer)["state"] == "queued"
            waiting = [await stack.enter_async_context(HttpClient(gateway.address)) for _ in range(20)]
            for number, client in enumerate(waiting):
                client.send(get(at(job_id, "result" if number % 2 else "", "wait=60")))
            leaving = await gateway.clients(stack)
            for client in leaving:
                client.send(get(at(job_id, "", "wait=60")))
                await client.close()
            for client in clients:
                client.send(get(at(job_id, "", "wait=60")))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"there")
            for number, client in enumerate(waiting):
                answer = await client.response()
                assert answer.body == b"there" if number % 2 else job_of(answer)["state"] == "succeeded"
            for client in clients:
                assert job_of(await client.response())["state"] == "succeeded"
            assert (await clients[1].ask(head(b"DELETE", at(job_id)))).status == 204
            await forgotten(gateway)

    async def test_cancels_a_job(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            for runs, client in itertools.product((False, True), clients):
                job_id = await submitted(clients[0], function)
                if runs:
                    handle, _, _, _ = await worker.take()
                for each in (client, *clients):
                    answer = await each.ask(post(at(job_id, "cancel")))
                    assert (answer.status, job_of(answer)["state"]) == (202 if runs else 200, "cancelled")
                if runs:
                    worker.complete(handle)
                else:
                    await worker.no_job()
                assert (await client.ask(get(at(job_id, "result")))).kind() == "job-cancelled"
                assert (await client.ask(head(b"DELETE", at(job_id)))).status == 204
            before = await handles(address)
            job_id = await submitted(clients[0], function)
            [handle] = await handles(address) - before
            assert (await clients[1].ask(head(b"DELETE", at(job_id)))).status == 204
            await dropped(address, handle)
            await worker.no_job()
            await forgotten(gateway)


async def eventually_running(client: HttpClient, job_id: str) -> None:
    """Return once a worker has said something of it."""
    while job_of(await client.ask(get(at(job_id))))["state"] == "queued":
        pass


class TestUniques:
    async def test_a_job_with_its_clients_unique_is_kept_by_its_owner(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            places = set()
            for _ in range(ENOUGH):
                unique = b"u-%d" % next(COUNTED)
                ids = [await submitted(client, function, unique_line(unique)) for client in clients]
                [place] = {place_in(job_id) for job_id in ids}
                places.add(place)
                handle, _, found, _ = await worker.take()
                assert found == unique
                worker.complete(handle, unique)
                for job_id, client in itertools.product(ids, clients):
                    await ended(client, job_id)
                    answer = await client.ask(get(at(job_id, "result")))
                    assert (answer.body, answer.headers[b"x-gearman-unique"]) == (unique, unique)
                await worker.no_job()
                for job_id in ids:
                    assert (await clients[0].ask(head(b"DELETE", at(job_id)))).status == 204
            assert places == {0, 1}
            await forgotten(gateway)

    async def test_its_wait_is_that_of_its_client(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            for client in clients:
                unique = unique_line(b"u-%d" % next(COUNTED))
                client.send(post(b"/" + function, b"w", unique, b"Prefer: wait=60, respond-async"))
                handle, _, _, _ = await worker.take()
                worker.complete(handle, b"in time")
                answer = await client.response()
                assert (answer.status, answer.body) == (200, b"in time")
                assert b"location" not in answer.headers
            await forgotten(gateway)
            for client in clients:
                unique = unique_line(b"u-%d" % next(COUNTED))
                answer = await client.ask(post(b"/" + function, b"w", unique, b"Prefer: wait=1, respond-async"))
                assert (answer.status, answer.headers[b"preference-applied"]) == (202, b"respond-async")
                handle, _, _, _ = await worker.take()
                worker.complete(handle)
                job = await ended(client, job_of(answer)["id"])
                assert (await client.ask(head(b"DELETE", at(str(job["id"]))))).status == 204
            await forgotten(gateway)

    async def test_a_large_body_is_its_workload(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            body = bytes(range(256)) * 2000
            for client in clients * 2:
                job_id = await submitted(client, function, unique_line(b"u-%d" % next(COUNTED)), body=body)
                handle, _, _, workload = await worker.take()
                assert workload == body
                worker.complete(handle)
                await ended(client, job_id)
                assert (await client.ask(head(b"DELETE", at(job_id)))).status == 204
            await forgotten(gateway)


class TestTokens:
    async def test_a_job_is_its_tokens_name_s_at_any_process(self, address, function, tmp_path):
        file = TokenFile(tmp_path / "tokens.toml")
        file.write(file.table("one", "max_jobs = 1"), file.table("other"))
        one, other = file.line("one"), file.line("other")
        async with (
            relaying([address], "--tokens", str(file.path)) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            # By its own unique it is where its client is, by its client's where that belongs.
            for lines in ((), *((unique_line(b"u-%d" % next(COUNTED)),) for _ in range(ENOUGH // 4))):
                for client in clients:
                    job_id = await submitted(client, function, one, *lines)
                    for each in clients:
                        assert (await each.ask(get(at(job_id), one))).status == 200
                        for method, part in ((b"GET", ""), (b"GET", "result"), (b"POST", "cancel"), (b"DELETE", "")):
                            asked = head(method, at(job_id, part), other, b"Content-Length: 0")
                            relayed, answer = await gateway.asked(each, asked)
                            assert (relayed, answer.kind()) == (False, "job-unknown")
                        assert (await each.ask(get(at(job_id)))).status == 401
                        # It counts among those of its token at every process.
                        answer = await each.ask(post(b"/" + function, b"", ASYNC, one))
                        assert (answer.status, answer.kind()) == (429, "too-many-token-jobs")
                    handle, _, _, _ = await worker.take()
                    worker.complete(handle, b"its own")
                    for each in clients:
                        answer = await each.ask(get(at(job_id, "result", "wait=60"), one))
                        assert (answer.status, answer.body) == (200, b"its own")
                    assert (await clients[0].ask(head(b"DELETE", at(job_id), one))).status == 204
            await forgotten(gateway)


class TestKilled:
    async def test_with_its_process_a_job_is_unknown_and_it_is_said_why(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            before = await handles(address)
            lost = [await submitted(clients[0], function) for _ in range(3)]
            handles_of_lost = await handles(address) - before
            stays = await submitted(clients[1], function)
            waiting = (await gateway.clients(stack))[1]
            waiting.send(get(at(lost[0], "", "wait=60")))
            await eventually(lambda: gateway.relayed() > 0)
            os.kill(gateway.first_workers[0], signal.SIGKILL)
            # Whoever waited for it through another process may ask again, which does no harm.
            answer = await waiting.response()
            assert (answer.status, answer.kind()) in ((503, "owner-away"), (404, "job-unknown"))
            await eventually(
                lambda: (
                    len(gateway.served.workers()) == 2
                    and gateway.first_workers[0] not in gateway.served.workers()
                    and all(place.state == place.state.SERVING for place in gateway.memory.places.rows)
                ),
                PROCESS_S,
            )
            gateway.first_workers = gateway.served.workers()
            newcomers = [clients[1]]
            for _ in range(20):
                newcomers.append(await stack.enter_async_context(HttpClient(gateway.address)))
            for client, job_id in itertools.product(newcomers, lost):
                for method, part in ((b"GET", ""), (b"GET", "result"), (b"POST", "cancel"), (b"DELETE", "")):
                    answer = await client.ask(head(method, at(job_id, part), b"Content-Length: 0"))
                    assert (answer.status, answer.kind()) == (404, "job-unknown")
                    assert "has ended" in str(answer.problem()["detail"])
            # The others are as they were.
            for client in newcomers:
                assert job_of(await client.ask(get(at(stays))))["state"] == "queued"
            # What was queued for the dead process alone will not run (gearmand drops it with its client).
            await gone(address, handles_of_lost)
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"there")
            await ended(newcomers[-1], stays)
            await worker.no_job()
            await eventually(lambda: gateway.memory.shared.taken(KEPT_JOBS) == 1, PROCESS_S)
            assert (await clients[1].ask(head(b"DELETE", at(stays)))).status == 204
            await forgotten(gateway)


async def gone(address: tuple[str, int], lost: set[bytes]) -> None:
    """Return once the job server has none of these jobs but to throw it away."""

    async def are_gone() -> bool:
        shown = await ask_text(address, b"show jobs")
        return all(handle + b"\t0\t1\t" in shown or handle + b"\t" not in shown for handle in lost)

    await until(are_gone)


async def accepts_no_more(gateway: Relaying) -> None:
    """Return once nobody listens there any more."""
    with contextlib.suppress(ConnectionError):
        while True:
            async with HttpClient(gateway.address):
                await asyncio.sleep(0.01)


class TestStop:
    async def test_waits_for_those_that_have_not_ended(self, address, function):
        async with relaying([address]) as gateway, hand_worker(address, function) as worker, AsyncExitStack() as stack:
            clients = await gateway.clients(stack)
            before = await handles(address)
            ids = [await submitted(client, function) for client in clients]
            made = await handles(address) - before
            for client in clients:
                # Of another place's, and of its own.
                client.send(*(get(at(job_id, "result", "wait=60")) for job_id in ids))
            await gateway.jobs_left(2)
            # The kernel has what was sent.
            await asyncio.sleep(0)
            gateway.served.signal(signal.SIGTERM)
            await gateway.served.until("answering what is in flight")
            await accepts_no_more(gateway)
            shown = await ask_text(address, b"show jobs")
            assert all(handle + b"\t0\t0\t" in shown for handle in made)
            for _ in ids:
                handle, _, _, _ = await worker.take()
                worker.complete(handle, b"in time")
            for client in clients:
                for _ in ids:
                    answer = await client.response()
                    assert (answer.status, answer.body) == (200, b"in time")
            assert await gateway.served.ended() == 0

    async def test_without_anybody_who_waits_for_them_it_waits_all_the_same(self, address, function):
        async with relaying([address]) as gateway, hand_worker(address, function) as worker:
            before = await handles(address)
            async with AsyncExitStack() as stack:
                for client in await gateway.clients(stack):
                    await submitted(client, function)
            made = await handles(address) - before
            gateway.served.signal(signal.SIGTERM)
            await gateway.served.until("answering what is in flight")
            await accepts_no_more(gateway)
            for _ in made:
                handle, _, _, _ = await worker.take()
                assert handle in made
                worker.complete(handle)
            began_s = asyncio.get_running_loop().time()
            assert await gateway.served.ended() == 0
            assert asyncio.get_running_loop().time() - began_s < SOON_S

    async def test_after_its_time_they_are_lost(self, address, function):
        async with relaying([address], "--drain-timeout", "0.5") as gateway, AsyncExitStack() as stack:
            clients = await gateway.clients(stack)
            job_id = await submitted(clients[0], function)
            for client in clients:
                client.send(get(at(job_id, "", "wait=60")))
            await eventually(lambda: gateway.relayed() > 0)
            gateway.served.signal(signal.SIGTERM)
            answer = await clients[0].response()
            assert (answer.status, job_of(answer)["state"]) == (200, "lost")
            # Through another process, which stops as well, it may be told that it may ask again.
            answer = await clients[1].response()
            assert answer.status == 200 or answer.kind() == "owner-away"
            assert await gateway.served.ended() == 0

    async def test_new_ones_are_refused_as_soon_as_it_is_not_ready_any_more(self, address, function):
        async with (
            relaying([address], "--shutdown-delay", "3600") as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            job_id = await submitted(clients[0], function)
            gateway.served.signal(signal.SIGTERM)
            await gateway.served.until("stopping in 3600 s")
            for client in clients:
                while (answer := await client.ask(post(b"/" + function, b"more", ASYNC))).status == 202:
                    assert (await client.ask(head(b"DELETE", answer.headers[b"location"]))).status == 204
                assert (answer.status, answer.kind()) == (503, "stopping")
                assert b"retry-after" in answer.headers
                # Everything else is as before.
                assert (await client.ask(get(at(job_id)))).status == 200
            # The job server may hear of it later that the others are cancelled.
            while (taken := await worker.take())[3] != b"w":
                worker.complete(taken[0])
            worker.complete(taken[0], b"whole")
            for client in clients:
                assert (await client.ask(get(at(job_id, "result", "wait=60")))).body == b"whole"
            clients[0].send(post(b"/" + function, b"plain"))
            handle, _, _, workload = await worker.take()
            assert workload == b"plain"
            worker.complete(handle)
            assert (await clients[0].response()).status == 200
            gateway.served.signal(signal.SIGTERM)
            assert await gateway.served.ended() == 1


class TestReload:
    async def test_loses_none(self, address, function, tmp_path):
        config = tmp_path / "gatewayx.toml"
        config.write_text("max-jobs = 100\n", encoding="utf-8")
        async with (
            relaying([address], "--config", str(config)) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            ids = [await submitted(client, function) for client in clients]
            config.write_text("max-jobs = 200\n", encoding="utf-8")
            gateway.served.signal(signal.SIGHUP)
            await gateway.served.until("all worker processes have the settings")
            for job_id, client in itertools.product(ids, clients):
                assert job_of(await client.ask(get(at(job_id))))["state"] == "queued"
            for _ in ids:
                handle, _, _, _ = await worker.take()
                worker.complete(handle, b"kept")
            for job_id, client in itertools.product(ids, clients):
                assert (await client.ask(get(at(job_id, "result", "wait=60")))).body == b"kept"
            for job_id in ids:
                assert (await clients[0].ask(head(b"DELETE", at(job_id)))).status == 204
            await forgotten(gateway)
