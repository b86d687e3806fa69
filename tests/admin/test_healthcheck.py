"""`gatewayx healthcheck`, as an image without a shell runs it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gatewayx.address import Address
from gatewayx.errors import StartError
from gatewayx.healthcheck import ask
from support.admin import ADMIN, admin_of
from support.gateway import ServeProcess
from support.imports import imported_with
from support.job_servers import nobody_listens
from support.times import PROCESS_S, SOON_S, WAIT_S

pytestmark = pytest.mark.anyio


async def healthcheck(*arguments: str, **environment: str) -> tuple[int, str]:
    """Its exit code and standard error; it says nothing on standard output. It waits for longer than 2 s."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gatewayx", "healthcheck", "--timeout", f"{WAIT_S:g}", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    output, error = await asyncio.wait_for(process.communicate(), PROCESS_S)
    assert output == b""
    return process.returncode, error.decode()


async def test_it_tells_whether_a_gateway_is_ready_and_why_not(embedded, tmp_path):
    host, port = embedded.address
    async with ServeProcess(*ADMIN, "--server", f"{host}:{port}", "--workers", "1") as served:
        admin = await admin_of(served)
        address = f"{admin.address[0]}:{admin.address[1]}"
        file = tmp_path / "gatewayx.toml"
        file.write_text(f"admin = '{address}'\n")
        assert await healthcheck("--admin", address) == (0, "")
        assert await healthcheck(GATEWAYX_ADMIN=address) == (0, "")
        assert await healthcheck("--config", str(file)) == (0, "")
        [worker] = await admin.workers()
        os.kill(worker, signal.SIGSTOP)
        try:
            await admin.becomes("/readyz", 503)
            exit_code, error = await healthcheck("--admin", address)
            assert exit_code == 1
            assert error.startswith(
                "gatewayx: /readyz is 503: workers failed: 0 of 1 worker processes are ready, since"
            )
            assert await healthcheck("--admin", address, "--live") == (0, "")
        finally:
            os.kill(worker, signal.SIGCONT)


async def test_nobody_to_ask_is_told_in_a_line():
    host, port = nobody_listens()
    exit_code, error = await healthcheck("--admin", f"{host}:{port}")
    assert (exit_code, error) == (1, f"gatewayx: the admin address {host}:{port} cannot be asked: Connection refused\n")
    exit_code, error = await healthcheck("--admin", "none")
    assert (exit_code, error) == (1, "gatewayx: the settings have no admin address that could be asked\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--admin", "nonsense"), "gatewayx: admin = 'nonsense' (flag --admin) is not allowed"),
        (("--config", "/none"), "gatewayx: config = '/none' (flag --config) cannot be read"),
        (("--timeout", "soon"), "Usage: "),
        (("--nonsense",), "Usage: "),
        (("nonsense",), "Usage: "),
    ],
)
async def test_of_wrong_settings_and_wrong_use_no_other_code_tells_than_of_a_gateway_that_is_not_well(
    arguments, reason
):
    exit_code, error = await healthcheck(*arguments)
    assert exit_code == 1
    assert error.startswith(reason)


@contextmanager
def answering(*pieces: bytes, pause_s: float = 0.0) -> Iterator[Address]:
    """Somebody who answers one request with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                for piece in pieces:
                    try:
                        connection.sendall(piece)
                    except OSError:
                        return
                    time.sleep(pause_s)

        thread = threading.Thread(target=answer)
        thread.start()
        yield Address(*listener.getsockname())
        thread.join()


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ((b"HTTP/1.1 503 No\r\n\r\n[+]a ok\n[-]b failed: \x1b[2J\n",), r"/readyz is 503: b failed: \\x1b\[2J$"),
        ((b"HTTP/1.1 404 No\r\n\r\nnothing here",), "/readyz is 404: nothing here$"),
        ((b"HTTP/1.1 2000 Yes\r\n\r\n",), "/readyz is 2000"),
        ((b"SSH-2.0-x\r\n",), "is not HTTP"),
        ((), "is not HTTP"),
        ((b"x" * 100_000,), "is not HTTP"),
    ],
)
def test_who_answers_otherwise_is_not_well(pieces, reason):
    with answering(*pieces) as address, pytest.raises(StartError, match=reason):
        ask(address, "/readyz", PROCESS_S)


def test_an_answer_that_drips_takes_no_longer_than_the_timeout():
    began_s = time.monotonic()
    with (
        answering(*[b"HTTP/1.1 200 OK\r\n", *[b"x"] * 100], pause_s=0.02) as address,
        pytest.raises(StartError, match=r"gave no answer within 0\.2 s"),
    ):
        ask(address, "/readyz", 0.2)
    assert time.monotonic() - began_s < SOON_S


def test_it_imports_little():
    slow = ("asyncio", "uvloop", "http", "ssl", "logging", "gatewayx.server")
    assert imported_with("gatewayx.cli", "gatewayx.healthcheck", of=slow) == []


def test_a_lookup_of_a_name_takes_no_longer_than_the_timeout(monkeypatch):
    may_end = threading.Event()

    def look_up(*_: object, **__: object) -> list:
        may_end.wait(PROCESS_S)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    began_s = time.monotonic()
    try:
        with pytest.raises(StartError, match=r"the admin address gateway\.test:8081 gave no answer within 0\.2 s"):
            ask(Address("gateway.test", 8081), "/readyz", 0.2)
        assert time.monotonic() - began_s < SOON_S
    finally:
        may_end.set()
    with pytest.raises(StartError, match=r"cannot be asked: Temporary failure in name resolution"):
        ask(Address("gateway.test", 8081), "/readyz", 5)
