"""Sockets that the service manager hands over: which are taken, and that nobody at them is refused."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gatewayx.config.settings import Settings
from gatewayx.embedded.job_server import JobServer
from gatewayx.errors import StartError
from gatewayx.http.clients import LAST_CALL_S
from gatewayx.server import systemd
from gatewayx.server.listeners import MAX_NOTSENT_BYTES, USER_TIMEOUT_GRACE_S
from gatewayx.server.systemd import listen_sockets
from support.gateway import ServeProcess, eventually
from support.gearmand import die_with_parent
from support.http import HttpClient, head, post
from support.proxied import line
from support.times import PROCESS_S
from support.tls import authority

pytestmark = pytest.mark.anyio

LISTEN = ("--listen", "127.0.0.1:0")
OPTIONS = head(b"OPTIONS", b"*")
# Above every descriptor that a test has open.
SPARE_DESCRIPTOR = 200
# tcp_info.tcpi_sacked, which is the length of the queue of a socket that listens.
TCP_INFO_BYTES = 104
QUEUE_AT = 28


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="gx", dir="/tmp") as name:
        yield Path(name)


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


@pytest.mark.parametrize(("end", "exit_code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
async def test_a_restart_on_the_same_sockets_refuses_and_resets_nobody(folder, embedded, samples, end, exit_code):
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
            first.signal(end)
            # With the last worker process, however the master ended.
            assert await first.ended() == exit_code
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
        connected_s = time.monotonic()
        try:
            client.sendall(post(b"/echo", b"word", b"Connection: close"))
        except ConnectionError:
            # In a stop nobody waits for longer, and this process may stand still.
            assert time.monotonic() - connected_s > LAST_CALL_S / 2
            return
        was_late = time.monotonic() - connected_s > LAST_CALL_S / 2
        client.setblocking(False)
        answer = b""
        with contextlib.suppress(*([ConnectionError] if was_late else [])):
            while part := await asyncio.wait_for(loop.sock_recv(client, 4096), PROCESS_S):
                answer += part
        if was_late and not answer:
            return
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
            ):
                statuses = [(await client.ask(OPTIONS)).status for client in (one, other)]
                assert statuses == [204, 204]
                # Another process may be quicker to count it than the one that has the other.
                async with HttpClient(("127.0.0.1", port), source="127.0.0.2") as second:
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


async def test_a_certificate_without_an_address_to_show_it_at_is_told_of(embedded):
    certificate = ("--tls-certificate", str(authority().certificate("127.0.0.1")))
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as plain:
        async with activated(*certificate, *server_at(embedded), sockets=(plain,)) as served:
            await served.until("WARNING tls-certificate is of no use: no address of listen begins with https://")
            async with HttpClient(plain.getsockname()) as client:
                assert (await client.ask(OPTIONS)).status == 204
    async with ServeProcess("--listen", "https://127.0.0.1:0", *certificate, *server_at(embedded)) as served:
        await served.until("listens on")
        assert not any("WARNING" in line for line in served.lines)


@pytest.mark.parametrize("scheme", ["https", "proxy", "proxy+https"])
async def test_clients_come_in_at_them_as_the_address_that_was_set_says(embedded, scheme):
    context = authority().context() if "https" in scheme else None
    certificate = ("--tls-certificate", str(authority().certificate("127.0.0.1")), "--trusted-proxy", "127.0.0.1")
    header = line("192.0.2.1") if "proxy" in scheme else b""
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as plain, listening(socket.AF_INET6, ("::", 0)) as other:
        address, port = plain.getsockname(), other.getsockname()[1]
        arguments = ("--listen", f"{scheme}://[::]:{port}", *certificate, *server_at(embedded), "--workers", "2")
        async with activated(*arguments, sockets=(plain, other)) as served:
            told = f"listens on http://127.0.0.1:{address[1]}, {scheme}://[::]:{port}; "
            assert told in await served.until("listens on")
            for _ in range(10):
                async with HttpClient(("127.0.0.1", port), begins=header, context=context) as client:
                    assert (await client.ask(OPTIONS)).status == 204
                async with HttpClient(address) as client:
                    assert (await client.ask(OPTIONS)).status == 204
            async with HttpClient(("127.0.0.1", port)) as client:
                client.send(OPTIONS)
                # Whoever comes plainly is told so where TLS is due, and nothing where a header is.
                with contextlib.suppress(ConnectionResetError):
                    assert (await client.rest())[:12] == (b"" if header else b"HTTP/1.1 400")
