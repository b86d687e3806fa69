"""Pages in a real browser that draw a job while it runs: one that is cut off comes back, and the job runs once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import pytest

from gatewayx.embedded import encode
from support.browser import Browser, running_browser
from support.cutting_proxy import CuttingProxy
from support.demo import running_demo
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import ask, head
from support.nginx import running_nginx

pytestmark = pytest.mark.anyio

# Names of this machine in the browser.
APP, GATEWAY = "app.example", "gateway.example"

# A page as its author would write it: it draws the bar, and leaves coming back to the browser, which stops when the
# answer is 204. It tells what it has seen.
DRAWING = """
    const bar = made("progress", { max: 100, value: 0 });
    document.body.append(bar);
    const seen = [];
    let cuts = 0;
    const source = new EventSource("URL");
    for (const kind of ["created", "status", "data", "gap", "complete"]) {
        source.addEventListener(kind, (event) => {
            seen.push([kind, event.lastEventId]);
            if (kind === "status") {
                bar.value = JSON.parse(event.data).percent;
            }
        });
    }
    return await new Promise((resolve) => {
        source.onerror = () => {
            if (source.readyState === EventSource.CLOSED) {
                resolve({ seen, cuts, drawn: bar.value, job: seen[0][1] });
            }
            cuts += 1;
        };
    });
"""

# The demo's page is there, and its script has run.
LOADED = "document.readyState === 'complete' && document.querySelector('form') !== null"
# Starts a job of so many seconds in the demo's page, and cancels it as soon as it may if it shall; how it has ended,
# each value that the bar had, and what the page has told.
DEMO = """
    new Promise((resolve) => {
        const form = document.querySelector("form");
        const bar = document.querySelector("progress");
        const drawn = [bar.value];
        const { get, set } = Object.getOwnPropertyDescriptor(HTMLProgressElement.prototype, "value");
        Object.defineProperty(bar, "value", {
            get,
            set(value) {
                set.call(bar, value);
                if (drawn.at(-1) !== bar.value) {
                    drawn.push(bar.value);
                }
            },
        });
        form.seconds.value = SECONDS;
        form.start.click();
        const watch = () => {
            if (CANCELS && !form.cancel.disabled) {
                form.cancel.click();
            }
            const ended = document.body.dataset.ended;
            if (ended && !(CANCELS && !document.querySelector("pre").textContent.includes("POST"))) {
                resolve([ended, drawn, document.querySelector("pre").textContent]);
            } else {
                setTimeout(watch, 5);
            }
        };
        watch();
    })
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all that is asked of it here."""
    with running_browser() as browser:
        yield browser


class CutOff(NamedTuple):
    """Pages can be cut off from the gateway by the proxy; origin: where they reach it."""

    proxy: CuttingProxy
    origin: str
    gateway: RunningGateway


@pytest.fixture(params=["directly", "before-nginx", "behind-nginx"])
async def cut_off(request, job_server, browser, tmp_path) -> AsyncIterator[CutOff]:
    """A gateway for pages of APP, which can be cut off from it: directly, or on one of the two sides of an nginx."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running_gateway([job_server.address], origin=(browser.origin(APP),)))
        target = gateway.address
        if request.param == "before-nginx":
            target = ("127.0.0.1", stack.enter_context(running_nginx(tmp_path, target)))
        proxy = await stack.enter_async_context(CuttingProxy(target))
        port = proxy.address[1]
        if request.param == "behind-nginx":
            port = stack.enter_context(running_nginx(tmp_path, proxy.address))
        yield CutOff(proxy, f"http://{GATEWAY}:{port}", gateway)
        gateway.process.http.abort()


class TestEventSource:
    async def test_a_page_that_is_cut_off_comes_back_and_the_job_runs_once(self, cut_off, browser, worker, function):
        url = f"{cut_off.origin}/{function.decode()}?work"
        page = asyncio.ensure_future(browser.run(APP, DRAWING.replace("URL", url)))
        handle, _, _, workload = await worker.take()
        assert workload == b"work"
        worker.send(encode.work_status(handle, 1, 4))
        worker.send(encode.work_status(handle, 2, 4))
        await eventually(lambda: b'"percent":50' in cut_off.proxy.down)
        cut_off.proxy.cut()
        # Nobody listens to this one.
        worker.send(encode.work_status(handle, 3, 4))
        await eventually(lambda: b'"percent":75' in cut_off.proxy.down)
        assert b"\nlast-event-id: k" in cut_off.proxy.up.lower()
        worker.send(encode.work_status(handle, 4, 4))
        worker.complete(handle)

        told = await page
        job_id, _, _ = told["job"].partition(".")
        kinds = ["created", "status", "status", "status", "status", "complete"]
        assert told["seen"] == [[kind, f"{job_id}.{number}"] for number, kind in enumerate(kinds, 1)]
        assert told["drawn"] == 100
        # Once in the middle, and once behind the end, after which it asked once more and was told that this was all.
        assert told["cuts"] == 2
        assert cut_off.proxy.up.count(b"\r\n\r\n") == cut_off.proxy.up.count(b"GET /") == 3
        await worker.no_job()
        answer = await ask(cut_off.gateway.address, head(b"DELETE", b"/v1/jobs/" + job_id.encode()))
        assert answer.status == 204


class TestDemo:
    async def test_its_page_draws_a_job(self, browser):
        with running_demo("127.0.0.1:0") as (_, lines):
            async with browser.opened(address_of_page(lines)) as tab:
                await tab.until(LOADED)
                ended, drawn, told = await tab.evaluate(demo_script(seconds=1, cancels=False))
        assert ended == "complete"
        assert (drawn[0], drawn[-1]) == (0, 100)
        assert len(drawn) > 2
        assert drawn == sorted(drawn)
        assert told.count("status {") == 20

    async def test_its_page_cancels_a_job(self, browser):
        with running_demo("127.0.0.1:0") as (_, lines):
            async with browser.opened(address_of_page(lines)) as tab:
                await tab.until(LOADED)
                ended, drawn, told = await tab.evaluate(demo_script(seconds=60, cancels=True))
        assert ended == "cancelled"
        assert 100 not in drawn
        created = json.loads(next(line for line in told.splitlines() if line.startswith("created ")).split(" ", 1)[1])
        assert f"POST {created['links']['cancel']}: 20" in told


def demo_script(*, seconds: int, cancels: bool) -> str:
    """What is done in the demo's page."""
    return DEMO.replace("SECONDS", str(seconds)).replace("CANCELS", "true" if cancels else "false")


def address_of_page(lines: list[str]) -> str:
    """Where the demo has its page, as it tells."""
    [line] = [line for line in lines if line.startswith("A page ")]
    return line.rpartition(" ")[2].strip()
