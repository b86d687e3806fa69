"""Tables of bytes: how a batch is cut into lines, what each asks for, and how its answer is written."""

from __future__ import annotations

import base64
import json
import urllib.parse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayx.gateway.batch_answers import answer_line
from gatewayx.gateway.batch_lines import (
    MOST_ID_BYTES,
    MOST_LINE_BYTES,
    MOST_PARTS,
    LineJob,
    lines_of,
    path_of_function,
)
from support.batches import read_line

LOW, NORMAL, HIGH = 0, 1, 2
JOB = b'"function":"f","workload":"w"'
# A member that says nothing, for which a line is read in another way than those without it.
NOTHING = b',"timeout":null}'
NAMES = ["id", "function", "workload", "workload_base64", "unique", "priority", "background", "other"]
TEXTS = st.text('a "\\\n\0\x7f\u00e9\u20ac\U0001f600', max_size=20)
VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.sampled_from(["low", "normal", "high", "YQ=="])
)


def read(line: bytes) -> LineJob:
    """What a line asks for."""
    found = LineJob()
    # What the line before has said is no part of it.
    found.read(b'{"id":1,"function":"x","workload":"y","unique":"z","priority":"low","background":true,"timeout":3}')
    found.read(line)
    return found


def parts(found: LineJob) -> tuple[object, ...]:
    """All that was read."""
    return (
        found.id,
        found.fault,
        found.function,
        found.workload,
        found.unique,
        found.priority,
        found.background,
        found.timeout_s,
    )


class TestCutting:
    @pytest.mark.parametrize(
        ("body", "lines"),
        [
            (b"", []),
            (b"\n", []),
            (b" \t\r\n\r\n\n  ", []),
            (b"a", [(1, b"a")]),
            (b"a\n", [(1, b"a")]),
            (b"a\nb", [(1, b"a"), (2, b"b")]),
            (b"a\r\nb\r\n", [(1, b"a"), (2, b"b")]),
            (b"\n\na\n\n \nb\n\n", [(3, b"a"), (6, b"b")]),
            (b"  a b \t\n", [(1, b"a b")]),
            # Other ends of lines are none.
            (b"a\rb\nc\x0bd\x85e", [(1, b"a\rb"), (2, b"c\x0bd\x85e")]),
            (b"\0\n\0", [(1, b"\0"), (2, b"\0")]),
        ],
    )
    def test_each_line_has_its_number_and_blank_ones_count(self, body, lines):
        assert lines_of(body) == lines

    @given(st.binary(max_size=60).map(lambda text: text.replace(b"x", b"\n")))
    @example(b"\n\r\n a\n\n")
    def test_every_line_that_is_not_blank_is_there_once(self, body):
        expected = [
            (number, line.strip(b" \t\r")) for number, line in enumerate(body.split(b"\n"), 1) if line.strip(b" \t\r")
        ]
        assert lines_of(body) == expected


class TestReading:
    @pytest.mark.parametrize("end", [b"}", NOTHING], ids=["plain", "by orjson"])
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (b"{" + JOB, (None, None, b"f", b"w", None, NORMAL, False, 0)),
            (b' { "function" : "f" ,\t"workload": "w" ', (None, None, b"f", b"w", None, NORMAL, False, 0)),
            (b'{"function":"","workload":""', (None, None, b"", b"", None, NORMAL, False, 0)),
            (b'{"workload_base64":"AAH/","function":"f"', (None, None, b"f", b"\0\1\xff", None, NORMAL, False, 0)),
            (b'{"id":7,' + JOB, (b"7", None, b"f", b"w", None, NORMAL, False, 0)),
            (b'{"id":-70,' + JOB, (b"-70", None, b"f", b"w", None, NORMAL, False, 0)),
            (b'{"id":0,' + JOB, (b"0", None, b"f", b"w", None, NORMAL, False, 0)),
            (b'{"id":"",' + JOB, (b'""', None, b"f", b"w", None, NORMAL, False, 0)),
            (b'{"id":"a b",' + JOB, (b'"a b"', None, b"f", b"w", None, NORMAL, False, 0)),
            (b'{"unique":"u",' + JOB, (None, None, b"f", b"w", b"u", NORMAL, False, 0)),
            (b'{"priority":"low",' + JOB, (None, None, b"f", b"w", None, LOW, False, 0)),
            (b'{"priority":"normal",' + JOB, (None, None, b"f", b"w", None, NORMAL, False, 0)),
            (b'{"priority":"high",' + JOB, (None, None, b"f", b"w", None, HIGH, False, 0)),
            (b'{"background":true,' + JOB, (None, None, b"f", b"w", None, NORMAL, True, 0)),
            (b'{"background":false,' + JOB, (None, None, b"f", b"w", None, NORMAL, False, 0)),
            (b'{"id":18446744073709551615,' + JOB, (b"18446744073709551615", None, b"f", b"w", None, NORMAL, False, 0)),
            (b'{"id":-9223372036854775808,' + JOB, (b"-9223372036854775808", None, b"f", b"w", None, NORMAL, False, 0)),
        ],
    )
    def test_a_line_is_read_alike_whichever_way(self, line, expected, end):
        assert parts(read(line + end)) == expected

    @pytest.mark.parametrize(
        ("members", "expected"),
        [
            (b'"timeout":2', (b"f", b"w", None, 2)),
            (b'"timeout":0.25', (b"f", b"w", None, 0.25)),
            (b'"timeout":1e-9', (b"f", b"w", None, 1e-9)),
            (b'"timeout":1e300', (b"f", b"w", None, 1e300)),
            (b'"timeout":18446744073709551615', (b"f", b"w", None, 18446744073709551615.0)),
            (b'"id":null,"unique":null,"priority":null,"background":null', (b"f", b"w", None, 0)),
            (b'"workload_base64":null', (b"f", b"w", None, 0)),
            (b'"unique":"\\u00e9\\n"', (b"f", b"w", "\u00e9\n".encode(), 0)),
        ],
    )
    def test_what_only_orjson_reads(self, members, expected):
        found = read(b"{" + JOB + b"," + members + b"}")
        assert found.fault is None
        assert (found.function, found.workload, found.unique, found.timeout_s) == expected
        assert (found.priority, found.background) == (NORMAL, False)

    def test_text_is_utf_8(self):
        text = '\u00e9 \u20ac \U0001f600 \\ " \n \0'
        found = read(json.dumps({"id": text, "function": text, "workload": text}).encode())
        assert (found.fault, found.function, found.workload) == (None, text.encode(), text.encode())
        assert json.loads(found.id) == text
        found = read(json.dumps({"function": text, "workload": text}, ensure_ascii=False).encode())
        assert (found.fault, found.function, found.workload) == (None, text.encode(), text.encode())

    @pytest.mark.parametrize(
        ("line", "fault"),
        [
            (b"nonsense", "no JSON object"),
            (b"{", "no JSON object"),
            (b"{}", "names no function"),
            (b"[]", "no JSON object"),
            (b'"text"', "no JSON object"),
            (b"17", "no JSON object"),
            (b"null", "no JSON object"),
            (b"{" + JOB + b"} {" + JOB + b"}", "no JSON object"),
            (b"{" + JOB + b"},", "no JSON object"),
            (b"{" + JOB + b",}", "no JSON object"),
            (b"{," + JOB + b"}", "no JSON object"),
            (b"{" + JOB + b"]", "no JSON object"),
            (b"{'function':'f','workload':'w'}", "no JSON object"),
            (b'{"function":"f" "workload":"w"}', "no JSON object"),
            (b'{"function":"f","workload":"w}', "no JSON object"),
            (b'{"function":"f","workload":"\t"}', "no JSON object"),
            (b'{"function":"f","workload":"\0"}', "no JSON object"),
            (b'{"function":"f","workload":"\xff"}', "no JSON object"),
            (b'{"function":"f","workload":"\\ud800"}', "no JSON object"),
            (b'{"function":"f","workload":"\\x41"}', "no JSON object"),
            (b"\xef\xbb\xbf{" + JOB + b"}", "no JSON object"),
            (b'{"id":01,' + JOB + b"}", "no JSON object"),
            (b'{"id":-,' + JOB + b"}", "no JSON object"),
            (b'{"background":tru,' + JOB + b"}", "no JSON object"),
            (b'{"background":truefalse,' + JOB + b"}", "no JSON object"),
            (b'{"background":t', "no JSON object"),
            (b"[" * 2000 + b"]" * 2000, "more than 256 values"),
            (b'{"id":' + b"[" * 100 + b"]" * 100 + b"," + JOB + b"}", "id is neither"),
            (b'{"workload":"w"}', "names no function"),
            (b'{"function":"f"}', "neither workload nor workload_base64"),
            (b'{"function":"f","workload":null}', "neither workload nor workload_base64"),
            (b'{"function":null,"workload":"w"}', "names no function"),
            (b"{" + JOB + b',"workload_base64":""}', "both workload and workload_base64"),
            (b'{"function":1,"workload":"w"}', "function is no string"),
            (b'{"function":["f"],"workload":"w"}', "function is no string"),
            (b'{"function":"f","workload":1}', "workload is no string"),
            (b'{"function":"f","workload":{}}', "workload is no string"),
            (b'{"function":"f","workload_base64":1}', "workload_base64 is no base64"),
            (b"{" + JOB + b',"unique":1}', "unique is no string"),
            (b"{" + JOB + b',"priority":"highest"}', "priority is none of"),
            (b"{" + JOB + b',"priority":"HIGH"}', "priority is none of"),
            (b"{" + JOB + b',"priority":1}', "priority is none of"),
            (b"{" + JOB + b',"priority":""}', "priority is none of"),
            (b"{" + JOB + b',"background":"true"}', "background is neither"),
            (b"{" + JOB + b',"background":1}', "background is neither"),
            (b"{" + JOB + b',"timeout":"1"}', "timeout is no number"),
            (b"{" + JOB + b',"timeout":0}', "timeout is no number"),
            (b"{" + JOB + b',"timeout":-1}', "timeout is no number"),
            (b"{" + JOB + b',"timeout":true}', "timeout is no number"),
            (b"{" + JOB + b',"timeout":1e-400}', "timeout is no number"),
            (b"{" + JOB + b',"timeout":1e400}', "no JSON object"),
            (b"{" + JOB + b',"timeout":NaN}', "no JSON object"),
            (b"{" + JOB + b',"id":1.0}', "id is neither"),
            (b"{" + JOB + b',"id":18446744073709551616}', "id is neither"),
            (b"{" + JOB + b',"id":true}', "id is neither"),
            (b"{" + JOB + b',"id":[1]}', "id is neither"),
            (b"{" + JOB + b',"idempotency_key":"k"}', "not known: 'idempotency_key'"),
            (b"{" + JOB + b',"Function":"f"}', "not known: 'Function'"),
            (b"{" + JOB + b',"function ":"f"}', "not known: 'function '"),
            (b"{" + JOB + b',"other":null}', "not known: 'other'"),
            (b"{" + JOB + b',"":1}', "not known: ''"),
            (b"{" + JOB + b',"\xc3\xa9\\n":1}', "not known: '\\xe9\\n'"),
            (b"{" + JOB + b',"' + b"n" * 1000 + b'":1}', "not known: '" + "n" * 40 + "'"),
        ],
    )
    def test_one_that_is_no_job_says_why(self, line, fault):
        found = read(line)
        assert fault in found.fault
        assert found.fault.isprintable()

    @pytest.mark.parametrize(
        "line",
        [
            b'{"id":7,"function":"f"}',
            b'{"id":7,"function":1,"workload":"w"}',
            b'{"function":1,"workload":"w","id":7}',
            b'{"other":1,"id":7}',
            b'{"timeout":-1,"id":7,' + JOB + b"}",
        ],
    )
    def test_its_id_is_known_whatever_else_is_wrong(self, line):
        found = read(line)
        assert found.fault is not None
        assert found.id == b"7"

    @pytest.mark.parametrize("size", [MOST_ID_BYTES, MOST_ID_BYTES + 1])
    @pytest.mark.parametrize("letter", ["a", "\\u0001", "\u00e9"])
    def test_an_id_has_its_bound(self, size, letter):
        text = letter * (size // len(letter.encode() if letter != "\\u0001" else b"1"))
        found = read(b'{"id":"%b",%b}' % (text.encode(), JOB))
        if letter == "\u00e9":
            assert found.fault is None
        elif size > MOST_ID_BYTES:
            assert (found.fault, found.id) == (f"id is longer than {MOST_ID_BYTES} bytes", None)
        else:
            assert (found.fault, json.loads(found.id)) == (None, json.loads(f'"{text}"'))

    def test_a_long_line_is_not_looked_at(self):
        line = b'{"id":7,"function":"f","workload":"%b"}'
        most = line % (b"w" * (MOST_LINE_BYTES - len(line) + 2))
        assert len(most) == MOST_LINE_BYTES
        assert read(most).fault is None
        found = read(most + b" ")
        assert (found.id, found.fault) == (None, f"the line is longer than {MOST_LINE_BYTES} bytes")

    def test_of_a_member_that_is_there_twice_the_last_one_holds(self):
        # As nearly all readers of JSON have it (RFC 8259 4).
        found = read(b'{"function":"first","function":"last","workload":"w"}')
        assert (found.fault, found.function) == (None, b"last")

    @given(st.dictionaries(st.sampled_from(NAMES), VALUES), st.booleans())
    def test_the_ways_to_read_a_line_agree(self, members, ensure_ascii):
        line = json.dumps(members, ensure_ascii=ensure_ascii).encode()
        by_orjson = json.dumps(members | {"timeout": None}, ensure_ascii=ensure_ascii).encode()
        assert parts(read(line)) == parts(read(by_orjson))

    @given(st.binary(max_size=80))
    @example(b'{"')
    @example(b'{"id":')
    @example(b'{"id":-')
    @example(b'{"background":t')
    @example(b'{"background":true')
    def test_whatever_comes_is_read_to_its_end_and_no_further(self, text):
        if text:
            assert (read(text).fault is None) in (True, False)
        line = b"{" + JOB + b"}"
        for size in range(1, len(line)):
            assert read(line[:size]).fault is not None


class TestParts:
    """A line with many values is not read: each would be an object, and those of 1 MiB hold up the loop."""

    @pytest.mark.parametrize("part", [b"[]", b"{}", b"0", b'{"a":[0]}'])
    def test_one_with_too_many_is_no_job(self, part):
        found = read(b'{"id":1,"x":[' + b",".join([part] * MOST_PARTS) + b"]}")
        assert (found.id, found.fault) == (None, f"the line has more than {MOST_PARTS} values")

    def test_members_count_as_well(self):
        members = b",".join(b'"%d":0' % number for number in range(MOST_PARTS + 1))
        assert read(b"{" + members + b"}").fault == f"the line has more than {MOST_PARTS} values"

    def test_fewer_are_read(self):
        found = read(b'{"id":1,"x":[' + b",".join([b"0"] * (MOST_PARTS - 4)) + b"]}")
        assert (found.id, found.fault) == (b"1", "the line has a member that is not known: 'x'")

    @pytest.mark.parametrize("text", [b"[{,", b'\\",', b"\\\\,", b"\\u0022,"])
    def test_what_stands_in_a_string_is_none(self, text):
        line = b'{"function":"f","workload":"' + text * MOST_PARTS + b'"' + NOTHING
        found = read(line)
        assert (found.fault, found.workload) == (None, json.loads(line)["workload"].encode())


class TestBase64:
    @given(st.binary(max_size=40))
    def test_what_was_encoded_is_decoded(self, data):
        text = base64.b64encode(data)
        assert read(b'{"function":"f","workload_base64":"%b"}' % text).workload == data

    @pytest.mark.parametrize(
        "text",
        ["Y", "YQ", "YQ=", "Y===", "=", "==", "====", "YQ==YQ==", "Y Q==", "YQ==\\n", "_-8=", "\\u00e9AAA", "YQ=a"],
    )
    def test_what_is_none_is_told_so(self, text):
        found = read(b'{"function":"f","workload_base64":"%b"}' % text.encode())
        assert "workload_base64 is no base64" in found.fault


class TestWriting:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", '"body":""'),
            (b"plain", '"body":"plain"'),
            (b'a "quoted" \\ text', '"body":"a \\"quoted\\" \\\\ text"'),
            (b"line\nline", '"body":"line\\nline"'),
            (b"\0\x1f\x7f", '"body":"\\u0000\\u001f\x7f"'),
            ("\u00e9\u20ac\U0001f600".encode(), '"body":"\u00e9\u20ac\U0001f600"'),
            (b"\xff", '"body_base64":"/w=="'),
            (b"\xed\xa0\x80", '"body_base64":"7aCA"'),
            (b"\xc3", '"body_base64":"ww=="'),
            # So large a text is one only if that takes no more than twice its bytes.
            (b"\0" * 16_384, '"body":"' + "\\u0000" * 16_384 + '"'),
            (b"\0" * 16_386, '"body_base64":"' + "AAAA" * 5462 + '"'),
            (b'"' * 16_386, '"body":"' + '\\"' * 16_386 + '"'),
            (b"\0x" * 10_000, '"body_base64":"' + base64.b64encode(b"\0x" * 10_000).decode() + '"'),
            (b"\n\r\t" * 10_000, '"body":"' + "\\n\\r\\t" * 10_000 + '"'),
        ],
    )
    @pytest.mark.parametrize("kind", [bytes, bytearray])
    def test_a_body_is_text_or_base64(self, body, said, kind):
        line = answer_line(b'"i"', 3, 200, b"", kind(body))
        assert line.decode() == (
            '{"id":"i","line":3,"status":200,"command":null,"handle":null,"unique":null,' + said + "}\n"
        )

    @given(
        st.none() | TEXTS | st.integers(-(2**63), 2**64 - 1),
        st.integers(1, 2**40),
        st.binary(max_size=200),
    )
    def test_it_is_json_with_its_members_in_order(self, id_, number, body):
        text = None if id_ is None else json.dumps(id_).encode()
        line = read_line(answer_line(text, number, 500, b"X-Gearman-Command: WORK_EXCEPTION\r\n", body))
        assert (line.id, line.line, line.status, line.command, line.body) == (id_, number, 500, "WORK_EXCEPTION", body)

    @pytest.mark.parametrize("size", [7, 8, 9, 63, 64, 65, 4095, 4096, 20_000])
    @pytest.mark.parametrize("last", [b"", b'"', b"\\", b"\n", b"\xff", "\u00e9".encode()])
    def test_any_size_is_whole(self, size, last):
        assert read_line(answer_line(None, 1, 200, b"", b"x" * size + last)).body == b"x" * size + last

    def test_of_the_head_it_tells_what_x_gearman_lines_say(self):
        headers = (
            b'X-Gearman-Job-Handle: H:host:1\r\nX-Gearman-Command: WORK_COMPLETE\r\nX-Gearman-Unique: \xc3\xa9"\xff\r\n'
            b"Location: /v1/jobs/x\r\nX-Other: y\r\n"
        )
        line = read_line(answer_line(None, 1, 200, headers, b""))
        assert (line.handle, line.command, line.unique) == ("H:host:1", "WORK_COMPLETE", '\u00e9"\ufffd')

    def test_a_problem_is_told_without_its_request(self):
        problem = {"type": "urn:gatewayx:x", "title": "T", "status": 503, "detail": "d", "instance": "urn:x"}
        line = read_line(answer_line(b"1", 2, 503, b"Retry-After: 7\r\n", b"", json.dumps(problem).encode()))
        assert line.problem == {"type": "urn:gatewayx:x", "title": "T", "status": 503, "detail": "d", "retry_after": 7}
        with pytest.raises(ValueError, match="no problem"):
            answer_line(None, 1, 500, b"", b"", b"[]")


@given(st.binary(max_size=40))
@example(b"a/b:c?d#e%f g\xc3\xa9+\x7f")
def test_a_path_names_the_function(function):
    path = path_of_function(function)
    assert path[:1] == b"/"
    assert urllib.parse.unquote_to_bytes(path[1:]) == function
    assert all(0x21 <= byte < 0x7F and byte not in b'?#"<>\\^`{|}' for byte in path)
