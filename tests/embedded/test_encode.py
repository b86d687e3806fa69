"""What the encoders make, against the PROTOCOL text; what they refuse."""

import pytest

from gatewayx.embedded import encode
from gatewayx.gearman.errors import GearmanError, InvalidArgumentError
from gatewayx.gearman.packet import PacketType
from support.packets import CASE_NAMES, CASES, HANDLE, REQUEST, wire


@pytest.mark.parametrize(("encoded", "magic", "packet_type", "body", "arguments"), CASES, ids=CASE_NAMES)
def test_encodes_as_the_protocol_text_says(encoded, magic, packet_type, body, arguments):
    assert encoded == wire(magic, packet_type, body)
    assert encode.packet(magic, packet_type, *arguments) == encoded


def test_every_type_is_in_the_table():
    assert {case[2] for case in CASES} == set(range(1, 43)) - {5} == set(PacketType)


@pytest.mark.parametrize(
    "call",
    [
        lambda: encode.submit_job(7, b"f\0", b"", b""),
        lambda: encode.submit_job(7, b"f" * 8191, b"", b""),
        lambda: encode.submit_job(7, b"f", b"u\0u", b""),
        lambda: encode.submit_job(7, b"f", b"u" * 64, b""),
        lambda: encode.submit_job(8, b"f", b"u", b""),
        lambda: encode.submit_reduce_job(7, b"f", b"u", b"r", b""),
        lambda: encode.submit_reduce_job(37, b"f", b"u", b"r\0", b""),
        lambda: encode.can_do(b"\0"),
        lambda: encode.can_do_timeout(b"f", -1),
        lambda: encode.get_status(b"H" * 64),
        lambda: encode.work_data(b"H\0", b""),
        lambda: encode.work_status(HANDLE, 2**32, 1),
        lambda: encode.error(b"a\0", b""),
        lambda: encode.packet(REQUEST, 5),
        lambda: encode.packet(REQUEST, 43),
        lambda: encode.packet(REQUEST, 9, b""),
        lambda: encode.packet(REQUEST, 7, b"f", b"\0", b""),
        lambda: encode.packet(1, 9),
    ],
)
def test_what_cannot_be_sent_is_the_callers_fault(call):
    with pytest.raises(InvalidArgumentError) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, GearmanError)
