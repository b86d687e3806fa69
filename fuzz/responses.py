"""What was written to a client, taken apart without the gateway's own code."""

from __future__ import annotations

import re
from typing import NamedTuple

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]+")
HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([!-~\x80-\xff](?:[ -~\x80-\xff]*[!-~\x80-\xff])?)")


class Response(NamedTuple):
    """One response; names of headers in lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    # It has none though its head says so.
    to_head: bool
    # It comes in pieces, of which the last has not come, or nothing tells that it has.
    unfinished: bool = False

    @property
    def is_cut(self) -> bool:
        """Whether a part of the body is missing."""
        if b"transfer-encoding" in self.headers:
            return self.unfinished
        return not self.to_head and len(self.body) < int(self.headers.get(b"content-length", b"0"))


def responses_of(written: bytes, *, may_be_cut: bool = False) -> list[Response]:
    """All final responses in what was written to a client, whatever he read of it; fails on what is none.

    may_be_cut: whether a part of the last body may be missing.
    """
    responses: list[Response] = []
    while written:
        head, separator, written = written.partition(b"\r\n\r\n")
        assert separator, f"{head!r} is no whole head"
        status_line, *lines = head.split(b"\r\n")
        matched = STATUS_LINE.fullmatch(status_line)
        assert matched, status_line
        status = int(matched[1])
        headers: dict[bytes, bytes] = {}
        for line in lines:
            field = HEADER_LINE.fullmatch(line)
            assert field, line
            assert field[1].lower() not in headers, line
            headers[field[1].lower()] = field[2]
        if status < 200:
            assert (status, headers) == (100, {})
            continue
        if b"content-length" not in headers and status != 204:
            body, written, unfinished = pieces_of(written, headers)
            responses.append(Response(status, headers, body, to_head=False, unfinished=unfinished))
            assert not unfinished or not written
            continue
        if status == 204:
            assert b"content-length" not in headers
            length = 0
        else:
            length = int(headers[b"content-length"])
        # Neither a problem nor a result begins like this.
        to_head = length > 0 and (not written or written.startswith(b"HTTP/1.1 "))
        body = b"" if to_head else written[:length]
        assert to_head or may_be_cut or len(body) == length, "a body that is cut short"
        written = written[len(body) :]
        responses.append(Response(status, headers, body, to_head))
        if headers.get(b"connection") == b"close":
            assert not written, "an answer after the last one"
    return responses


def pieces_of(written: bytes, headers: dict[bytes, bytes]) -> tuple[bytes, bytes, bool]:
    """A body that comes in pieces, what follows it, and whether it is unfinished, as far as anything tells."""
    if b"transfer-encoding" not in headers:
        assert headers[b"connection"] == b"close"
        return written, b"", True
    assert headers[b"transfer-encoding"] == b"chunked"
    body = b""
    while True:
        size, separator, rest = written.partition(b"\r\n")
        if not separator:
            return body, b"", True
        size_bytes = int(size, 16)
        if len(rest) < size_bytes + 2:
            return body + rest[:size_bytes], b"", True
        assert rest[size_bytes : size_bytes + 2] == b"\r\n"
        body += rest[:size_bytes]
        written = rest[size_bytes + 2 :]
        if size_bytes == 0:
            return body, written, False
