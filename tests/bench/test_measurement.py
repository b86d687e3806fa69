"""Whole measurements, with the processes that make the load, against servers of the test and the gateway."""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import pytest

from gatewayx.bench import result
from gatewayx.bench.errors import RunError
from gatewayx.bench.measurement import Measurement, Progress
from gatewayx.bench.plan import FloodSettings, LoadSettings, Target
from gatewayx.bench.result import Run
from gatewayx.embedded.job_server import JobServer
from support.bench_runs import phases_of
from support.gateway import ServeProcess, eventually
from support.gearmand import die_with_parent
from support.scripted_server import Request, ok, scripted_server
from support.times import PROCESS_S, WAIT_S
from support.tools import without_sanitizer

pytestmark = pytest.mark.anyio

MEBIBYTE = 1024 * 1024


def target_at(address: tuple[str, int], path: str = "/") -> Target:
    """The URL of a server of this machine."""
    return Target.parse(f"http://{address[0]}:{address[1]}{path}", allow_remote=False)


def check(run: Run) -> None:
    """What holds of every result."""
    without_an_answer = ("connect", "reset", "timeout", "not_sent")
    answers = sum(run.statuses.values())
    assert answers <= run.requests
    assert run.requests <= answers + sum(run.errors.get(kind, 0) for kind in (*without_an_answer, "bad_response"))
    assert run.requests >= answers + sum(run.errors.get(kind, 0) for kind in without_an_answer)
    ends_s = [point.at_s for point in run.timeline]
    assert ends_s == sorted(ends_s)
    assert sum(point.requests for point in run.timeline) <= run.requests
    assert result.decode(result.encode(run), "it") == [run]


async def echo(request: Request) -> bytes:
    """The request's body."""
    return ok(request.body)


async def test_counts_of_all_processes_add_up():
    async with scripted_server(echo) as server:
        load = LoadSettings(
            connections=5, processes=2, duration_s=1.0, body=b"x" * 20, unique_bodies=True, check="echo"
        )
        shown: list[Progress] = []
        run = await Measurement("two", target_at(server.address), load, progress=shown.append).run()
    check(run)
    assert run.name == "two"
    assert run.errors == {}
    assert run.statuses == {"200": run.requests}
    assert run.requests == len(server.requests) == len({request.body for request in server.requests})
    assert server.highest_open == 5
    assert run.seconds == 1.0
    # The last one of each connection may be answered after the end.
    assert run.requests - 5 <= round(run.rps * run.seconds) <= run.requests
    assert run.rate_reached is None
    assert run.bytes.sent == sum(len(request.head) + len(request.body) for request in server.requests)
    assert run.bytes.received == run.requests * len(ok(b"x" * 20))
    assert run.generator.processes == 2
    assert 0 < run.generator.cpu_share <= 1.1
    assert run.server is None
    assert run.flood is None
    assert run.settings["processes"] == 2
    assert run.settings["ended_early"] is False
    # The timeline is the whole, and what was shown.
    ends_s = [point.at_s for point in run.timeline]
    assert len(ends_s) == 4
    assert all(ended_s >= due_s for ended_s, due_s in zip(ends_s, (0.25, 0.5, 0.75, 1.0), strict=True))
    assert ends_s[-1] == 1.0
    assert sum(point.seconds for point in run.timeline) == pytest.approx(1.0, abs=0.01)
    assert sum(point.requests for point in run.timeline) == pytest.approx(run.requests, abs=5)
    assert [progress.point for progress in shown] == run.timeline
    assert {point.phase for point in run.timeline} == {"load"}
    assert sum(count for _, count in run.histogram) == run.requests
    assert run.latency_s == run.latency_uncorrected_s
    assert 0 < run.latency_s.p50 <= run.latency_s.p99 <= run.latency_s.max


async def test_errors_of_every_kind_add_up():
    async def anything(request: Request) -> bytes | None:
        match request.number % 10:
            case 0:
                request.reset()
                return None
            case 1:
                return b"garbage\r\n\r\n"
            case 2:
                return ok(status=503)
            case 3:
                return ok(b"wrong", b"Connection: close")
        return ok(request.body)

    async with scripted_server(anything) as server:
        load = LoadSettings(connections=4, processes=2, duration_s=1.0, body=b"hello!", check="echo")
        run = await Measurement("errors", target_at(server.address), load).run()
    check(run)
    assert run.errors.keys() == {"reset", "bad_response", "status"}
    assert run.requests == len(server.requests)
    assert run.errors["status"] == run.statuses["503"]
    assert run.errors["bad_response"] > run.errors["reset"] > 0
    # Each request once, also those that ended in garbage.
    assert sum(point.requests for point in run.timeline) == pytest.approx(run.requests, abs=4)
    assert sum(point.errors for point in run.timeline) == pytest.approx(run.error_count, abs=4)


async def test_rate_is_that_of_all_processes_together():
    load = LoadSettings(connections=8, processes=2, duration_s=0.5, rate=100)
    run = None
    # A machine that stands still at the end of the time keeps the last ones from it.
    while run is None or "not_sent" in run.errors:
        async with scripted_server(echo) as server:
            run = await Measurement("open", target_at(server.address), load).run()
    check(run)
    assert run.requests == len(server.requests) == 50
    # All but what a busy machine holds up, of which the generator tells: of each process perhaps one more.
    assert 100 * (1 - run.generator.late_max_s / 0.5) - 2 / 0.5 <= run.rate_reached <= 100
    assert run.errors == {}
    assert run.latency_uncorrected_s is not None


async def test_what_was_never_sent_is_told():
    async def never(request: Request) -> None:
        await asyncio.sleep(60)

    async with scripted_server(never) as server:
        load = LoadSettings(connections=2, processes=2, duration_s=0.5, rate=40, timeout_s=0.2)
        run = await Measurement("stuck", target_at(server.address), load).run()
    check(run)
    assert run.requests == 20
    assert "not_sent" in run.errors
    assert run.errors.keys() <= {"timeout", "not_sent"}
    assert sum(run.errors.values()) == 20
    assert run.rps == 0
    assert sum(count for _, count in run.histogram) == 20
    assert run.latency_s.p50 >= 0.2


async def test_stop_gives_a_result_of_the_time_until_then():
    async def paced(request: Request) -> bytes:
        await asyncio.sleep(0.01)
        return ok()

    async with scripted_server(paced) as server:
        load = LoadSettings(connections=2, processes=2, duration_s=60.0)
        measurement = Measurement("stopped", target_at(server.address), load)
        began_s = time.monotonic()
        running = asyncio.create_task(measurement.run())
        await eventually(lambda: len(server.requests) > 60, PROCESS_S)
        measurement.stop()
        stopped_s = time.monotonic() - began_s
        run = await asyncio.wait_for(running, PROCESS_S)
    check(run)
    assert run.settings["ended_early"] is True
    assert run.requests == len(server.requests)
    assert 0.25 < run.seconds <= stopped_s
    # Of that time, not of whole intervals; the last one of each connection may be answered after it.
    assert run.requests - 2 <= round(run.rps * run.seconds) <= run.requests


async def test_stop_before_it_begins_is_an_error():
    async with scripted_server(echo) as server:
        measurement = Measurement("stopped", target_at(server.address), LoadSettings(connections=1, duration_s=60.0))
        running = asyncio.create_task(measurement.run())
        await asyncio.sleep(0)
        measurement.stop()
        with pytest.raises(RunError, match="stopped before anything was measured"):
            await asyncio.wait_for(running, PROCESS_S)
        assert server.requests == []


async def test_nobody_listens():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = target_at(unused.getsockname())
        measurement = Measurement("nobody", target, LoadSettings(connections=2, processes=2, duration_s=60.0))
        with pytest.raises(RunError, match=rf"cannot connect to {target.host} \(.*\): Connection refused"):
            await asyncio.wait_for(measurement.run(), PROCESS_S)


async def test_plan_that_cannot_be_followed_is_an_error():
    async with scripted_server(echo) as server:
        load = LoadSettings(connections=1, duration_s=60.0, body=b"short", unique_bodies=True)
        with pytest.raises(RunError, match="the load generator cannot run: unique bodies need 8 bytes, not 5"):
            await asyncio.wait_for(Measurement("bad", target_at(server.address), load).run(), PROCESS_S)


async def test_process_that_does_not_exist_is_an_error():
    with pytest.raises(RunError, match="there is no process"):
        Measurement("gone", target_at(("127.0.0.1", 1)), LoadSettings(), pid=2**22 + 1)


# Holds a mebibyte more for every 10 requests, 20 at most, and computes for each; so long that several samples see it.
GROWING_SERVER = f"""
import asyncio
import time

held, requests = [], 0

async def serve(reader, writer):
    global requests
    while True:
        await reader.readuntil(b"\\r\\n\\r\\n")
        requests += 1
        if requests % 10 == 0 and len(held) < 20:
            held.append(b"x" * {MEBIBYTE})
            until_s = time.process_time() + 0.05
            while time.process_time() < until_s:
                pass
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_memory_and_processor_time_of_the_server_are_sampled():
    began_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        GROWING_SERVER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        preexec_fn=die_with_parent,
        env=without_sanitizer(),
    )
    try:
        port = int(await asyncio.wait_for(process.stdout.readline(), PROCESS_S))
        load = LoadSettings(connections=4, duration_s=60.0)
        measurement = Measurement("grows", target_at(("127.0.0.1", port)), load, pid=process.pid)
        running = asyncio.create_task(measurement.run())
        await eventually(lambda: sum(point.requests for point in measurement.points) > 200, PROCESS_S)
        # An interval that is told of before the sample at its end, on a busy machine, is without it.
        worked = len(measurement.points)
        await eventually(
            lambda: any(point.server_cpu_share is not None for point in measurement.points[worked:]), PROCESS_S
        )
        measurement.stop()
        run = await asyncio.wait_for(running, PROCESS_S)
    finally:
        process.kill()
        await process.wait()
    check(run)
    assert run.server.pid == process.pid
    assert run.server.processes == 1
    # Some of it was before the first sample, should that be late.
    assert 0.5 < run.server.cpu_s <= 1.1 * (time.monotonic() - began_s)
    assert run.server.memory_growth_bytes == pytest.approx(20 * MEBIBYTE, abs=3 * MEBIBYTE)
    assert run.server.memory_peak_bytes >= run.server.memory_end_bytes > run.server.memory_start_bytes
    assert run.server.memory_slope_bytes_per_s > 0
    sampled = [point for point in run.timeline if point.server_cpu_share is not None]
    assert all(point.server_memory_bytes > 0 for point in sampled)
    cpu_s = [point.server_cpu_share * measurement.interval_s for point in sampled]
    assert min(cpu_s) >= 0
    assert 0 < sum(cpu_s) <= run.server.cpu_s + 0.01


async def test_flood_has_before_during_and_after(embedded: JobServer):
    server = f"{embedded.address[0]}:{embedded.address[1]}"
    async with ServeProcess("--listen", "127.0.0.1:0", "--server", server) as gateway:
        address = await gateway.address()
        measurement = Measurement(
            "flood",
            target_at(address, "/healthz"),
            LoadSettings(connections=2, method="OPTIONS", rate=50),
            flood=FloodSettings(kind="bad-line", connections=8, rate=100, duration_s=4.0, calm_s=1.0),
            pid=gateway.process.pid,
        )
        run = await measurement.run()
    check(run)
    assert run.seconds == measurement.duration_s == 6.0
    assert phases_of(run)
    flood = run.flood
    assert [phase.seconds for phase in (flood.before, flood.during, flood.after)] == [1.0, 4.0, 1.0]
    assert flood.seconds == pytest.approx(4.0, abs=0.05)
    # At most one more than are due by the end; fewer when a busy machine holds up the last ones.
    assert 8 < flood.opened <= 100 * flood.seconds + 1
    assert flood.rate_reached == pytest.approx(flood.opened / flood.seconds)
    assert flood.statuses.keys() == {"400"}
    assert flood.opened - 8 <= flood.statuses["400"] <= flood.opened
    assert flood.highest_open <= 8
    assert flood.failed == flood.resets == flood.closed_silently == 0
    for phase in (flood.before, flood.during, flood.after):
        assert phase.requests > 0
        assert phase.p50_s <= phase.p99_s
    # A machine that stands still at the end of the time keeps the last ones from it.
    assert run.errors.keys() <= {"not_sent"}
    assert [flood.before.errors, flood.during.errors, flood.after.errors] == [0, 0, run.error_count]
    requests = sum(phase.requests for phase in (flood.before, flood.during, flood.after))
    assert requests == run.requests
    sent = run.requests - run.error_count
    assert sum(point.requests for point in run.timeline) == pytest.approx(sent, abs=4)
    assert run.server.pid == gateway.process.pid
    assert run.server.cpu_s > 0
    assert run.server.memory_peak_bytes > 5 * MEBIBYTE


async def test_stop_within_a_flood_gives_a_result(embedded: JobServer):
    async with scripted_server(echo) as server:
        measurement = Measurement(
            "flood",
            target_at(server.address),
            LoadSettings(connections=1),
            flood=FloodSettings(kind="connect", connections=2, rate=50, duration_s=60.0, calm_s=0.3),
        )
        began_s = time.monotonic()
        running = asyncio.create_task(measurement.run())
        await eventually(lambda: "127.0.0.5" in server.sources, PROCESS_S)
        measurement.stop()
        run = await asyncio.wait_for(running, PROCESS_S)
    check(run)
    assert run.flood.opened >= 4
    assert run.flood.seconds < time.monotonic() - began_s


async def test_stop_before_the_flood_gives_a_result():
    async with scripted_server(echo) as server:
        measurement = Measurement(
            "flood",
            target_at(server.address),
            LoadSettings(connections=1),
            flood=FloodSettings(kind="connect", connections=2, duration_s=60.0, calm_s=30.0),
        )
        running = asyncio.create_task(measurement.run())
        await eventually(lambda: len(server.requests) > 10, PROCESS_S)
        measurement.stop()
        run = await asyncio.wait_for(running, PROCESS_S)
    check(run)
    assert run.flood.during.requests == 0
    assert run.flood.opened <= 2


async def test_good_requests_that_hang_in_a_flood_count_in_it_and_not_after_it():
    """A server that stalls from the middle of the flood on: what was due then is slow or failed then."""
    stalled = asyncio.Event()

    async def stalls(request: Request) -> bytes:
        if stalled.is_set():
            await asyncio.sleep(WAIT_S)
        return ok(b"")

    async with scripted_server(stalls) as server:
        load = LoadSettings(connections=4, timeout_s=4.0, rate=50)
        flood = FloodSettings("connect", 2, 20, 3.0, 0.5)
        measurement = Measurement("stalls", target_at(server.address), load, flood=flood)
        running = asyncio.ensure_future(measurement.run())
        await eventually(lambda: len(measurement.points) >= 4, PROCESS_S)
        stalled.set()
        run = await running
    assert run.flood is not None
    assert run.flood.before.errors == 0
    assert run.flood.during.errors > 20
    assert run.flood.during.p99_s >= 0.4
    told = (run.flood.before, run.flood.during, run.flood.after)
    assert sum(good.requests for good in told) == run.requests
