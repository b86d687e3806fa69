"""Where the records of TLS end, however they are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewayx.net.tls_records import record_ends


def record(size: int) -> bytes:
    """One with so many bytes behind its head."""
    return bytes((23, 3, 3)) + size.to_bytes(2, "big") + bytes(size)


@given(st.lists(st.sampled_from([0, 1, 5, 255, 256, 300, 16401, 65535]), max_size=6), st.data())
def test_every_record_is_counted_with_its_last_byte(sizes, data):
    whole = b"".join(map(record, sizes))
    ends = []
    for size in sizes:
        ends.append((ends[-1] if ends else 0) + 5 + size)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    bounds = list(zip([0, *cuts], [*cuts, len(whole)], strict=True))
    expected = [sum(first < end <= last for end in ends) for first, last in bounds]
    assert record_ends([whole[first:last] for first, last in bounds]) == expected


def test_bytes_one_by_one():
    whole = record(2) + record(0) + record(1)
    assert record_ends([bytes([byte]) for byte in whole]) == [0] * 6 + [1] + [0] * 4 + [1] + [0] * 5 + [1]
