"""Tokens of a whole gateway: two worker processes that have the same ones, whatever becomes of the file and of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from support.admin import AdminAddress, admin_of, until
from support.gateway import ServeProcess, eventually
from support.http import HttpClient, ask, chunked, get, head, post
from support.job_servers import hand_worker
from support.relaying import relaying, unique_line
from support.times import PROCESS_S, SOON_S
from support.tokens import TokenFile, bearer

pytestmark = pytest.mark.anyio

BACKGROUND = b"X-Gearman-Background: true"
# So many clients, of which the kernel gives each of two processes some: all to one in one of 10^6 runs.
CLIENTS = 20
# Of who has an unknown token, and of who has had many.
REFUSED = {401, 429}
HAVE_TOKENS = "all worker processes have the tokens"
ADMIN = ("--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--workers", "2")


@pytest.fixture
def file(tmp_path) -> TokenFile:
    """A file with one token, which stays in it for as long as a test does not say otherwise."""
    file = TokenFile(tmp_path / "tokens.toml")
    file.write(file.table("shop"))
    return file


@asynccontextmanager
async def serving(
    address: tuple[str, int], file: TokenFile, *arguments: str
) -> AsyncIterator[tuple[ServeProcess, AdminAddress, tuple[str, int]]]:
    """The gateway, its admin address, and where it listens."""
    host, port = address
    more = ("--server", f"{host}:{port}", "--tokens", str(file.path), *arguments)
    async with ServeProcess(*ADMIN, *more) as served:
        admin = await admin_of(served)
        [line] = [line for line in served.lines if served.listens_on.search(line)]
        found = served.listens_on.search(line)
        yield served, admin, (found[1], int(found[2]))


async def statuses(listens: tuple[str, int], line: bytes) -> set[int]:
    """What new clients with this header are answered by all worker processes."""
    answers = await asyncio.gather(*(ask(listens, head(b"OPTIONS", b"*", line)) for _ in range(CLIENTS)))
    return {answer.status for answer in answers}


def command_lines_of(served: ServeProcess) -> list[bytes]:
    """What a list of processes shows of all of the gateway's."""
    return [Path(f"/proc/{process_id}/cmdline").read_bytes() for process_id in served.all()]


class TestChanges:
    async def test_one_that_is_added_or_taken_away_is_so_in_all_processes_without_a_signal(self, embedded, file):
        async with serving(embedded.address, file) as (served, _, listens), AsyncExitStack() as stack:
            processes = served.all()
            clients = [await stack.enter_async_context(HttpClient(listens)) for _ in range(CLIENTS)]
            shop = file.line("shop")
            assert await statuses(listens, shop) == {204}
            file.write(file.table("other"))
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            await served.until(HAVE_TOKENS)
            assert loop.time() - began_s < SOON_S
            assert await statuses(listens, file.line("other")) == {204}
            assert await statuses(listens, shop) <= REFUSED
            # Those who were there before, too.
            assert {(await client.ask(head(b"OPTIONS", b"*", shop))).status for client in clients} <= REFUSED
            file.write()
            await served.until(HAVE_TOKENS)
            assert await statuses(listens, file.line("other")) <= REFUSED
            assert served.all() == processes

    async def test_a_link_that_moves_is_followed(self, embedded, file, tmp_path):
        second = TokenFile(tmp_path / "second.toml")
        second.write(second.table("second"))
        link = TokenFile(tmp_path / "link.toml")
        link.path.unlink()
        link.path.symlink_to(file.path)
        async with serving(embedded.address, link) as (served, _, listens):
            assert await statuses(listens, file.line("shop")) == {204}
            (tmp_path / "next").symlink_to(second.path)
            (tmp_path / "next").replace(link.path)
            await served.until(HAVE_TOKENS)
            assert await statuses(listens, file.line("shop")) <= REFUSED
            assert await statuses(listens, second.line("second")) == {204}

    @pytest.mark.parametrize("by_signal", [False, True])
    async def test_a_fault_changes_nothing_and_is_told(self, embedded, file, by_signal):
        async with serving(embedded.address, file) as (served, admin, listens):
            assert await admin.metric("gatewayx_tokens_last_read_successful") == 1
            assert (await admin.status())["tokens_file"]["result"] == "successful"
            good = file.path.read_text()
            file.path.chmod(0o666)
            if by_signal:
                served.signal(signal.SIGHUP)
                await served.until("SIGHUP: no setting changes: tokens = ")
            told = await served.until("may be written to by others than its owner (mode 0666)") if not by_signal else ""
            assert by_signal or "the tokens stay as they were" in told

            async def is_told() -> bool:
                return await admin.metric("gatewayx_tokens_last_read_successful") == 0

            await until(is_told)
            document = (await admin.status())["tokens_file"]
            assert document["result"] == "failed"
            assert "mode 0666" in document["detail"]
            assert await statuses(listens, file.line("shop")) == {204}
            file.write(good)

            async def is_well() -> bool:
                return (await admin.status())["tokens_file"]["result"] == "successful"

            await until(is_well)

            async def is_counted() -> bool:
                return await admin.metric("gatewayx_tokens_last_read_successful") == 1

            await until(is_counted)

    async def test_they_are_read_at_sighup_and_with_no_file_everybody_may(self, embedded, file, tmp_path):
        config = tmp_path / "gatewayx.toml"
        host, port = embedded.address
        lines = [f'server = ["{host}:{port}"]', "workers = 2", 'listen = ["127.0.0.1:0"]']
        config.write_text("\n".join(lines))
        have_settings = "all worker processes have the settings"
        async with ServeProcess("--config", str(config)) as served:
            listens = await served.address()
            assert await statuses(listens, b"X-A: b") == {204}
            config.write_text("\n".join([*lines, f"tokens = {json.dumps(str(file.path))}"]))
            served.signal(signal.SIGHUP)
            await served.until(have_settings)
            assert await statuses(listens, b"X-A: b") == {401}
            assert await statuses(listens, file.line("shop")) == {204}
            file.write(file.table("other"))
            served.signal(signal.SIGHUP)
            await served.until(have_settings)
            assert await statuses(listens, file.line("other")) == {204}
            config.write_text("\n".join([*lines, 'tokens = "/none"']))
            served.signal(signal.SIGHUP)
            await served.until("no setting changes: tokens = '/none': cannot be read, No such file or directory")
            assert await statuses(listens, b"X-A: b") == {401}
            config.write_text("\n".join(lines))
            served.signal(signal.SIGHUP)
            await served.until(have_settings)
            assert await statuses(listens, b"X-A: b") == {204}

    async def test_one_that_takes_the_place_of_another_has_the_newest(self, embedded, file):
        async with serving(embedded.address, file) as (served, admin, listens):
            old = file.line("shop")
            file.write(file.table("other"))
            await served.until(HAVE_TOKENS)
            workers = await admin.workers()
            for process_id in workers:
                os.kill(process_id, signal.SIGKILL)

            async def are_replaced() -> bool:
                found = (await admin.status())["workers"]
                return all(each["state"] == "ready" and each["pid"] not in workers for each in found)

            await until(are_replaced)
            assert await statuses(listens, file.line("other")) == {204}
            assert await statuses(listens, old) <= REFUSED

    @pytest.mark.parametrize(
        ("content", "mode", "reason"),
        [
            ("[[token]]\n", 0o600, "[[token]] number 1: name is missing"),
            ("", 0o620, "may be written to by others than its owner (mode 0620)"),
        ],
    )
    async def test_a_fault_at_the_start_ends_it(self, tmp_path, content, mode, reason):
        path = tmp_path / "t.toml"
        path.write_text(content)
        path.chmod(mode)
        async with ServeProcess("--listen", "127.0.0.1:0", "--tokens", str(path)) as served:
            assert await served.ended() == 1
        assert f"gatewayx: tokens = {str(path)!a}: {reason}\n" in "".join(served.lines)


class TestJobs:
    async def test_a_name_has_so_many_in_all_processes_and_none_counts_twice(self, embedded, file, function):
        file.write(file.table("shop", "max_jobs = 3"), file.table("free"))
        async with (
            relaying([embedded.address], "--tokens", str(file.path)) as gateway,
            hand_worker(embedded.address, function) as worker,
            AsyncExitStack() as stack,
        ):
            line = file.line("shop")
            relayed = 0
            for number in range(8):
                clients = [*(await gateway.clients(stack)), *(await gateway.clients(stack))]
                before = gateway.relayed()
                handles = []
                # Large bodies are relayed while they come.
                body = b"w" * (100_000 if number % 2 else 10)
                for index, client in enumerate(clients[:3]):
                    unique = unique_line(b"u-%d-%d" % (number, index))
                    client.send(post(b"/" + function, body, unique, line))
                    handles.append((await worker.take())[0])
                relayed += gateway.relayed() - before
                for client in await gateway.clients(stack):
                    answer = await client.ask(post(b"/" + function, b"w", unique_line(b"v"), line))
                    assert (answer.status, answer.kind()) == (429, "too-many-token-jobs")
                clients[3].send(post(b"/" + function, b"w", file.line("free")))
                handles.append((await worker.take())[0])
                for handle in handles:
                    worker.complete(handle, b"done")
                assert [(await client.response()).body for client in clients] == [b"done"] * 4
                await gateway.jobs_left(0)
            assert relayed
            answers = await asyncio.gather(
                *(
                    ask(gateway.address, post(b"/" + function, b"w", BACKGROUND, unique_line(b"w"), line))
                    for _ in range(3)
                )
            )
            assert {answer.status for answer in answers} == {200}

    async def test_what_a_process_that_has_died_had_is_given_back(self, embedded, file, function):
        file.write(file.table("shop", "max_jobs = 2"))
        async with (
            relaying([embedded.address], "--tokens", str(file.path)) as gateway,
            hand_worker(embedded.address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            for client in clients:
                client.send(post(b"/" + function, b"w", file.line("shop")))
                await worker.take()
            request = post(b"/" + function, b"w", BACKGROUND, file.line("shop"))
            assert (await ask(gateway.address, request)).kind() == "too-many-token-jobs"
            os.kill(gateway.first_workers[0], signal.SIGKILL)

            async def is_let_in() -> bool:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    return (await ask(gateway.address, request)).status == 200
                return False

            await until(is_let_in)


class TestTold:
    async def test_status_metrics_and_access_log_tell_by_name(self, embedded, file, function, tmp_path):
        log = tmp_path / "access"
        file.write(file.table("shop", "expires = 2999-01-31"), file.table("shop", "max_jobs = 1"), file.table("unused"))
        async with (
            serving(embedded.address, file, "--access-log", str(log)) as (_, admin, listens),
            hand_worker(embedded.address, function) as worker,
            HttpClient(listens) as client,
        ):
            client.send(post(b"/" + function, b"w", file.line("shop")))
            handle, *_ = await worker.take()
            refused = await ask(listens, post(b"/" + function, b"w", file.line("shop")))
            assert refused.status == 429

            async def is_told() -> bool:
                [shop, unused] = (await admin.status())["tokens"]
                assert unused == {"name": "unused", "requests": 0, "jobs_in_flight": 0, "expires": [None]}
                assert shop["expires"] == ["2999-01-31T00:00:00.000Z", None]
                return (shop["name"], shop["requests"], shop["jobs_in_flight"]) == ("shop", 1, 1)

            await until(is_told)
            worker.complete(handle, b"done")
            assert (await client.response()).status == 200
            assert (await ask(listens, post(b"/" + function, b"w"))).status == 401

            async def is_counted() -> bool:
                found = await admin.metrics()
                by_outcome = {
                    dict(labels)["outcome"]: count
                    for (name, labels), count in found.items()
                    if name == "gatewayx_token_requests_total" and dict(labels)["token"] == "shop"
                }
                return by_outcome == {"ok": 1, "too-many-token-jobs": 1}

            await until(is_counted)
            assert await admin.code("/livez") == 200
            await eventually(lambda: len(log.read_text().splitlines()) == 3)
        tokens = [json.loads(line).get("token") for line in log.read_text().splitlines()]
        assert sorted(tokens, key=str) == [None, "shop", "shop"]


class TestSecrets:
    @pytest.mark.parametrize("log_format", ["text", "json"])
    async def test_they_are_in_nothing_that_is_written(self, embedded, file, function, tmp_path, log_format):
        """Secrets are sent wherever they may leak, and everything that comes out is searched for them."""
        log = tmp_path / "access"
        file.write(file.table("shop"), file.table("expired", "expires = 1999-01-01"))
        good, expired = file.secrets["shop"], file.secrets["expired"]
        unknown = "gwx_" + "Q7x-" * 10 + "abc" + "0123abcd"
        # Of anybody's own making, without the prefix.
        foreign = "Zq9" * 20
        arguments = ("--access-log", str(log), "--log-format", log_format, "--access-log-unique")
        out = []
        async with serving(embedded.address, file, *arguments) as (served, admin, listens):
            for secret in (good, expired, unknown, foreign):
                line = bearer(secret)
                target = b"/" + function
                for request in (
                    post(target, b"w", line, BACKGROUND),
                    post(target, b"w", line, line),
                    post(target, b"w", bearer(secret, b"Basic")),
                    post(target, b"w", b"Authorization: " + secret.encode()),
                    post(target, b"w", line, b"X-Gearman-Priority: urgent"),
                    get(target + b"?access_token=" + secret.encode()),
                    head(b"OPTIONS", b"*", line),
                    head(b"DELETE", target, line),
                    # What is no HTTP, of which the log shows the beginning.
                    head(b"POST", b"/a", line).replace(b"Host: gateway", b"Host: a b"),
                    b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n",
                    b"GET / HTTP/1.1\r\n" + line + b"\x00\r\nHost: a\r\n\r\n",
                    line + b"\r\nHost: a\r\n\r\n",
                    b"GET /?access_token=" + secret.encode() + b" HTTP/9.9\r\n\r\n",
                    head(b"POST", target, line, b"Transfer-Encoding: gzip"),
                    head(b"POST", target, line, b"Transfer-Encoding: chunked") + b"x" + chunked(b"a"),
                    head(b"POST", target, line, b"X-A: " + b"a" * 20_000),
                    head(b"POST", target, line, b"Content-Length: 10000000000"),
                ):
                    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                        answer = await ask(listens, request)
                        out.append(repr(sorted(answer.headers.items())).encode() + answer.body)
                # A head that never ends, in pieces.
                async with HttpClient(listens) as client:
                    for piece in (
                        b"GET / HTTP/1.1\r\nAuthoriz",
                        line[8:20],
                        line[20:],
                        b"\r\n",
                        b" " + line,
                        b"\r\n\r\n",
                    ):
                        client.send(piece)
                        await asyncio.sleep(0)
                    out.append(await client.rest())
            command_lines = command_lines_of(served)
            # A file that has a secret where its hash should be.
            file.write(file.table("shop").replace('sha256 = "', f'sha256 = "{good}'))
            await served.until("the tokens stay as they were")
            file.write(f'{good} = "{good}"\n[{good}]\n')
            await served.until("the tokens stay as they were")
            for target in ("/metrics", "/status", "/livez?verbose", "/readyz?verbose", "/"):
                out.append((await admin.ask(target)).body)
            served.signal(signal.SIGHUP)
            await served.until("no setting changes")
            # With a traceback of each worker process.
            for process_id in await admin.workers():
                os.kill(process_id, signal.SIGABRT)
            await served.until("SIGABRT")
            served.signal(signal.SIGTERM)
            await asyncio.wait_for(served.ended(), PROCESS_S)
        out += ["".join(served.lines).encode(), log.read_bytes(), *command_lines]
        told = b"\n".join(out)
        assert b"shop" in told
        for secret in (good, expired, unknown):
            # Not even half of one, wherever it was cut.
            for begin in range(4, len(secret) - 16):
                assert secret[begin : begin + 16].encode() not in told
        # What a stranger calls a token without the prefix is known by what stands before it.
        assert foreign.encode()[:16] not in told
