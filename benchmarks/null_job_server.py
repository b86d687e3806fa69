"""A job server that answers at once: JOB_CREATED to every submit and, to a foreground one, its own workload as result.

It queues nothing, knows no workers and does as little as it can, so that a load on a gateway in front of it measures
the gateway alone.

    python null_job_server.py --listen HOST:PORT
"""

import argparse
import asyncio
from typing import cast

import uvloop
from packets import HEADER, PacketType, encode_response

FOREGROUND = (PacketType.SUBMIT_JOB, PacketType.SUBMIT_JOB_HIGH, PacketType.SUBMIT_JOB_LOW)
BACKGROUND = (PacketType.SUBMIT_JOB_BG, PacketType.SUBMIT_JOB_HIGH_BG, PacketType.SUBMIT_JOB_LOW_BG)


class NullConnection(asyncio.Protocol):
    """One client connection: the answers to everything that arrived together leave in one write."""

    def __init__(self) -> None:
        self._unread = b""
        self._jobs = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, received: bytes) -> None:
        data = self._unread + received if self._unread else received
        start = 0
        answers = []
        while len(data) - start >= HEADER.size:
            _, packet_type, data_bytes = HEADER.unpack_from(data, start)
            end = start + HEADER.size + data_bytes
            if end > len(data):
                break
            answers.append(self._answer(packet_type, data[start + HEADER.size : end]))
            start = end
        self._unread = data[start:]
        self._transport.write(b"".join(answers))

    def _answer(self, packet_type: int, data: bytes) -> bytes:
        if packet_type in FOREGROUND or packet_type in BACKGROUND:
            self._jobs += 1
            handle = b"H:null:%d" % self._jobs
            created = encode_response(PacketType.JOB_CREATED, handle)
            if packet_type in BACKGROUND:
                return created
            workload = data.split(b"\0", 2)[2]
            return created + encode_response(PacketType.WORK_COMPLETE, handle, workload)
        if packet_type == PacketType.OPTION_REQ:
            return encode_response(PacketType.OPTION_RES, data)
        if packet_type == PacketType.ECHO_REQ:
            return encode_response(PacketType.ECHO_RES, data)
        return encode_response(PacketType.ERROR, b"unexpected", b"type %d" % packet_type)


async def serve(host: str, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(NullConnection, host, port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    host, _, port = parser.parse_args().listen.rpartition(":")
    uvloop.run(serve(host, int(port)))


if __name__ == "__main__":
    main()
