"""A client that takes up TLS sessions, which asyncio's cannot."""

from __future__ import annotations

import socket
import ssl
from typing import NamedTuple

TIMEOUT_S = 10.0


class Visit(NamedTuple):
    """What came of one connection."""

    status: int
    is_resumed: bool
    # What the next one may take up.
    session: ssl.SSLSession


def visit(
    address: tuple[str, int],
    context: ssl.SSLContext,
    request: bytes,
    session: ssl.SSLSession | None = None,
    source_port: int = 0,
) -> Visit:
    """Connect, ask once and close; it blocks. session: to be taken up. Raises OSError, ssl.SSLError among them."""
    source = ("127.0.0.1", source_port) if source_port else None
    with (
        socket.create_connection(address, TIMEOUT_S, source) as plain,
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
        if found is None:
            raise ConnectionError("no session was given")
        return Visit(int(answer.split()[1]), client.session_reused is True, found)
