"""A raw HTTP/1.1 client for tests: what is sent is known byte by byte, and every response that comes must be flawless,
and one that the OpenAPI document has for its request."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import struct
import time
from dataclasses import dataclass

from support.documented import OTHERS, Sent, check
from support.times import PROCESS_S, WAIT_S
from support.tls_client import CONTEXTS, open_tls

STREAM_LIMIT_BYTES = 1 << 20

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]+")
# RFC 9110 5.5: field-value without white space around it.
HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([!-~\x80-\xff](?:[ -~\x80-\xff]*[!-~\x80-\xff])?)")


ANY_REQUEST_ID = b"2345672345672-00000000000001"
REQUEST_ID = re.compile(rb"[a-z2-7]{13}-[0-9]{14}")
# Of a trusted proxy.
PROXYS_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")


@dataclass(frozen=True)
class Response:
    """One response. headers: names in lower case; no name is there twice."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def problem(self) -> dict[str, object]:
        """The body as RFC 9457 problem details; fails on anything else."""
        assert self.headers[b"content-type"] == b"application/problem+json"
        problem = json.loads(self.body)
        assert set(problem) == {"type", "title", "status", "detail", "instance"}
        assert problem["status"] == self.status
        assert problem["type"].startswith("urn:gatewayx:")
        request_id = str(problem["instance"]).removeprefix("urn:gatewayx:request:")
        # A relayed request is named by the process to which its client is connected, or by a proxy.
        assert PROXYS_REQUEST_ID.fullmatch(request_id.encode())
        assert request_id.encode() == self.headers.get(b"x-request-id", request_id.encode())
        return problem

    def kind(self) -> str:
        """The last part of the problem's type."""
        return str(self.problem()["type"]).rpartition(":")[2]


def head(method: bytes, target: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    """A request's head; headers: whole lines without their CRLF, after Host."""
    return b"\r\n".join((b"%b %b HTTP/%b" % (method, target, version), b"Host: gateway", *headers, b"", b""))


def post(target: bytes, body: bytes = b"", *headers: bytes, version: bytes = b"1.1") -> bytes:
    """A POST with a Content-Length."""
    return head(b"POST", target, *headers, b"Content-Length: %d" % len(body), version=version) + body


def get(target: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    """A GET."""
    return head(b"GET", target, *headers, version=version)


def chunked(*chunks: bytes) -> bytes:
    """A whole chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


class HttpClient:
    """One connection to `address`; an asynchronous context manager around `connect()` and `close()`.

    address: a host and a port, or the path of a unix socket. receive_buffer_bytes: of the kernel; small for a client
    that shall not take much without reading. source: the host to connect from; None leaves it to the kernel.
    source_port: the port likewise, by which a place of a worker process is chosen; 0 leaves it to the kernel.
    is_documented: whether it is asked what the OpenAPI document tells of, which the admin address, for one, is not.
    context: for TLS; None for what is known of the address. names_requests: it is a proxy whose names of requests may
    be taken. begins: what the connection begins with, before TLS too.
    """

    def __init__(
        self,
        address: tuple[str, int] | str,
        *,
        receive_buffer_bytes: int | None = None,
        source: str | None = None,
        source_port: int = 0,
        is_documented: bool = True,
        context: ssl.SSLContext | None = None,
        names_requests: bool = False,
        begins: bytes = b"",
    ) -> None:
        self.names_requests = names_requests
        self.begins = begins
        self.source = source
        self.source_port = source_port
        self.address = address
        self.receive_buffer_bytes = receive_buffer_bytes
        self.is_documented = is_documented
        self.context = context
        self.sent = Sent()

    async def connect(self) -> HttpClient:
        """Open the connection."""
        unix = isinstance(self.address, str)
        connected = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        connected.setblocking(False)
        if self.receive_buffer_bytes is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer_bytes)
        if self.source is not None:
            if self.source_port:
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connected.bind((self.source, self.source_port))
        try:
            await asyncio.get_running_loop().sock_connect(connected, self.address if unix else tuple(self.address))
            await asyncio.get_running_loop().sock_sendall(connected, self.begins)
        except BaseException:
            connected.close()
            raise
        context = self.context or CONTEXTS.get(self.address)
        if context is None:
            self.reader, self.writer = await asyncio.open_connection(sock=connected, limit=STREAM_LIMIT_BYTES)
        else:
            self.reader, self.writer = await open_tls(connected, context, STREAM_LIMIT_BYTES)
        self.is_documented = self.is_documented and self.address not in OTHERS
        self.sent = Sent()
        return self

    def send(self, *parts: bytes) -> None:
        """Send all parts in one write."""
        data = b"".join(parts)
        self.sent.feed(data)
        self.writer.write(data)

    async def send_all(self, *parts: bytes) -> None:
        """Send all parts and return once the kernel has most of them."""
        self.send(*parts)
        await asyncio.wait_for(self.writer.drain(), WAIT_S)

    def send_eof(self) -> None:
        """Close the sending side."""
        self.writer.write_eof()

    async def response(self, *, to_head: bool = False) -> Response:
        """The next response, an interim one (1xx) too; to_head: it answers a HEAD, so it has no body.

        Raises asyncio.IncompleteReadError at the end of the stream, AssertionError on what is no flawless response.
        """
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), WAIT_S)
        status_line, *lines = raw[:-4].split(b"\r\n")
        matched = STATUS_LINE.fullmatch(status_line)
        assert matched is not None, status_line
        status = int(matched[1])
        headers: dict[bytes, bytes] = {}
        for line in lines:
            matched = HEADER_LINE.fullmatch(line)
            assert matched is not None, line
            name = matched[1].lower()
            assert name not in headers, line
            headers[name] = matched[2]
        assert b"transfer-encoding" not in headers
        if status >= 200:
            assert headers[b"server"].startswith(b"gatewayx/")
            assert headers[b"date"].endswith(b" GMT")
            assert (headers[b"cache-control"], headers[b"x-content-type-options"]) == (b"no-store", b"nosniff")
            # A process tells another how a request has ended instead.
            assert (b"x-request-id" in headers) != (b"outcome" in headers)
            named = PROXYS_REQUEST_ID if self.names_requests else REQUEST_ID
            assert named.fullmatch(headers.get(b"x-request-id", ANY_REQUEST_ID))
        if status < 200 or status in (204, 304):
            # RFC 9110 8.6, and 15.4.5: of what was not modified the length may be told, which ours do not.
            assert b"content-length" not in headers
            self.check(status, headers, b"")
            return Response(status, headers, b"")
        length = int(headers[b"content-length"])
        body = b"" if to_head else await asyncio.wait_for(self.reader.readexactly(length), WAIT_S)
        assert (b"content-type" in headers) or not length
        self.check(status, headers, None if to_head else body)
        return Response(status, headers, body)

    def check(self, status: int, headers: dict[bytes, bytes], body: bytes | None, *, is_begun: bool = False) -> None:
        """Fail unless the document has this answer, which is the next one; an interim one is no answer."""
        if status < 200:
            assert status == 100
            return
        asked = self.sent.next()
        # A process tells another how a request has ended, which nobody else sees.
        if self.is_documented and b"outcome" not in headers:
            check(asked, status, headers, body, is_begun=is_begun)

    async def ask(self, *request: bytes, to_head: bool = False) -> Response:
        """Send a request and return the response."""
        self.send(*request)
        return await self.response(to_head=to_head)

    async def rest(self) -> bytes:
        """What comes up to the end of the stream."""
        return await asyncio.wait_for(self.reader.read(), WAIT_S)

    async def close(self) -> None:
        """Close the connection, however it is."""
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)

    def reset(self) -> None:
        """Close the connection with an RST, as a client does that closes with answers unread."""
        connected = self.writer.get_extra_info("socket")
        if connected is not None and connected.fileno() >= 0:
            # At once and with what was not sent dropped (socket(7), SO_LINGER).
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def __aenter__(self) -> HttpClient:
        return await self.connect()

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


async def ask(address: tuple[str, int] | str, *request: bytes, to_head: bool = False) -> Response:
    """The response to a request over a connection of its own."""
    async with HttpClient(address) as client:
        return await client.ask(*request, to_head=to_head)


async def refused(address: tuple[str, int]) -> None:
    """Return once nobody listens there any more."""
    ends_s = time.monotonic() + PROCESS_S
    while True:
        assert time.monotonic() < ends_s, "somebody listens"
        try:
            async with HttpClient(address):
                await asyncio.sleep(0.01)
        except ConnectionRefusedError:
            return
