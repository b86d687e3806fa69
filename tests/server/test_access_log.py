"""The access log of whole gateways: a line for each answer, none mixed, torn, doubled or lost, whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gatewayx.core.access_line import FIELDS, TEXT_BYTES, in_sample
from support.admin import TOLD, AdminAddress, until
from support.gateway import ServeProcess, eventually
from support.http import HttpClient, ask, get, head, post
from support.job_servers import hand_worker, nobody_listens
from support.times import WAIT_S

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs/access-log.md"
OPTIONS = head(b"OPTIONS", b"*")
NOT_ALLOWED = head(b"DELETE", b"/f?secret")
WORKERS = 4
# So many clients, of which the kernel gives each of the processes some: one has none in one of 10^6 runs.
CLIENTS = 60
TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"


def lines_of(*paths: Path) -> list[dict[str, object]]:
    """The lines of these files; fails if one is not whole."""
    text = "".join(path.read_text(encoding="utf-8") for path in paths)
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def count(path: Path) -> int:
    """How many lines there are by now."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def write(path: Path, *lines: str) -> None:
    """What the file of settings says from now on."""
    path.write_text("\n".join(lines), encoding="utf-8")


@asynccontextmanager
async def serving(
    *arguments: str, server: tuple[str, int] | None = None, **options: object
) -> AsyncIterator[ServeProcess]:
    """`gatewayx serve` in front of a job server, if there is one; its address is in its attribute `address_`."""
    host, port = nobody_listens() if server is None else server
    async with ServeProcess("--listen", "127.0.0.1:0", "--server", f"{host}:{port}", *arguments, **options) as served:
        served.listens = await served.address()
        yield served


async def ids_of(served: ServeProcess, requests: int, *, stop: asyncio.Event | None = None) -> list[str]:
    """Of what many clients were answered, so many requests each, or until told to stop."""

    async def client() -> list[str]:
        found = []
        async with HttpClient(served.listens) as connection:
            while (not stop.is_set()) if stop else len(found) < requests:
                answer = await connection.ask(OPTIONS if len(found) % 3 else NOT_ALLOWED)
                found.append(answer.headers[b"x-request-id"].decode())
        return found

    return [each for found in await asyncio.gather(*(client() for _ in range(CLIENTS))) for each in found]


async def test_a_line_tells_all_that_is_known_of_a_request(embedded, tmp_path):
    path = tmp_path / "log"
    body = b"w" * 100
    arguments = ("--workers", "1", "--access-log", str(path), "--access-log-unique")
    async with (
        hand_worker(embedded.address, b"f\xc3\xa9%\xff") as worker,
        serving(*arguments, server=embedded.address) as served,
        HttpClient(served.listens) as client,
    ):
        await client.ask(OPTIONS)
        headers = (b"X-Request-Id: mine", b"traceparent: 00-%b-00f067aa0ba902b7-01" % TRACE, b"X-Gearman-Unique: u%1")
        request = post(b"/f%C3%A9%25%FF", body, *headers)
        client.send(request)
        handle, *_ = await worker.take()
        worker.complete(handle, b"result")
        answer = await client.response()
        await eventually(lambda: count(path) == 2)
    first, line = lines_of(path)
    host, port = embedded.address
    assert (first["method"], first["status"], first["outcome"], first["request"]) == ("OPTIONS", 204, "ok", 1)
    assert "job_s" not in first
    assert set(first) == {*FIELDS} - {
        *("client_id", "trace", "token", "function", "job_s", "server", "handle", "unique", "cut")
    }
    assert set(line) == set(FIELDS) - {"token", "cut"}
    assert line["id"] == answer.headers[b"x-request-id"].decode()
    assert line["client_id"] == "mine"
    assert line["trace"] == TRACE.decode()
    assert line["client"] == "127.0.0.1"
    assert (line["method"], line["path"], line["function"]) == ("POST", "/f%C3%A9%25%FF", "f\u00e9%25%FF")
    assert (line["status"], line["outcome"]) == (200, "ok")
    assert line["bytes_in"] == len(request)
    assert line["bytes_out"] > len(b"result")
    assert 0 <= line["job_s"] <= line["duration_s"]
    assert line["server"] == f"{host}:{port}"
    assert line["handle"].encode() == answer.headers[b"x-gearman-job-handle"]
    assert line["unique"] == "u%251"
    assert (line["connection"], line["request"]) == (first["connection"], 2)


@pytest.mark.parametrize("kind", ["file", "pipe"])
async def test_each_answer_of_four_processes_has_one_line(tmp_path, kind):
    path = tmp_path / "log"
    found: list[bytes] = []
    reading, writing = os.pipe()
    reader = threading.Thread(target=lambda: found.extend(iter(lambda: os.read(reading, 65536), b"")))
    reader.start()
    log = str(path) if kind == "file" else "-"
    try:
        async with serving("--workers", str(WORKERS), "--access-log", log, stdout=writing) as served:
            ids = await ids_of(served, 42)
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0
    finally:
        os.close(writing)
        reader.join()
        os.close(reading)
    if kind == "pipe":
        path.write_bytes(b"".join(found))
    lines = lines_of(path)
    assert b"secret" not in path.read_bytes()
    assert Counter(line["id"] for line in lines) == Counter(ids)
    assert len({str(line["id"])[:13] for line in lines}) == WORKERS
    assert Counter(line["outcome"] for line in lines) == {"ok": 28 * CLIENTS, "method-not-allowed": 14 * CLIENTS}


async def test_a_relayed_request_has_its_line_where_its_client_is_and_one_that_nobody_waits_for_has_one(
    embedded, tmp_path
):
    path = tmp_path / "log"
    background = b"X-Gearman-Background: true"
    answers: dict[str, bytes] = {}

    async def submit(number: int) -> None:
        unique = b"X-Gearman-Unique: unique-%d" % number
        answer = await ask(served.listens, post(b"/f", b"w", background, unique))
        assert answer.status == 200
        answers[answer.headers[b"x-request-id"].decode()] = answer.headers[b"x-gearman-job-handle"]

    arguments = ("--workers", "2", "--access-log", str(path), "--access-log-unique")
    async with serving(*arguments, server=embedded.address) as served:
        await asyncio.gather(*(submit(number) for number in range(40)))
        async with HttpClient(served.listens) as client:
            client.send(post(b"/g", b"w"))
            await eventually(lambda: embedded.job_count == 41)
        await eventually(lambda: count(path) == 41)
        async with hand_worker(embedded.address, b"f") as worker:
            for _ in range(40):
                handle, *_ = await worker.take()
                worker.complete(handle)
    lines = {str(line["id"]): line for line in lines_of(path)}
    [gone] = [line for each, line in lines.items() if each not in answers]
    assert (gone["status"], gone["outcome"], gone["function"], gone["bytes_out"]) == (499, "client-gone", "g", 0)
    host, port = embedded.address
    for each, handle in answers.items():
        line = lines[each]
        assert str(line["handle"]).encode() == handle
        assert (line["server"], line["function"], line["client"]) == (f"{host}:{port}", "f", "127.0.0.1")
    assert {str(line["unique"]) for line in lines.values()} >= {f"unique-{number}" for number in range(40)}


NASTY_TARGETS = [
    b'/"\\',
    b"/%00%0A%0D%1B[2J%22%5C%7F%25",
    b"/%FF%FE%C3%28%ED%A0%80%E2%80%A8",
    b"/" + b"%F0%9F%98%80" * 100,
    b"/" + b"%FF" * 170,
    b"/" + b"a" * 8000,
    b"/" + b"a" * 9000,
    b"/\xff\xc3\xa9",
    b"/\x1b[2J",
    b"//?\xe2\x80\xa8",
    b"*",
    b"http://host/f%22?q",
]


async def test_whatever_clients_send_each_answer_has_a_line_of_json(tmp_path):
    path = tmp_path / "log"
    requests = [head(method, target) for target in NASTY_TARGETS for method in (b"GET", b"DELETE", b"\xffX", b"")]
    requests += [
        b"\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\n\xff\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        get(b"/f", b'X-Request-Id: \xff\x01"'),
    ]
    requests += [get(b"/f", b'X-Request-Id: \xff"\\%' + b"\xc3" * 300, b"traceparent: \xff")]
    ids = []
    async with serving("--workers", "1", "--access-log", str(path)) as served:
        for request in requests:
            async with HttpClient(served.listens) as client:
                ids.append((await client.ask(request)).headers[b"x-request-id"].decode())
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
    assert [line["id"] for line in lines_of(path)] == ids
    assert all(len(line) <= 4096 for line in path.read_bytes().splitlines(keepends=True))
    assert all(line.isprintable() for line in path.read_text(encoding="utf-8").split("\n"))


async def test_lines_come_without_another_request(tmp_path):
    path = tmp_path / "log"
    async with serving("--workers", "1", "--access-log", str(path)) as served:
        await ask(served.listens, OPTIONS)
        await eventually(lambda: count(path) == 1)


async def test_a_rotation_in_the_middle_of_traffic_loses_no_line(tmp_path):
    path = tmp_path / "log"
    old = [tmp_path / f"log.{number}" for number in range(4)]
    stop = asyncio.Event()
    async with serving("--workers", "2", "--access-log", str(path)) as served:
        traffic = asyncio.create_task(ids_of(served, 0, stop=stop))
        for each in old:
            before = count(path)
            await eventually(lambda before=before: count(path) > before + 50)
            path.rename(each)
            served.signal(signal.SIGUSR1)
            await eventually(path.exists)
            await served.until("SIGUSR1: the worker processes open the access log anew")
        await eventually(lambda: count(path) > 0)
        stop.set()
        ids = await traffic
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0
    assert all(lines_of(each) for each in (*old, path))
    assert Counter(line["id"] for line in lines_of(*old, path)) == Counter(ids)
    assert "WARNING" not in "".join(line for line in served.lines if "access log" in line)


async def test_a_log_that_cannot_be_opened_anew_stays_in_use_and_a_new_process_drops_its_lines(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "log"
    async with serving("--workers", "1", "--access-log", str(path)) as served:
        await ask(served.listens, OPTIONS)
        moved = folder.rename(tmp_path / "moved") / "log"
        served.signal(signal.SIGUSR1)
        await served.until("cannot be opened anew, so the one that is open stays in use: No such file or directory")
        await ask(served.listens, OPTIONS)
        await eventually(lambda: count(moved) == 2)
        served.signal_workers(signal.SIGKILL)
        await ask(served.listens, OPTIONS)
        assert "1 lines of the access log were dropped: No such file" in await served.until("lines of the access log")
        folder.mkdir()
        await eventually(path.exists)
        await ask(served.listens, OPTIONS)
        await eventually(lambda: count(path) == 1)
    assert len(lines_of(moved)) == 2


class TestStart:
    @pytest.mark.parametrize("path", ["/none/log", "/", "/dev/null/log"])
    async def test_a_log_that_cannot_be_opened_ends_it_with_one_line(self, path):
        async with ServeProcess("--listen", "127.0.0.1:0", "--access-log", path) as served:
            assert await served.ended() == 1
        [line] = served.lines
        assert line.startswith(f"gatewayx: access-log = '{path}' cannot be opened: ")

    async def test_a_pipe_without_a_reader_does_not_and_has_lines_once_it_has_one(self, tmp_path):
        path = tmp_path / "fifo"
        os.mkfifo(path)
        async with serving("--workers", "1", "--access-log", str(path)) as served:
            await ask(served.listens, OPTIONS)
            await served.until("1 lines of the access log were dropped: nobody reads it")
            reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            found = b""

            async def has_line() -> None:
                nonlocal found
                while not found:
                    await ask(served.listens, OPTIONS)
                    try:
                        found += os.read(reading, 65536)
                    except BlockingIOError:
                        await asyncio.sleep(0.01)

            await asyncio.wait_for(has_line(), WAIT_S)
            os.close(reading)
            assert json.loads(found.splitlines()[0])["status"] == 204


class TestTrouble:
    """Nobody waits for a log that takes nothing."""

    @pytest.mark.parametrize("kind", ["disk", "pipe"])
    async def test_requests_are_answered_and_dropped_lines_are_told_and_counted(self, tmp_path, kind):
        reading, writing = os.pipe()
        log = "/dev/full" if kind == "disk" else "-"
        reason = "No space left on device" if kind == "disk" else "its reader does not read"
        # Each line is longer than 1.5 KiB: together they are more than what is held and what a pipe holds.
        requests, long = 20 * 50, head(b"DELETE", b"/" + b"p" * 2000)
        try:
            async with serving(
                "--workers", "1", "--admin", "127.0.0.1:0", "--access-log", log, stdout=writing
            ) as served:
                [(host, port)] = [found.groups() for line in served.lines if (found := TOLD.search(line))]
                async with HttpClient(served.listens) as client:
                    for _ in range(requests // 50):
                        client.send(long * 50)
                        for _ in range(50):
                            assert (await client.response()).status == 405
                told = await served.until("lines of the access log were dropped")
                matched = re.search(rf"WARNING ([1-9]\d*) lines of the access log were dropped: {reason}", told)
                assert matched, told
                admin = AdminAddress((host, int(port)))

                async def is_counted() -> bool:
                    # Its view is some tenths of a second old.
                    dropped = await admin.metric("gatewayx_log_dropped_total", log="access")
                    return int(matched[1]) <= dropped < requests

                await until(is_counted)
                assert (await ask(served.listens, get(b"/f"))).status == 503
                served.signal(signal.SIGTERM)
                assert await served.ended() == 0
        finally:
            os.close(reading)
            os.close(writing)


class TestSettings:
    @staticmethod
    @asynccontextmanager
    async def configured(path: Path, *lines: str) -> AsyncIterator[ServeProcess]:
        write(path, *lines)
        async with serving("--workers", "2", "--config", str(path)) as served:
            yield served

    @staticmethod
    async def reload(served: ServeProcess, path: Path, *lines: str, until: str = "all worker processes have") -> str:
        write(path, *lines)
        served.signal(signal.SIGHUP)
        return await served.until(until)

    async def test_they_change_in_place(self, tmp_path):
        config, one, two = tmp_path / "toml", tmp_path / "one", tmp_path / "two"
        async with self.configured(config) as served:
            unlogged = await ids_of(served, 3)
            await self.reload(served, config, f'access-log = "{one}"')
            first = await ids_of(served, 3)
            await self.reload(served, config, f'access-log = "{two}"', "access-log-sample = 0.5")
            second = await ids_of(served, 12)
            refused = await self.reload(
                served, config, f'access-log = "{tmp_path}/none/x"', "max-body = 3", until="no setting changes"
            )
            assert f"ERROR SIGHUP: no setting changes: access-log = '{tmp_path}/none/x' cannot be opened" in refused
            third = await ids_of(served, 12)
            await self.reload(served, config)
            unlogged += await ids_of(served, 3)
            served.signal(signal.SIGUSR1)
            await served.until("SIGUSR1: there is no access log")
        assert Counter(line["id"] for line in lines_of(one)) == Counter(first)
        sampled = {line["id"]: line["outcome"] for line in lines_of(two)}
        assert len(sampled) == len(lines_of(two))
        assert set(sampled) <= {*second, *third}
        refused = {each for each, outcome in sampled.items() if outcome != "ok"}
        assert len(refused) == 4 * CLIENTS * 2
        assert set(sampled) - refused == {each for each in {*second, *third} - refused if in_sample(each.encode(), 0.5)}

    async def test_a_sample_of_none_has_the_others(self, tmp_path):
        path = tmp_path / "log"
        async with serving("--workers", "1", "--access-log", str(path), "--access-log-sample", "0") as served:
            await ids_of(served, 6)
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0
        assert Counter(line["outcome"] for line in lines_of(path)) == {"method-not-allowed": 2 * CLIENTS}
        assert all("unique" not in line for line in lines_of(path))


def test_every_field_is_documented_in_its_order_and_with_its_bound():
    table = PAGE.read_text(encoding="utf-8").partition("<!-- fields -->")[2].partition("<!-- /fields -->")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([0-9,]*) ?\|", table, re.MULTILINE)
    assert tuple(name for name, _ in rows) == FIELDS
    bounds = {name: int(most.replace(",", "")) for name, most in rows if most and name != "time"}
    assert bounds == TEXT_BYTES
