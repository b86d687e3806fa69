"""Fuzzes gatewayx.gearman.packet.PacketReader against a model of the framing in plain Python.

What must hold for any bytes:
- nothing but a ProtocolError is raised, and after it every take() raises the same one;
- the packets, their arguments, their offsets in the stream and the error are those of the model;
- they are the same however the bytes are cut, large packets that were skipped aside;
- take() ends: each call uses up bytes or returns NEED_MORE;
- nothing is allocated on the peer's word alone (the memory limit of the fuzzer).

An input is three bytes (options, length of the filler, seed of the cuts) and the stream. The filler is put behind the
stream, and a whole packet behind that, so that packets above LARGE_BYTES come to their end in short inputs.
"""

from __future__ import annotations

import random
import struct
from typing import NamedTuple

from gatewayx.embedded import encode
from gatewayx.gearman import errors
from gatewayx.gearman.packet import (
    HEADER_BYTES,
    LARGE_BYTES,
    MAX_FIRST_ARGUMENT_BYTES,
    Magic,
    PacketReader,
    PacketType,
    Taken,
)

# As gearmand's table has them (libgearman/command.cc); a list of its own, not the reader's.
ARGUMENT_COUNTS = {
    **dict.fromkeys((3, 4, 6, 9, 10, 24, 30, 39), 0),
    **dict.fromkeys((1, 2, 8, 14, 15, 16, 17, 22, 26, 27, 41), 1),
    **dict.fromkeys((13, 19, 23, 25, 28, 29), 2),
    **dict.fromkeys((7, 11, 12, 18, 21, 32, 33, 34), 3),
    **dict.fromkeys((31, 36), 4),
    **dict.fromkeys((20, 37, 38, 40), 5),
    **dict.fromkeys((42,), 6),
    **dict.fromkeys((35,), 8),
}

# Their one argument is a name; what stands behind it is an argument more.
NAMED = frozenset({PacketType.JOB_CREATED, PacketType.WORK_FAIL, PacketType.OPTION_RES})

# Bits of the first byte.
RESPONSES, ANNOUNCE, SKIP, SKIP_LATER = 1, 2, 4, 8
MAX_BODY_BYTES = (0, 100, LARGE_BYTES + 4096, 1 << 24)
MAX_BODY_SHIFT = 4
FILLER_STEP_BYTES = 1024
FILLERS = (b"\0", b"x")
FILLER_SHIFT = 6
CUTS = (1, 2, 3, 7, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, 64, 4096, LARGE_BYTES)
# Most that is kept when the packet is larger than the reader was told.
KEEP_BYTES = 1 << 20

# Stands in the model for what depends on the cuts; nothing after it is compared.
DOUBT = "doubt"

LAST_PACKET = {
    Magic.REQUEST: encode.packet(Magic.REQUEST, PacketType.ECHO_REQ, b"last"),
    Magic.RESPONSE: encode.packet(Magic.RESPONSE, PacketType.ECHO_RES, b"last"),
}


class Outcome(NamedTuple):
    """One thing that comes out of a stream: a packet, one that was skipped, or the error that ends it."""

    offset: int
    # A packet's type, or the class of the error.
    kind: object
    body_bytes: int = 0
    # None for a packet that was skipped.
    arguments: tuple[bytes, ...] | None = None


class Options(NamedTuple):
    """How the reader is made and what becomes of large packets."""

    magic: int
    announces: bool
    # Skip all that is announced; later: after it was kept and more has come.
    skips: bool
    skips_later: bool
    max_body_bytes: int

    def may_skip(self, body_bytes: int) -> bool:
        """Whether such a packet is skipped if it is announced."""
        return self.announces and self.is_large(body_bytes) and (self.skips or body_bytes > KEEP_BYTES)

    def is_large(self, body_bytes: int) -> bool:
        """Whether such a packet is announced if it does not come whole."""
        return body_bytes > min(LARGE_BYTES, self.max_body_bytes)


def arguments_of(packet_type: int, body: bytes) -> tuple[bytes, ...] | None:
    """The arguments in a body; None if it is malformed."""
    count = ARGUMENT_COUNTS[packet_type]
    if count == 0:
        return ()
    if packet_type in NAMED:
        name, _, behind = body.partition(b"\0")
        behind = behind.removesuffix(b"\0")
        if len(name) > MAX_FIRST_ARGUMENT_BYTES:
            return None
        return (name, behind) if behind else (name,)
    arguments = body.split(b"\0", count - 1)
    if len(arguments) < count or (count > 1 and len(arguments[0]) > MAX_FIRST_ARGUMENT_BYTES):
        return None
    return tuple(arguments)


def expected(stream: bytes, options: Options) -> list[Outcome]:
    """What the reader must find in a stream, by the PROTOCOL text."""
    magic = b"\0RES" if options.magic == Magic.RESPONSE else b"\0REQ"
    outcomes: list[Outcome] = []
    offset = 0
    while len(stream) - offset >= HEADER_BYTES:
        packet_type, body_bytes = struct.unpack_from(">II", stream, offset + 4)
        body = stream[offset + HEADER_BYTES : offset + HEADER_BYTES + body_bytes]
        error: type | None = None
        count = ARGUMENT_COUNTS.get(packet_type)
        if stream[offset : offset + 4] != magic:
            error = errors.BadMagicError
        elif count is None:
            error = errors.UnknownPacketTypeError
        elif (count == 0 and body_bytes) or (
            count == 1
            and body_bytes > MAX_FIRST_ARGUMENT_BYTES
            and packet_type not in {PacketType.ECHO_REQ, PacketType.ECHO_RES, *NAMED}
        ):
            error = errors.MalformedPacketError
        elif body_bytes > options.max_body_bytes and not options.announces:
            error = errors.PacketTooLargeError
        if error is not None:
            return [*outcomes, Outcome(offset, error)]
        if options.is_large(body_bytes) and (count > 1 or packet_type in NAMED):
            # The first argument's end is looked for before the rest has come; a name may be all there is.
            first = body[: MAX_FIRST_ARGUMENT_BYTES + 1]
            if packet_type in NAMED and len(first) == body_bytes <= MAX_FIRST_ARGUMENT_BYTES:
                first += b"\0"
            if b"\0" not in first and len(first) == min(body_bytes, MAX_FIRST_ARGUMENT_BYTES + 1):
                return [*outcomes, Outcome(offset, errors.MalformedPacketError)]
            if b"\0" not in first:
                break
        if options.may_skip(body_bytes):
            outcomes.append(Outcome(offset, packet_type, body_bytes))
            if len(body) == body_bytes and arguments_of(packet_type, body) is None:
                # It is an error if it came whole, and skipped otherwise.
                return [*outcomes, Outcome(offset, DOUBT)]
        elif len(body) < body_bytes:
            break
        else:
            arguments = arguments_of(packet_type, body)
            if arguments is None:
                return [*outcomes, Outcome(offset, errors.MalformedPacketError)]
            outcomes.append(Outcome(offset, packet_type, body_bytes, arguments))
        offset += HEADER_BYTES + body_bytes
    return outcomes


class Driver:
    """A reader, and what has come out of it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.reader = PacketReader(
            options.magic, max_body_bytes=options.max_body_bytes, announce_large=options.announces
        )
        self.outcomes: list[Outcome] = []
        # Offset and type of a packet that is kept only to be skipped when more of it has come.
        self.to_skip: Outcome | None = None

    def feed(self, data: bytes) -> bool:
        """Feed and take; returns whether the stream still lives."""
        reader = self.reader
        reader.feed(data)
        # A header takes 12 bytes and yields at most LARGE and PACKET; gathered bytes may end one more.
        for _ in range(2 * (len(data) // HEADER_BYTES) + 4):
            try:
                taken = reader.take()
            except errors.ProtocolError as error:
                self.failed(error)
                return False
            if taken == Taken.NEED_MORE:
                return True
            outcome = Outcome(reader.stream_bytes, reader.type, reader.body_bytes)
            if taken == Taken.PACKET:
                arguments = tuple(reader.argument(index) for index in range(reader.argument_count))
                self.outcomes.append(outcome._replace(arguments=arguments))
                self.to_skip = None
            else:
                self.decide(outcome)
        raise AssertionError("take() does not come to an end")

    def decide(self, outcome: Outcome) -> None:
        """Keep or skip the packet that was announced."""
        reader, options = self.reader, self.options
        assert options.announces
        assert options.is_large(reader.body_bytes)
        assert reader.argument_count == (0 if ARGUMENT_COUNTS[reader.type] == 1 and reader.type not in NAMED else 1)
        if reader.argument_count:
            assert b"\0" not in reader.argument(0)
        try:
            reader.take()
        except errors.InvalidStateError:
            pass
        else:
            raise AssertionError("take() went on without a decision")
        if not options.may_skip(reader.body_bytes):
            reader.keep()
        elif options.skips_later and reader.body_bytes <= KEEP_BYTES:
            reader.keep()
            self.to_skip = outcome
        else:
            self.outcomes.append(outcome)
            reader.skip()

    def skip_late(self) -> None:
        """Skip what was kept for it."""
        if self.to_skip is not None:
            self.outcomes.append(self.to_skip)
            self.to_skip = None
            self.reader.skip()

    def failed(self, error: errors.ProtocolError) -> None:
        """The stream is broken, and stays so."""
        self.to_skip = None
        self.outcomes.append(Outcome(error.stream_bytes, type(error)))
        str(error).encode("ascii")
        assert self.reader.argument_count == 0
        self.reader.feed(LAST_PACKET[self.options.magic])
        raised: list[Exception] = []
        for _ in range(2):
            try:
                self.reader.take()
            except errors.ProtocolError as again:
                raised.append(again)
        assert len(raised) == 2, "a broken stream yields packets"
        assert all(again is error for again in raised)


def compare(driver: Driver, model: list[Outcome], options: Options) -> None:
    """Fail unless all that came out of a reader is what the model says."""
    driver.skip_late()
    found = driver.outcomes
    if model and model[-1].kind is DOUBT:
        ends = model[-1].offset
        model = [outcome for outcome in model if outcome.offset < ends]
        assert len(found) > len(model)
        found = found[: len(model)]
    # A large packet that comes whole is never announced, so never skipped.
    found = [outcome._replace(arguments=None) if options.may_skip(outcome.body_bytes) else outcome for outcome in found]
    assert found == model, f"{found} is not {model}"


def one_input(data: bytes) -> None:
    """Read the input's stream whole and cut, and compare both with the model."""
    if len(data) < 3:
        return
    bits, filler_steps, seed = data[:3]
    options = Options(
        Magic.RESPONSE if bits & RESPONSES else Magic.REQUEST,
        bool(bits & ANNOUNCE),
        bool(bits & SKIP),
        bool(bits & SKIP_LATER),
        MAX_BODY_BYTES[bits >> MAX_BODY_SHIFT & 3],
    )
    stream = data[3:] + FILLERS[bits >> FILLER_SHIFT & 1] * (filler_steps * FILLER_STEP_BYTES)
    stream += LAST_PACKET[options.magic]
    model = expected(stream, options)

    whole = Driver(options)
    whole.feed(stream)
    compare(whole, model, options)

    cut = Driver(options)
    generator = random.Random(seed)
    offset = 0
    lives = True
    while lives and offset < len(stream):
        size = generator.choice(CUTS)
        # What comes after the input itself is filler; it needs no fine cuts.
        if offset > len(data):
            size = max(size, 4096)
        cut.skip_late()
        lives = cut.feed(stream[offset : offset + size])
        offset += size
    compare(cut, model, options)


def header(magic: bytes, packet_type: int, body_bytes: int) -> bytes:
    """A packet's header."""
    return magic + struct.pack(">II", packet_type, body_bytes)


def seeds() -> list[bytes]:
    """Inputs to begin with: every type on both sides, whole, short, and large."""
    inputs: list[bytes] = []
    for bit, magic in ((0, b"\0REQ"), (RESPONSES, b"\0RES")):
        for bits in (0, ANNOUNCE, ANNOUNCE | SKIP, ANNOUNCE | SKIP | SKIP_LATER):
            stream = b""
            for packet_type, count in ARGUMENT_COUNTS.items():
                body = b"\0".join((b"H:host:1", b"unique", b"3", b"4", b"5", b"6", b"7", b"8")[:count])
                stream += header(magic, packet_type, len(body)) + body
            for limit in range(4):
                first = bit | bits | limit << MAX_BODY_SHIFT | (limit & 1) << FILLER_SHIFT
                inputs.append(bytes((first, 0, limit)) + stream)
                begun = header(magic, PacketType.WORK_DATA, LARGE_BYTES + 9) + b"H:host:1\0"
                inputs.append(bytes((first, 64, 7)) + begun)
                inputs.append(bytes((first, 70, 8)) + header(magic, PacketType.ECHO_RES, LARGE_BYTES + 1))
    # First arguments of the most bytes they may have, and one more; the last packet's NUL ends them.
    steps = MAX_FIRST_ARGUMENT_BYTES // FILLER_STEP_BYTES
    for bits in (0, ANNOUNCE, ANNOUNCE | SKIP):
        options = RESPONSES | bits | 2 << MAX_BODY_SHIFT | 1 << FILLER_SHIFT
        for body_bytes in (MAX_FIRST_ARGUMENT_BYTES + 8, LARGE_BYTES + 9):
            for begun in (b"", b"x"):
                inputs.append(bytes((options, steps, 9)) + header(b"\0RES", PacketType.WORK_DATA, body_bytes) + begun)
    return inputs


TOKENS = [
    b"\0REQ",
    b"\0RES",
    b"H:host:1\0",
    struct.pack(">I", LARGE_BYTES),
    struct.pack(">I", LARGE_BYTES + 1),
    struct.pack(">I", MAX_FIRST_ARGUMENT_BYTES + 1),
    *(header(magic, kind, size) for magic in (b"\0REQ", b"\0RES") for kind in (7, 14, 17, 28) for size in (9, 70000)),
]
