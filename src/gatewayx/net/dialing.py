"""Connections to others: sockets of ours where they are plain, the event loop's transports where there is TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Iterable
from typing import Any

from gatewayx.net.names import NumericHost
from gatewayx.net.poller import TurnPoller
from gatewayx.net.stream import SocketStream, StreamOwner, TransportStream


class Dialer:
    """Makes the connections of a process.

    loop: the event loop. poller: watches the sockets of plain connections.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, poller: TurnPoller) -> None:
        self.loop = loop
        self.poller = poller

    async def dial(
        self,
        owner: StreamOwner,
        address: NumericHost,
        port: int,
        *,
        write_high_bytes: int,
        options: Iterable[tuple[int, int, int]] = (),
        tls_context: ssl.SSLContext | None = None,
        tls_name: str | None = None,
    ) -> None:
        """Connect, and open the owner on the stream. Raises OSError.

        write_high_bytes: the owner is told once more than so many bytes wait for the kernel. options: of the socket, as
        setsockopt() takes them. tls_context: begin TLS at once, with the server's name `tls_name`.
        """
        with contextlib.ExitStack() as on_error:
            connected = on_error.enter_context(await self.connect(address, port))
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option in options:
                connected.setsockopt(*option)
            if tls_context is not None:
                protocol: Any = TransportStream(owner, write_high_bytes)
                await self.loop.create_connection(
                    lambda: protocol, sock=connected, ssl=tls_context, server_hostname=tls_name
                )
            else:
                SocketStream(self.poller, connected.fileno(), owner, write_high_bytes).start()
                connected.detach()
            on_error.pop_all()

    async def connect(self, address: NumericHost, port: int) -> socket.socket:
        """A connected socket, non-blocking. Raises OSError. The loop is never given a name, nor drops a scope."""
        with contextlib.ExitStack() as on_error:
            connecting = on_error.enter_context(socket.socket(address.family, socket.SOCK_STREAM))
            connecting.setblocking(False)
            is_ipv6 = address.family == socket.AF_INET6
            target = (address.host, port, 0, address.scope) if is_ipv6 else (address.host, port)
            with contextlib.suppress(BlockingIOError):
                connecting.connect(target)
            await self._writable(connecting)
            error = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            on_error.pop_all()
        return connecting

    async def _writable(self, connecting: socket.socket) -> None:
        writable: asyncio.Future[None] = self.loop.create_future()

        def is_writable() -> None:
            # It may be called again before the coroutine has its turn.
            if not writable.done():
                writable.set_result(None)

        self.loop.add_writer(connecting, is_writable)
        try:
            await writable
        finally:
            self.loop.remove_writer(connecting)
