"""What the service manager is told, and the sockets that it hands over; orphans that are left to the master."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gatewayx.config.settings import Settings
from gatewayx.embedded.job_server import JobServer
from gatewayx.embedded.sample_functions import FUNCTIONS
from gatewayx.embedded.worker import Worker
from gatewayx.errors import StartError
from gatewayx.server import systemd
from gatewayx.server.listeners import MAX_NOTSENT_BYTES, USER_TIMEOUT_GRACE_S
from gatewayx.server.systemd import Manager, listen_sockets, watchdog_interval_s
from support.gateway import PROCESS_S, ServeProcess, children_of, eventually
from support.gearmand import LIBC, PR_SET_PDEATHSIG, die_with_parent
from support.http import HttpClient, head, post

pytestmark = pytest.mark.anyio

LISTEN = ("--listen", "127.0.0.1:0")
OPTIONS = head(b"OPTIONS", b"*")
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWPID = 0x20000000
# An exit code that no gateway has.
NOT_PERMITTED = 77
# Above every descriptor that a test has open.
SPARE_DESCRIPTOR = 200
# tcp_info.tcpi_sacked, which is the length of the queue of a socket that listens.
TCP_INFO_BYTES = 104
QUEUE_AT = 28


class Receiver:
    """The manager's end: `name` is for NOTIFY_SOCKET."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.environment = {**os.environ, "NOTIFY_SOCKET": name}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(name.replace("@", "\0", 1))

    def waiting(self) -> list[dict[str, str]]:
        """What has come and was not taken, each datagram by its names."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(assignments(self.socket.recv(4096)))
        return found

    async def until(self, name: str) -> dict[str, str]:
        """The next datagram that has this name; those before it may only be signs of life."""
        loop = asyncio.get_running_loop()
        while True:
            found = assignments(await asyncio.wait_for(loop.sock_recv(self.socket, 4096), PROCESS_S))
            if name in found:
                return found
            assert found == {"WATCHDOG": "1"}


def assignments(datagram: bytes) -> dict[str, str]:
    """The datagram as a mapping; no name may stand in it twice."""
    pairs = [line.split("=", 1) for line in datagram.decode().split("\n")]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="gx", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(params=["file", "abstract"])
def receiver(request: pytest.FixtureRequest, folder: Path) -> Iterator[Receiver]:
    """The manager's end, by either kind of name."""
    made = Receiver(f"{folder}/notify" if request.param == "file" else f"@{folder}/notify")
    with made.socket:
        yield made


@pytest.fixture
async def samples(embedded: JobServer) -> AsyncIterator[Worker]:
    """A worker that runs the sample functions."""
    worker = Worker(embedded.address, FUNCTIONS)
    await worker.start()
    yield worker
    await worker.close()


def server_at(embedded: JobServer) -> tuple[str, str]:
    """The flag for the job server."""
    return ("--server", f"{embedded.address[0]}:{embedded.address[1]}")


def listening(family: socket.AddressFamily, address: object, *, backlog: int = 1000) -> socket.socket:
    """A socket as systemd makes it for a .socket unit."""
    made = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind(address)
    made.listen(backlog)
    return made


def handing_over(*sockets: socket.socket) -> Callable[[], None]:
    """What gives a child these sockets as its descriptors 3 and up."""

    def hand_over() -> None:
        die_with_parent()
        copies = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, SPARE_DESCRIPTOR) for each in sockets]
        for number, copy in enumerate(copies):
            os.dup2(copy, 3 + number)
            os.close(copy)

    return hand_over


def activated(
    *arguments: str, sockets: tuple[socket.socket, ...], process_id: str = "os.getpid()", **variables: str
) -> ServeProcess:
    """`gatewayx serve`, started as by systemd for these sockets."""
    return ServeProcess(
        *arguments,
        preexec=handing_over(*sockets),
        before=f"import os; os.environ['LISTEN_PID'] = str({process_id})",
        environment={**os.environ, "LISTEN_FDS": str(len(sockets)), **variables},
    )


class TestManager:
    def test_each_message_is_one_datagram(self, receiver):
        manager = Manager({"NOTIFY_SOCKET": receiver.name})
        manager.ready("serves")
        before_us = time.monotonic_ns() // 1000
        manager.reloading()
        after_us = time.monotonic_ns() // 1000
        manager.reloaded()
        manager.stopping("drains", 1.5)
        ready, reloading, reloaded, stopping = receiver.waiting()
        assert ready == {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "serves"}
        assert reloading.pop("RELOADING") == "1"
        assert before_us <= int(reloading.pop("MONOTONIC_USEC")) <= after_us
        assert not reloading
        assert reloaded == {"READY": "1"}
        assert stopping == {"STOPPING": "1", "STATUS": "drains", "EXTEND_TIMEOUT_USEC": "1500000"}

    def test_there_is_no_reload_before_it_is_ready_and_nothing_after_the_stop(self, receiver):
        manager = Manager({"NOTIFY_SOCKET": receiver.name})
        manager.reloading()
        manager.reloaded()
        assert not receiver.waiting()
        manager.stopping("drains", 1.0)
        manager.stopping("drains", 1.0)
        manager.ready("serves")
        manager.reloading()
        manager.reloaded()
        assert [next(iter(found)) for found in receiver.waiting()] == ["STOPPING"]

    def test_a_status_is_one_line(self, receiver):
        Manager({"NOTIFY_SOCKET": receiver.name}).ready("unix:/a\nSTOPPING=1\udcff")
        (found,) = receiver.waiting()
        assert found["STATUS"] == r"unix:/a\nSTOPPING=1\udcff"
        assert "STOPPING" not in found

    def test_what_a_full_queue_does_not_take_comes_at_the_next_tick_but_signs_of_life_do_not(self, receiver, caplog):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.sendto(b"OTHER=1", receiver.socket.getsockname())
        manager = Manager({"NOTIFY_SOCKET": receiver.name, "WATCHDOG_USEC": "2000000"})
        manager.ready("serves")
        manager.tick(100.0, alive=True)
        assert {"OTHER": "1"} in receiver.waiting()
        manager.tick(100.1, alive=True)
        assert [next(iter(found)) for found in receiver.waiting()] == ["READY"]
        manager.tick(100.2, alive=True)
        assert not receiver.waiting()
        assert not caplog.records

    def test_signs_of_life_come_twice_in_the_time_while_it_is_alive(self, receiver):
        manager = Manager({"NOTIFY_SOCKET": receiver.name, "WATCHDOG_USEC": "2000000"})
        told = []
        for now_s, alive in (
            (100.0, True),
            (100.9, True),
            (101.0, True),
            (102.0, False),
            (102.25, True),
            (103.0, True),
        ):
            manager.tick(now_s, alive=alive)
            told.append(receiver.waiting())
        assert told == [[{"WATCHDOG": "1"}], [], [{"WATCHDOG": "1"}], [], [{"WATCHDOG": "1"}], []]
        assert manager.pause_s(103.0) == 0.25
        assert Manager({}).pause_s(103.0) == float("inf")

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("", None),
            ("relative", "it is neither a path nor an abstract socket"),
            ("vsock:2:1234", "it is neither a path nor an abstract socket"),
            ("/nowhere/at/all", "No such file or directory"),
            ("/dev/null", "Connection refused"),
            ("@nobody-has-this-name", "Connection refused"),
            ("/" + 200 * "x", "AF_UNIX path too long"),
        ],
    )
    def test_one_that_cannot_be_reached_is_told_of_once(self, name, reason, caplog):
        manager = Manager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1"})
        manager.ready("serves")
        manager.tick(100.0, alive=True)
        manager.stopping("drains", 1.0)
        expected = [] if reason is None else [f"NOTIFY_SOCKET = {name} cannot be used: {reason}"]
        assert [record.getMessage() for record in caplog.records] == expected


@pytest.mark.parametrize(
    ("variables", "interval_s"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "own"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, 0.0),
        *(({"WATCHDOG_USEC": odd}, 0.0) for odd in ("", "0", "-5", "1.5", "many", "9" * 5000, "\u0665")),
    ],
)
def test_how_often_a_sign_of_life_is_given(variables, interval_s):
    own = {name: str(os.getpid()) if value == "own" else value for name, value in variables.items()}
    assert watchdog_interval_s(own) == interval_s


class TestListenSockets:
    def variables(self, monkeypatch: pytest.MonkeyPatch, descriptor: int, **others: str) -> dict[str, str]:
        """The variables for one inherited socket, which is this descriptor."""
        monkeypatch.setattr(systemd, "FIRST_DESCRIPTOR", descriptor)
        return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", **others}

    def test_they_are_non_blocking_not_inherited_and_the_variables_are_gone(self, monkeypatch):
        given = listening(socket.AF_INET, ("127.0.0.1", 0))
        given.set_inheritable(True)
        environ = self.variables(monkeypatch, given.detach(), LISTEN_FDNAMES="http", LISTEN_PIDFDID="1", HOME="/")
        (found,) = listen_sockets(environ)
        with found:
            assert (found.getblocking(), found.get_inheritable()) == (False, False)
            assert os.get_blocking(found.fileno()) is False
        assert environ == {"HOME": "/"}

    @pytest.mark.parametrize("process_id", ["1", "", "x", "-1"])
    def test_those_of_another_process_are_left_alone(self, monkeypatch, process_id):
        with listening(socket.AF_INET, ("127.0.0.1", 0)) as given:
            environ = self.variables(monkeypatch, given.fileno(), LISTEN_PID=process_id)
            assert listen_sockets(environ) == []
            assert given.getblocking()
        assert environ == {}

    def test_without_variables_and_with_none_there_are_none(self):
        assert listen_sockets({}) == []
        assert listen_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"}) == []

    @pytest.mark.parametrize("count", ["", "x", "-1", "1.0", "9" * 5000])
    def test_a_count_that_is_none_is_refused(self, count):
        with pytest.raises(StartError, match="is no number of descriptors"):
            listen_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            ("datagrams", "it is no stream socket of IPv4, IPv6 or unix"),
            ("packets", "it is no stream socket of IPv4, IPv6 or unix"),
            ("does not listen", r"it does not listen (a .socket unit needs ListenStream= and Accept=no)"),
            ("connected", r"it does not listen (a .socket unit needs ListenStream= and Accept=no)"),
            ("file", "Socket operation on non-socket"),
            ("closed", "Bad file descriptor"),
        ],
    )
    def test_what_cannot_be_served_is_refused(self, monkeypatch, kind, reason):
        descriptor = _unfit(kind)
        environ = self.variables(monkeypatch, descriptor, LISTEN_FDNAMES="http")
        with pytest.raises(StartError) as raised:
            listen_sockets(environ)
        assert str(raised.value) == f"cannot listen on descriptor {descriptor} ('http') of LISTEN_FDS: {reason}"
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _unfit(kind: str) -> int:
    if kind == "datagrams":
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()
    if kind == "packets":
        return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).detach()
    if kind == "does not listen":
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM).detach()
    if kind == "connected":
        one, other = socket.socketpair()
        other.close()
        return one.detach()
    descriptor = os.open("/dev/null", os.O_RDONLY)
    if kind == "closed":
        # Nobody else opens anything meanwhile.
        os.close(descriptor)
    return descriptor


async def test_the_manager_hears_of_start_reload_and_stop(receiver, embedded):
    async with ServeProcess(*LISTEN, *server_at(embedded), environment=receiver.environment) as served:
        ready = await receiver.until("READY")
        address = await served.address()
        assert ready["MAINPID"] == str(served.process.pid)
        assert f"listens on http://127.0.0.1:{address[1]}; " in ready["STATUS"]
        async with HttpClient(address) as client:
            assert (await client.ask(OPTIONS)).status == 204
        served.signal(signal.SIGHUP)
        assert set(await receiver.until("RELOADING")) == {"RELOADING", "MONOTONIC_USEC"}
        assert await receiver.until("READY") == {"READY": "1"}
        served.signal(signal.SIGTERM)
        stopping = await receiver.until("STOPPING")
        # Accepting, --drain-timeout, the last answers, and what the master adds.
        assert stopping["EXTEND_TIMEOUT_USEC"] == "43000000"
        assert await served.ended() == 0
        assert not receiver.waiting()


async def test_the_stop_is_told_before_the_shutdown_delay(receiver, embedded):
    arguments = (*LISTEN, *server_at(embedded), "--shutdown-delay", "600")
    async with ServeProcess(*arguments, environment=receiver.environment) as served:
        address = await served.address()
        await receiver.until("READY")
        served.signal(signal.SIGTERM)
        assert (await receiver.until("STOPPING"))["EXTEND_TIMEOUT_USEC"] == "643000000"
        async with HttpClient(address) as client:
            assert b"connection" not in (await client.ask(OPTIONS)).headers
        served.signal(signal.SIGTERM)
        assert await served.ended() == 1


async def test_a_manager_that_is_not_there_is_no_reason_not_to_serve(folder, embedded):
    environment = {**os.environ, "NOTIFY_SOCKET": f"{folder}/nobody"}
    async with ServeProcess(*LISTEN, *server_at(embedded), environment=environment) as served:
        async with HttpClient(await served.address()) as client:
            assert (await client.ask(OPTIONS)).status == 204
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
    assert sum("cannot be used" in line for line in served.lines) == 1


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_signs_of_life_go_on_while_one_that_hangs_is_replaced(receiver, embedded, workers):
    arguments = (*LISTEN, *server_at(embedded), "--worker-timeout", "1", "--workers", workers)
    environment = {**receiver.environment, "WATCHDOG_USEC": "200000"}
    async with ServeProcess(*arguments, environment=environment) as served:
        address = await served.address()
        await receiver.until("READY")
        hangs = served.workers()[0]
        os.kill(hangs, signal.SIGSTOP)
        await served.until("has not turned its loop")
        await receiver.until("WATCHDOG")
        await eventually(lambda: hangs not in served.workers(), PROCESS_S)
        async with HttpClient(address) as client:
            assert (await client.ask(OPTIONS)).status == 204
        receiver.waiting()
        await receiver.until("WATCHDOG")
        served.signal(signal.SIGTERM)
        await receiver.until("STOPPING")
        assert await served.ended() == 0
        assert not [line for line in served.lines if "CRITICAL" in line]


async def test_signs_of_life_end_when_nobody_turns_any_more_and_begin_again_with_the_first(folder, receiver, embedded):
    # Every worker process but the first hangs before its loop has turned, until it may go on.
    before = f"""
import os, time
from gatewayx.server import master, process
master.OVERDUE_S = 0.0
begin = process.GatewayProcess.start
async def start(self):
    if os.path.exists("{folder}/began"):
        while not os.path.exists("{folder}/go"):
            time.sleep(0.01)
    open("{folder}/began", "w").close()
    await begin(self)
process.GatewayProcess.start = start
"""
    arguments = (*LISTEN, *server_at(embedded), "--worker-timeout", "1", "--workers", "1")
    environment = {**receiver.environment, "WATCHDOG_USEC": "200000"}
    async with ServeProcess(*arguments, before=before, environment=environment) as served:
        await served.address()
        await receiver.until("READY")
        await receiver.until("WATCHDOG")
        os.kill(served.workers()[0], signal.SIGSTOP)
        await served.until("no worker process has turned its loop")
        receiver.waiting()
        # Between these is the whole worker timeout, in which several would be due.
        await served.until("it is aborted")
        await served.until("it is aborted")
        assert not receiver.waiting()
        (folder / "go").touch()
        await receiver.until("WATCHDOG")
        async with HttpClient(told_address(served)) as client:
            assert (await client.ask(OPTIONS)).status == 204


def told_address(served: ServeProcess) -> tuple[str, int]:
    """Where it listens, from what it has said already."""
    found = next(match for line in served.lines if (match := ServeProcess.listens_on.search(line)))
    return found[1], int(found[2])


async def test_inherited_sockets_are_served_instead_of_the_default_address(folder, embedded, samples):
    path = f"{folder}/http.sock"
    with ExitStack() as closing:
        tcp = closing.enter_context(listening(socket.AF_INET, ("127.0.0.1", 0), backlog=7))
        unix = closing.enter_context(listening(socket.AF_UNIX, path))
        # Whoever comes before the gateway waits for it.
        early = await HttpClient(path).connect()
        early.send(OPTIONS)
        async with activated(*server_at(embedded), "--workers", "2", sockets=(tcp, unix)) as served:
            line = await served.until("listens on")
            assert f"listens on http://127.0.0.1:{tcp.getsockname()[1]}, unix:{path}; 2 worker processes" in line
            assert (await early.response()).status == 204
            await early.close()
            for number in range(100):
                for address in (tcp.getsockname(), path):
                    async with HttpClient(address) as client:
                        answer = await client.ask(post(b"/echo", b"%d" % number))
                        assert (answer.status, answer.body) == (200, b"%d" % number)
            options = [
                tcp.getsockopt(socket.IPPROTO_TCP, name)
                for name in (socket.TCP_NODELAY, socket.TCP_NOTSENT_LOWAT, socket.TCP_USER_TIMEOUT)
            ]
            user_timeout_s = Settings().write_timeout_s + USER_TIMEOUT_GRACE_S
            assert options == [1, MAX_NOTSENT_BYTES, user_timeout_s * 1000]
            assert queue_length(tcp) == 7
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0
        assert not [line for line in served.lines if "WARNING" in line or "ERROR" in line]
        assert os.listdir(folder) == ["http.sock"]  # noqa: PTH208
        with socket.create_connection(tcp.getsockname()), socket.socket(socket.AF_UNIX) as late:
            late.connect(path)


def queue_length(listens: socket.socket) -> int:
    """How many clients may wait at a socket (tcp_info, as ss shows it)."""
    info = listens.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    return struct.unpack_from("=I", info, QUEUE_AT)[0]


async def test_a_restart_on_the_same_sockets_refuses_and_resets_nobody(folder, embedded, samples):
    path = f"{folder}/http.sock"
    answered = 0
    asking = True

    async def ask_again_and_again(address: tuple[str, int] | str) -> None:
        nonlocal answered
        while asking:
            await one_request(address)
            answered += 1

    async def more_are_answered() -> None:
        enough = answered + 100
        await eventually(lambda: answered >= enough or any(client.done() for client in clients), PROCESS_S)

    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp, listening(socket.AF_UNIX, path) as unix:
        sockets = (tcp, unix)
        async with activated(*server_at(embedded), "--workers", "2", sockets=sockets) as first:
            await first.until("listens on")
            clients = [
                asyncio.create_task(ask_again_and_again(address))
                for address in (tcp.getsockname(), path)
                for _ in range(4)
            ]
            await more_are_answered()
            first.signal(signal.SIGTERM)
            assert await first.ended() == 0
        between = asyncio.create_task(one_request(path))
        async with activated(*server_at(embedded), "--workers", "2", sockets=sockets) as second:
            await second.until("listens on")
            await more_are_answered()
            asking = False
            await asyncio.gather(*clients, between)


async def one_request(address: tuple[str, int] | str) -> None:
    """A client of its own for one request, sent as soon as it is connected."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as client:
        client.connect(address)
        client.sendall(post(b"/echo", b"word", b"Connection: close"))
        client.setblocking(False)
        answer = b""
        while part := await asyncio.wait_for(loop.sock_recv(client, 4096), PROCESS_S):
            answer += part
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\nword")


async def test_an_address_that_was_set_is_listened_on_as_well(embedded):
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp:
        async with activated(*LISTEN, *server_at(embedded), "--workers", "2", sockets=(tcp,)) as served:
            line = await served.until("listens on")
            inherited, own = (
                int(port) for _, port in ServeProcess.listens_on.findall(line.replace(", ", " listens on "))
            )
            assert inherited == tcp.getsockname()[1] != own
            for port in (inherited, own):
                async with HttpClient(("127.0.0.1", port)) as client:
                    assert (await client.ask(OPTIONS)).status == 204


async def test_addresses_that_are_inherited_already_are_not_bound_again(folder, embedded):
    path = f"{folder}/http.sock"
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp, listening(socket.AF_UNIX, path) as unix:
        told = f"127.0.0.1:{tcp.getsockname()[1]}"
        arguments = ("--listen", told, "--listen", f"unix:{path}", *server_at(embedded), "--workers", "2")
        async with activated(*arguments, sockets=(tcp, unix)) as served:
            assert f"listens on http://{told}, unix:{path}; " in await served.until("listens on")
            assert os.listdir(folder) == ["http.sock"]  # noqa: PTH208


async def test_clients_of_ipv4_at_a_socket_for_both_are_told_apart(embedded):
    with listening(socket.AF_INET6, ("::", 0)) as both:
        port = both.getsockname()[1]
        arguments = (*server_at(embedded), "--max-connections-per-address", "1")
        async with activated(*arguments, sockets=(both,)) as served:
            assert f"listens on http://[::]:{port}; " in await served.until("listens on")
            async with (
                HttpClient(("127.0.0.1", port), source="127.0.0.1") as one,
                HttpClient(("127.0.0.1", port), source="127.0.0.2") as other,
                HttpClient(("127.0.0.1", port), source="127.0.0.2") as second,
            ):
                statuses = [(await client.ask(OPTIONS)).status for client in (one, other)]
                assert statuses == [204, 204]
                assert (await second.response()).status == 429


async def test_abstract_sockets_are_served_too(folder, embedded):
    with listening(socket.AF_UNIX, f"\0{folder}/http") as abstract:
        async with activated(*server_at(embedded), sockets=(abstract,)) as served:
            assert f"listens on unix:@{folder}/http; " in await served.until("listens on")
            async with HttpClient(f"\0{folder}/http") as client:
                assert (await client.ask(OPTIONS)).status == 204


async def test_sockets_for_another_process_are_not_served(embedded):
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp:
        async with activated(*LISTEN, *server_at(embedded), sockets=(tcp,), process_id="1") as served:
            _, port = await served.address()
            assert port != tcp.getsockname()[1]
            assert served.lines[-1].count("http://") == 1


async def test_a_socket_that_cannot_be_served_ends_the_start(embedded):
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        variables = {"LISTEN_FDNAMES": "http:discovery"}
        async with activated(*server_at(embedded), sockets=(tcp, datagrams), **variables) as served:
            assert await served.ended() == 1
    assert served.lines == [
        "gatewayx: cannot listen on descriptor 4 ('discovery') of LISTEN_FDS: "
        "it is no stream socket of IPv4, IPv6 or unix\n"
    ]


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
    arguments = (*LISTEN, *server_at(embedded), "--workers", "2")
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
