"""Gearman framing as tables of bytes: whole, byte by byte, with trailing bytes, cut anywhere."""

import struct
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayx.embedded import encode
from gatewayx.gearman import packet
from gatewayx.gearman.errors import (
    BadMagicError,
    InvalidArgumentError,
    InvalidStateError,
    MalformedPacketError,
    PacketTooLargeError,
    ProtocolError,
    UnknownPacketTypeError,
)
from gatewayx.gearman.packet import Packet, PacketReader, PacketType, Taken
from support.packets import CASE_NAMES, CASES, HANDLE, REQUEST, RESPONSE, wire

# (stream, error, words of its message, packet type)
BROKEN = [
    (b"\0RES" + bytes(8), BadMagicError, "bad magic 00524553, expected 00524551", None),
    (b"GET / HTTP/1.1\r\n", BadMagicError, "bad magic 47455420", None),
    (wire(REQUEST, 0, b""), UnknownPacketTypeError, "unknown packet type 0", None),
    (wire(REQUEST, 5, b""), UnknownPacketTypeError, "unknown packet type 5", None),
    (wire(REQUEST, 43, b""), UnknownPacketTypeError, "unknown packet type 43", None),
    (wire(REQUEST, 2**32 - 1, b""), UnknownPacketTypeError, "unknown packet type 4294967295", None),
    (wire(REQUEST, 9, b"x"), MalformedPacketError, "GRAB_JOB: body of 1 bytes in a type without arguments", 9),
    (wire(REQUEST, 7, b""), MalformedPacketError, "SUBMIT_JOB: argument 1 of 3 is not terminated", 7),
    (wire(REQUEST, 7, b"f\0u"), MalformedPacketError, "SUBMIT_JOB: argument 2 of 3 is not terminated", 7),
    (wire(REQUEST, 13, HANDLE), MalformedPacketError, "WORK_COMPLETE: argument 1 of 2 is not terminated", 13),
    (wire(REQUEST, 13, b"h" * 8193 + b"\0"), MalformedPacketError, "first argument above 8192 bytes", 13),
    (wire(REQUEST, 13, b"h" * 70_000), MalformedPacketError, "first argument above 8192 bytes", 13),
    (wire(REQUEST, 1, b"f" * 8193), MalformedPacketError, "CAN_DO: argument of 8193 bytes, above 8192", 1),
    (wire(REQUEST, 16, bytes(100_001)), PacketTooLargeError, "ECHO_REQ: body of 100001 bytes, above 100000", 16),
    (wire(REQUEST, 12, b"h\0" + b"1" * 70_000), MalformedPacketError, "argument 2 of 3 is not terminated", 12),
]


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def read(reader: PacketReader, parts: list[bytes]) -> list[Packet]:
    found = []
    for part in parts:
        reader.feed(part)
        found += reader.packets()
    return found


@pytest.mark.parametrize(("encoded", "magic", "packet_type", "body", "arguments"), CASES, ids=CASE_NAMES)
class TestEveryType:
    def test_reads_whole(self, encoded, magic, packet_type, body, arguments):
        reader = PacketReader(magic)
        assert read(reader, [encoded]) == [(packet_type, arguments)]

    def test_reads_byte_by_byte(self, encoded, magic, packet_type, body, arguments):
        assert read(PacketReader(magic), pieces(encoded, 1)) == [(packet_type, arguments)]

    def test_reads_with_trailing_bytes(self, encoded, magic, packet_type, body, arguments):
        reader = PacketReader(magic)
        assert read(reader, [encoded + encoded + encoded[:-1]]) == [(packet_type, arguments)] * 2
        assert reader.stream_bytes in (len(encoded), 2 * len(encoded))
        assert read(reader, [encoded[-1:]]) == [(packet_type, arguments)]
        assert reader.stream_bytes == 2 * len(encoded)

    def test_wrong_magic_is_refused(self, encoded, magic, packet_type, body, arguments):
        with pytest.raises(BadMagicError):
            read(PacketReader(RESPONSE if magic == REQUEST else REQUEST), [encoded])


@pytest.mark.parametrize(("stream", "error", "words", "packet_type"), BROKEN)
@pytest.mark.parametrize("size", [1, 7, 1 << 30], ids=["byte by byte", "in sevens", "whole"])
@pytest.mark.parametrize("before", [b"", encode.echo_req(b"hello")], ids=["at once", "after a packet"])
def test_broken_stream_says_what_and_where(stream, error, words, packet_type, size, before):
    reader = PacketReader(REQUEST, max_body_bytes=100_000)
    with pytest.raises(ProtocolError) as caught:
        read(reader, pieces(before + stream, size))
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert f"packet at byte {len(before)} of the stream" in str(caught.value)
    assert str(caught.value).isascii()
    assert caught.value.stream_bytes == len(before)
    assert caught.value.packet_type == packet_type


def test_broken_stream_stays_broken():
    reader = PacketReader(REQUEST)
    with pytest.raises(BadMagicError) as first:
        read(reader, [b"x" * 12])
    with pytest.raises(BadMagicError) as second:
        read(reader, [encode.echo_req(b"")])
    assert first.value is second.value


# What may stand behind a name that is all a packet of the type has, and the arguments that are found.
BEHIND_A_NAME = [
    (b"", (HANDLE,)),
    # gearmand's NUL after the handle of WORK_FAIL.
    (b"\0", (HANDLE,)),
    (b"\0why", (HANDLE, b"why")),
    (b"\0why\0", (HANDLE, b"why")),
    (b"\0\0", (HANDLE,)),
    (b"\0a\0b", (HANDLE, b"a\0b")),
    (b"\0" + b"x" * 9000, (HANDLE, b"x" * 9000)),
    (b"\0" + b"x" * 70_000, (HANDLE, b"x" * 70_000)),
]


@pytest.mark.parametrize("packet_type", [8, 14, 27])
@pytest.mark.parametrize(("behind", "arguments"), BEHIND_A_NAME)
class TestBehindAName:
    @pytest.mark.parametrize("size", [1, 7, 1 << 30], ids=["byte by byte", "in sevens", "whole"])
    def test_is_no_part_of_it(self, packet_type, behind, arguments, size):
        stream = wire(RESPONSE, packet_type, HANDLE + behind) + encode.no_job()
        found = read(PacketReader(RESPONSE), pieces(stream, size))
        assert found == [(packet_type, arguments), (PacketType.NO_JOB, ())]

    @pytest.mark.parametrize("size", [1, 7, 4096])
    def test_can_be_kept_from_its_start(self, packet_type, behind, arguments, size):
        reader = PacketReader(RESPONSE, announce_large=True, max_body_bytes=8)
        found = []
        for part in pieces(wire(RESPONSE, packet_type, HANDLE + behind) + encode.no_job(), size):
            reader.feed(part)
            while taken := reader.take():
                if taken == Taken.LARGE:
                    assert reader.argument(0) == HANDLE
                    reader.keep_start(10)
                else:
                    found.append((reader.type, *(reader.argument(index) for index in range(reader.argument_count))))
        kept = (behind[1:11] if len(behind) > 11 else behind[1:]).removesuffix(b"\0")
        assert found == [(packet_type, HANDLE, kept) if kept else (packet_type, HANDLE), (PacketType.NO_JOB,)]


@pytest.mark.parametrize("body", [b"h" * 8193, b"h" * 8193 + b"\0", b"h" * 70_000], ids=len)
@pytest.mark.parametrize("size", [1, 1 << 30], ids=["byte by byte", "whole"])
def test_a_name_too_long_is_malformed_whatever_stands_behind_it(body, size):
    with pytest.raises(MalformedPacketError, match="first argument above 8192 bytes"):
        read(PacketReader(RESPONSE), pieces(wire(RESPONSE, 14, body), size))


@pytest.mark.parametrize("arguments", [{"magic": 1}, {"magic": REQUEST, "max_body_bytes": -1}])
def test_a_reader_that_could_read_nothing_is_the_callers_fault(arguments):
    with pytest.raises(InvalidArgumentError):
        PacketReader(**arguments)


def read_all(reader: PacketReader, data: bytes) -> list[tuple[object, ...]]:
    """The whole packets that come, none of which is announced."""
    reader.feed(data)
    found = []
    while reader.take() == Taken.PACKET:
        found.append((reader.type, *(reader.argument(index) for index in range(reader.argument_count))))
    return found


class TestLargePackets:
    DATA = bytes(range(256)) * 1024
    STREAM = wire(RESPONSE, 13, HANDLE + b"\0" + DATA)
    NEXT = encode.work_fail(HANDLE, RESPONSE)

    def announcing(self, **options) -> PacketReader:
        return PacketReader(RESPONSE, announce_large=True, **options)

    def test_one_of_which_the_start_is_kept_can_still_be_skipped(self):
        reader = self.announcing()
        reader.feed(self.STREAM[:200])
        assert reader.take() == Taken.LARGE
        reader.keep_start(1000)
        assert reader.take() == Taken.NEED_MORE
        reader.skip()
        assert read_all(reader, self.STREAM[200:] + self.NEXT) == [(PacketType.WORK_FAIL, HANDLE)]

    @pytest.mark.parametrize("size", [1, 21, 4096])
    def test_announced_with_the_first_argument_and_nothing_more(self, size):
        reader = self.announcing()
        fed = 0
        for part in pieces(self.STREAM, size):
            reader.feed(part)
            fed += size
            if reader.take() == Taken.LARGE:
                break
        assert fed - size < packet.HEADER_BYTES + len(HANDLE) + 1 <= fed
        assert (reader.type, reader.body_bytes) == (13, len(self.STREAM) - 12)
        assert reader.argument_count == 1
        assert reader.argument(0) == HANDLE
        with pytest.raises(InvalidArgumentError):
            reader.argument(1)
        with pytest.raises(InvalidStateError):
            reader.take()

    def taken(self, reader: PacketReader, decide: Callable[[], object], size: int) -> Iterator[int]:
        """The types of the whole packets of a stream that comes in pieces; `decide` is called for each large one."""
        for part in pieces(self.STREAM + self.NEXT, size):
            reader.feed(part)
            while (result := reader.take()) != Taken.NEED_MORE:
                if result == Taken.LARGE:
                    decide()
                else:
                    yield reader.type

    @pytest.mark.parametrize("size", [1, 1000, 65_536])
    def test_kept_is_handed_out_without_another_copy(self, size):
        reader = self.announcing()
        taken = []
        for packet_type in self.taken(reader, reader.keep, size):
            taken.append((packet_type, [reader.argument(i) for i in range(reader.argument_count)]))
            if packet_type == 13:
                assert reader.argument(1) is reader.argument(1)
        assert taken == [(13, [HANDLE, self.DATA]), (14, [HANDLE])]

    @pytest.mark.parametrize("size", [1, 1000, 65_536])
    def test_skipped_leaves_the_stream_alive(self, size):
        reader = self.announcing()
        taken = [(packet_type, reader.argument(0)) for packet_type in self.taken(reader, reader.skip, size)]
        assert taken == [(14, HANDLE)]
        assert reader.stream_bytes == len(self.STREAM)

    def test_kept_can_still_be_skipped(self):
        reader = self.announcing()
        reader.feed(self.STREAM[:100_000])
        assert reader.take() == Taken.LARGE
        reader.keep()
        assert reader.take() == Taken.NEED_MORE
        reader.skip()
        reader.feed(self.STREAM[100_000:] + self.NEXT)
        assert reader.take() == Taken.PACKET
        assert reader.type == 14

    def test_already_complete_is_not_announced(self):
        reader = self.announcing()
        reader.feed(self.STREAM)
        assert reader.take() == Taken.PACKET
        assert reader.argument(1) == self.DATA

    def test_above_the_maximum_is_announced_even_when_complete(self):
        reader = self.announcing(max_body_bytes=1000)
        reader.feed(self.STREAM + self.NEXT)
        assert reader.take() == Taken.LARGE
        reader.skip()
        assert reader.take() == Taken.PACKET
        assert reader.type == 14

    def test_four_gigabytes_are_skipped_without_storage(self):
        reader = self.announcing()
        reader.feed(b"\0RES" + struct.pack(">II", 28, 2**32 - 1) + HANDLE + b"\0")
        assert reader.take() == Taken.LARGE
        reader.skip()
        part = bytes(2**26)
        left = 2**32 - 1 - len(HANDLE) - 1
        while left:
            reader.feed(part if left >= len(part) else part[:left])
            left -= min(left, len(part))
            assert reader.take() == Taken.NEED_MORE
        reader.feed(self.NEXT)
        assert reader.take() == Taken.PACKET
        assert reader.argument(0) == HANDLE

    def test_one_argument_type_is_announced_without_argument(self):
        reader = self.announcing()
        reader.feed(wire(RESPONSE, 17, self.DATA)[:-1])
        assert reader.take() == Taken.LARGE
        assert reader.argument_count == 0
        reader.keep()
        assert reader.take() == Taken.NEED_MORE
        reader.feed(self.DATA[-1:])
        assert reader.take() == Taken.PACKET
        assert reader.argument(0) == self.DATA

    def test_three_arguments_are_split_out_of_a_kept_packet(self):
        reader = PacketReader(REQUEST)
        stream = encode.submit_job(7, b"f", b"u", self.DATA)
        assert read(reader, pieces(stream, 999)) == [(7, (b"f", b"u", self.DATA))]

    def test_unannounced_above_the_maximum_is_an_error(self):
        with pytest.raises(PacketTooLargeError):
            read(PacketReader(RESPONSE, max_body_bytes=len(self.STREAM) - 13), [self.STREAM])
        assert len(read(PacketReader(RESPONSE, max_body_bytes=len(self.STREAM) - 12), [self.STREAM])) == 1

    def test_keep_and_skip_need_a_large_packet(self):
        reader = self.announcing()
        with pytest.raises(InvalidStateError):
            reader.keep()
        with pytest.raises(InvalidStateError):
            reader.skip()
        with pytest.raises(InvalidStateError):
            next(reader.packets())


def test_64_mebibytes_in_1000_pieces_are_stored_once():
    data = bytes(64 * 2**20 - 100)
    parts = pieces(encode.submit_job(7, b"f", b"u", data), 64 * 2**20 // 1000)
    reader = PacketReader(REQUEST)
    tracemalloc.start()
    try:
        for part in parts:
            reader.feed(part)
            taken = reader.take()
        stored, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken == Taken.PACKET
    assert reader.argument(2) == data
    # One object of the final size from the first piece on: no second copy ever existed.
    assert len(data) <= stored <= peak < len(data) + 65_536


# The least of several counts: another thread of this process, such as pytest-xdist's, may allocate meanwhile.
MEASUREMENTS = 3


def test_a_body_in_pieces_is_stored_once_and_released():
    stream = encode.echo_req(bytes(60_000))
    reader = PacketReader(REQUEST)
    parts = pieces(stream, 1)
    peaks, left = [], []
    for _ in range(MEASUREMENTS):
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            for part in parts:
                reader.feed(part)
                taken = reader.take()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
            assert taken == Taken.PACKET
            assert reader.take() == Taken.NEED_MORE
            left.append(tracemalloc.get_traced_memory()[0] - before)
        finally:
            tracemalloc.stop()
    assert min(peaks) < 62_000
    assert min(left) < 1000


@pytest.mark.parametrize("size_bytes", [50_000, 200_000])
def test_what_was_taken_is_let_go(size_bytes):
    reader = PacketReader(REQUEST)
    left = []
    for _ in range(MEASUREMENTS):
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            reader.feed(encode.echo_req(bytes(size_bytes)))
            assert reader.take() == Taken.PACKET
            assert tracemalloc.get_traced_memory()[0] - before >= size_bytes
            assert reader.take() == Taken.NEED_MORE
            left.append(tracemalloc.get_traced_memory()[0] - before)
        finally:
            tracemalloc.stop()
    assert min(left) < 1000


def test_feeding_before_everything_was_taken_loses_nothing():
    reader = PacketReader(REQUEST)
    reader.feed(encode.echo_req(b"a") + encode.echo_req(b"b"))
    assert reader.take() == Taken.PACKET
    reader.feed(encode.echo_req(b"c"))
    assert [found.arguments for found in reader.packets()] == [(b"b",), (b"c",)]


text = st.binary(max_size=40).map(lambda value: value.replace(b"\0", b"n"))


@st.composite
def any_packet(draw) -> tuple[int, tuple[bytes, ...]]:
    _, _, packet_type, _, arguments = draw(st.sampled_from([case for case in CASES if case[1] == REQUEST]))
    if not arguments:
        return packet_type, ()
    last = draw(text if packet_type == 14 else st.binary(max_size=200))
    return packet_type, (*draw(st.tuples(*[text] * (len(arguments) - 1))), last)


@given(st.lists(any_packet(), max_size=8), st.data())
def test_encoded_cut_anywhere_and_decoded_is_identity(packets, data):
    stream = b"".join(encode.packet(REQUEST, packet_type, *arguments) for packet_type, arguments in packets)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    parts = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(PacketReader(REQUEST), parts) == packets
    assert read(PacketReader(REQUEST, max_body_bytes=400), pieces(stream, 1)) == packets


@given(st.integers(0, 70_000), st.integers(1, 70_000), st.integers(0, 300), st.booleans())
@settings(max_examples=50)
def test_large_cut_anywhere_is_identity(cut, size, max_body_bytes, keep):
    data = bytes(70_000)
    stream = wire(RESPONSE, 28, HANDLE + b"\0" + data)
    reader = PacketReader(RESPONSE, announce_large=True, max_body_bytes=max_body_bytes)
    seen = []
    for part in [stream[:cut], *pieces(stream[cut:], size)]:
        reader.feed(part)
        while (taken := reader.take()) != Taken.NEED_MORE:
            seen.append((taken, reader.argument(0)))
            if taken == Taken.LARGE:
                reader.keep() if keep else reader.skip()
            else:
                assert reader.argument(1) == data
    assert seen == [(Taken.LARGE, HANDLE), (Taken.PACKET, HANDLE)][: 1 + keep]


header_like = st.builds(
    lambda magic, packet_type, size, body: magic + struct.pack(">II", packet_type, size) + body,
    st.sampled_from([b"\0REQ", b"\0RES", b"\0RE"]),
    st.integers(0, 45),
    st.integers(0, 60) | st.integers(0, 2**32 - 1),
    st.binary(max_size=60),
)


@given(st.lists(st.binary(max_size=50) | header_like, max_size=10), st.booleans())
def test_random_bytes_never_crash_hang_or_grow(parts, announce_large):
    reader = PacketReader(REQUEST, max_body_bytes=1000, announce_large=announce_large)
    tracemalloc.start()
    try:
        for part in parts:
            reader.feed(part)
            # A packet takes at least a header, so taking ends.
            for _ in range(len(part) // packet.HEADER_BYTES + 3):
                taken = reader.take()
                if taken == Taken.NEED_MORE:
                    break
                if taken == Taken.LARGE:
                    reader.skip()
            assert taken == Taken.NEED_MORE
    except ProtocolError:
        pass
    finally:
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert grown < 100_000
