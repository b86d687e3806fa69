"""A client's side of TLS over a plain asyncio transport, so that a test can close one side alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

# Where TLS is spoken, by the address: how clients speak it there.
CONTEXTS: dict[tuple[str, int], ssl.SSLContext] = {}


class TlsProtocol(asyncio.StreamReaderProtocol):
    """Decrypts what comes. is_whole: close_notify has come; a FIN before it may have been anybody's."""

    def __init__(self, reader: asyncio.StreamReader, context: ssl.SSLContext, name: str) -> None:
        super().__init__(reader)
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.is_whole = False
        self.is_cut = False
        self.shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        super().connection_made(transport)
        self.transport = transport
        self._shake()

    def data_received(self, data: bytes) -> None:
        """Decrypt it."""
        self.incoming.write(data)
        if not self.shaken.done():
            self._shake()
        if not self.shaken.done() or self.shaken.cancelled() or self.shaken.exception() is not None:
            return
        while not self.is_whole:
            try:
                plain = self.session.read(65536)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                plain = b""
            if plain:
                super().data_received(plain)
            else:
                self.is_whole = True
                super().eof_received()
        self.send()

    def eof_received(self) -> bool:
        """FIN."""
        if not self.shaken.done():
            self.shaken.set_exception(ConnectionResetError("the handshake was not finished"))
        return True if self.is_whole else bool(super().eof_received())

    def connection_lost(self, error: Exception | None) -> None:
        """All is over."""
        if not self.shaken.done():
            self.shaken.set_exception(ConnectionResetError("the handshake was not finished"))
        super().connection_lost(error)

    def send(self) -> None:
        """Send what OpenSSL has to say."""
        data = self.outgoing.read()
        if data and not self.is_cut and not self.transport.is_closing():
            self.transport.write(data)

    def _shake(self) -> None:
        try:
            self.session.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.shaken.set_exception(error)
        else:
            self.shaken.set_result(None)
        self.send()


class TlsWriter(asyncio.StreamWriter):
    """Encrypts what is written; `transport` is the socket's."""

    def __init__(self, protocol: TlsProtocol, reader: asyncio.StreamReader) -> None:
        super().__init__(protocol.transport, protocol, reader, asyncio.get_running_loop())
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        """Encrypt it and send it."""
        if data:
            self.protocol.session.write(data)
            self.protocol.send()

    def write_eof(self) -> None:
        """Send close_notify, then FIN."""
        self._say_end()
        super().write_eof()

    def cut(self) -> None:
        """Send FIN without close_notify, as whoever stands between may."""
        self.protocol.is_cut = True
        super().write_eof()

    def close(self) -> None:
        """Send close_notify and close."""
        if not self.is_closing():
            self._say_end()
        super().close()

    def _say_end(self) -> None:
        # The other side's is not waited for.
        with contextlib.suppress(ssl.SSLError):
            self.protocol.session.unwrap()
        self.protocol.send()


async def open_tls(
    connected: socket.socket, context: ssl.SSLContext, limit: int, name: str = "127.0.0.1"
) -> tuple[asyncio.StreamReader, TlsWriter]:
    """What asyncio.open_connection() returns. Raises ssl.SSLError, and ConnectionResetError without a reason."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit, loop)
    protocol = TlsProtocol(reader, context, name)
    await loop.create_connection(lambda: protocol, sock=connected)
    try:
        await asyncio.wait_for(protocol.shaken, 45)
    except BaseException:
        protocol.transport.abort()
        raise
    return reader, TlsWriter(protocol, reader)
