"""A line of the access log against a plain reference in Python: valid JSON and lossless, whatever bytes there are."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatewayx.core.access_line import FIELDS, LINE_BYTES, TEXT_BYTES, in_sample, line_of

# Texts whose percent signs are written as %25: a name as it was decoded.
NAMES = {"client_id", "function", "handle", "unique"}
PIPE_BUF = 4096
NS = 10**9
US = 10**3
MOST = 2**63 - 1
NUMBERS = ("status", "bytes_in", "bytes_out", "duration_ns", "job_ns", "connection", "request")
# What a terminal obeys, what ends a line somewhere, and what turns the direction of text.
UNSEEN = {
    *map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, 0xFEFF)),
    *map(chr, (*range(0x2028, 0x202F), *range(0x2066, 0x206A))),
}

texts = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(str.encode),
    st.text(alphabet=sorted(UNSEEN) + list('%"\\/aé\u20ac\U0001f600'), max_size=20).map(str.encode),
    st.sampled_from([b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xe2\x80", b"\xf0\x9f\x98"]),
    st.tuples(st.binary(min_size=1, max_size=3), st.integers(1, 3000)).map(lambda part: part[0] * part[1]),
)
entries = st.fixed_dictionaries(
    {name: st.none() | texts for name in TEXT_BYTES},
    optional={
        "time_ns": st.integers(0, MOST),
        "status": st.integers(0, 999),
        "bytes_in": st.integers(0, MOST),
        "bytes_out": st.integers(0, MOST),
        "duration_ns": st.integers(0, MOST),
        "job_ns": st.integers(-1, MOST),
        "connection": st.integers(0, 2**64 - 1),
        "request": st.integers(0, 2**64 - 1),
    },
)


def pieces(text: bytes, *, is_name: bool) -> list[bytes]:
    """What each character of the text, or byte that is none, becomes in the line."""
    found = []
    for character in text.decode("utf-8", "surrogateescape"):
        raw = character.encode("utf-8", "surrogateescape")
        if "\udc80" <= character <= "\udcff" or character in UNSEEN or character in '"\\':
            found.append(b"".join(b"%%%02X" % byte for byte in raw))
        elif character == "%" and is_name:
            found.append(b"%25")
        else:
            found.append(raw)
    return found


def expected_text(name: str, text: bytes) -> tuple[bytes, bool]:
    """What stands between the quotes, and whether it was cut."""
    whole = b""
    for piece in pieces(text, is_name=name in NAMES):
        if len(whole) + len(piece) > TEXT_BYTES[name]:
            return whole, True
        whole += piece
    return whole, False


def seconds(time_ns: int) -> bytes:
    """A number of seconds with six decimals."""
    return b"%d.%06d" % (time_ns // NS, time_ns % NS // US)


def expected(fields: dict[str, object]) -> bytes:
    """The line, composed as a person would."""
    time_ns = fields.get("time_ns", 0)
    second = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=time_ns // NS)
    parts = {"time": b'"%s.%06dZ"' % (second.strftime("%Y-%m-%dT%H:%M:%S").encode(), time_ns % NS // US)}
    was_cut = False
    for name in FIELDS[1:-1]:
        if name in TEXT_BYTES:
            if (text := fields.get(name)) is not None:
                shown, is_cut = expected_text(name, text)
                parts[name] = b'"%s"' % shown
                was_cut |= is_cut
        elif name == "job_s":
            if fields.get("job_ns", -1) >= 0:
                parts[name] = seconds(fields["job_ns"])
        elif name == "duration_s":
            parts[name] = seconds(fields.get("duration_ns", 0))
        else:
            parts[name] = b"%d" % fields.get(name, 0)
    if was_cut:
        parts["cut"] = b"true"
    return b"{%s}\n" % b",".join(b'"%s":%s' % (name.encode(), part) for name, part in parts.items())


@settings(deadline=None)
@given(entries)
@example(dict.fromkeys(TEXT_BYTES, b"\xff" * 5000))
@example(dict.fromkeys(TEXT_BYTES, b'"\\\n\r\x1b\x00\x7f'))
@example({"time_ns": 951_782_400 * NS})
@example({"time_ns": 4_107_542_400 * NS - 1})
def test_a_line_is_the_json_that_a_plain_reference_makes(fields):
    line = line_of(**fields)
    assert line == expected(fields)
    assert len(line) <= PIPE_BUF == LINE_BYTES
    found = json.loads(line.decode("utf-8", "strict"))
    assert list(found) == [name for name in FIELDS if name in found]
    assert line.count(b"\n") == 1
    assert b"\\" not in line
    for name in TEXT_BYTES:
        if (text := fields.get(name)) is None:
            assert name not in found
        elif "cut" not in found:
            shown = found[name].encode()
            assert unquote_to_bytes(shown) == (text if name in NAMES else unquote_to_bytes(text))
    assert datetime.strptime(found["time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)


@pytest.mark.parametrize("text", [b"a" * 9000, b"\xff" * 9000, b'"' * 9000, b"\xf0\x9f\x98\x80" * 2000, b"%" * 9000])
def test_a_line_with_the_longest_of_everything_is_a_line(text):
    fields = dict.fromkeys(TEXT_BYTES, text) | dict.fromkeys(NUMBERS, MOST) | {"status": 2**31 - 1, "time_ns": MOST}
    fields |= {"connection": 2**64 - 1, "request": 2**64 - 1}
    line = line_of(**fields)
    assert len(line) <= LINE_BYTES
    assert json.loads(line)["cut"] is True
    assert json.loads(line).keys() == set(FIELDS)


@pytest.mark.parametrize("name", TEXT_BYTES)
@pytest.mark.parametrize(
    "character", [b"a", b"\xff", "é".encode(), "€".encode(), "\U0001f600".encode(), "\u2028".encode()]
)
def test_a_text_is_cut_between_two_characters_only_if_it_is_too_long(name, character):
    [piece] = pieces(character, is_name=True)
    most = TEXT_BYTES[name] // len(piece)
    whole = json.loads(line_of(**{name: character * most}))
    assert "cut" not in whole
    assert whole[name].encode() == piece * most
    assert json.loads(line_of(**{name: character * (most + 1)})) == whole | {"cut": True}


def test_numbers_that_cannot_be_are_written_as_none():
    found = json.loads(line_of(status=-1, bytes_in=-1, bytes_out=-(2**63), duration_ns=-5, job_ns=-7, time_ns=-1))
    assert {found[name] for name in ("status", "bytes_in", "bytes_out", "duration_s")} == {0}
    assert "job_s" not in found
    assert found["time"].startswith("1970-01-01T00:00:00.")


def test_the_second_that_is_remembered_is_the_right_one():
    for time_s in (5, 5, 6, 5, 86_400 * 365, 5):
        expected_time = datetime.fromtimestamp(time_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        assert json.loads(line_of(time_ns=time_s * NS))["time"] == f"{expected_time}.000000Z"


def test_a_text_that_is_no_bytes_is_refused():
    with pytest.raises(TypeError, match="path must be bytes"):
        line_of(path="text")


class TestSample:
    ids = tuple(b"4f2k%024d" % number for number in range(20_000))

    @pytest.mark.parametrize("part", [0.0, 0.01, 0.1, 0.5, 0.9, 1.0])
    def test_a_sample_has_its_part_of_ids_that_count_up(self, part):
        chosen = sum(in_sample(id, part) for id in self.ids)
        # Six deviations of a binomial distribution.
        assert abs(chosen - part * len(self.ids)) <= 6 * (len(self.ids) * part * (1 - part)) ** 0.5

    def test_a_larger_sample_holds_the_smaller_one(self):
        assert all(in_sample(id, 0.3) for id in self.ids if in_sample(id, 0.2))

    def test_the_decision_is_the_same_in_each_process_and_version(self):
        chosen = [number for number in range(40) if in_sample(b"id-%d" % number, 0.25)]
        assert chosen == CHOSEN


# By FNV-1a of 64 bits and the finalizer of MurmurHash3, computed below as they are published.
def _hash(id: bytes) -> int:
    mask = 2**64 - 1
    hashed = 0xCBF29CE484222325
    for byte in id:
        hashed = (hashed ^ byte) * 0x100000001B3 & mask
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        hashed = (hashed ^ (hashed >> 33)) * factor & mask
    return hashed ^ (hashed >> 33)


CHOSEN = [number for number in range(40) if _hash(b"id-%d" % number) < 2**62]


def test_every_field_has_its_place_and_names_are_keys_of_json():
    assert set(TEXT_BYTES) < set(FIELDS)
    assert all(re.fullmatch(r"[a-z_]+", name) for name in FIELDS)
