"""The master and its worker processes: who dies, who hangs, who comes back, and what clients notice."""

from __future__ import annotations

import asyncio
import datetime
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest

from gatewayx.core.counters import NAMES
from gatewayx.server.places import Places, State, Watch
from support.gateway import ServeProcess, children_of, eventually
from support.gearmand import LIBC, PR_SET_PDEATHSIG, die_with_parent
from support.http import HttpClient, head, post
from support.job_servers import ScriptedJobServer, hand_worker, nobody_listens
from support.ports import free_port
from support.process_state import open_descriptors
from support.times import HANGS_S, PROCESS_S, SOON_S
from support.tls import Authority

pytestmark = pytest.mark.anyio

LISTEN = ("--listen", "127.0.0.1:0")
OPTIONS = head(b"OPTIONS", b"*")
HANGING = pytest.mark.parametrize("arguments", [("--worker-timeout", str(HANGS_S))])
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWPID = 0x20000000
# An exit code that no gateway has.
NOT_PERMITTED = 77


def server_at(address: tuple[str, int]) -> tuple[str, str]:
    """The flag for a job server."""
    return ("--server", f"{address[0]}:{address[1]}")


@pytest.fixture
def arguments() -> tuple[str, ...]:
    """Further flags; a test changes them by parametrizing `arguments`."""
    return ()


@pytest.fixture
async def served(embedded, arguments) -> AsyncIterator[ServeProcess]:
    """Three worker processes in front of the embedded job server."""
    async with ServeProcess(*LISTEN, *server_at(embedded.address), "--workers", "3", *arguments) as served:
        yield served


async def all_answer(address: tuple[str, int], count: int = 60) -> None:
    """So many clients, of which the kernel gives each place some, are answered."""
    clients = [await HttpClient(address).connect() for _ in range(count)]
    for client in clients:
        client.send(OPTIONS)
    for client in clients:
        assert (await client.response()).status == 204
        await client.close()


async def test_there_are_as_many_as_asked_for_and_the_start_line_says_why(served):
    line = await served.until("listens on")
    assert line.endswith("; 3 worker processes: as set\n")
    told = "9 connections to each job server: 2 for jobs and 1 for text from each worker process; 9 in all\n"
    assert [line.endswith(told) for line in served.lines if "connections to each" in line] == [True]
    assert len(served.workers()) == 3


async def test_one_that_is_killed_is_replaced_and_the_log_says_so(served):
    address = await served.address()
    before = served.workers()
    os.kill(before[1], signal.SIGKILL)
    line = await served.until("was ended")
    assert f"worker process 1 (pid {before[1]}) was ended by SIGKILL, perhaps for want of memory" in line
    await eventually(lambda: len(served.workers()) == 3)
    assert set(before) - set(served.workers()) == {before[1]}
    await all_answer(address)
    served.signal(signal.SIGTERM)
    assert await served.ended() == 0


async def test_one_that_crashes_is_replaced_though_nobody_reads_the_log(embedded):
    at_once = "from gatewayx.server import children\nchildren.BACKOFF_FIRST_S = 0.0"
    # The sanitizer's own report would wait for a reader.
    environment = {**os.environ, "ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:handle_segv=0"}
    async with ServeProcess(
        *LISTEN, *server_at(embedded.address), "--workers", "2", before=at_once, environment=environment
    ) as served:
        await served.address()
        # Each leaves a traceback, of which the pipe holds a few dozen.
        for _ in range(60):
            before = served.workers()
            os.kill(before[0], signal.SIGSEGV)
            await eventually(lambda before=before: before[0] not in served.workers())
            await eventually(lambda: len(served.workers()) == 2, PROCESS_S)


async def test_who_waits_at_the_place_of_one_that_was_killed_is_not_reset(served):
    address = await served.address()
    served.signal_workers(signal.SIGSTOP)
    clients = [await HttpClient(address).connect() for _ in range(30)]
    for client in clients:
        client.send(OPTIONS)
    # Their connections are in the kernel's queues, and every process that could take them goes.
    for process_id in served.workers():
        os.kill(process_id, signal.SIGKILL)
    for client in clients:
        assert (await client.response()).status == 204
        await client.close()


async def test_the_clients_of_one_that_stands_still_are_served_by_a_neighbour(served):
    address = await served.address()
    stopped = served.workers()[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        await all_answer(address)
    finally:
        os.kill(stopped, signal.SIGCONT)
    await all_answer(address)
    assert stopped in served.workers()


@HANGING
async def test_one_that_hangs_is_ended_with_its_traceback_and_replaced(served):
    await served.address()
    hangs = served.workers()[2]
    os.kill(hangs, signal.SIGSTOP)
    line = await served.until("has not turned its loop")
    assert f"worker process 2 (pid {hangs})" in line
    await served.until(f"worker process 2 (pid {hangs}) was ended by SIGABRT")
    await served.until("Fatal Python error: Aborted")
    await served.until("worker.py")
    await eventually(lambda: len(served.workers()) == 3 and hangs not in served.workers())


@HANGING
async def test_of_all_that_hang_one_is_ended_at_a_time(served):
    address = await served.address()
    before = served.workers()
    for process_id in before:
        os.kill(process_id, signal.SIGSTOP)
    told = [await served.until("has not turned its loop") for _ in before]
    places = [int(re.search(r"worker process (\d) ", line)[1]) for line in told]
    assert sorted(places) == [0, 1, 2]
    for sooner, later, place in zip(told, told[1:], places, strict=False):
        between = "".join(served.lines[served.lines.index(sooner) : served.lines.index(later)])
        # The one before has ended, and whoever has its place was ready: it has tried the job server.
        assert f"worker process {place} (pid {before[place]}) was ended by SIGABRT" in between
        assert f"worker process {place}: job server" in between.partition("was ended by SIGABRT")[2]
    await eventually(lambda: not set(before) & set(served.workers()) and len(served.workers()) == 3)
    await all_answer(address)


@HANGING
async def test_nobody_is_ended_for_a_pause_of_all(served):
    address = await served.address()
    before = served.all()
    for process_id in before:
        os.kill(process_id, signal.SIGSTOP)
    await asyncio.sleep(HANGS_S + 1)
    for process_id in reversed(before):
        os.kill(process_id, signal.SIGCONT)
    await all_answer(address)
    assert served.all() == before
    served.signal(signal.SIGTERM)
    assert await served.ended() == 0
    assert not [line for line in served.lines if "ERROR" in line]


async def test_when_the_master_is_killed_what_is_in_flight_is_answered_and_nobody_listens_any_more(embedded):
    async with (
        hand_worker(embedded.address, b"f") as worker,
        ServeProcess(*LISTEN, *server_at(embedded.address), "--workers", "2") as served,
    ):
        address = await served.address()
        workers = served.workers()
        async with HttpClient(address) as client:
            client.send(post(b"/f", b"w"))
            handle, _, _, _ = await worker.take()
            served.signal(signal.SIGKILL)
            await served.until("the master is gone")

            async def is_refused() -> bool:
                try:
                    async with HttpClient(address) as late:
                        late.send(OPTIONS)
                        await late.rest()
                        return False
                except ConnectionRefusedError:
                    return True
                except ConnectionResetError:
                    # It came just before the last one closed.
                    return False

            ends_s = time.monotonic() + SOON_S
            while not await is_refused():
                assert time.monotonic() < ends_s
            # The address is free for the next one, though a client of the old one is there still.
            with socket.create_server(address, reuse_port=False):
                pass
            worker.complete(handle, b"result")
            answer = await client.response()
            assert (answer.body, answer.headers[b"connection"]) == (b"result", b"close")
        await eventually(lambda: not any(is_alive(process_id) for process_id in workers))


def is_alive(process_id: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


async def test_an_address_that_is_taken_ends_the_start(embedded):
    with socket.socket() as taken:
        # It would share the address with whoever asks for that.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with ServeProcess(
            "--listen", f"127.0.0.1:{port}", *server_at(embedded.address), "--workers", "2"
        ) as served:
            assert await served.ended() == 1
    assert served.lines == [f"gatewayx: cannot listen on 127.0.0.1:{port}: Address already in use\n"]


async def test_of_two_that_start_at_once_on_an_address_one_listens_and_the_other_says_why():
    port = free_port()
    # Each waits a second for the job server before it listens.
    second_each = {"is_patient": False}
    async with ScriptedJobServer(greets=False) as silent:
        arguments = ("--listen", f"127.0.0.1:{port}", *server_at(silent.address), "--workers", "2")
        async with ServeProcess(*arguments, **second_each) as first, ServeProcess(*arguments, **second_each) as second:
            ended = [asyncio.create_task(each.process.wait()) for each in (first, second)]
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED, timeout=PROCESS_S)
            other, ends = (first, second) if ended[1].done() else (second, first)
            assert await ends.ended() == 1
            assert ends.lines[-1] == f"gatewayx: cannot listen on 127.0.0.1:{port}: Address already in use\n"
            assert await other.address() == ("127.0.0.1", port)
            await all_answer(("127.0.0.1", port), 10)
            other.signal(signal.SIGTERM)
            assert await other.ended() == 0


async def test_a_worker_process_needs_no_files_of_tls_that_were_read_at_the_start(tmp_path):
    authority = Authority(tmp_path)
    async with ServeProcess(
        *LISTEN, "--server", "tls://127.0.0.1:1", "--server-ca", str(authority.file), "--workers", "2"
    ) as served:
        address = await served.address()
        authority.file.write_text("no certificate", encoding="utf-8")
        before = served.workers()
        for victim in before:
            os.kill(victim, signal.SIGKILL)
        await eventually(lambda: len(served.workers()) == 2 and not set(served.workers()) & set(before), PROCESS_S)
        await all_answer(address, 10)
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0


async def test_the_stop_is_told_though_one_stands_still(served):
    await served.address()
    os.kill(served.workers()[0], signal.SIGSTOP)
    served.signal(signal.SIGTERM)
    await served.until("stopping: answering what is in flight")
    os.kill(served.workers()[0], signal.SIGCONT)
    assert await served.ended() == 0


async def test_if_none_can_begin_it_ends_with_the_reason():
    fails = "from gatewayx.server import process, worker\nfrom gatewayx.errors import StartError\n"
    fails += "async def start(self): raise StartError('there is a reason')\nprocess.GatewayProcess.start = start\n"
    async with ServeProcess(*LISTEN, *server_at(nobody_listens()), "--workers", "2", before=fails) as served:
        assert await served.ended() == 1
    assert served.lines[-1] == "gatewayx: there is a reason\n"


async def test_one_that_never_begins_is_tried_ever_more_rarely_while_the_others_serve(embedded):
    fails = "from gatewayx.server import process, worker\nfrom gatewayx.errors import StartError\n"
    fails += "begin = process.GatewayProcess.start\n"
    fails += "async def start(self):\n  if self.place == 1: raise StartError('no')\n  await begin(self)\n"
    fails += "process.GatewayProcess.start = start\n"
    async with ServeProcess(*LISTEN, *server_at(embedded.address), "--workers", "2", before=fails) as served:
        address = await served.address()
        times = [time_of(await served.until("worker process 1")) for _ in range(6)]
        # At least the half of 0.1, 0.2, 0.4, 0.8 s.
        assert (times[-1] - times[0]).total_seconds() > 0.5
        await all_answer(address)
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0


def time_of(line: str) -> datetime.datetime:
    """When a line of the log was written."""
    return datetime.datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")


async def test_terminals_and_units_that_signal_all_of_them_mean_one_stop(embedded):
    async with (
        hand_worker(embedded.address, b"f") as worker,
        ServeProcess(*LISTEN, *server_at(embedded.address), "--workers", "2") as served,
        HttpClient(await served.address()) as client,
    ):
        client.send(post(b"/f", b"w"))
        handle, _, _, _ = await worker.take()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
            served.signal_workers(number)
        served.signal(signal.SIGTERM)
        await served.until("stopping")
        worker.complete(handle, b"result")
        assert (await client.response()).body == b"result"
        assert await served.ended() == 0


async def test_one_that_does_not_end_in_time_is_killed(embedded):
    slow = "from gatewayx.server import master\nmaster.OVERDUE_S = -2.9\n"
    arguments = ("--workers", "2", "--drain-timeout", "0")
    async with ServeProcess(*LISTEN, *server_at(embedded.address), *arguments, before=slow) as served:
        await served.address()
        os.kill(served.workers()[0], signal.SIGSTOP)
        served.signal(signal.SIGTERM)
        await served.until("worker processes that have not ended in time are killed")
        assert await served.ended() == 1


# So many forks succeed, further ones do not.
FORKS_FAIL = """
import errno, os
forks, may_fork = os.fork, [{succeed}]
def fork():
    may_fork[0] -= 1
    if may_fork[0] < 0:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return forks()
os.fork = fork
"""


async def test_a_start_without_any_process_ends_with_the_reason(embedded):
    arguments = (*LISTEN, *server_at(embedded.address), "--workers", "2")
    async with ServeProcess(*arguments, before=FORKS_FAIL.format(succeed=0)) as served:
        assert await served.ended() == 1
    assert served.lines[-1] == ("gatewayx: a worker process cannot be started: Resource temporarily unavailable\n")


async def test_a_start_in_which_all_crash_says_who_and_shows_where(embedded):
    crashes = "import os\nfrom gatewayx.server import worker\nworker.GatewayProcess = lambda *a, **k: os.abort()\n"
    async with ServeProcess(*LISTEN, *server_at(embedded.address), "--workers", "1", before=crashes) as served:
        assert await served.ended() == 1
    assert served.lines[-1] == "gatewayx: worker process 0 was ended by SIGABRT\n"
    assert any("Fatal Python error: Aborted" in line for line in served.lines)


async def test_a_process_that_cannot_be_started_leaves_no_descriptor(embedded):
    before = FORKS_FAIL.format(succeed=2) + "from gatewayx.server import children\nchildren.BACKOFF_MAX_S = 0.01\n"
    async with ServeProcess(*LISTEN, *server_at(embedded.address), "--workers", "2", before=before) as served:
        address = await served.address()
        descriptors = open_descriptors(served.process.pid)
        os.kill(served.workers()[0], signal.SIGKILL)
        for _ in range(8):
            await served.until("worker process 0 cannot be started: Resource temporarily unavailable")
        # The one that is gone had two.
        await eventually(lambda: open_descriptors(served.process.pid) == descriptors - 2)
        await all_answer(address)


async def test_a_process_has_no_descriptors_of_the_others(embedded):
    async with ServeProcess(*LISTEN, *server_at(embedded.address), "--workers", "4") as served:
        await served.address()
        await eventually(lambda: len({open_descriptors(process_id) for process_id in served.workers()}) == 1)


def few_open_files() -> None:
    """In the child: be allowed to raise the limit."""
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))


async def test_room_is_made_for_the_files_of_many_processes(embedded):
    arguments = (*LISTEN, *LISTEN, *server_at(embedded.address), "--workers", "32", "--max-connections", "1")
    async with ServeProcess(*arguments, "--max-relayed", "10", preexec=few_open_files) as served:
        await served.address()
        [limit] = {resource.prlimit(each, resource.RLIMIT_NOFILE)[0] for each in served.all()}
        assert limit == 1 + 256 + 4 + 32 * 2 * 3 + 32 * (1 + 2 * 10 + 64) + 64


# A child of a child, whose parent ends first.
LEAVES_AN_ORPHAN = """
import os, signal
if os.fork() == 0:
    if os.fork() == 0:
        signal.pause()
    os._exit(0)
os.wait()
"""
# The process goes on as the first one of a namespace, and ends as that does.
IN_A_NAMESPACE = f"""
import ctypes, os, signal
libc = ctypes.CDLL(None)
if libc.unshare({CLONE_NEWPID}) != 0:
    os._exit({NOT_PERMITTED})
first = os.fork()
if first != 0:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]))
libc.prctl({PR_SET_PDEATHSIG}, signal.SIGKILL)
assert os.getpid() == 1
"""


def as_subreaper() -> None:
    """In the child: be given the orphans below it, as the first process of a container is."""
    die_with_parent()
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)


def kinds_of_reapers() -> list[str]:
    """Namespaces are for root, or for whom else the machine lets make them."""
    tried = subprocess.run([sys.executable, "-c", IN_A_NAMESPACE], check=False)
    return ["subreaper"] if tried.returncode == NOT_PERMITTED else ["subreaper", "first process"]


@pytest.mark.parametrize("kind", kinds_of_reapers())
async def test_orphans_that_are_left_to_the_master_are_reaped(kind, embedded):
    before = (IN_A_NAMESPACE if kind == "first process" else "") + LEAVES_AN_ORPHAN
    arguments = (*LISTEN, *server_at(embedded.address), "--workers", "2")
    async with ServeProcess(*arguments, before=before, preexec=as_subreaper) as served:
        address = await served.address()
        master = served.process.pid if kind == "subreaper" else children_of(served.process.pid)[0]
        orphan, *workers = children_of(master)
        assert len(workers) == 2
        os.kill(orphan, signal.SIGKILL)
        await eventually(lambda: children_of(master) == workers)
        os.kill(workers[0], signal.SIGKILL)
        await served.until("was ended by SIGKILL")
        await eventually(lambda: len(children_of(master)) == 2)
        async with HttpClient(address) as client:
            assert (await client.ask(OPTIONS)).status == 204
        os.kill(master, signal.SIGTERM)
        assert await served.ended() == 0
    assert sum("ERROR" in line for line in served.lines) == 1


class TestWatch:
    def test_a_place_is_still_since_its_last_beat(self):
        places = Places(2)
        watch = Watch(places, 0.5, 100.0)
        for step in range(1, 11):
            places[0].beat(99.95 + step / 10)
            watch.look(100.0 + step / 10)
        assert watch.still_s(0) == pytest.approx(0.05)
        assert watch.still_s(1) == pytest.approx(1.0)

    def test_after_a_pause_of_the_looker_counting_begins_anew(self):
        places = Places(1)
        watch = Watch(places, 0.5, 100.0)
        places[0].beat(100.0)
        watch.look(100.4)
        watch.look(160.0)
        assert watch.still_s(0) == 0.0
        watch.look(160.3)
        assert watch.still_s(0) == pytest.approx(0.3)
        places[0].beat(160.2)
        assert watch.still_s(0) == pytest.approx(0.1)

    def test_a_beat_after_the_look_is_no_time_to_come(self):
        places = Places(1)
        watch = Watch(places, 0.5, 100.0)
        places[0].beat(100.2)
        watch.look(100.1)
        assert watch.still_s(0) == 0.0

    def test_rows_are_apart_and_begin_with_nothing(self):
        places = Places(3)
        places[1].state = State.SERVING
        places[1].listens = True
        assert [(place.state, place.listens, place.beat_s) for place in places.rows] == [
            (State.EMPTY, False, 0),
            (State.SERVING, True, 0),
            (State.EMPTY, False, 0),
        ]
        assert not any(places[number].counters().read()[name] for number in range(3) for name in NAMES)
