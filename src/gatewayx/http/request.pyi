"""One request, who takes its answer, and who knows what it means; the .pxd has the C-level interface."""

from typing import final

from gatewayx.net.stream import StreamOwner

@final
class RequestNote:
    """What the access log tells of a request."""

@final
class ProxyNote:
    """What a trusted proxy tells of a request."""

class BodySink:
    """Takes the body of a request as it arrives."""

class BodySource(BodySink):
    """Has the body of an answer that comes in pieces."""

@final
class Request:
    """What Python sees of a request; the .pxd says what each field means."""

    @property
    def method(self) -> int: ...
    @property
    def path(self) -> bytes: ...
    @property
    def query(self) -> bytes | None: ...
    @property
    def minor_version(self) -> int: ...
    @property
    def keep_alive(self) -> bool: ...
    @property
    def content_length(self) -> int: ...
    @property
    def chunked(self) -> bool: ...
    @property
    def expects_continue(self) -> bool: ...
    @property
    def headers(self) -> list[bytes] | None: ...
    @property
    def body(self) -> bytes | None: ...

class RequestOwner(StreamOwner):
    """Who takes the answer to a request."""

class RequestHandler:
    """Who knows what requests mean."""
