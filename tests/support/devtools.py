"""A page that is open in a browser: what its user does is told by the DevTools protocol over a WebSocket (RFC 6455)."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
import urllib.parse
from typing import Any

# As long as a page may take for what it is told.
ANSWER_S = 90.0
POLL_S = 0.01
SHORT, MEDIUM, LONG = 125, 126, 127
FINAL_TEXT = 0x81
MASKED = 0x80


class Tab:
    """An open page. An asynchronous context manager; url: of its WebSocket, as the browser tells it."""

    def __init__(self, url: str) -> None:
        self.url = urllib.parse.urlsplit(url)
        self._last_id = 0

    async def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression is in the page, once it is known where it is a promise. Fails if it throws."""
        message = await self._ask(expression)
        assert "result" in message, message
        assert "exceptionDetails" not in message["result"], message
        return message["result"]["result"].get("value")

    async def until(self, condition: str) -> None:
        """Return once the condition holds in the page, which may still be on its way: an empty one is there before."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + ANSWER_S
        while (await self._ask(condition)).get("result", {}).get("result", {}).get("value") is not True:
            assert loop.time() < ends_s, f"{condition} never came true"
            await asyncio.sleep(POLL_S)

    async def _ask(self, expression: str) -> dict[str, Any]:
        """What the browser says of an expression; an error where another page takes the place of this one."""
        self._last_id += 1
        self._send(
            {
                "id": self._last_id,
                "method": "Runtime.evaluate",
                "params": {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True},
            }
        )
        while (message := json.loads(await self._receive())).get("id") != self._last_id:
            continue
        return message

    async def __aenter__(self) -> Tab:
        self.reader, self.writer = await asyncio.open_connection(self.url.hostname, self.url.port)
        key = base64.b64encode(os.urandom(16)).decode()
        self.writer.write(
            f"GET {self.url.path} HTTP/1.1\r\nHost: {self.url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), ANSWER_S)
        assert head.startswith(b"HTTP/1.1 101 "), head
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.writer.close()
        await self.writer.wait_closed()

    def _send(self, message: dict[str, Any]) -> None:
        """One text frame; a mask of zeros is one as well (section 5.3)."""
        payload = json.dumps(message).encode()
        size = (
            bytes([MASKED | len(payload)])
            if len(payload) <= SHORT
            else struct.pack(">BH", MASKED | MEDIUM, len(payload))
        )
        self.writer.write(bytes([FINAL_TEXT]) + size + bytes(4) + payload)

    async def _receive(self) -> bytes:
        """The payload of the next frame; the browser neither masks nor splits what it sends."""
        first, size = await self._read(2)
        assert first == FINAL_TEXT, first
        if size == MEDIUM:
            [size] = struct.unpack(">H", await self._read(2))
        elif size == LONG:
            [size] = struct.unpack(">Q", await self._read(8))
        return await self._read(size)

    async def _read(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), ANSWER_S)
