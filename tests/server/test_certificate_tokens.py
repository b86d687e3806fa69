"""Client certificates that stand for tokens in a whole gateway, where one process relays what is asked to another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from support.admin import admin_of, until
from support.certificates import certificate, client_context
from support.gateway import ServeProcess
from support.http import HttpClient, head, post
from support.job_servers import hand_worker
from support.relaying import Relaying, relaying, unique_line
from support.tls import Authority
from support.tls_client import CONTEXTS
from support.tokens import TokenFile

pytestmark = pytest.mark.anyio

LOOK = head(b"OPTIONS", b"*")
ROUNDS = 8


class Stage:
    """Files of an authority, of a gateway and of its clients."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory)
        self.file = TokenFile(directory / "tokens.toml")
        self.write("max_jobs = 2")

    def write(self, *lines: str) -> None:
        """The file of tokens has `shop` with these lines, and `other`."""
        shop = "\n".join(["[[token]]", 'name = "shop"', 'san = "DNS:shop.example"', *lines, ""])
        self.file.write(shop, self.file.table("other"))

    def arguments(self) -> tuple[str, ...]:
        """For a gateway with these files."""
        shown = certificate(self.authority, self.directory / "server.pem", "IP:127.0.0.1", is_server=True)
        return (
            *("--tls-certificate", str(shown), "--tls-client-ca", str(self.authority.file)),
            *("--tokens", str(self.file.path)),
        )

    @asynccontextmanager
    async def relaying(self, address: tuple[str, int]) -> AsyncIterator[Relaying]:
        """A gateway of two worker processes, whose clients show the certificate of `shop`."""
        shown = certificate(self.authority, self.directory / "client.pem", "URI:urn:a", "DNS:shop.example")
        async with relaying([address], *self.arguments(), listen="https://127.0.0.1:0") as gateway:
            CONTEXTS[gateway.address] = client_context(self.authority, shown)
            try:
                yield gateway
            finally:
                del CONTEXTS[gateway.address]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Its files are in the test's folder."""
    return Stage(tmp_path)


async def test_a_relayed_job_belongs_to_the_token_of_the_certificate(job_server, function, stage):
    async with (
        stage.relaying(job_server.address) as gateway,
        hand_worker(job_server.address, function) as worker,
        AsyncExitStack() as stack,
    ):
        clients = await gateway.clients(stack)
        relayed = []
        for number in range(ROUNDS):
            unique = unique_line(b"u-%d" % number)
            for client in clients:
                before = gateway.relayed()
                client.send(post(b"/" + function, b"w", unique, b"Prefer: respond-async"))
                answer = await client.response()
                assert answer.status == 202
                relayed.append(gateway.relayed() > before)
                location = answer.headers[b"location"]
            # Both have the same job, at whichever place, and nobody else has.
            for client in clients:
                assert (await client.ask(head(b"GET", location))).status == 200
                other = await client.ask(head(b"GET", location, stage.file.line("other")))
                assert (other.status, other.kind()) == (404, "job-unknown")
            handle, *_ = await worker.take()
            worker.complete(handle, b"done")
            await gateway.jobs_left(0)
        assert set(relayed) == {False, True}


async def test_its_jobs_count_once_in_all_processes(embedded, stage):
    async with (
        stage.relaying(embedded.address) as gateway,
        hand_worker(embedded.address, b"f") as worker,
        AsyncExitStack() as stack,
    ):
        # By chance none of their uniques is another place's in one of 10^7 runs.
        clients = [*(await gateway.clients(stack)), *(await gateway.clients(stack))]
        for number in range(3 * ROUNDS // 2):
            handles = []
            for index, client in enumerate(clients[:2]):
                client.send(post(b"/f", b"w", unique_line(b"u-%d-%d" % (number, index))))
                handles.append((await worker.take())[0])
            for client in clients[2:]:
                answer = await client.ask(post(b"/f", b"w", unique_line(b"v")))
                assert (answer.status, answer.kind()) == (429, "too-many-token-jobs")
            for handle in handles:
                worker.complete(handle, b"done")
            assert [(await client.response()).body for client in clients[:2]] == [b"done"] * 2
            await gateway.jobs_left(0)
        assert gateway.relayed()


async def test_the_file_changes_on_open_connections_and_status_tells_by_name(embedded, stage):
    options = ("--listen", "https://127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "2")
    shown = certificate(stage.authority, stage.directory / "client.pem", "DNS:shop.example")
    context = client_context(stage.authority, shown)
    host, port = embedded.address
    async with ServeProcess(*options, *stage.arguments(), "--server", f"{host}:{port}") as served:
        admin = await admin_of(served)
        [line] = [line for line in served.lines if served.listens_on.search(line) and "https" in line]
        found = served.listens_on.search(line)
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(HttpClient((found[1], int(found[2])), context=context))
                for _ in range(8)
            ]
            assert {(await client.ask(LOOK)).status for client in clients} == {204}
            stage.write("functions = ['g']")
            await served.until("all worker processes have the tokens")
            assert {(await client.ask(post(b"/f", b""))).kind() for client in clients} == {"not-permitted"}
            stage.file.write(stage.file.table("other"))
            await served.until("all worker processes have the tokens")
            assert {(await client.ask(LOOK)).status for client in clients} == {401}
            stage.write()
            await served.until("all worker processes have the tokens")
            assert {(await client.ask(LOOK)).status for client in clients} == {204}

            async def are_told() -> bool:
                told = {each["name"]: each["requests"] for each in (await admin.status())["tokens"]}
                return told["shop"] >= 16

            await until(are_told)
