"""What can be wrong with a request: the client's fault, answered and, since the framing is in doubt, closed."""


class RequestError(Exception):
    """A request that is refused before any handler sees the whole of it.

    status: the HTTP status of the answer. kind: its short name, the end of the problem's `type`.
    detail: one sentence that names what was wrong; never holds raw bytes from the network.
    headers: further header lines of the answer, each with its CRLF.
    """

    def __init__(self, status: int, kind: str, detail: str, headers: bytes | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = headers
