"""The embedded job server with a worker for the sample functions, until killed.

python embedded_job_server.py HOST PORT
"""

import asyncio
import sys

import uvloop

from gatewayx.gearman.job_server import JobServer
from gatewayx.gearman.sample_functions import FUNCTIONS
from gatewayx.gearman.worker import Worker


async def serve(host: str, port: int) -> None:
    """Listen and work."""
    server = JobServer()
    await server.start(host, port)
    worker = Worker(server.address, FUNCTIONS)
    await worker.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
