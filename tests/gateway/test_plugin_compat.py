"""What a request means to gearmand's HTTP plugin and to `--plugin-compat`: one table, run against both.

Whatever the plugin takes and makes a job of, the gateway takes with the same meaning: TAKEN. OTHERWISE are the
exceptions: what RFC 9110 to 9112 forbid to take, or to read, as the plugin does, and what is of no use at the plugin
either. Both stand before the same gearmand, and the same worker looks at what arrives.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import anyio
import pytest

from gatewayx.gearman.packet import PacketType
from support.gateway import running_gateway
from support.gearmand import Gearmand
from support.http import HttpClient, chunked, get, head, post
from support.job_servers import hand_worker
from support.peer import Peer, ask_text
from support.ports import free_port

pytestmark = pytest.mark.anyio

# Longer than anything takes; a test that waits for it has failed.
WAIT_S = 45.0
# So long the plugin is given to answer what it never answers.
SILENCE_S = 0.2
RESULT = b"RESULT"
# Background jobs that wait beside the one looked at: its place among them is its priority.
BESIDE = (
    (b"high", PacketType.SUBMIT_JOB_HIGH_BG),
    (b"normal", PacketType.SUBMIT_JOB_BG),
    (b"low", PacketType.SUBMIT_JOB_LOW_BG),
)


@dataclass(frozen=True)
class Meaning:
    """The job that a request becomes; FN stands for the test's own function."""

    function: bytes = b"FN"
    unique: bytes = b"-"
    workload: bytes = b"w"
    priority: bytes = b"normal"
    background: bool = False


@dataclass(frozen=True)
class Answer:
    """What the head of an answer says; names in lower case."""

    status: int
    headers: dict[bytes, bytes]


JOB = Meaning()
EMPTY = Meaning(workload=b"")
BACKGROUND = Meaning(background=True)
HIGH = Meaning(priority=b"high")
LOW = Meaning(priority=b"low")


def submit(*lines: bytes) -> bytes:
    """The request with one thing changed that most rows are: further header lines."""
    return post(b"/FN", b"w", *lines)


def unique(value: bytes) -> Meaning:
    """The job with this unique."""
    return replace(JOB, unique=value)


def named(function: bytes, workload: bytes = b"w") -> Meaning:
    """The job of this function."""
    return Meaning(function=function, workload=workload)


TAKEN = [
    # Methods and bodies.
    pytest.param(submit(), JOB, id="POST"),
    pytest.param(head(b"PUT", b"/FN", b"Content-Length: 1") + b"w", JOB, id="PUT"),
    pytest.param(get(b"/FN"), EMPTY, id="GET"),
    pytest.param(get(b"/FN", b"Content-Length: 1") + b"w", EMPTY, id="GET-whose-body-is-dropped"),
    pytest.param(head(b"HEAD", b"/FN"), EMPTY, id="HEAD"),
    pytest.param(head(b"HEAD", b"/FN", b"Content-Length: 1") + b"w", EMPTY, id="HEAD-whose-body-is-dropped"),
    pytest.param(head(b"POST", b"/FN"), EMPTY, id="POST-without-a-length"),
    pytest.param(post(b"/FN"), EMPTY, id="POST-of-nothing"),
    pytest.param(post(b"/FN", b"w", version=b"1.0"), JOB, id="HTTP-1.0"),
    pytest.param(
        post(b"/FN", b"w", version=b"1.0").replace(b"Host: gateway\r\n", b""), JOB, id="HTTP-1.0-without-Host"
    ),
    pytest.param(post(b"/FN", b"w", b"Connection: Keep-Alive", version=b"1.0"), JOB, id="HTTP-1.0-that-stays"),
    pytest.param(submit(b"Connection: close"), JOB, id="HTTP-1.1-that-closes"),
    pytest.param(submit(b"Upgrade: h2c", b"Connection: Upgrade"), JOB, id="Upgrade"),
    # The name of the function.
    pytest.param(post(b"///FN", b"w"), JOB, id="every-leading-slash-is-none-of-the-name"),
    pytest.param(post(b"/FN/a:b/", b"w"), named(b"FN/a:b/"), id="slashes-and-colons-within"),
    pytest.param(post(b"/FN?a=b&c", b"w"), named(b"FN?a=b&c"), id="the-query-of-a-POST-belongs-to-it"),
    pytest.param(post(b"/FN?", b"w"), named(b"FN?"), id="an-empty-query-too"),
    pytest.param(get(b"/FN?a=b"), named(b"FN?a=b", b""), id="the-query-of-a-GET-belongs-to-it"),
    pytest.param(post(b"/FN%20x%2Fy", b"w"), named(b"FN%20x%2Fy"), id="it-is-not-percent-decoded"),
    # Uniques.
    pytest.param(submit(b"X-Gearman-Unique: Mine 1"), unique(b"Mine 1"), id="unique"),
    pytest.param(submit(b"x-GEARMAN-uNIQUE: u"), unique(b"u"), id="unique-by-a-name-in-any-case"),
    pytest.param(submit(b"X-Gearman-Unique: -"), unique(b"-"), id="unique-that-is-the-default"),
    pytest.param(submit(b"X-Gearman-Unique: "), unique(b"-"), id="unique-that-is-empty"),
    pytest.param(submit(b"X-Gearman-Unique:"), unique(b"-"), id="unique-without-anything"),
    pytest.param(submit(b"X-Gearman-Unique: a\tb"), unique(b"a\tb"), id="unique-with-a-tab"),
    pytest.param(submit(b"X-Gearman-Unique: \xfc"), unique(b"\xfc"), id="unique-above-ASCII"),
    pytest.param(submit(b"X-Gearman-Unique: gatewayx-1"), unique(b"gatewayx-1"), id="unique-like-one-of-ours"),
    pytest.param(submit(b"X-Gearman-Unique: " + b"u" * 63), unique(b"u" * 63), id="unique-of-63-bytes"),
    pytest.param(submit(b"X-Gearman-Unique: a", b"X-Gearman-Unique: b"), unique(b"b"), id="unique-last-of-two"),
    pytest.param(submit(b"X-Gearman-Unique: a", b"X-Gearman-Unique: "), unique(b"a"), id="unique-last-that-is-one"),
    # Background.
    pytest.param(submit(b"X-Gearman-Background: true"), BACKGROUND, id="background"),
    pytest.param(submit(b"X-Gearman-Background: TRUE"), BACKGROUND, id="background-in-capitals"),
    pytest.param(submit(b"x-gearman-background: True"), BACKGROUND, id="background-in-any-case"),
    pytest.param(submit(b"X-Gearman-Background: false"), JOB, id="background-false"),
    pytest.param(submit(b"X-Gearman-Background: FALSE"), JOB, id="background-false-in-capitals"),
    pytest.param(submit(b"X-Gearman-Background: yes"), JOB, id="background-another-word"),
    pytest.param(submit(b"X-Gearman-Background: 1"), JOB, id="background-number"),
    pytest.param(submit(b"X-Gearman-Background: truer"), JOB, id="background-more-than-the-word"),
    pytest.param(submit(b"X-Gearman-Background: "), JOB, id="background-empty"),
    pytest.param(
        submit(b"X-Gearman-Background: true", b"X-Gearman-Background: false"), BACKGROUND, id="background-any-of-two"
    ),
    pytest.param(
        submit(b"X-Gearman-Background: TRUE", b"X-Gearman-Priority: HIGH", b"X-Gearman-Unique: u"),
        Meaning(unique=b"u", priority=b"high", background=True),
        id="background-with-priority-and-unique",
    ),
    # Priorities.
    pytest.param(submit(b"X-Gearman-Priority: high"), HIGH, id="priority-high"),
    pytest.param(submit(b"X-Gearman-Priority: High"), HIGH, id="priority-high-in-any-case"),
    pytest.param(submit(b"X-Gearman-Priority: low"), LOW, id="priority-low"),
    pytest.param(submit(b"X-GEARMAN-PRIORITY: LOW"), LOW, id="priority-low-in-capitals"),
    pytest.param(submit(b"X-Gearman-Priority: normal"), JOB, id="priority-normal"),
    pytest.param(submit(b"X-Gearman-Priority: Normal"), JOB, id="priority-normal-in-any-case"),
    pytest.param(submit(b"X-Gearman-Priority: urgent"), JOB, id="priority-another-word"),
    pytest.param(submit(b"X-Gearman-Priority: highest"), JOB, id="priority-more-than-the-word"),
    pytest.param(submit(b"X-Gearman-Priority: "), JOB, id="priority-empty"),
    pytest.param(submit(b"X-Gearman-Priority: high", b"X-Gearman-Priority: low"), LOW, id="priority-last-of-two"),
    pytest.param(
        submit(b"X-Gearman-Priority: low", b"X-Gearman-Priority: normal"), LOW, id="priority-last-that-it-knows"
    ),
    # What only the gateway knows.
    pytest.param(submit(b"X-Gearman-Timeout: 5"), JOB, id="timeout"),
    pytest.param(submit(b"X-Gearman-Timeout: soon"), JOB, id="timeout-that-is-none"),
    pytest.param(submit(b"X-Gearman-Timeout: 5", b"X-Gearman-Timeout: 6"), JOB, id="timeout-twice"),
    pytest.param(submit(b"X-Gearman-Else: x"), JOB, id="another-header"),
]

# The request, and what becomes of it at the plugin and at the gateway: a job, a status, or None where no answer comes.
OTHERWISE = [
    # RFC 9110 5.5: white space around a value is none of it, one blank, several or none.
    pytest.param(submit(b"X-Gearman-Background: true "), JOB, BACKGROUND, id="background-with-a-blank-behind"),
    pytest.param(submit(b"X-Gearman-Background:true"), JOB, BACKGROUND, id="background-without-a-blank"),
    pytest.param(submit(b"X-Gearman-Priority:  high"), JOB, HIGH, id="priority-with-two-blanks"),
    pytest.param(submit(b"X-Gearman-Unique: u "), unique(b"u "), unique(b"u"), id="unique-with-a-blank-behind"),
    pytest.param(submit(b"X-Gearman-Unique:u"), JOB, unique(b"u"), id="unique-without-a-blank"),
    # RFC 9112 3.2.2: the absolute form names a path.
    pytest.param(post(b"http://h/FN", b"w"), named(b"http://h/FN"), JOB, id="absolute-form"),
    # RFC 9112 3.2, RFC 3986: what no target may be.
    pytest.param(post(b"FN", b"w"), JOB, 400, id="target-without-a-slash"),
    pytest.param(post(b"/FN\xfc", b"w"), named(b"FN\xfc"), 400, id="target-above-ASCII"),
    pytest.param(post(b"/FN%", b"w"), named(b"FN%"), 400, id="target-with-half-an-escape"),
    # RFC 9112 3: one space.
    pytest.param(submit().replace(b" ", b"  ", 1), JOB, 400, id="two-spaces-in-the-request-line"),
    # RFC 9112 3.2: no HTTP/1.1 without Host.
    pytest.param(submit().replace(b"Host: gateway\r\n", b""), JOB, 400, id="without-Host"),
    # RFC 9112 2.2, 5, 5.1: lines that readers in front may take for others.
    pytest.param(submit().replace(b"\r\n", b"\n"), JOB, 400, id="bare-LF"),
    pytest.param(submit(b"neither name nor value"), JOB, 400, id="line-without-a-colon"),
    pytest.param(submit(b"X-Gearman-Unique : u"), JOB, 400, id="blank-before-the-colon"),
    # RFC 9112 6.3: lengths in doubt.
    pytest.param(head(b"POST", b"/FN", b"Content-Length: 1x") + b"w", JOB, 400, id="length-that-is-none"),
    pytest.param(submit(b"Content-Length: 1"), JOB, 400, id="length-twice"),
    # RFC 9112 7.1: chunks are read. The plugin takes them for the next request, closes, and gearmand drops the job.
    pytest.param(head(b"POST", b"/FN", b"Transfer-Encoding: chunked") + chunked(b"w"), None, JOB, id="chunked-body"),
    # RFC 9110 10.1.1.
    pytest.param(submit(b"Expect: a-miracle"), JOB, 417, id="expectation-that-nobody-meets"),
    # The paths that the gateway keeps for itself.
    pytest.param(post(b"/v1/FN", b"w"), named(b"v1/FN"), 404, id="reserved-path"),
    # The plugin makes no use of these.
    pytest.param(submit(b"X-Gearman-Unique: " + b"u" * 64), replace(unique(b"u" * 63), workload=b"\0w"), 400, id="64"),
    pytest.param(submit(b"X-Gearman-Unique: " + b"u" * 65), 200, 400, id="unique-of-65-bytes"),
    pytest.param(get(b"/"), 404, 404, id="no-function"),
    pytest.param(post(b"///", b"w"), 404, 404, id="nothing-but-slashes"),
    pytest.param(head(b"TRACE", b"/FN"), None, 405, id="TRACE"),
    pytest.param(head(b"DELETE", b"/FN"), None, 405, id="DELETE"),
    pytest.param(head(b"OPTIONS", b"/FN"), None, 204, id="OPTIONS"),
    pytest.param(head(b"post", b"/FN"), None, 400, id="method-in-small-letters"),
]


@dataclass(frozen=True)
class Target:
    """Where requests go, and the job server that is behind it."""

    name: str
    http: tuple[str, int]
    job_server: tuple[str, int]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A gearmand with its HTTP plugin."""
    port = free_port()
    with Gearmand(tmp_path_factory.mktemp("plugin"), "-r", "http", "--http-port", str(port)) as gearmand:
        yield Target("plugin", ("127.0.0.1", port), gearmand.address)


@pytest.fixture(params=["plugin", "gateway"])
async def target(request: pytest.FixtureRequest, plugin: Target) -> AsyncIterator[Target]:
    """The plugin, or a gateway before the same gearmand."""
    if request.param == "plugin":
        yield plugin
        return
    async with running_gateway([plugin.job_server], plugin_compat=True) as gateway:
        yield Target("gateway", gateway.address, plugin.job_server)


@pytest.fixture
def function(request: pytest.FixtureRequest) -> bytes:
    """A function name of this test alone, short enough for every row."""
    return b"f%x" % zlib.crc32(request.node.nodeid.encode())


class Client:
    """A connection to the target that has sent one request."""

    def __init__(self, target: Target, request: bytes) -> None:
        self.target = target
        self.request = request

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection(*self.target.http)
        self.writer.write(self.request)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)

    async def answer(self) -> Answer:
        """The head of the answer, which differs by nature; what is looked at is in both."""
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), WAIT_S)
        status_line, *lines = raw[:-4].split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines)
        return Answer(int(status_line.split()[1]), {name.lower(): value for name, value in headers.items()})


async def queued(job_server: tuple[str, int], function: bytes) -> int:
    """How many jobs of the function there are."""
    for line in (await ask_text(job_server, b"status")).splitlines():
        if line.startswith(function + b"\t"):
            return int(line.split(b"\t")[1])
    return 0


async def until_queued(job_server: tuple[str, int], function: bytes, count: int) -> None:
    """Return once there are so many jobs of the function; fails after WAIT_S."""
    ends_s = time.monotonic() + WAIT_S
    while await queued(job_server, function) < count:
        assert time.monotonic() < ends_s, "the jobs never came"


async def check_job(target: Target, request: bytes, expected: Meaning) -> None:
    """The request becomes this job, and the job's end its answer."""
    async with Peer(target.job_server) as submitter:
        for priority, packet_type in BESIDE:
            await submitter.submit(expected.function, priority, b"", packet_type)
    async with Client(target, request) as client:
        await until_queued(target.job_server, expected.function, len(BESIDE) + 1)
        places = [priority for priority, _ in BESIDE]
        async with hand_worker(target.job_server, expected.function) as worker:
            for place in range(len(BESIDE) + 1):
                handle, function, job_unique, workload = await worker.take()
                if (job_unique, workload) not in ((priority, b"") for priority in places):
                    # It came last of its priority.
                    found = Meaning(function, job_unique, workload, places[place - 1], expected.background)
                    worker.complete(handle, RESULT)
                else:
                    worker.complete(handle)
            await worker.settle()
        answer = await client.answer()
    assert answer.status == 200
    # Only a foreground job's end is in its answer.
    background = {0: True, len(RESULT): False}[int(answer.headers[b"content-length"])]
    assert replace(found, background=background) == expected


def filled(function: bytes, expected: Meaning) -> Meaning:
    """The meaning with the test's own function."""
    return replace(expected, function=expected.function.replace(b"FN", function))


@pytest.mark.parametrize(("request_bytes", "expected"), TAKEN)
async def test_it_means_the_same_to_both(target, function, request_bytes, expected):
    await check_job(target, request_bytes.replace(b"FN", function), filled(function, expected))


@pytest.mark.parametrize(("request_bytes", "at_plugin", "at_gateway"), OTHERWISE)
async def test_it_is_refused_or_read_otherwise_for_a_reason(target, function, request_bytes, at_plugin, at_gateway):
    expected = at_plugin if target.name == "plugin" else at_gateway
    request = request_bytes.replace(b"FN", function)
    if isinstance(expected, Meaning):
        await check_job(target, request, filled(function, expected))
        return
    async with Client(target, request) as client:
        if expected is None:
            with anyio.move_on_after(SILENCE_S):
                assert await client.reader.read(1) == b""
            return
        assert (await client.answer()).status == expected
    assert await queued(target.job_server, function) == 0


@pytest.mark.parametrize("target_bytes", [b"/", b"//"])
async def test_a_head_of_no_function_is_200_without_a_job(target, target_bytes):
    async with Client(target, head(b"HEAD", target_bytes)) as client:
        answer = await client.answer()
    assert (answer.status, answer.headers[b"content-length"]) == (200, b"0")


async def test_jobs_without_a_unique_are_merged_by_their_workload(target, function):
    requests = [post(b"/" + function, workload) for workload in (b"one", b"two", b"one")]
    async with (
        Client(target, requests[0]) as one,
        Client(target, requests[1]) as two,
        Client(target, requests[2]) as again,
    ):
        await until_queued(target.job_server, function, 2)
        async with hand_worker(target.job_server, function) as worker:
            for _ in range(2):
                handle, _, _, workload = await worker.take()
                worker.complete(handle, workload + b"!")
            await worker.settle()
        for client, expected in ((one, b"one!"), (two, b"two!"), (again, b"one!")):
            assert (await client.answer()).status == 200
            assert await asyncio.wait_for(client.reader.readexactly(len(expected)), WAIT_S) == expected


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_the_body_of_a_get_is_dropped_however_it_comes_and_the_connection_lives(
    plugin, function, method, framing
):
    body = b"GET /stowaway HTTP/1.1\r\n" * 10_000
    async with (
        running_gateway([plugin.job_server], plugin_compat=True) as gateway,
        hand_worker(plugin.job_server, function) as worker,
        HttpClient(gateway.address) as client,
    ):
        if framing == "sized":
            client.send(head(method, b"/" + function, b"Content-Length: %d" % len(body)))
            pieces = (body[:20_000], body[20_000:])
        else:
            client.send(head(method, b"/" + function, b"Transfer-Encoding: chunked"))
            pieces = (b"%x\r\n" % len(body), body, b"\r\n0\r\n\r\n")
        for piece in pieces:
            await client.send_all(piece)
        handle, _, _, workload = await worker.take()
        assert workload == b""
        worker.complete(handle, RESULT)
        assert (await client.response(to_head=method == b"HEAD")).status == 200
        client.send(post(b"/" + function, b"next"))
        handle, _, _, workload = await worker.take()
        assert workload == b"next"
        worker.complete(handle, RESULT)
        assert (await client.response()).body == RESULT
        assert gateway.count("budget.held_bytes") == 0
