"""The embedded job server with a worker for the sample functions, until killed.

python embedded_job_server.py HOST PORT
"""

import asyncio
import sys

import uvloop

from gatewayx.embedded.job_server import JobServer
from gatewayx.embedded.sample_functions import FUNCTIONS
from gatewayx.embedded.worker import Worker


async def serve(host: str, port: int) -> None:
    """Listen and work."""
    server = JobServer()
    await server.start(host, port)
    worker = Worker(server.address, FUNCTIONS)
    await worker.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
