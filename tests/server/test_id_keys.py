"""Ids of jobs and the file with the keys that sign them, in `gatewayx serve`."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.gateway import ServeProcess, eventually
from support.http import Response, ask, get, head, post

pytestmark = pytest.mark.anyio

BACKGROUND = b"X-Gearman-Background: true"
ALL_HAVE_THEM = "all worker processes have the settings"
# So many clients, of which the kernel gives each of two processes some: all to one in one of 10^9 runs.
CLIENTS = 30


class Keyed:
    """`gatewayx serve` with two worker processes and a file of keys."""

    def __init__(self, path: Path, address: tuple[str, int], *arguments: str) -> None:
        self.path = path
        server = ("--server", f"{address[0]}:{address[1]}")
        self.served = ServeProcess("--listen", "127.0.0.1:0", "--workers", "2", *server, *arguments)
        self.address = ("", 0)

    def write(self, *keys: str, mode: int = 0o600) -> None:
        """What the file has from now on."""
        beside = self.path.with_suffix(".new")
        beside.write_text("\n".join(keys))
        beside.chmod(mode)
        beside.replace(self.path)

    async def reload(self, ends_with: str = ALL_HAVE_THEM) -> None:
        """Let it read its files again."""
        self.served.signal(signal.SIGHUP)
        await self.served.until(ends_with)

    async def submitted(self, function: bytes) -> bytes:
        """Where a new background job is found."""
        answer = await ask(self.address, post(b"/" + function, b"x", BACKGROUND))
        assert answer.status == 200
        return answer.headers[b"location"]

    async def kinds(self, location: bytes) -> set[str]:
        """What new clients of both worker processes are answered: the job's state, or the kind of the problem."""
        answers: list[Response] = await asyncio.gather(*(ask(self.address, get(location)) for _ in range(CLIENTS)))
        return {json.loads(each.body)["state"] if each.status == 200 else each.kind() for each in answers}


@asynccontextmanager
async def keyed(path: Path, address: tuple[str, int], *keys: str) -> AsyncIterator[Keyed]:
    """A gateway with these keys; with none without a file."""
    gateway = Keyed(path / "id-key", address, *(("--id-key", str(path / "id-key")) if keys else ()))
    if keys:
        gateway.write(*keys)
    async with gateway.served:
        gateway.address = await gateway.served.address()
        yield gateway


def new_key() -> str:
    """As openssl rand -hex 32 makes them."""
    return secrets.token_hex(32)


async def test_all_processes_read_what_any_of_them_has_made(address, function, tmp_path):
    for keys in ((), (new_key(),)):
        async with keyed(tmp_path, address, *keys) as gateway:
            for location in [await gateway.submitted(function) for _ in range(6)]:
                assert await gateway.kinds(location) == {"queued"}


async def test_gateways_with_one_key_read_each_others_and_with_another_none(address, function, tmp_path):
    key = new_key()
    (tmp_path / "other").mkdir()
    async with keyed(tmp_path, address, key) as one, keyed(tmp_path / "other", address, key) as other:
        location = await one.submitted(function)
        assert await other.kinds(location) == {"queued"}
        # Only the process that has submitted it has the handle's life.
        answers = [await ask(other.address, head(b"POST", location + b"/cancel", b"Content-Length: 0"))]
        assert [(answer.status, answer.kind()) for answer in answers] == [(409, "not-cancellable")]
        other.write(new_key())
        await other.reload()
        assert await other.kinds(location) == {"job-unknown"}
        assert await one.kinds(location) == {"queued"}


async def test_a_rotation_loses_no_id(embedded, function, tmp_path):
    old, new = new_key(), new_key()
    async with keyed(tmp_path, embedded.address, old) as gateway:
        first = await gateway.submitted(function)
        gateway.write(new, old)
        await gateway.reload()
        second = await gateway.submitted(function)
        assert await gateway.kinds(first) == await gateway.kinds(second) == {"queued"}
        gateway.write(new)
        await gateway.reload()
        assert await gateway.kinds(first) == {"job-unknown"}
        assert await gateway.kinds(second) == {"queued"}
    # A restart forgets none, either.
    async with keyed(tmp_path, embedded.address, new) as gateway:
        assert await gateway.kinds(second) == {"queued"}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda gateway: gateway.path.unlink(), "cannot be read"),
        (lambda gateway: gateway.write("abc"), "line 1 is not allowed"),
        (lambda gateway: gateway.write(new_key(), mode=0o622), "may be written to by others"),
    ],
    ids=["gone", "no key", "open"],
)
async def test_a_file_with_a_fault_changes_nothing_not_even_for_a_process_that_begins_then(
    embedded, function, tmp_path, spoil, reason
):
    async with keyed(tmp_path, embedded.address, new_key()) as gateway:
        location = await gateway.submitted(function)
        spoil(gateway)
        await gateway.reload("SIGHUP: no setting changes: id-key")
        assert reason in gateway.served.lines[-1]
        assert await gateway.kinds(location) == {"queued"}
        before = gateway.served.workers()
        os.kill(before[0], signal.SIGKILL)
        await eventually(lambda: before[0] not in gateway.served.workers() and len(gateway.served.workers()) == 2)
        assert await gateway.kinds(location) == {"queued"}


async def test_a_fault_at_the_start_ends_it(embedded, tmp_path):
    gateway = Keyed(tmp_path / "id-key", embedded.address, "--id-key", str(tmp_path / "id-key"))
    gateway.write(new_key(), "x")
    async with gateway.served as served:
        assert await served.ended() == 2
        assert served.lines[-1] == (
            f"gatewayx: id-key = {str(gateway.path)!r}: line 2 is not allowed: it must be an even number of "
            "hexadecimal digits from 32 to 1024, as openssl rand -hex 32 makes them\n"
        )


async def test_one_that_others_may_read_is_warned_of(embedded, function, tmp_path):
    gateway = Keyed(tmp_path / "id-key", embedded.address, "--id-key", str(tmp_path / "id-key"))
    gateway.write(new_key(), mode=0o644)
    async with gateway.served:
        await gateway.served.until("may be read by others than its owner (mode 0644)")
        gateway.address = await gateway.served.address()
        assert await gateway.kinds(await gateway.submitted(function)) == {"queued"}
