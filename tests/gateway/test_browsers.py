"""Pages in a real browser: which of them reach a job server, and what they see of the answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import pytest

from gatewayx.config.rate_kinds import RateBound
from gatewayx.embedded.job_server import JobServer
from gatewayx.embedded.sample_functions import FUNCTIONS
from gatewayx.embedded.worker import AssignedJob, Worker
from support.browser import Browser, running_browser
from support.gateway import RunningGateway, eventually, running_gateway
from support.nginx import running_nginx

pytestmark = pytest.mark.anyio

# Names of this machine in the browser.
APP, EVIL, GATEWAY = "app.example", "evil.example", "gateway.example"

# What a page can send without asking first, to the function of that name at URL. Each ends, however it is answered.
SIMPLE = {
    "fetch": "told('URL/fetch').catch(() => 0)",
    "post": "told('URL/post', { method: 'POST', body: 'x' }).catch(() => 0)",
    "no-cors": "told('URL/no-cors', { method: 'POST', mode: 'no-cors', body: 'x' }).catch(() => 0)",
    "credentials": "told('URL/credentials', { mode: 'no-cors', credentials: 'include' }).catch(() => 0)",
    "beacon": "navigator.sendBeacon('URL/beacon', 'x')",
    "image": "ended(made('img', { src: 'URL/image' }))",
    "script": "ended(made('script', { src: 'URL/script' }))",
    "frame": "ended(made('iframe', { src: 'URL/frame' }))",
    "form": "submitted(made('form', { action: 'URL/form', method: 'POST', enctype: 'text/plain' }))",
}
# Of these a browser tells the origin, whatever the address is.
WITH_ORIGIN = {"fetch", "post", "no-cors", "beacon", "form"}
# The browser's own navigation, by a link; the page that is left reports before.
LINK = "setTimeout(() => made('a', { href: 'URL/link' }).click()); return 1;"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all that is asked of it here."""
    with running_browser() as browser:
        yield browser


@pytest.fixture
async def pages() -> dict[bytes, bytes]:
    """What the function `page` answers, by its workload."""
    return {}


@pytest.fixture
async def ran() -> set[str]:
    """The functions of which a job has run."""
    return set()


@pytest.fixture
async def worker(embedded: JobServer, pages: dict[bytes, bytes], ran: set[str]) -> AsyncIterator[Worker]:
    """A worker for the sample functions, one that makes pages, and those for pages to reach."""

    def page(job: AssignedJob) -> bytes:
        return pages[job.workload]

    def reached(job: AssignedJob) -> bytes:
        ran.add(job.function.decode())
        return b""

    functions = {name.encode(): reached for name in (*SIMPLE, "link")}
    worker = Worker(embedded.address, {**FUNCTIONS, **functions, b"page": page})
    await worker.start()
    yield worker
    await worker.close()


class Reach:
    """Tells what pages reach of a job server."""

    def __init__(self, browser: Browser, embedded: JobServer, ran: set[str]) -> None:
        self.browser = browser
        self.embedded = embedded
        self.ran = ran

    async def is_all(self, name: str, url: str) -> None:
        """Every simple request from a page under this name becomes a job."""
        await self._ask(name, url)
        await eventually(lambda: self.ran == set(SIMPLE))

    async def is_nothing(self, name: str, url: str, *, but: set[str] = frozenset()) -> None:
        """None of them does, but perhaps these."""
        before = self.embedded.submitted
        await self._ask(name, url)
        assert self.ran <= but
        assert self.embedded.submitted - before == len(self.ran)

    async def _ask(self, name: str, url: str) -> None:
        self.ran.clear()
        sent = ", ".join(SIMPLE.values()).replace("URL", url)
        assert await self.browser.run(name, f"await Promise.all([{sent}]); return 1;") == 1


@pytest.fixture
async def reach(browser: Browser, embedded: JobServer, worker: Worker, ran: set[str]) -> Reach:
    """What pages reach of the job server, all of whose functions have a worker."""
    return Reach(browser, embedded, ran)


@asynccontextmanager
async def gateway_for_pages(embedded: JobServer, **settings: object) -> AsyncIterator[RunningGateway]:
    """A gateway whose results no browser keeps as files; at the end it ends what a browser keeps open.

    It has the functions of the pages alone: what a browser asks for by itself, as /favicon.ico, becomes no job.
    """
    functions = (*(name.decode() for name in FUNCTIONS), *SIMPLE, "link", "page")
    async with running_gateway([embedded.address], content_type="text/html", function=functions, **settings) as gateway:
        yield gateway
        gateway.process.http.abort()


async def served_page(browser: Browser, pages: dict[bytes, bytes], origin: str, script: str) -> object:
    """What a script returns that runs in a page of the gateway's own, which its user has opened."""
    path, page = browser.page(script)
    pages[path.encode()] = page.encode()
    return await browser.visit(f"{origin}/page?{path}", path)


class TestWithoutSettings:
    async def test_a_page_of_the_web_does_not_reach_into_its_visitors_machine(self, embedded, browser, pages, reach):
        async with gateway_for_pages(embedded) as gateway:
            port = gateway.address[1]
            for host in ("localhost", "127.0.0.1", "app.localhost"):
                await reach.is_nothing(EVIL, f"http://{host}:{port}")
            assert await browser.run(EVIL, LINK.replace("URL", f"http://localhost:{port}")) == 1
            await reach.is_nothing("127.0.0.1", f"http://localhost:{port}")
            assert embedded.submitted == 0

            # Another port of the same machine is of the same site: it asks, and sees no answer.
            await reach.is_all("localhost", f"http://localhost:{port}")
            answer = await browser.run("localhost", f"return await told('http://localhost:{port}/echo?x')")
            assert answer == {"error": "TypeError"}
            # So is the gateway's own page, which sees it.
            answer = await served_page(
                browser,
                pages,
                f"http://localhost:{port}",
                "return [await told('/echo?mine'), await told('/echo', { method: 'PUT', body: 'mine' })]",
            )
            assert [(part["status"], part["body"]) for part in answer] == [(200, "mine")] * 2
            # Under another name the gateway is anybody's, as it was.
            await reach.is_all(EVIL, f"http://{GATEWAY}:{port}")

    async def test_a_name_that_was_made_to_point_here_is_refused_by_host(self, embedded, browser, pages, reach):
        async with gateway_for_pages(embedded) as gateway:
            origin = f"http://{EVIL}:{gateway.address[1]}"
            assert await served_page(browser, pages, origin, "return (await told('/echo?mine')).body") == "mine"
        async with gateway_for_pages(embedded, host=("localhost",)) as gateway:
            port = gateway.address[1]
            await reach.is_nothing(EVIL, f"http://{EVIL}:{port}")
            await reach.is_all("localhost", f"http://localhost:{port}")

    async def test_behind_nginx_as_documented_it_is_as_it_was(self, embedded, browser, pages, reach, tmp_path):
        async with gateway_for_pages(embedded) as gateway:
            with running_nginx(tmp_path, gateway.address) as port:
                for host in (GATEWAY, "localhost"):
                    await reach.is_all(EVIL, f"http://{host}:{port}")
                origin = f"http://{GATEWAY}:{port}"
                assert await served_page(browser, pages, origin, "return (await told('/echo?mine')).body") == "mine"

    async def test_an_nginx_that_names_the_gateway_by_its_address_says_that_it_is_there(
        self, embedded, reach, tmp_path
    ):
        # The browser tells of its site where the address is its own machine's, as it does of any with TLS.
        own = "http://{}:{}"
        forwarded = own + "; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for"
        async with gateway_for_pages(embedded) as gateway:
            with running_nginx(tmp_path, gateway.address, own.format(*gateway.address)) as port:
                await reach.is_nothing(EVIL, f"http://localhost:{port}")
            with running_nginx(tmp_path, gateway.address, forwarded.format(*gateway.address)) as port:
                await reach.is_all(EVIL, f"http://localhost:{port}")


class Asked(NamedTuple):
    """What an allowed page asks, what it sees (status and part of the body, or an error), and how many jobs that is."""

    arguments: str
    seen: tuple[int, str] | str
    jobs: int


ASKED = {
    "simple": Asked("URL/echo', { method: 'POST', body: 'work' }", (200, "work"), 1),
    "GET": Asked("URL/echo?work'", (200, "work"), 1),
    "with a token and all headers": Asked(
        """URL/echo', { method: 'PUT', body: '{}', headers: {
            'Authorization': 'Bearer none', 'Content-Type': 'application/json', 'X-Gearman-Background': 'true',
            'X-Gearman-Unique': 'of-a-page', 'X-Gearman-Priority': 'high', 'X-Gearman-Timeout': '5',
            'X-Request-Id': 'mine', 'tracestate': 'a=b',
            'traceparent': '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' } }""",
        (200, ""),
        1,
    ),
    "a failed job": Asked("URL/fail', { method: 'POST', body: 'work' }", (500, "job-failed"), 1),
    "too large": Asked("URL/echo', { method: 'POST', body: 'x'.repeat(2000) }", (413, "body-too-large"), 0),
    "much too large": Asked("URL/echo', { method: 'POST', body: 'x'.repeat(3000000) }", (413, "body-too-large"), 0),
    "a bad header": Asked("URL/echo?x', { headers: { 'X-Gearman-Priority': 'none' } }", (400, "malformed-header"), 0),
    "headers too large": Asked(
        "URL/echo?x', { headers: { 'X-Gearman-Unique': 'x'.repeat(20000) } }",
        (431, "headers-too-large"),
        0,
    ),
    "no function": Asked("URL/?x'", (404, "no-function"), 0),
    "a method that is not served": Asked("URL/echo', { method: 'PATCH' }", "TypeError", 0),
    "a header that is not listed": Asked("URL/echo?x', { headers: { 'X-Other': 'x' } }", "TypeError", 0),
    "with cookies": Asked("URL/echo?x', { credentials: 'include' }", "TypeError", 1),
}
# nginx has bounds of its own, and its answers no lines for pages.
ASKED_OF_NGINX = {"headers too large": ASKED["headers too large"]._replace(seen="TypeError")}


class TestOrigins:
    @pytest.mark.parametrize("proxied", [False, True], ids=["directly", "behind-nginx"])
    async def test_allowed_pages_see_all_answers_and_others_reach_nothing(
        self, embedded, browser, reach, tmp_path, proxied
    ):
        settings = {"origin": (browser.origin(APP),), "max_body_bytes": 1000}
        async with AsyncExitStack() as stack:
            gateway = await stack.enter_async_context(gateway_for_pages(embedded, **settings))
            port = stack.enter_context(running_nginx(tmp_path, gateway.address)) if proxied else gateway.address[1]
            url = f"http://{GATEWAY}:{port}"
            for name, asked in {**ASKED, **(ASKED_OF_NGINX if proxied else {})}.items():
                before = embedded.submitted
                answer = await browser.run(APP, f"return await told('{asked.arguments.replace('URL', url)})")
                assert is_as_told(answer, asked), (name, answer)
                assert embedded.submitted - before == asked.jobs, name

            await reach.is_all(APP, url)
            # The browser tells less of an address that is not its own machine's, without TLS.
            await reach.is_nothing(EVIL, url, but=set(SIMPLE) - WITH_ORIGIN)
            await reach.is_nothing(EVIL, f"http://localhost:{port}")
            assert await browser.run(EVIL, LINK.replace("URL", f"http://localhost:{port}")) == 1
            answer = await browser.run(EVIL, f"return await told('{url}/echo?x')")
            assert answer == {"error": "TypeError"}
            assert "link" not in reach.ran

    async def test_a_page_that_asks_too_often_sees_when_to_come_again(self, embedded, browser, worker):
        script = """
            const asked = { headers: { Authorization: 'Bearer none' } };
            return [await told('URL/echo?1', asked), await told('URL/echo?2', asked)];
        """
        settings = {"origin": (browser.origin(APP),), "rate": RateBound(0.001, 1)}
        async with gateway_for_pages(embedded, **settings) as gateway:
            first, second = await browser.run(APP, script.replace("URL", f"http://{GATEWAY}:{gateway.address[1]}"))
        # The preflight before it did not count.
        assert (first["status"], first["body"]) == (200, "1")
        assert (second["status"], "rate-exceeded" in second["body"]) == (429, True)
        assert int(second["headers"]["retry-after"]) >= 900
        assert embedded.submitted == 1

    async def test_a_page_that_sends_a_key_again_sees_that_it_was_the_same_job(self, embedded, browser, worker):
        script = """
            const asked = { method: 'POST', body: 'mine', headers: { 'Idempotency-Key': '"KEY"' } };
            return [await told('URL/echo', asked), await told('URL/echo', asked)];
        """.replace("KEY", "8e03978e-40d5-43dd-bc93-6894a57f9324")
        async with gateway_for_pages(embedded, origin=(browser.origin(APP),)) as gateway:
            first, second = await browser.run(APP, script.replace("URL", f"http://{GATEWAY}:{gateway.address[1]}"))
        assert [(answer["status"], answer["body"]) for answer in (first, second)] == [(200, "mine")] * 2
        assert [answer["headers"].get("idempotency-replayed") for answer in (first, second)] == [None, "true"]
        assert first["headers"]["x-gearman-job-handle"] == second["headers"]["x-gearman-job-handle"]
        assert embedded.submitted == 1


def is_as_told(answer: dict[str, Any], asked: Asked) -> bool:
    """Whether a page has seen what it should, and the headers beside it."""
    if isinstance(asked.seen, str):
        return answer == {"error": asked.seen}
    status, body = asked.seen
    headers = answer["headers"]
    if asked.jobs and not (headers["x-gearman-job-handle"].startswith("H:") and headers["x-gearman-unique"]):
        return False
    return (answer["status"], answer["type"]) == (status, "cors") and body in answer["body"] and headers["x-request-id"]
