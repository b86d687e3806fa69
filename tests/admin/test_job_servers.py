"""What the admin address tells of job servers and functions, and that none of them is in its way."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gatewayx.server.places import Places
from gatewayx.server.server_rows import SLOTS, ServerConnections
from support.admin import ADMIN, ANSWER_S, AdminAddress, admin_of, until
from support.gateway import ServeProcess
from support.gearmand import Gearmand
from support.http import HttpClient, post
from support.job_servers import ScriptedJobServer, hand_worker

pytestmark = pytest.mark.anyio

QUICK = ("--status-interval", "0.05", "--server-check-interval", "1")
# For a status of so many lines that the test's own loop is busy with it.
UNHURRIED = ("--status-interval", "0.5", "--server-check-interval", "10")
TARGETS = ("/livez", "/readyz?verbose", "/metrics", "/status")


@asynccontextmanager
async def gateway(
    *servers: tuple[str, int], arguments: tuple[str, ...] = (), is_patient: bool = True
) -> AsyncIterator[tuple]:
    """A gateway with two worker processes: where it listens, its admin address, the process."""
    flags = [flag for host, port in servers for flag in ("--server", f"{host}:{port}")]
    async with ServeProcess(*ADMIN, *flags, "--workers", "2", *QUICK, *arguments, is_patient=is_patient) as served:
        admin = await admin_of(served)
        host, port = next(found.groups() for line in served.lines if (found := ServeProcess.listens_on.search(line)))
        yield (host, int(port)), admin, served


async def becomes(admin: AdminAddress, value: float, name: str, **labels: str) -> None:
    """Return once a metric has this value."""

    async def ask() -> bool:
        return (await admin.metrics()).get((name, frozenset(labels.items()))) == value

    await until(ask)


async def all_are_connected(admin: AdminAddress, connections: int) -> None:
    """Return once the worker processes have so many connections for jobs to the only job server."""

    async def are() -> bool:
        return [told["connections"] for told in (await admin.status())["job_servers"]] == [connections]

    await until(are)


async def all_answer_at_once(admin: AdminAddress) -> None:
    """Each endpoint answers, twenty times, and soon."""
    began_s = time.monotonic()
    answers = await asyncio.gather(*(admin.ask(target) for target in TARGETS * 20))
    assert {answer.status for answer in answers} == {200}
    assert time.monotonic() - began_s < ANSWER_S


async def test_it_tells_what_a_job_server_tells(session_gearmand: Gearmand, function):
    host, port = session_gearmand.address
    server = {"server": f"{host}:{port}"}
    named = {**server, "function": function.decode()}
    async with (
        gateway((host, port), arguments=UNHURRIED) as (address, admin, _),
        hand_worker((host, port), function) as worker,
    ):
        await becomes(admin, 1, "gearman_workers", **named)
        await all_are_connected(admin, 4)
        assert await admin.metric("gearman_up", **server) == 1
        [info] = [dict(labels) for name, labels in await admin.metrics() if name == "gearman_version_info"]
        assert info["version"][0].isdigit()
        async with HttpClient(address) as client:
            for _ in range(3):
                answer = await client.ask(post(b"/" + function, b"", b"X-Gearman-Background: true"))
                assert answer.status == 200
        await becomes(admin, 3, "gearman_jobs", **named)
        await becomes(admin, 3, "gearman_jobs_waiting", **named)
        handles = [(await worker.take())[0]]
        await becomes(admin, 1, "gearman_jobs_running", **named)
        await becomes(admin, 2, "gearman_jobs_waiting", **named)
        status = await admin.status()
        [told] = [told for told in status["functions"] if told["function"] == function.decode()]
        assert (told["jobs"], told["running"], told["waiting"], told["workers"]) == (3, 1, 2, 1)
        [told] = status["job_servers"]
        assert (told["server"], told["up"], told["reason"]) == (server["server"], True, "")
        assert told["connections"] == 4
        worker.complete(handles[0])
        for _ in range(2):
            worker.complete((await worker.take())[0])
        await becomes(admin, 0, "gearman_jobs", **named)
        assert await admin.metric("gatewayx_jobs_total", result="queued", **named) == 3


@pytest.mark.parametrize("arguments", [("--ready-requires", "any"), ("--ready-requires", "all")])
async def test_a_job_server_that_freezes_is_in_nobodys_way(session_gearmand, arguments):
    async with ScriptedJobServer() as freezes:
        name = {"server": f"{freezes.host}:{freezes.port}"}
        async with gateway(freezes.address, session_gearmand.address, arguments=arguments) as (_, admin, _served):
            await becomes(admin, 1, "gearman_up", **name)
            await admin.becomes("/readyz", 200)
            freezes.tells_status = False
            await becomes(admin, 0, "gearman_up", **name)
            if "any" in arguments:
                await all_answer_at_once(admin)
            else:
                await admin.becomes("/readyz", 503)

                async def is_told() -> bool:
                    # The other one may be late as well, on a busy machine.
                    told = b"[-]job-servers failed: 1 of 2 job servers answer, all required"
                    return told in (await admin.ask("/readyz")).body

                await until(is_told)
            [told, _other] = (await admin.status())["job_servers"]
            assert not told["up"]
            assert "no answer" in told["reason"]
            freezes.tells_status = True
            await becomes(admin, 1, "gearman_up", **name)
            await admin.becomes("/readyz", 200)


@pytest.mark.parametrize("reads", [True, False])
async def test_a_job_server_that_never_says_a_word_is_in_nobodys_way(reads):
    async with (
        ScriptedJobServer(greets=False, reads=reads) as silent,
        gateway(silent.address, is_patient=False) as (_, admin, _served),
    ):
        await all_answer_at_once(admin)


GARBAGE = [b"\0" * 100_000, b"a\tb\tc\td\n.\n", b"a\t1\t1\t1\n" * 10_000, b"\xff\n.\n" * 100, b"a" * 20_000 + b"\n.\n"]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
async def test_a_job_server_that_answers_nonsense_is_in_nobodys_way(garbage):
    class Nonsense(ScriptedJobServer):
        def status_lines(self) -> list[bytes]:
            return [garbage]

    async with Nonsense() as nonsense, gateway(nonsense.address) as (_, admin, _served):

        async def has_been_asked() -> bool:
            return nonsense.statuses > 5

        await until(has_been_asked)
        await all_answer_at_once(admin)


async def test_an_admin_process_that_has_just_begun_takes_no_job_server_for_down():
    async with ScriptedJobServer() as server, gateway(server.address, arguments=UNHURRIED) as (_, admin, served):
        name = {"server": f"{server.host}:{server.port}"}
        await becomes(admin, 1, "gearman_up", **name)
        # Until the next one has an answer.
        server.tells_status = False
        killed = await admin.process_id("admin")
        os.kill(killed, signal.SIGKILL)
        await served.until(f"admin process (pid {killed}) was ended by SIGKILL")
        assert [key for key in await admin.metrics() if key[0].startswith("gearman_")] == []


async def test_one_that_is_lost_and_comes_back_is_counted():
    async with ScriptedJobServer() as server:
        name = {"server": f"{server.host}:{server.port}"}
        # None is lost for its silence, however busy the machine is.
        async with gateway(server.address, arguments=UNHURRIED) as (_, admin, _served):
            await all_are_connected(admin, 4)
            assert await admin.metric("gatewayx_job_server_reconnects_total", **name) == 0
            lost = await server.connection()
            lost.close()
            await becomes(admin, 1, "gatewayx_job_server_reconnects_total", **name)
            await all_are_connected(admin, 4)
            await server.stop()
            await all_are_connected(admin, 0)
            await server.start()
            await becomes(admin, 5, "gatewayx_job_server_reconnects_total", **name)


async def series(admin: AdminAddress) -> set:
    """All series but those whose labels come from what was answered."""
    return {
        key for key in await admin.metrics() if key[0] not in ("gatewayx_http_requests_total", "gatewayx_jobs_total")
    }


def functions_of(metrics: dict, family: str) -> set[str]:
    """The functions that have series of a family."""
    return {dict(labels)["function"] for name, labels in metrics if name == family}


async def test_invented_functions_add_no_series():
    async with (
        ScriptedJobServer() as server,
        gateway(server.address, arguments=("--require-worker", *UNHURRIED)) as (
            address,
            admin,
            _served,
        ),
    ):
        server.status = {b"resize": (1, 0, 1)}
        named = {"server": f"{server.host}:{server.port}"}
        await becomes(admin, 1, "gearman_jobs", function="resize", **named)
        before = await series(admin)
        async with HttpClient(address) as client:
            for first in range(0, 10_000, 50):
                client.send(*(post(b"/invented-%d" % number) for number in range(first, first + 50)))
                for _ in range(50):
                    assert (await client.response()).status == 503
        # And who has invented them has jobs of them at the job server.
        server.status.update({b"queued-%d" % number: (2, 1, 0) for number in range(10_000)})
        await becomes(admin, 30_000, "gearman_jobs", function="_other", **named)
        assert await admin.metric("gearman_jobs_running", function="_other", **named) == 10_000
        assert await series(admin) == before
        metrics = await admin.metrics()
        answered = {
            labels: count for (family, labels), count in metrics.items() if family == "gatewayx_http_requests_total"
        }
        assert answered == {
            frozenset({("method", "POST"), ("code", "503"), ("function", "_other"), ("outcome", "no-worker")}): 10_000
        }
        assert await admin.metric("gatewayx_http_request_duration_seconds_count", function="_other") == 10_000


async def test_a_hundred_functions_with_workers_have_places_and_no_more():
    async with ScriptedJobServer() as server:
        # The more there are, the longer it takes to read them, and the seldomer they are asked for.
        server.status = {b"first": (0, 0, 1), **{b"w%05d" % number: (0, 0, 1) for number in range(400)}}
        name = {"server": f"{server.host}:{server.port}"}
        async with gateway(server.address, arguments=("--function", "declared", "--function", "w*", *UNHURRIED)) as (
            _,
            admin,
            _served,
        ):
            await becomes(admin, 401 - 99, "gearman_workers", function="_other", **name)
            told = functions_of(await admin.metrics(), "gearman_workers")
            assert len(told) == 100
            assert "first" in told
            counted = functions_of(await admin.metrics(), "gatewayx_http_request_duration_seconds_count")
            assert counted == {*told, "declared"}
            # They keep them, also when others have workers in their place.
            server.status = {b"z%05d" % number: (0, 0, 1) for number in range(200)}
            await becomes(admin, 200, "gearman_workers", function="_other", **name)


async def test_names_that_strangers_choose_are_escaped():
    hostile = [b'a"b', b"a\\b", b"\xff", b"\\xff", b'"} 1', "\u00e4".encode()]
    async with ScriptedJobServer() as server:
        server.status = dict.fromkeys(hostile, (0, 0, 1))
        async with gateway(server.address) as (_, admin, _served):
            escaped = {r"a\"b", r"a\\b", r"\\xff", r"\\x5cxff", r"\"} 1", "\u00e4", "_other"}

            async def are_there() -> bool:
                return functions_of(await admin.metrics(), "gearman_workers") == escaped

            await until(are_there)


async def test_counts_over_all_worker_processes_are_those_of_the_clients(samples, embedded):
    async with gateway(embedded.address) as (address, admin, _served):

        async def ask(count: int) -> None:
            async with HttpClient(address) as client:
                for number in range(count):
                    assert (await client.ask(post(b"/reverse", b"%d" % number))).status == 200

        named = {"function": "reverse"}
        server = f"{embedded.address[0]}:{embedded.address[1]}"

        async def has_place() -> bool:
            return ("gatewayx_job_duration_seconds_count", frozenset(named.items())) in await admin.metrics()

        await until(has_place)
        await asyncio.gather(*(ask(25) for _ in range(40)))
        requests = {"method": "POST", "code": "200", "outcome": "ok", **named}
        await becomes(admin, 1000, "gatewayx_http_requests_total", **requests)
        await becomes(admin, 1000, "gatewayx_jobs_total", result="complete", server=server, **named)
        assert await admin.metric("gatewayx_http_request_duration_seconds_count", **named) == 1000
        assert await admin.metric("gatewayx_job_duration_seconds_bucket", le="+Inf", **named) == 1000
        for place, process_id in enumerate(await admin.workers()):
            os.kill(process_id, signal.SIGKILL)

            async def is_back(place: int = place) -> bool:
                told = (await admin.status())["workers"][place]
                return (told["restarts"], told["state"]) == (1, "ready")

            await until(is_back)
        await ask(10)
        await becomes(admin, 1010, "gatewayx_http_requests_total", **requests)


def test_a_row_goes_on_counting_whoever_has_the_place():
    [row] = Places(1).rows
    row.servers.tell([(7, 2, 0), (8, 1, 3)])
    row.servers.tell([(7, 1, 1), (7, 1, 0)])
    assert dict(row.servers.read()) == {7: ServerConnections(2, 1), 8: ServerConnections(0, 3)}
    # The next process at the place knows nothing of what was told.
    [again] = [type(row)(row._memory, 0)]
    again.servers.tell([])
    assert dict(row.servers.read()) == {7: ServerConnections(0, 1), 8: ServerConnections(0, 3)}


def test_addresses_that_come_and_go_without_end_have_room():
    [row] = Places(1).rows
    for number in range(1, 10 * SLOTS):
        row.servers.tell([(number, 1, 1), (1_000_000, 2, 1)])
    told = dict(row.servers.read())
    assert len(told) == SLOTS
    assert told[10 * SLOTS - 1] == ServerConnections(1, 1)
    assert told[1_000_000] == ServerConnections(2, 10 * SLOTS - 1)


async def test_a_job_server_that_is_an_address_of_two_entries_is_told_of_once():
    async with ScriptedJobServer() as server:
        name = {"server": f"{server.host}:{server.port}"}
        twice = ("--server", f"each://localhost:{server.port}")
        async with gateway(server.address, arguments=twice) as (_, admin, _served):
            await becomes(admin, 1, "gearman_up", **name)
            # Two worker processes with two connections for each of the entries.
            await all_are_connected(admin, 8)
