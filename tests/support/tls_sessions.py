"""A client that takes up TLS sessions, which asyncio's cannot."""

from __future__ import annotations

import re
import socket
import ssl
from typing import NamedTuple

TIMEOUT_S = 45.0
# The name that an answer's request was given, which begins as all of one worker process do.
PROCESS = re.compile(rb"\r\nx-request-id: ([a-z2-7]+)-", re.IGNORECASE)


class Visit(NamedTuple):
    """What came of one connection. process: what tells the worker process that has answered from others."""

    status: int
    process: bytes
    is_resumed: bool
    # What the next one may take up.
    session: ssl.SSLSession


def visit(
    address: tuple[str, int], context: ssl.SSLContext, request: bytes, session: ssl.SSLSession | None = None
) -> Visit:
    """Connect, ask once and close; it blocks. session: to be taken up. Raises OSError, ssl.SSLError among them."""
    with (
        socket.create_connection(address, TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=address[0], session=session) as client,
    ):
        client.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = client.recv(65536)
            if not piece:
                raise ConnectionError("closed without an answer")
            answer += piece
        found = client.session
        process = PROCESS.search(answer)
        if found is None or process is None:
            raise ConnectionError("no session was given, or an answer without a name")
        return Visit(int(answer.split()[1]), process[1], client.session_reused is True, found)
