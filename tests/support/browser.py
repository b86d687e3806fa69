"""A headless Chromium whose pages run what a test tells them, and say what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.devtools import Tab
from support.gearmand import die_with_parent
from support.tools import without_sanitizer

# A browser takes seconds to begin, on a busy machine many.
START_S = 90.0
ANSWER_S = 90.0
POLL_S = 0.05

# All names that end so are this machine; `localhost` is anyhow.
RESOLVER_RULES = "MAP *.example 127.0.0.1"
OPTIONS = (
    "--headless",
    # As root, as which CI runs, there is no other way.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    f"--host-resolver-rules={RESOLVER_RULES}",
    "--remote-debugging-port=0",
)

PAGE = """<!DOCTYPE html><title>page</title><link rel="icon" href="data:,"><script>
(async () => {
    let result;
    try {
        result = await (async () => { %(script)s })();
    } catch (error) {
        result = { error: error.name };
    }
    await fetch("%(report)s", { method: "POST", mode: "no-cors", body: JSON.stringify(result) });
})();
</script>"""

# What scripts may use. `told` is what a page sees of an answer; `ended` and `submitted` wait for elements and forms,
# however these are answered.
TOLD = """
const told = async (url, options) => {
    const answer = await fetch(url, options);
    const headers = Object.fromEntries(answer.headers);
    return { status: answer.status, type: answer.type, headers, body: await answer.text() };
};
const made = (name, fields) => Object.assign(document.createElement(name), fields);
const ended = (element) => new Promise((resolve) => {
    element.onload = element.onerror = resolve;
    document.body.append(element);
});
const submitted = async (form) => {
    const frame = made("iframe", { name: "of-the-form" });
    form.target = frame.name;
    document.body.append(frame, form);
    await new Promise((resolve) => { frame.onload = resolve; form.submit(); });
};
document.documentElement.append(document.createElement("body"));
"""


class Pages(ThreadingHTTPServer):
    """Serves pages under any name of this machine, and takes what they report."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.port = self.server_address[1]
        self.scripts: dict[str, str] = {}
        self.reports: dict[str, queue.Queue[Any]] = {}


class _Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Pages

    def do_GET(self) -> None:
        """A page, or nothing for whatever else a browser asks for."""
        page = self.server.scripts.get(self.path, "")
        self._answer(200 if page else 404, page.encode())

    def do_POST(self) -> None:
        """A page reports."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.reports[self.path].put(json.loads(body))
        self._answer(204, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is told of requests."""


class Browser:
    """A running browser. port: of the pages that it can open, under any name."""

    def __init__(self, pages: Pages, debugging_port: int) -> None:
        self.pages = pages
        self.port = pages.port
        self._debugging = f"http://127.0.0.1:{debugging_port}/json"
        self._numbers = itertools.count(1)

    def origin(self, name: str) -> str:
        """The origin of the pages under a name."""
        return f"http://{name}:{self.port}"

    async def run(self, name: str, script: str) -> Any:
        """What a script returns that runs in a page under this name."""
        path, page = self.page(script)
        self.pages.scripts[path] = page
        return await self.visit(f"{self.origin(name)}{path}", path)

    def page(self, script: str) -> tuple[str, str]:
        """A page with a script, to be served by anybody, and the path at which it reports."""
        path = f"/{next(self._numbers)}"
        self.pages.reports[path] = queue.Queue()
        return path, PAGE % {"script": TOLD + script, "report": self.origin("report.example") + path}

    async def visit(self, url: str, path: str) -> Any:
        """Open a page as its user does, in a tab of its own; what it reports at the path."""
        tab = await asyncio.to_thread(self._ask, f"new?{urllib.parse.quote(url, safe='')}", "PUT")
        try:
            return await asyncio.to_thread(self.pages.reports[path].get, timeout=ANSWER_S)
        finally:
            await asyncio.to_thread(self._ask, f"close/{json.loads(tab)['id']}", "GET")

    @contextlib.asynccontextmanager
    async def opened(self, url: str) -> AsyncIterator[Tab]:
        """A page that stays open and does what its user would; it may not have been read yet."""
        told = json.loads(await asyncio.to_thread(self._ask, f"new?{urllib.parse.quote(url, safe='')}", "PUT"))
        try:
            async with Tab(told["webSocketDebuggerUrl"]) as tab:
                yield tab
        finally:
            await asyncio.to_thread(self._ask, f"close/{told['id']}", "GET")

    def _ask(self, what: str, method: str) -> bytes:
        request = urllib.request.Request(f"{self._debugging}/{what}", method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=ANSWER_S) as answer:
            return answer.read()


@contextlib.contextmanager
def running_browser(*options: str) -> Iterator[Browser]:
    """A browser, gone on leaving. options: more of its command line. It blocks for a second or two."""
    binary = shutil.which("chromium")
    if binary is None:
        raise FileNotFoundError("chromium is not installed (Debian: chromium)")
    pages = Pages()
    thread = threading.Thread(target=pages.serve_forever, daemon=True)
    thread.start()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [binary, *OPTIONS, *options, f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=without_sanitizer(),
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        try:
            yield Browser(pages, _debugging_port(process, Path(folder, "DevToolsActivePort")))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            pages.shutdown()
            pages.server_close()
            thread.join()


def _debugging_port(process: subprocess.Popen[bytes], told_in: Path) -> int:
    ends_s = time.monotonic() + START_S
    while time.monotonic() < ends_s and process.poll() is None:
        lines = told_in.read_text().split() if told_in.exists() else []
        if len(lines) > 1:
            return int(lines[0])
        time.sleep(POLL_S)
    raise AssertionError(f"chromium has not begun: {process.returncode}")
