"""The http room in front of answers that come in pieces as a test gives them, with time that passes as it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from fuzz.world import Failures, FakeStream, Loop
from gatewayx.config.settings import Settings
from gatewayx.core.budget import ByteBudget
from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.core.metrics import alone
from gatewayx.core.turns import Turn
from gatewayx.http.connection import HttpServer
from gatewayx.http.limits import Limits
from gatewayx.http.outcomes import OUTCOMES
from gatewayx.http.python_handler import PlainAnswer, PlainPieces, PlainRequest, PythonHandler
from gatewayx.http.records import Records
from gatewayx.http.response import ResponseBuilder

TICK_S = 0.1
# As many as a process ends at one tick.
MOST_ENDED = 1000
CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


def chunks_of(body: bytes) -> tuple[list[bytes], bytes | None]:
    """The chunks that a body begins with, and what stands behind the last one; None if that has not come."""
    chunks = []
    while body:
        size = CHUNK.match(body)
        assert size, body
        assert not size[1].startswith(b"0") or size[1] == b"0"
        end = size.end() + int(size[1], 16)
        assert body[end : end + 2] == b"\r\n", "a chunk does not end where it says"
        if end == size.end():
            return chunks, body[end + 2 :]
        chunks.append(body[size.end() : end])
        body = body[end + 2 :]
    return chunks, None


class PiecesClient(FakeStream):
    """A client's connection."""

    def __init__(self, server: PiecesServer) -> None:
        super().__init__(server.loop, server.http.connection())
        # What was written, one entry a write.
        self.writes: list[bytes] = []
        self.was_reset = False
        self.open()

    def write_all(self, pieces: list[bytes]) -> int:
        """FakeStream."""
        self.writes.append(b"".join(pieces))
        return super().write_all(pieces)

    def reset(self) -> int:
        """Stream."""
        self.was_reset = True
        return self.abort()

    def ask(self, *requests: bytes) -> None:
        """Send them in one piece, and let the loop come to rest."""
        self.receive(b"".join(requests))
        self.loop.settle()

    def heads(self) -> list[bytes]:
        """All heads that came, nothing of which may stand in a body."""
        return re.findall(rb"HTTP/1\.1 [0-9]{3} .*?\r\n\r\n", bytes(self.written), re.DOTALL)

    def body(self) -> bytes:
        """All that came behind the first head."""
        return bytes(self.written).partition(b"\r\n\r\n")[2]


class PiecesServer:
    """Answers each target with what a test has put there, and any other with itself."""

    def __init__(self, max_held_bytes: int, *, answers_half_closed: bool = False, **settings: object) -> None:
        self.loop = Loop()
        turn = Turn(self.loop)
        self.counters = Counters()
        self.budget = ByteBudget(max_held_bytes, self.counters)
        self.wheel = DeadlineWheel(TICK_S, self.loop.now_s)
        self.metrics = alone()
        self.records = Records(self.metrics, turn)
        self.answers: dict[bytes, PlainPieces | PlainAnswer] = {}
        self.http = HttpServer(
            self.loop,
            self.wheel,
            Limits(Settings(**settings)),
            PythonHandler(self._respond, ()),
            ResponseBuilder(now_s=0),
            self.budget,
            turn,
            self.counters,
            answers_half_closed=answers_half_closed,
            records=self.records,
        )

    def _respond(self, request: PlainRequest) -> PlainAnswer:
        answer = self.answers.get(request.path)
        if isinstance(answer, PlainAnswer):
            return answer
        return PlainAnswer(200, b"text/plain", request.path if answer is None else answer)

    def client(self) -> PiecesClient:
        """One more client."""
        return PiecesClient(self)

    def pieces(self, target: bytes = b"/pieces", body_bytes: int = -1, first: bytes | None = None) -> PlainPieces:
        """What this target is answered with from now on."""
        answer = self.answers[target] = PlainPieces(body_bytes, first)
        return answer

    def pass_time(self, seconds: float) -> None:
        """Let time pass, a tick at once."""
        for _ in range(round(seconds / TICK_S)):
            self.loop.now_s += TICK_S
            self.wheel.advance(self.loop.now_s)
            while self.wheel.fire(MOST_ENDED):
                pass
            self.http.relieve(MOST_ENDED)
            self.loop.settle()

    def held_bytes(self) -> int:
        """What is held for clients."""
        return self.budget.counters()["held_bytes"]

    def outcomes(self) -> list[tuple[str, int]]:
        """How requests have ended so far."""
        return [OUTCOMES[outcome] for _, outcome, _, count in self.metrics.requests() for _ in range(count)]


@contextmanager
def pieces_server(max_held_bytes: int = 1 << 20, *, fails: bool = False, **settings: object) -> Iterator[PiecesServer]:
    """It; on leaving nothing may be held, and nothing may have failed, or one thing must have if `fails`."""
    failures = Failures()
    with failures:
        server = PiecesServer(max_held_bytes, **settings)
        try:
            yield server
            server.http.abort()
            server.loop.settle()
            if fails:
                assert len(failures.records) == 1
            else:
                failures.check()
            assert not server.loop.failures, server.loop.failures
            assert server.http.counters()["requests_in_flight"] == 0
            assert server.held_bytes() == 0
            assert server.wheel.armed == 0
        finally:
            server.loop.close()
