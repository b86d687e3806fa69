"""Background jobs outlive their requests: what is told of them, on both job servers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import time
from typing import Any

import pytest

from gatewayx.embedded import encode
from gatewayx.gearman.packet import PacketType
from support.gateway import eventually, running_gateway
from support.http import HttpClient, Response, ask, get, head, post
from support.job_servers import ScriptedJobServer, hand_worker
from support.kept import ASYNC, JOB_FIELDS
from support.tokens import TokenFile

pytestmark = pytest.mark.anyio

BACKGROUND = b"X-Gearman-Background: true"
# What a Retry-After of a second may be, once it is jittered.
MOST_RETRY_S = 2
# Whoever asks without a pause takes the processor from what all wait for.
ASKED_AGAIN_S = 0.01


async def submitted(client: HttpClient, function: bytes, *lines: bytes) -> bytes:
    """Where a new background job is found."""
    answer = await client.ask(post(b"/" + function, b"workload", BACKGROUND, *lines))
    assert answer.status == 200
    return answer.headers[b"location"]


def job_of(answer: Response) -> dict[str, Any]:
    """The job that an answer tells; fails unless it is told as documented."""
    assert answer.headers[b"content-type"] == b"application/json", answer
    job = json.loads(answer.body)
    assert set(job) == JOB_FIELDS
    assert job["kind"] == "background"
    path = f"/v1/jobs/{job['id']}"
    assert job["links"] == {"self": path, "cancel": f"{path}/cancel"}
    # Nothing is claimed that a job server does not tell.
    assert [job[field] for field in ("started", "ended", "expires", "result")] == [None] * 4
    return dict(job)


async def seen(client: HttpClient, location: bytes, query: bytes = b"") -> dict[str, Any]:
    """What is told of a job."""
    answer = await client.ask(get(location + query))
    assert answer.status == 200, answer
    job = job_of(answer)
    assert job["id"].encode() == location.removeprefix(b"/v1/jobs/")
    # Who asks again, unless it is in vain, may do so in a second.
    assert (b"retry-after" in answer.headers) == (job["state"] != "gone")
    return job


async def becomes(client: HttpClient, location: bytes, state: str) -> dict[str, Any]:
    """The job once it is in this state: what was told is good for a second."""
    while True:
        job = await seen(client, location)
        if job["state"] == state:
            return job
        await asyncio.sleep(ASKED_AGAIN_S)


async def cancelled(client: HttpClient, location: bytes) -> Response:
    """The answer to a cancellation."""
    return await client.ask(head(b"POST", location + b"/cancel", b"Content-Length: 0"))


class TestLocation:
    async def test_tells_all_that_is_needed(self, gateway, client, function):
        before_s = int(time.time())
        for number in range(1, 25):
            for name in (function, function + b"-other"):
                answer = await client.ask(post(b"/" + name, b"%d" % number, BACKGROUND))
                location = answer.headers[b"location"]
                assert re.fullmatch(rb"/v1/jobs/b[A-Za-z0-9_~-]+", location)
                found = gateway.process.ids.background(location.removeprefix(b"/v1/jobs/"))
                assert found is not None
                assert found.function == name
                assert found.unique == answer.headers[b"x-gearman-unique"]
                assert found.handle == answer.headers[b"x-gearman-job-handle"]
                assert found.life > 0
                assert before_s <= found.created_s <= time.time()
                assert gateway.process.ids.tells_of(found, gateway.process.pool.servers[0].name)
                assert not gateway.process.ids.tells_of(found, "other:4730")

    @pytest.mark.parametrize(
        "lines", [[BACKGROUND, b"X-Gearman-Unique: mine"], [BACKGROUND, b"X-Gearman-Unique: -"]], ids=["unique", "dash"]
    )
    async def test_with_a_clients_unique_there_is_none(self, gateway, client, function, lines):
        # GET_STATUS_UNIQUE knows no function: it would tell of others' jobs.
        lines = [line.replace(b"mine", function[:63]) for line in lines]
        answer = await client.ask(post(b"/" + function, b"w", *lines))
        assert (answer.status, b"location" in answer.headers) == (200, False)
        answer = await client.ask(post(b"/" + function, b"w", ASYNC, *lines))
        assert (answer.status, b"location" in answer.headers) == (202, False)

    async def test_with_plugin_compat_there_is_none(self, job_server, function):
        async with running_gateway([job_server.address], plugin_compat=True) as gateway:
            answer = await ask(
                gateway.address, post(b"/" + function, b"w", BACKGROUND, b"X-Gearman-Unique: " + function[:60])
            )
            assert (answer.status, b"location" in answer.headers) == (200, False)

    async def test_who_prefers_so_is_answered_202(self, client, function):
        answer = await client.ask(post(b"/" + function, b"w", BACKGROUND, ASYNC))
        assert (answer.status, answer.body) == (202, b"")
        assert answer.headers[b"preference-applied"] == b"respond-async"
        assert answer.headers[b"x-gearman-command"] == b"JOB_CREATED"
        assert (await seen(client, answer.headers[b"location"]))["state"] == "queued"

    @pytest.mark.parametrize(
        "handles",
        [
            [b"H:host:%d" % number for number in (1, 2, 9, 10, 11, 99, 100)],
            [b"H:host:%d" % number for number in (999_998, 999_999, 1_000_000, 1_000_001, 9_999_999, 10_000_000)],
            [b"H:host:%d" % number for number in (1_999_999, 2_000_000, 999_999_999, 4_294_967_295)],
            [
                b"1",
                b"2",
                b"12",
                b"999999",
                b"1000000",
                b"12345678",
                b"x:7",
                b"y:7",
                b"abcdefg",
                b"abcdefgh",
                b"abcdefgi",
            ],
            [b"H:host:007", b"H:host:7", b"H:host:07", b"H:host:", b"H:host:~", b"H:host:8~9"],
            [b"H:host:12345678901", b"H:host:12345678902", b"H:host:22345678902", b"H" * 55 + b"12345678", b"9" * 63],
            [b"H:a:1", b"H:b:1", b"H:a:2", b"H:b:2", b"H:aa:11", b"H:ab:11", b"H:hostname-a:1", b"H:hostname-b:1"],
            [
                b"H:host:1:",
                b"H:host:1;",
                b"H:host:10",
                b"H:host:1/",
                b"H:host:12",
                b"H:host:/2",
                b"H:host:!!",
                b"H:host:zz",
            ],
        ],
        ids=["short", "long", "longest", "without a head", "odd", "too long", "heads", "no digits"],
    )
    async def test_whatever_the_handle_is(self, function, handles):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as client,
        ):
            connection = await server.connection()
            # Twice, so that each follows another one and is followed.
            for handle in handles * 2:
                client.send(post(b"/" + function, b"w", BACKGROUND))
                submission = await connection.accept(handle)
                answer = await client.response()
                assert answer.headers[b"x-gearman-job-handle"] == handle
                assert answer.headers[b"x-gearman-unique"] == submission.unique
                found = gateway.process.ids.background(answer.headers[b"location"].removeprefix(b"/v1/jobs/"))
                assert found is not None
                assert (found.handle, found.unique, found.function) == (handle, submission.unique, function)

    @pytest.mark.parametrize(
        ("name", "has_one"),
        [
            (b"a", True),
            (b"%00", None),
            (b"a/b:c~d", True),
            (b"%FF%FE%20", True),
            (b"f" * 512, True),
            (b"f" * 600, True),
            (b"f" * 720, False),
            (b"f" * 4096, False),
        ],
        ids=["short", "NUL", "marks", "bytes", "default", "long", "too long", "longest"],
    )
    async def test_whatever_the_function_is(self, embedded, name, has_one):
        async with running_gateway([embedded.address], max_function_bytes=4096) as gateway:
            for _ in range(2):
                answer = await ask(gateway.address, post(b"/" + name, b"w", BACKGROUND))
                if has_one is None:
                    assert answer.status == 400
                    continue
                assert (answer.status, b"location" in answer.headers) == (200, has_one)
                assert answer.headers[b"x-gearman-command"] == b"JOB_CREATED"
                if has_one:
                    assert (await ask(gateway.address, get(answer.headers[b"location"]))).status == 200

    async def test_any_change_makes_it_none(self, gateway, client, function):
        text = (await submitted(client, function)).removeprefix(b"/v1/jobs/")
        ids = gateway.process.ids
        assert ids.background(text) is not None
        for place in range(len(text)):
            assert ids.background(text[:place]) is None
            assert ids.background(text[place + 1 :]) is None
            assert ids.background(text[:place] + text[place + 1 :]) is None
            for byte in range(256):
                assert ids.background(text[:place] + bytes([byte]) + text[place:]) is None
                if byte != text[place]:
                    assert ids.background(text[:place] + bytes([byte]) + text[place + 1 :]) is None
        for end in (b"0", b"~", b"\0", b"=", text):
            assert ids.background(text + end) is None
        assert ids.kept_place(text) is None
        # Over HTTP the same, and what is encoded without need is the same text.
        for target in (text[:-1], text + b"A", text + b"%00", b"%00", text.swapcase()):
            answer = await client.ask(get(b"/v1/jobs/" + target))
            assert (answer.status, answer.kind()) == (404, "job-unknown")
        assert (await client.ask(get(b"/v1/jobs/%62" + text[1:]))).status == 200

    async def test_belongs_to_the_name_of_its_token(self, job_server, function, tmp_path):
        file = TokenFile(tmp_path / "tokens.toml")
        file.write(file.table("shop"), file.table("other"))
        async with (
            running_gateway([job_server.address], tokens=str(file.path)) as gateway,
            HttpClient(gateway.address) as client,
        ):
            locations = {name: await submitted(client, function, file.line(name)) for name in ("shop", "other", "shop")}
            for name, location in locations.items():
                for asks in ("shop", "other"):
                    answer = await client.ask(get(location, file.line(asks)))
                    assert answer.status == (200 if asks == name else 404)
                assert (await client.ask(get(location))).status == 401

    async def test_more_tokens_and_functions_than_are_remembered(self, embedded, tmp_path):
        file = TokenFile(tmp_path / "tokens.toml")
        names = [f"t{number}" for number in range(130)]
        file.write(*(file.table(name) for name in names))
        async with (
            running_gateway([embedded.address], tokens=str(file.path)) as gateway,
            HttpClient(gateway.address) as client,
        ):
            chance = random.Random(1)
            for number in range(600):
                name = chance.choice(names)
                function = b"f%d" % (number % 200)
                location = await submitted(client, function, file.line(name))
                mark = hashlib.sha256(name.encode()).digest()[:16]
                found = gateway.process.ids.background(location.removeprefix(b"/v1/jobs/"), mark)
                assert found is not None
                assert found.function == function


class TestStates:
    async def test_queued_running_and_gone(self, client, function, job_server):
        location = await submitted(client, function)
        job = await seen(client, location)
        assert (job["state"], job["function"], job["progress"]) == ("queued", function.decode(), None)
        assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", job["created"])
        async with hand_worker(job_server.address, function) as worker:
            handle, _, _, _ = await worker.take()
            assert (await becomes(client, location, "running"))["progress"] is None
            worker.send(encode.work_status(handle, 3, 10))
            progress = None
            while progress is None:
                progress = (await seen(client, location))["progress"]
            assert progress == {"numerator": 3, "denominator": 10}
            worker.complete(handle, b"dropped by the job server")
            # How it has ended nobody can tell.
            assert (await becomes(client, location, "gone"))["progress"] is None

    async def test_who_waits_is_answered_at_its_end(self, client, gateway, function, job_server):
        location = await submitted(client, function)
        clients = [HttpClient(gateway.address) for _ in range(5)]
        for each in clients:
            await each.__aenter__()
            each.send(get(location + b"?wait=30"))
        await gateway.reaches("background_jobs.waiting", 5)
        async with hand_worker(job_server.address, function) as worker:
            handle, _, _, _ = await worker.take()
            worker.complete(handle)
            for each in clients:
                assert job_of(await each.response())["state"] == "gone"
                await each.close()

    async def test_who_waits_is_answered_when_the_time_is_up(self, client, function):
        location = await submitted(client, function)
        for wait_s in (0.3, 1.3):
            began_s = time.monotonic()
            assert (await seen(client, location, b"?wait=%.1f" % wait_s))["state"] == "queued"
            assert time.monotonic() - began_s >= wait_s

    async def test_who_hangs_up_leaves_nothing(self, client, gateway, function):
        location = await submitted(client, function)
        async with HttpClient(gateway.address) as waiting:
            waiting.send(get(location + b"?wait=60"))
            await gateway.reaches("background_jobs.waiting", 1)
            waiting.reset()
            await eventually(lambda: gateway.count("background_jobs.waiting") == 0)

    async def test_what_has_not_changed_is_304(self, client, function, job_server):
        location = await submitted(client, function)
        tag = (await client.ask(get(location))).headers[b"etag"]
        answer = await client.ask(get(location, b"If-None-Match: " + tag))
        assert (answer.status, answer.body, answer.headers[b"etag"]) == (304, b"", tag)
        assert 1 <= int(answer.headers[b"retry-after"]) <= MOST_RETRY_S
        assert (await client.ask(get(location, b'If-None-Match: "other"'))).status == 200
        async with hand_worker(job_server.address, function) as worker:
            handle, _, _, _ = await worker.take()
            await becomes(client, location, "running")
            assert (await client.ask(get(location, b"If-None-Match: " + tag))).status == 200
            worker.complete(handle)

    async def test_head_has_the_head_alone(self, client, function):
        location = await submitted(client, function)
        answer = await client.ask(head(b"HEAD", location), to_head=True)
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.headers[b"content-length"]) > 100

    @pytest.mark.parametrize("part", [b"/result", b"/events"])
    async def test_neither_result_nor_events_are_kept(self, client, function, part):
        location = await submitted(client, function)
        answer = await client.ask(get(location + part))
        assert (answer.status, answer.kind()) == (409, "not-kept")


class TestCancel:
    async def test_one_that_is_queued_will_not_run(self, client, function, job_server):
        first, second, third = [await submitted(client, function) for _ in range(3)]
        answer = await cancelled(client, second)
        assert (answer.status, job_of(answer)["state"]) == (200, "queued")
        # That is no error.
        assert (await cancelled(client, second)).status == 200
        async with hand_worker(job_server.address, function) as worker:
            ran = []
            for _ in range(2):
                handle, _, unique, _ = await worker.take()
                worker.complete(handle)
                ran.append(unique)
            worker.send(encode.grab_job_uniq())
            await worker.expect(PacketType.NO_JOB)
            assert len(set(ran)) == 2
            for location in (first, second, third):
                await becomes(client, location, "gone")

    async def test_one_that_runs_goes_on(self, client, function, job_server):
        location = await submitted(client, function)
        async with hand_worker(job_server.address, function) as worker:
            handle, _, _, _ = await worker.take()
            answer = await cancelled(client, location)
            assert (answer.status, job_of(answer)["state"]) == (202, "running")
            worker.complete(handle)
            await becomes(client, location, "gone")
            # It has run, and nobody can tell.
            answer = await cancelled(client, location)
            assert (answer.status, job_of(answer)["state"]) == (202, "gone")

    async def test_delete_cancels_it_and_is_answered_at_once(self, client, function, job_server):
        location = await submitted(client, function)
        stays = await submitted(client, function)
        answer = await client.ask(head(b"DELETE", location))
        assert (answer.status, answer.body) == (204, b"")
        async with hand_worker(job_server.address, function) as worker:
            handle, _, _, _ = await worker.take()
            worker.complete(handle)
            await becomes(client, stays, "gone")
            await becomes(client, location, "gone")
            worker.send(encode.grab_job_uniq())
            await worker.expect(PacketType.NO_JOB)
        # What there is to know of it is in its id.
        assert (await client.ask(head(b"DELETE", location))).status == 204

    async def test_after_the_job_servers_restart_it_cannot_be(self, function):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as client,
        ):
            client.send(post(b"/" + function, b"w", BACKGROUND))
            await (await server.connection()).accept(b"H:host:1")
            location = (await client.response()).headers[b"location"]
            await server.stop()
            await server.start()
            await server.connection()
            detail = ""
            while "not the one" not in detail:
                answer = await cancelled(client, location)
                assert (answer.status, answer.kind()) == (409, "not-cancellable")
                detail = str(answer.problem()["detail"])
            # Handles begin anew, and this one is another job's.
            assert not any(line.startswith(b"cancel") for line in server.commands)
            assert (await client.ask(head(b"DELETE", location))).status == 204
            assert not any(line.startswith(b"cancel") for line in server.commands)
