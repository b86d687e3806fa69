"""The lines of a batch's answer, as they are written. Bytes in, values out."""

from typing import final

@final
class AnswerLines:
    """Lines of answers that are gathered, in memory that grows."""

def answer_line(
    id: bytes | None,
    number: int,
    status: int,
    headers: bytes = b"",
    body: bytes | bytearray | None = b"",
    problem: bytes | None = None,
) -> bytes:
    """The line that answers another one.

    id: as JSON; None for none. headers: the lines of an answer's head, each with its CRLF. problem: the body of a
    problem as any request is answered (http/response), in place of `body`. Raises ValueError
    for a problem that is none.
    """
