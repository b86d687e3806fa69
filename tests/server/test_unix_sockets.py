"""Unix sockets that `serve` listens on: their files, who may connect, and clients that have no address."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayx.address import Address, UnixAddress
from gatewayx.config.kinds import SocketOwner
from gatewayx.embedded.job_server import JobServer
from gatewayx.errors import StartError
from gatewayx.server.unix_sockets import LOCK_SUFFIX, UnixSocket, bind_unix_socket, owner_numbers
from support.gateway import ServeProcess, eventually, running_gateway
from support.http import HttpClient, ask, get, head, post
from support.job_servers import hand_worker
from support.process_state import open_descriptors

TCP = ("--listen", "127.0.0.1:0")
OPTIONS = head(b"OPTIONS", b"*")
KIBIBYTE = 1024
NOBODY = 65534


@pytest.fixture
def path() -> Iterator[Path]:
    """Where the gateway shall listen: short enough for a unix socket, which the folder of a test need not be."""
    with tempfile.TemporaryDirectory(prefix="gx", dir="/tmp") as folder:
        yield Path(folder, "http.sock")


def unix(path: Path) -> tuple[str, str]:
    """The flag for a unix socket."""
    return ("--listen", f"unix:{path}")


def server_at(embedded: JobServer) -> tuple[str, str]:
    """The flag for the job server."""
    return ("--server", f"{embedded.address[0]}:{embedded.address[1]}")


def files_in(path: Path) -> list[str]:
    """What is in the folder of a socket."""
    return sorted(found.name for found in path.parent.iterdir())


def left_behind(path: Path) -> None:
    """A socket on which nobody listens any more."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        bound.listen()


@contextlib.contextmanager
def bound_at(path: Path, mode: int = 0o666, owner: tuple[int, int] | None = None) -> Iterator[UnixSocket]:
    """A socket of the gateway."""
    made = bind_unix_socket(UnixAddress(str(path)), mode, owner)
    try:
        yield made
    finally:
        made.remove()
        made.socket.close()


def refusal(path: Path) -> str:
    """Why nobody can listen there."""
    with pytest.raises(StartError) as caught:
        bind_unix_socket(UnixAddress(str(path)), 0o666, None)
    return str(caught.value).removeprefix(f"cannot listen on unix:{path}: ")


class TestFile:
    @pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777, 0o000])
    @pytest.mark.parametrize("umask", [0, 0o077])
    def test_has_its_mode_whatever_the_umask(self, path, mode, umask):
        before = os.umask(umask)
        try:
            with bound_at(path, mode):
                found = path.lstat()
                assert stat.S_ISSOCK(found.st_mode)
                assert stat.S_IMODE(found.st_mode) == mode
        finally:
            os.umask(before)

    def test_has_its_owner(self, path):
        owner = (12345, 54321) if os.getuid() == 0 else (os.getuid(), os.getgid())
        with bound_at(path, 0o640, owner):
            found = path.lstat()
            assert (found.st_uid, found.st_gid) == owner
            assert stat.S_IMODE(found.st_mode) == 0o640

    def test_is_not_made_when_its_owner_may_not_be_set(self, path):
        user = os.geteuid()
        if user == 0:
            path.parent.chmod(0o777)
            os.seteuid(NOBODY)
        try:
            with pytest.raises(StartError) as caught:
                bind_unix_socket(UnixAddress(str(path)), 0o666, (0, 0))
        finally:
            os.seteuid(user)
        assert str(caught.value) == (f"cannot listen on unix:{path}: its owner cannot be set: Operation not permitted")
        assert files_in(path) == []

    def test_lets_nobody_in_before_it_listens(self, path):
        with bound_at(path) as made, socket.socket(socket.AF_UNIX) as client:
            with pytest.raises(ConnectionRefusedError):
                client.connect(str(path))
            made.socket.listen()
            client.connect(str(path))

    def test_is_gone_after_its_removal_and_so_is_the_lock(self, path):
        with bound_at(path):
            assert files_in(path) == ["http.sock", f"http.sock{LOCK_SUFFIX}"]
        assert files_in(path) == []

    def test_is_not_removed_when_it_is_another_s_by_now(self, path):
        with bound_at(path):
            path.unlink()
            left_behind(path)
            number = path.lstat().st_ino
        assert files_in(path) == ["http.sock"]
        assert path.lstat().st_ino == number

    def test_is_not_removed_by_a_process_that_leaves_it_to_another(self, path):
        made = bind_unix_socket(UnixAddress(str(path)), 0o666, None)
        made.leave()
        made.remove()
        made.socket.close()
        assert path.is_socket()

    def test_may_vanish_before_the_end(self, path):
        with bound_at(path):
            path.unlink()
        assert files_in(path) == []


class TestWhatIsThere:
    def test_a_socket_on_which_nobody_listens_is_replaced(self, path):
        left_behind(path)
        with bound_at(path) as made:
            made.socket.listen()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
        assert files_in(path) == []

    def test_a_socket_of_datagrams_that_nobody_has_any_more_is_replaced(self, path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
            bound.bind(str(path))
        with bound_at(path):
            assert path.is_socket()

    @pytest.mark.parametrize("queued", [0, 10])
    def test_a_socket_on_which_somebody_listens_is_taken(self, path, queued):
        with socket.socket(socket.AF_UNIX) as other, contextlib.ExitStack() as stack:
            other.bind(str(path))
            other.listen(0)
            for _ in range(queued):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    client.connect(str(path))
            assert refusal(path) == "Address already in use"
            assert files_in(path) == ["http.sock"]

    def test_a_socket_of_datagrams_that_somebody_has_is_taken(self, path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(path))
            assert refusal(path) == "Address already in use"
            assert path.is_socket()

    def test_a_socket_of_a_gateway_that_does_not_listen_yet_is_taken(self, path):
        with bound_at(path) as made:
            number = path.lstat().st_ino
            assert refusal(path) == "Address already in use, by another gateway"
            assert path.lstat().st_ino == number
            # The same file by another name.
            (path.parent / "folder").symlink_to(path.parent)
            assert refusal(path.parent / "folder" / path.name) == "Address already in use, by another gateway"
            (path.parent / "folder").unlink()
            made.socket.listen()

    @pytest.mark.parametrize("kind", ["file", "folder", "fifo", "link", "link-to-a-socket", "link-to-nothing"])
    def test_what_is_no_socket_stays_and_stops_the_start(self, path, kind):
        other = path.parent / "other"
        if kind == "file":
            path.write_bytes(b"precious")
        elif kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "link":
            other.write_bytes(b"precious")
        elif kind == "link-to-a-socket":
            left_behind(other)
        if kind.startswith("link"):
            path.symlink_to(other)
        before = files_in(path)
        assert refusal(path) == "there is a file that is no socket"
        assert files_in(path) == before

    def test_a_lock_that_is_no_file_of_ours_stops_the_start(self, path):
        lock = path.with_name(path.name + LOCK_SUFFIX)
        precious = path.parent / "precious"
        precious.write_bytes(b"precious")
        lock.symlink_to(precious)
        assert refusal(path).startswith(".lock beside it: ")
        assert precious.read_bytes() == b"precious"
        assert not path.exists()

    def test_a_lock_that_its_owner_removes_just_then_is_made_anew(self, path, monkeypatch):
        calls = []

        def lock_after_its_removal(descriptor: int, operation: int) -> None:
            calls.append(operation)
            if len(calls) == 1:
                path.with_name(path.name + LOCK_SUFFIX).unlink()
            flock(descriptor, operation)

        flock = fcntl.flock
        monkeypatch.setattr(fcntl, "flock", lock_after_its_removal)
        with bound_at(path):
            assert files_in(path) == ["http.sock", f"http.sock{LOCK_SUFFIX}"]
            assert refusal(path) == "Address already in use, by another gateway"

    def test_a_folder_that_is_not_there_stops_the_start(self, path):
        assert refusal(path.parent / "none" / "http.sock").endswith("No such file or directory")

    def test_of_gateways_that_come_and_go_at_once_one_has_it_at_a_time(self, path):
        # Whoever has the socket makes a file that must not be there, and then leaves its socket behind, or removes it.
        program = """
import os, sys
from gatewayx.address import UnixAddress
from gatewayx.errors import StartError
from gatewayx.server.unix_sockets import bind_unix_socket
path, had = sys.argv[1], 0
while had < 200:
    try:
        made = bind_unix_socket(UnixAddress(path), 0o666, None)
    except StartError:
        continue
    had += 1
    os.close(os.open(path + ".had", os.O_CREAT | os.O_EXCL))
    os.unlink(path + ".had")
    if had % 2:
        made.remove()
    else:
        made.leave()
    made.socket.close()
"""
        processes = [subprocess.Popen([sys.executable, "-c", program, str(path)]) for _ in range(3)]
        try:
            assert [process.wait(timeout=240) for process in processes] == [0, 0, 0]
        finally:
            for process in processes:
                process.kill()
                process.wait()


class TestOwner:
    @pytest.mark.parametrize(
        ("owner", "numbers"),
        [
            (None, None),
            (SocketOwner("root", ""), (0, -1)),
            (SocketOwner("", "root"), (-1, 0)),
            (SocketOwner("root", "12"), (0, 12)),
            (SocketOwner("4294967294", "0"), (4294967294, 0)),
        ],
    )
    def test_names_and_numbers_are_looked_up(self, owner, numbers):
        assert owner_numbers(owner) == numbers

    @pytest.mark.parametrize("name", ["no-such-one", "4294967295", "-1", "0x0", "1" * 200, "\u0661"])
    def test_what_is_unknown_is_told(self, name):
        with pytest.raises(StartError, match=re.escape(f"socket-owner: there is no user {name!a}")):
            owner_numbers(SocketOwner(name, ""))
        with pytest.raises(StartError, match=re.escape(f"socket-owner: there is no group {name!a}")):
            owner_numbers(SocketOwner("root", name))


@pytest.mark.anyio
class TestServe:
    async def test_clients_of_both_kinds_are_served_and_the_start_line_shows_both(self, embedded, samples, path):
        second = path.with_name("second.sock")
        arguments = (*unix(path), *TCP, *unix(second), "--socket-mode", "0640", *server_at(embedded))
        async with ServeProcess(*arguments) as served:
            line = await served.until("listens on")
            shown = re.search(r"listens on unix:(\S+), http://127\.0\.0\.1:([0-9]+), unix:(\S+); ", line)
            assert shown
            assert (shown[1], shown[3]) == (str(path), str(second))
            assert stat.S_IMODE(path.lstat().st_mode) == stat.S_IMODE(second.lstat().st_mode) == 0o640
            for address in (str(path), ("127.0.0.1", int(shown[2])), str(second)):
                async with HttpClient(address) as client:
                    assert (await client.ask(post(b"/reverse", b"abc"))).body == b"cba"
                    client.send(get(b"/echo?1"), get(b"/echo?2"))
                    assert [(await client.response()).body for _ in range(2)] == [b"1", b"2"]
                    body = bytes(range(256)) * 8192
                    assert (await client.ask(post(b"/echo", body))).body == body
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0
        assert files_in(path) == []

    async def test_who_waits_to_be_accepted_in_a_stop_is_served_and_the_name_is_free_at_once(self, embedded, path):
        async with (
            hand_worker(embedded.address, b"f") as worker,
            # The job takes as long as the start of the second one.
            ServeProcess(
                *(*unix(path), *server_at(embedded)), "--drain-timeout", "600", "--job-timeout", "600"
            ) as served,
        ):
            await served.until("listens on")
            async with HttpClient(str(path)) as busy:
                busy.send(post(b"/f"))
                handle, _, _, _ = await worker.take()
                served.signal(signal.SIGSTOP)
                async with HttpClient(str(path)) as late:
                    late.send(OPTIONS)
                    served.signal(signal.SIGTERM)
                    served.signal(signal.SIGCONT)
                    assert (await late.response()).status == 204
                    assert await late.rest() == b""
                assert files_in(path) == []
                # The first is still at its last answer.
                async with ServeProcess(*unix(path), *server_at(embedded)) as second:
                    await second.until("listens on")
                    worker.complete(handle, b"result")
                    assert (await busy.response()).body == b"result"
                    assert await served.ended() == 0
                    assert (await ask(str(path), OPTIONS)).status == 204

    async def test_nothing_is_left_when_a_second_signal_ends_it_before_the_drain(self, embedded, path):
        async with ServeProcess(*unix(path), "--shutdown-delay", "3600", *server_at(embedded)) as served:
            await served.until("listens on")
            served.signal(signal.SIGTERM)
            await served.until("stopping in 3600 s")
            served.signal(signal.SIGTERM)
            assert await served.ended() == 1
        assert files_in(path) == []

    async def test_what_a_killed_gateway_leaves_is_replaced(self, embedded, path):
        async with ServeProcess(*unix(path), *server_at(embedded)) as served:
            await served.until("listens on")
            served.signal(signal.SIGKILL)
            await served.ended()
        assert path.is_socket()
        async with ServeProcess(*unix(path), *server_at(embedded)) as served:
            await served.until("listens on")
            assert (await ask(str(path), OPTIONS)).status == 204

    async def test_of_several_that_start_at_once_one_serves_and_the_others_say_why_not(self, embedded, path):
        left_behind(path)
        async with contextlib.AsyncExitStack() as stack:
            several = [
                await stack.enter_async_context(ServeProcess(*unix(path), *server_at(embedded))) for _ in range(3)
            ]
            ends = [asyncio.create_task(served.ended()) for served in several]
            await eventually(lambda: sum(end.done() for end in ends) == 2, within_s=90)
            for served, end in zip(several, ends, strict=True):
                if end.done():
                    assert end.result() == 1
                    assert f"cannot listen on unix:{path}: Address already in use" in served.lines[-1]
                else:
                    await eventually(lambda served=served: "listens on" in "".join(served.lines), within_s=90)
                    assert (await ask(str(path), OPTIONS)).status == 204
                    served.signal(signal.SIGTERM)
            assert sorted(await asyncio.gather(*ends)) == [0, 1, 1]
        assert files_in(path) == []

    async def test_a_start_that_fails_leaves_nothing_behind(self, embedded, path):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            arguments = (*unix(path), "--listen", f"127.0.0.1:{taken.getsockname()[1]}", *server_at(embedded))
            async with ServeProcess(*arguments) as served:
                assert await served.ended() == 1
        assert files_in(path) == []

    async def test_an_owner_that_is_unknown_stops_the_start(self, embedded, path):
        async with ServeProcess(*unix(path), "--socket-owner", "no-such-one", *server_at(embedded)) as served:
            assert await served.ended() == 1
        assert served.lines[-1] == "gatewayx: socket-owner: there is no user 'no-such-one'\n"
        assert files_in(path) == []


@pytest.mark.anyio
class TestClientsWithoutAnAddress:
    async def test_bounds_of_an_address_pass_over_them(self, embedded, samples, path, caplog):
        listen = (Address("127.0.0.1", 0), UnixAddress(str(path)))
        async with (
            running_gateway([embedded.address], listen, max_connections_per_address=1) as gateway,
            contextlib.AsyncExitStack() as stack,
        ):
            first = await stack.enter_async_context(HttpClient(gateway.address))
            assert (await first.ask(post(b"/echo", b"1"))).body == b"1"
            assert (await ask(gateway.address, OPTIONS)).status == 429
            clients = [await stack.enter_async_context(HttpClient(str(path))) for _ in range(50)]
            for client in clients:
                assert (await client.ask(post(b"/echo", b"1"))).body == b"1"
            assert gateway.count("http.addresses") == 1
            gateway.process.log_refusals()
            caplog.clear()
            assert (await clients[0].ask(b"nonsense\r\n\r\n")).status == 400
            gateway.process.log_refusals()
            assert "for example a unix socket after 'nonsense" in caplog.text

    async def test_an_address_that_holds_most_is_ended_before_many_of_them_together(self, embedded, samples, path):
        listen = (Address("127.0.0.1", 0), UnixAddress(str(path)))
        async with (
            running_gateway([embedded.address], listen, max_held_bytes=1024 * KIBIBYTE) as gateway,
            contextlib.AsyncExitStack() as stack,
        ):
            # 384 KiB in all: 240 of six requests without an address, 100 of one that has one.
            several = [await stack.enter_async_context(HttpClient(str(path))) for _ in range(6)]
            one = await stack.enter_async_context(HttpClient(gateway.address))
            sized = head(b"POST", b"/echo", b"Content-Length: %d" % (120 * KIBIBYTE))
            for number, client in enumerate((*several, one), 1):
                client.send(sized, bytes(1))
                await gateway.reaches("http.arrivals", number)
            for number, client in enumerate(several, 1):
                client.send(bytes(40 * KIBIBYTE - 1))
                await gateway.reaches("budget.bodies_bytes", number * 40 * KIBIBYTE)
            one.send(bytes(100 * KIBIBYTE - 1))
            await gateway.reaches("budget.bodies_bytes", 340 * KIBIBYTE)
            several[0].send(bytes(80 * KIBIBYTE))
            answer = await one.response()
            assert (answer.status, answer.kind()) == (503, "too-many-bytes")
            assert len((await several[0].response()).body) == 120 * KIBIBYTE
            assert gateway.count("http.arrivals_ended") == 1

    async def test_the_youngest_of_them_is_ended_when_one_of_them_holds_most(self, embedded, samples, path):
        listen = (UnixAddress(str(path)),)
        async with (
            running_gateway([embedded.address], listen, max_held_bytes=1024 * KIBIBYTE) as gateway,
            HttpClient(str(path)) as oldest,
            HttpClient(str(path)) as youngest,
        ):
            for number, client in enumerate((oldest, youngest), 1):
                client.send(head(b"POST", b"/echo", b"Content-Length: %d" % (300 * KIBIBYTE)), bytes(1))
                await gateway.reaches("http.arrivals", number)
            oldest.send(bytes(150 * KIBIBYTE))
            await gateway.reaches("budget.bodies_bytes", 150 * KIBIBYTE)
            youngest.send(bytes(100 * KIBIBYTE))
            await gateway.reaches("budget.bodies_bytes", 250 * KIBIBYTE)
            oldest.send(bytes(150 * KIBIBYTE - 1))
            assert (await youngest.response()).status == 503
            assert len((await oldest.response()).body) == 300 * KIBIBYTE

    async def test_one_that_takes_nothing_of_its_answer_is_reset(self, embedded, path):
        listen = (UnixAddress(str(path)),)
        async with (
            hand_worker(embedded.address, b"f") as worker,
            running_gateway([embedded.address], listen, write_timeout_s=0.3) as gateway,
            HttpClient(str(path)) as deaf,
        ):
            deaf.writer.transport.pause_reading()
            deaf.send(post(b"/f"))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, bytes(2048 * KIBIBYTE))
            await gateway.reaches("http.writes_timed_out", 1)
            await gateway.let_go()

    async def test_one_that_leaves_an_answer_in_the_kernel_is_closed_as_an_idle_one(self, embedded, path):
        listen = (UnixAddress(str(path)),)
        times = {"write_timeout_s": 0.3, "keepalive_timeout_s": 0.3}
        async with (
            hand_worker(embedded.address, b"f") as worker,
            running_gateway([embedded.address], listen, **times) as gateway,
            HttpClient(str(path)) as deaf,
        ):
            deaf.writer.transport.pause_reading()
            deaf.send(post(b"/f"))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, bytes(64 * KIBIBYTE))
            await gateway.reaches("http.requests_answered", 1)
            assert gateway.count("budget.held_bytes") == 0
            await gateway.let_go()
            assert gateway.count("http.writes_timed_out") == 1

    @pytest.mark.parametrize("reads", [False, True], ids=["takes-nothing", "keeps-pace"])
    async def test_one_that_is_behind_its_pace_is_reset_while_results_are_crowded(self, embedded, path, reads):
        # The kernel counts what it holds of a unix socket by the memory that it takes, and until it is read.
        listen = (UnixAddress(str(path)),)
        async with (
            hand_worker(embedded.address, b"f") as worker,
            running_gateway([embedded.address], listen, max_held_bytes=20480 * KIBIBYTE) as gateway,
            HttpClient(str(path)) as client,
        ):
            client.writer.transport.pause_reading()
            # Whoever keeps pace has a part of it before anybody looks: three seconds ahead, which nobody stands still.
            with gateway.within_a_tick() if reads else contextlib.nullcontext():
                client.send(post(b"/f"))
                handle, _, _, _ = await worker.take()
                worker.complete(handle, bytes(9216 * KIBIBYTE))
                await gateway.reaches("budget.results_bytes", 9216 * KIBIBYTE)
                if reads:
                    client.writer.transport.resume_reading()
                    await client.reader.readexactly(1800 * KIBIBYTE)
            if reads:
                for _ in range(7):
                    await asyncio.sleep(0.3)
                    await client.reader.readexactly(900 * KIBIBYTE)
                assert gateway.count("http.answers_ended") == 0
                await client.close()
            else:
                await gateway.reaches("http.answers_ended", 1)
                await eventually(lambda: gateway.count("budget.held_bytes") == 0)

    async def test_descriptors_that_come_with_the_bytes_are_closed(self, embedded, samples, path):
        listen = (UnixAddress(str(path)),)
        async with running_gateway([embedded.address], listen) as gateway:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                before = open_descriptors(os.getpid())
                socket.send_fds(client, [post(b"/echo", b"hello")], [client.fileno()] * 20)
                client.setblocking(False)
                answer = await asyncio.get_running_loop().sock_recv(client, 4096)
                assert answer.endswith(b"hello")
                # The accepted connection itself is one.
                assert open_descriptors(os.getpid()) <= before + 1
            assert gateway.count("http.requests_answered") == 1
