"""Fuzzes gatewayx.net.tls over a real pair of sockets: a client's handshake and records, changed on their way.

The client is OpenSSL's own, over memory; what it sends passes the input, which cuts, drops, doubles, swaps and changes
records and puts others between them, at any time of a handshake and after it. What must hold:
- nothing is raised out of the stream, nothing is logged as an error, the loop comes to rest;
- what the owner is given is a beginning of what the client has sent, by whatever records, and all of it if none was
  changed; but for a client that speaks no TLS at all, whose owner is told so before;
- the client reads a beginning of what the owner has sent;
- the owner is opened once, first, and is told of the loss once, last; of the end, and of what is not understood, at
  most once each;
- afterwards no socket is watched, no handshake is under way or in line, and each connection is counted once at most.

An input is a byte of options (the version of TLS, whether a session is taken up, the client's certificate), and pairs
of bytes, each an event and its argument.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import tempfile
from collections import deque
from pathlib import Path

import trustme

from gatewayx.core.counters import Counters
from gatewayx.core.turns import Turn
from gatewayx.net.poller import TurnPoller
from gatewayx.net.stream import SocketStream, Stream, StreamOwner
from gatewayx.net.tls import TlsServer

# Bits of the first byte.
OLDER, RESUMED, WITH_CERTIFICATE = 1, 2, 4
EVENTS = 16
RECORD_HEAD_BYTES = 5
# A loop that has not come to rest after so many turns never does.
MOST_TURNS = 2000
# The owner's write_high_bytes.
WRITE_HIGH_BYTES = 65536
# Of what either side writes at once, times an argument.
WRITE_STEP_BYTES = 331
# Both sides' bytes, by their place in all that was sent.
PATTERN = bytes((place * 7 + (place >> 8)) % 251 for place in range(1 << 20))
# What is no record of the client's: plain HTTP, hellos of other protocols and sizes, alerts, records of a wrong size.
FOREIGN = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x00\x00",
    b"\x16\x03\x01\xff\xff" + b"\x01\x00\xff\xfb" + b"a" * 400,
    b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    b"\x15\x03\x03\x00\x02\x01\x00",
    b"\x15\x03\x03\x00\x02\x02\x28",
    b"\x17\x03\x03\x00\x00",
    b"\x17\x03\x03\x00\x11" + bytes(17),
    b"\x17\x03\x03\x41\x01" + bytes(16641),
    b"\x14\x03\x03\x00\x01\x01",
    b"\x18\x03\x03\x00\x03\x01\x40\x00",
    b"\x80\x2e\x01\x00\x02" + bytes(43),
    b"\x00",
    b"\xff" * 64,
    b"\r\n",
)
TOKENS = [bytes([event, argument]) for event in range(EVENTS) for argument in (0, 1, 7, 255)]

logging.getLogger("gatewayx").addHandler(logging.NullHandler())


class Errors(logging.Handler):
    """Keeps what was logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """logging.Handler."""
        self.records.append(self.format(record))


class Owner(StreamOwner):
    """Who stands on the stream: keeps what it is told, and sends what it is told to send."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.got = bytearray()
        self.told: list[str] = []
        self.sent_bytes = 0
        self.is_paused = False
        self.is_at_end = False

    def opened(self, stream: Stream) -> int:
        """StreamOwner."""
        self.stream = stream
        self.told.append("opened")
        return 0

    def take(self, data: bytes) -> None:
        """StreamOwner."""
        assert "lost" not in self.told
        assert not self.is_paused
        self.got += data

    def ended(self) -> bool:
        """StreamOwner; it goes on writing if it has written at all."""
        self.told.append("ended")
        return self.sent_bytes > 0

    def not_understood(self, reason: str, plainly: bool) -> int:
        """StreamOwner."""
        self.told.append("plain" if plainly else "failed")
        return 0

    def lost(self, error: Exception | None) -> int:
        """StreamOwner."""
        self.told.append("lost")
        return 0

    def pause_writing(self) -> int:
        """StreamOwner."""
        return 0

    def resume_writing(self) -> int:
        """StreamOwner."""
        return 0

    def resume(self) -> None:
        """Read again."""
        if self.stream is not None and "lost" not in self.told:
            self.is_paused = False
            self.stream.resume()

    def act(self, argument: int) -> None:
        """What a connection may do with its stream; none pauses it before it was given anything."""
        stream = self.stream
        if stream is None or "lost" in self.told:
            return
        kind = argument % 8
        if kind < 3 and not stream.closing() and not self.is_at_end:
            size = argument * WRITE_STEP_BYTES
            stream.write_all([PATTERN[self.sent_bytes : self.sent_bytes + size]] if kind else [b"", b""])
            self.sent_bytes += size if kind else 0
        elif kind == 3 and self.got:
            self.is_paused = True
            stream.pause()
        elif kind == 4:
            self.resume()
        elif kind == 5 and not stream.closing():
            self.is_at_end = True
            stream.write_eof()
        elif kind == 6:
            stream.close()
        elif kind == 7:
            stream.abort() if argument & 8 else stream.reset()


class Stage:
    """What all inputs have: a loop, a server, and the contexts of clients."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.failures: list[dict[str, object]] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))
        self.errors = Errors()
        logging.getLogger("gatewayx").addHandler(self.errors)
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.options |= ssl.OP_NO_RENEGOTIATION
        authority.issue_cert("localhost").configure_cert(context)
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_OPTIONAL
        # OpenSSL reads a client's from a file alone.
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "client.pem")
            authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(str(file))
            self.contexts = [self._client(authority, options, file) for options in range(8)]
        self.sessions: dict[int, ssl.SSLSession] = {}
        self.counters = Counters()

        async def poller() -> TurnPoller:
            loop = asyncio.get_running_loop()
            return TurnPoller(loop, Turn(loop))

        self.poller = self.loop.run_until_complete(poller())
        self.server = TlsServer(self.poller, self.counters, context, 16)

    @staticmethod
    def _client(authority: trustme.CA, options: int, file: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(context)
        if options & OLDER:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        if options & WITH_CERTIFICATE:
            context.load_cert_chain(file)
        return context

    def settle(self) -> None:
        """Let the loop run until nothing happens any more."""

        async def at_rest() -> None:
            quiet = 0
            for _ in range(MOST_TURNS):
                number = self.poller.number
                await asyncio.sleep(0)
                quiet = quiet + 1 if self.poller.number == number else 0
                if quiet == 3:
                    return
            raise AssertionError("the loop never comes to rest")

        self.loop.run_until_complete(at_rest())


class Play:
    """One connection, and what each event of a script does with it."""

    def __init__(self, stage: Stage, options: int) -> None:
        self.stage = stage
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = stage.sessions.get(options & (OLDER | WITH_CERTIFICATE)) if options & RESUMED else None
        self.client = stage.contexts[options & (OLDER | WITH_CERTIFICATE)].wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost", session=session
        )
        self.socket, other = socket.socketpair()
        self.socket.setblocking(False)
        other.setblocking(False)
        self.owner = Owner()
        below = stage.server.over(lambda: self.owner)()
        SocketStream(stage.poller, other.detach(), below, WRITE_HIGH_BYTES).start()
        # Records of the client's, or what was made of them; what is sent of the first one is no longer there.
        self.records: deque[bytes] = deque()
        self.is_changed = False
        self.is_shaken = False
        self.is_broken = False
        self.is_over = False
        self.sent_bytes = 0
        self.got = bytearray()
        self.step()

    # The client.

    def step(self) -> None:
        """The client goes as far as it can with what it has, and its records are there to be sent."""
        try:
            if not self.is_shaken:
                self.client.do_handshake()
                self.is_shaken = True
            while not self.is_broken:
                piece = self.client.read(65536)
                if not piece:
                    break
                self.got += piece
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        except ssl.SSLError:
            # An alert, or the server's end: of what it is told the client has no more to say.
            self.is_broken = True
        data = self.outgoing.read()
        while data:
            size = RECORD_HEAD_BYTES + int.from_bytes(data[3:5], "big")
            self.records.append(data[:size])
            data = data[size:]

    def write(self, size: int) -> None:
        """The client sends so many bytes more, once it may."""
        if not self.is_shaken or self.is_broken or self.sent_bytes + size > len(PATTERN) or not size:
            return
        try:
            self.client.write(PATTERN[self.sent_bytes : self.sent_bytes + size])
            self.sent_bytes += size
        except ssl.SSLError:
            self.is_broken = True
        self.step()

    def say_end(self) -> None:
        """The client's close_notify."""
        if self.is_shaken and not self.is_broken:
            with contextlib.suppress(ssl.SSLError):
                self.client.unwrap()
            self.is_broken = True
            self.step()

    # The way.

    def send(self, data: bytes) -> None:
        """Bytes on the socket; all of them, or as many as the other side's kernel takes."""
        while data and not self.is_over:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                before = self.stage.poller.number
                self.stage.settle()
                if self.stage.poller.number <= before + 4:
                    # The owner reads no more.
                    self.is_changed = True
                    return
            except OSError:
                self.is_over = True

    def receive(self) -> None:
        """What the server has sent is the client's."""
        self.stage.settle()
        while True:
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                self.is_over = True
                break
            if not data:
                break
            self.incoming.write(data)
            self.step()
            self.stage.settle()
        self.step()

    def deliver(self) -> None:
        """Whatever either side has to say, as it is."""
        for _ in range(8):
            while self.records:
                self.send(self.records.popleft())
            self.receive()
            if not self.records:
                return

    def event(self, kind: int, argument: int) -> None:
        """One event; one that is impossible now is nothing."""
        records = self.records
        if kind == 0:
            self.deliver()
        elif kind == 1:
            self.write(argument * WRITE_STEP_BYTES)
        elif kind == 2:
            self.owner.act(argument)
        elif kind == 3:
            self.receive()
        elif kind == 4:
            self.say_end()
        elif kind == 5:
            self.is_changed = True
            self.send(FOREIGN[argument % len(FOREIGN)])
        elif kind == 6 and argument & 1:
            self.is_changed = True
            self.is_over = True
            self.socket.close()
        elif kind == 6 and not self.is_over:
            self.is_changed = self.is_changed or bool(records)
            self.socket.shutdown(socket.SHUT_WR)
            self.is_over = True
        elif kind == 7:
            self.stage.settle()
        elif records:
            self.change(kind, argument)

    def change(self, kind: int, argument: int) -> None:
        """Something becomes of the client's next record."""
        records = self.records
        record = records.popleft()
        at = argument * len(record) // 256
        if kind == 8:
            self.send(record)
        elif kind == 9:
            # The rest of it follows.
            self.send(record[:at])
            if record[at:]:
                records.appendleft(record[at:])
            self.stage.settle()
            return
        else:
            self.is_changed = True
            changed = bytearray(record)
            if kind == 10:
                changed[at] ^= 1 << (argument & 7)
            elif kind == 11:
                changed *= 2
            elif kind == 12:
                records.append(record)
                return
            elif kind == 13:
                changed[0] = argument
            elif kind == 14 and len(changed) >= RECORD_HEAD_BYTES:
                changed[3:5] = (argument * 67).to_bytes(2, "big")
            elif kind == 15:
                del changed[at:]
            self.send(bytes(changed))
        self.stage.settle()

    def end(self, options: int) -> None:
        """Nothing more comes; what there is must be as it has to be."""
        owner = self.owner
        self.deliver()
        if not self.is_changed and not self.is_over and "lost" not in owner.told and owner.stream is not None:
            owner.resume()
            self.deliver()
            # What comes behind the server's own end is nobody's.
            if not owner.stream.closing() and not owner.is_at_end:
                assert self.is_shaken
                assert len(owner.got) == self.sent_bytes
            kind = options & (OLDER | WITH_CERTIFICATE)
            if self.is_shaken and not self.is_broken and kind not in self.stage.sessions:
                # Once, since Python loses the memory of each session that was asked for (to 3.14).
                self.stage.sessions[kind] = self.client.session
        if not self.is_over:
            self.socket.close()
        self.stage.settle()
        if "lost" not in owner.told and owner.stream is not None:
            # Whoever reads no more learns of no end.
            owner.resume()
            self.stage.settle()
        if "lost" not in owner.told and owner.stream is not None:
            owner.stream.abort()
            self.stage.settle()
        self.socket.close()


def check(play: Play) -> None:
    """What must hold in the end."""
    owner, told = play.owner, play.owner.told
    if "plain" not in told:
        assert owner.got == PATTERN[: len(owner.got)]
        assert len(owner.got) <= play.sent_bytes
    assert play.got == PATTERN[: len(play.got)]
    assert len(play.got) <= owner.sent_bytes
    assert told[0] == "opened"
    assert told[-1] == "lost"
    assert max(map(told.count, told)) == 1


def one_input(data: bytes) -> None:
    """Run one input."""
    stage = the_stage()
    before = {name: count for name, count in stage.counters.read().items() if name.startswith("tls_")}
    options = data[0] if data else 0
    play = Play(stage, options)
    for place in range(1, len(data) - 1, 2):
        play.event(data[place] % EVENTS, data[place + 1])
    play.end(options)
    check(play)
    assert stage.failures == []
    assert not stage.errors.records, stage.errors.records[0]
    assert stage.poller.watched == 0
    assert stage.server.line.count == 0
    assert set(stage.server.counters().values()) == {0}
    counted = sum(count - before[name] for name, count in stage.counters.read().items() if name in before)
    assert counted <= 1


_made: list[Stage] = []


def the_stage() -> Stage:
    """The stage of this process."""
    if not _made:
        _made.append(Stage())
    return _made[0]


def seeds() -> list[bytes]:
    """Scripts of each kind."""
    whole = bytes([0, 0, 0, 0])
    scripts = [
        b"",
        whole,
        whole + bytes([1, 10, 0, 0, 2, 9, 0, 0, 1, 255, 0, 0]),
        whole + bytes([1, 3, 9, 20, 9, 128, 0, 0, 4, 0, 0, 0]),
        whole + bytes([2, 250, 3, 0, 2, 253, 3, 0, 4, 0, 0, 0]),
        whole + bytes([2, 3, 1, 200, 1, 200, 0, 0, 2, 4, 0, 0]),
        whole + bytes([1, 3, 2, 5, 0, 0, 1, 3, 0, 0]),
        whole + bytes([1, 3, 2, 6, 0, 0]),
        whole + bytes([1, 3, 8, 0, 1, 3, 6, 0]),
        whole + bytes([1, 3, 1, 3, 12, 0, 0, 0]),
        whole + bytes([2, 17, 6, 1]),
        *(whole + bytes([1, 60, kind, 130, 0, 0]) for kind in range(8, EVENTS)),
        *(bytes([kind, 130, 0, 0]) for kind in range(8, EVENTS)),
        *(bytes([8, 0, 3, 0, kind, 130, 0, 0]) for kind in range(8, EVENTS)),
        *(bytes([5, number, 0, 0]) for number in range(len(FOREIGN))),
        *(whole + bytes([5, number, 1, 1, 0, 0]) for number in range(len(FOREIGN))),
        bytes([9, 1, 9, 1, 9, 128, 9, 250, 0, 0]),
        bytes([8, 0, 6, 0, 7, 0]),
        bytes([8, 0, 6, 1]),
        bytes([2, 6, 0, 0]),
        bytes([2, 9, 2, 6, 0, 0]),
        bytes([2, 9, 2, 5, 0, 0, 1, 9, 0, 0]),
        bytes([2, 7, 0, 0]),
    ]
    return [bytes([options]) + script for options in (0, OLDER, RESUMED, OLDER | RESUMED, 4, 7) for script in scripts]
