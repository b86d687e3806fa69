"""`gatewayx demo`: gateway, embedded job server and sample worker in one process."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import signal
from collections.abc import Callable
from importlib import resources

import uvloop

from gatewayx.address import Address, ServerAddress
from gatewayx.config.settings import Settings
from gatewayx.embedded.job_server import JobServer
from gatewayx.embedded.sample_functions import FUNCTIONS
from gatewayx.embedded.worker import Worker
from gatewayx.server.process import GatewayProcess

# Nobody wants to wait for a demo's jobs.
DRAIN_TIMEOUT_S = 1.0


def run(listen: Address, write: Callable[[str], None]) -> int:
    """Serve the demo at `listen` until SIGINT or SIGTERM; return the exit code. Raises StartError.

    write: prints what to try; what it raises ends the demo.
    """
    return uvloop.run(_serve(listen, write))


def lines_to_try(gateway: Address, job_server: Address) -> str:
    """Return what to type against the gateway and the job server at these addresses, one example a line."""
    url = f"http://{gateway}"
    examples = [
        (f"curl -d 'Hello world!' {url}/reverse", "!dlrow olleH"),
        (f"curl {url}/echo?Hello", "the query is the workload"),
        (f"curl -d 2 {url}/sleep", "answers after two seconds"),
        (f"curl -d 'any' {url}/progress", "sends its result in pieces"),
        (f"curl -i -d 'any' {url}/fail", "500 and the reason as problem+json"),
        (f"curl -i -d 'Oh no' {url}/exception", "500 and the worker's own words"),
        (f"curl -i -d 2 -H 'X-Gearman-Background: true' {url}/sleep", "answers at once with the job handle"),
        (f"curl -N -d 5 -H 'Accept: text/event-stream' {url}/progress", "the job's events, as they happen"),
        (f"curl -i -d 5 -H 'Prefer: respond-async' {url}/progress", "202 at once; its Location is the job"),
        (f"curl '{url}/v1/jobs/ID?wait=10'", "what became of it, once it has ended"),
        (f"curl {url}/v1/jobs/ID/result", "its result, for five minutes"),
        (f"curl -d 'Hurry' -H 'X-Gearman-Priority: high' {url}/reverse", "overtakes waiting jobs"),
        (f"gearadmin --host={job_server.host} --port={job_server.port} --status", "the job server's view"),
    ]
    width = max(len(command) for command, _ in examples)
    return "\n".join(f"  {command:{width}}  # {remark}" for command, remark in examples)


def page() -> tuple[bytes, bytes]:
    """Return the demo's page, and the header lines that let it do what it does and nothing else.

    It may run its own script, which the policy knows by its hash, and ask the demo (w3.org/TR/CSP3).
    """
    html = resources.files("gatewayx").joinpath("demo_page.html").read_bytes()
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:; "
        f"script-src {_hash_of(html, b'script')}; style-src {_hash_of(html, b'style')}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return html, f"Content-Security-Policy: {policy}\r\nReferrer-Policy: no-referrer\r\n".encode("ascii")


def _hash_of(html: bytes, element: bytes) -> str:
    """What a policy calls the page's one element of this name, by its text."""
    [text] = re.findall(b"<%b>(.*?)</%b>" % (element, element), html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode('ascii')}'"


async def _serve(listen: Address, write: Callable[[str], None]) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, stopped.set)

    job_server = JobServer()
    await job_server.start("127.0.0.1", 0)
    job_server_address = Address(*job_server.address)
    worker = Worker(job_server_address, FUNCTIONS)
    await worker.start()
    settings = Settings(listen=(listen,), server=(ServerAddress(*job_server.address),), drain_timeout_s=DRAIN_TIMEOUT_S)
    gateway = GatewayProcess(settings)
    gateway.gateway.show(*page())
    try:
        await gateway.start()
        try:
            gateway_address = Address(*gateway.addresses[0])
            write(
                f"gatewayx demo: HTTP at {gateway_address}, job server at {job_server_address}. Try:\n\n"
                f"{lines_to_try(gateway_address, job_server_address)}\n\n"
                f"A page that draws a job: http://{gateway_address}/\n\nCtrl-C stops it."
            )
            await stopped.wait()
        finally:
            await gateway.drain()
    finally:
        await worker.close()
        await job_server.close()
    return 0
