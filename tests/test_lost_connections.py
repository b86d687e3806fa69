"""What is written to a connection that is gone is dropped, and drain() tells of it, as the tests take for granted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from support.gateway import eventually
from support.lost_connections import write

pytestmark = pytest.mark.anyio


@pytest.fixture
async def lost() -> AsyncIterator[asyncio.StreamWriter]:
    """The writer of a connection that the other side has reset."""

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"unread")
        await eventually(lambda: reader.exception() is not None or reader.at_eof())
        if not writer.is_closing():
            writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        yield writer


async def test_the_loop_itself_raises(lost):
    with pytest.raises(RuntimeError, match="closed"):
        lost.transport.write(b"x")


async def test_writing_is_nothing(lost):
    lost.write(b"x")
    lost.writelines([b"x"])
    lost.write_eof()
    write(lost.transport, b"x")
    with pytest.raises(ConnectionError):
        await lost.drain()
