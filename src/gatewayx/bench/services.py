"""What a comparison needs beside its targets: `python -m gatewayx.bench.services worker|job-server HOST:PORT`.

The job server is the embedded one. Either runs until its standard input ends, so it does not outlive who started it.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from gatewayx.address import Address
from gatewayx.embedded.job_server import JobServer
from gatewayx.embedded.sample_functions import echo
from gatewayx.embedded.worker import Worker

FUNCTION = "echo"


async def _input_ended() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def worker(address: Address) -> None:
    """Echo every job of FUNCTION."""
    service = Worker(address, {FUNCTION.encode(): echo})
    await service.start()
    await _input_ended()
    await service.close()


async def job_server(address: Address) -> None:
    """Serve as a job server."""
    service = JobServer()
    await service.start(address.host, address.port)
    await _input_ended()
    await service.close()


if __name__ == "__main__":
    uvloop.run({"worker": worker, "job-server": job_server}[sys.argv[1]](Address.parse(sys.argv[2])))
