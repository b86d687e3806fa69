"""What may stand in Idempotency-Key, and with what: tables, asked of a running gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.gateway import RunningGateway, eventually, running_gateway
from support.http import HttpClient, get, head, post
from support.keys import REPLAYED, counted, is_again, is_first, key_line, keyed, known_keys, new_key
from support.peer import ask_text
from support.tokens import TokenFile

pytestmark = pytest.mark.anyio

# RFC 9110 5.6.2.
TOKEN_CHARACTERS = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# RFC 9651 3.3.3: all that may stand in a String as it is.
STRING_CHARACTERS = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
# The longest key, and the shortest one without a token.
LONGEST = 255
SHORTEST = 22

# Values, and another one of which each is the same key.
SAME = [
    pytest.param(b"a", b'"a"', id="one-byte"),
    pytest.param(b"8e03978e-40d5-43dd-bc93-6894a57f9324", b'"8e03978e-40d5-43dd-bc93-6894a57f9324"', id="uuid"),
    pytest.param(TOKEN_CHARACTERS, b'"' + TOKEN_CHARACTERS + b'"', id="every-character-of-a-token"),
    pytest.param(b'"' + STRING_CHARACTERS + b'"', b'  "' + STRING_CHARACTERS + b'"\t', id="every-one-of-a-string"),
    pytest.param(b'"\\"\\\\"', b'"\\"\\\\" ', id="nothing-but-escapes"),
    pytest.param(b'"a\\"b\\\\c"', b' "a\\"b\\\\c"', id="escapes-within"),
    pytest.param(b"k" * LONGEST, b'"' + b"k" * LONGEST + b'"', id="the-longest"),
    pytest.param(b'"' + b'\\"' * LONGEST + b'"', b'\t"' + b'\\"' * LONGEST + b'"', id="the-longest-all-escaped"),
    pytest.param(b" \tspaced\t ", b'"spaced"', id="white-space-around"),
    pytest.param(b"*", b'"*"', id="star"),
    pytest.param(b"true", b'"true"', id="a-word"),
    pytest.param(b"0", b'"0"', id="a-number"),
]
# Values that are different keys, however alike.
DIFFERENT = [
    pytest.param(b"abc", b"ABC", id="case"),
    pytest.param(b'"abc"', b'" abc"', id="white-space-within-quotes"),
    pytest.param(b'"a\\\\b"', b'"ab"', id="an-escaped-backslash"),
    pytest.param(b'"\\"abc\\""', b'"abc"', id="quotes-that-belong-to-it"),
    pytest.param(b'"a\\"b"', b'"a\\\\b"', id="what-is-escaped"),
    pytest.param(b"k" * LONGEST, b"k" * (LONGEST - 1), id="length"),
]
REFUSED = [
    pytest.param(b"", id="empty"),
    pytest.param(b" \t ", id="white-space"),
    pytest.param(b'""', id="empty-string"),
    pytest.param(b'"', id="one-quote"),
    pytest.param(b'"abc', id="no-end"),
    pytest.param(b'abc"', id="no-begin"),
    pytest.param(b'a"b"c', id="quotes-within"),
    pytest.param(b'"abc\\"', id="its-end-is-escaped"),
    pytest.param(b'"abc\\', id="a-backslash-at-the-end"),
    pytest.param(b'"a\\bc"', id="an-escape-that-is-none"),
    pytest.param(b'"a\\', id="half-an-escape"),
    pytest.param(b"a\\b", id="a-backslash-without-quotes"),
    pytest.param(b"k" * (LONGEST + 1), id="a-token-too-long"),
    pytest.param(b'"' + b"k" * (LONGEST + 1) + b'"', id="a-string-too-long"),
    pytest.param(b'"' + b"\\\\" * (LONGEST + 1) + b'"', id="escapes-too-long"),
    pytest.param(b"a b", id="two-words"),
    pytest.param(b"a\tb", id="a-tab-between"),
    pytest.param(b'"a\tb"', id="a-tab-within-quotes"),
    pytest.param(b"a,b", id="a-list"),
    pytest.param(b'"a", "b"', id="a-list-of-strings"),
    pytest.param(b'"a","a"', id="the-same-twice"),
    pytest.param(b"abc;p=1", id="a-token-with-a-parameter"),
    pytest.param(b'"abc";p=1', id="a-string-with-a-parameter"),
    pytest.param(b'"abc" x', id="something-behind"),
    pytest.param(b'x "abc"', id="something-in-front"),
    pytest.param(b'"abc"x', id="something-right-behind"),
    pytest.param(b"caf\xc3\xa9", id="utf-8"),
    pytest.param(b'"caf\xc3\xa9"', id="utf-8-in-quotes"),
    pytest.param(b"\xff", id="obs-text"),
    pytest.param(b'"\x80"', id="obs-text-in-quotes"),
    pytest.param(b":YWJj:", id="a-byte-sequence"),
    pytest.param(b"(a)", id="an-inner-list"),
    pytest.param(b"a=b", id="equals"),
    pytest.param(b"a/b", id="slash"),
    pytest.param(b"a@b", id="at"),
    pytest.param(b"{a}", id="braces"),
    pytest.param(b"<a>", id="angles"),
    pytest.param(b"[a]", id="brackets"),
    pytest.param(b"a?", id="question-mark"),
    pytest.param(b"'abc' x", id="single-quotes"),
    pytest.param(b'%"abc"', id="a-display-string"),
]


@pytest.fixture
def tokens(tmp_path) -> TokenFile:
    """A file with two tokens, with which keys may be short."""
    file = TokenFile(tmp_path / "tokens.toml")
    file.write(file.table("one"), file.table("other"))
    return file


@pytest.fixture
async def gateway(embedded, samples, tokens) -> AsyncIterator[RunningGateway]:
    """A gateway with these, in front of the sample functions."""
    async with running_gateway([embedded.address], tokens=str(tokens.path)) as gateway:
        yield gateway


def is_not_run(gateway: RunningGateway) -> bool:
    """Whether neither a job nor a key is known at the gateway."""
    return known_keys(gateway) == 0 and gateway.count("admission.jobs") == 0


class TestValue:
    @pytest.mark.parametrize(("value", "other"), SAME)
    async def test_two_spellings_of_a_key_are_one_key(self, gateway, client, tokens, value, other):
        line = tokens.line("one")
        first = await client.ask(keyed(b"echo", b"w", value, line))
        assert (first.status, first.body) == (200, b"w")
        assert is_first(first)
        for spelled in (other, value):
            assert is_again(await client.ask(keyed(b"echo", b"w", spelled, line)), first)
        assert known_keys(gateway) == 1

    @pytest.mark.parametrize(("value", "other"), DIFFERENT)
    async def test_others_are_keys_of_their_own(self, gateway, client, tokens, value, other):
        for spelled in (value, other):
            answer = await client.ask(keyed(b"echo", spelled, spelled, tokens.line("one")))
            assert (answer.status, answer.body) == (200, spelled)
            assert is_first(answer)
        assert known_keys(gateway) == 2

    @pytest.mark.parametrize("value", REFUSED)
    async def test_anything_else_is_400_that_names_the_header(self, gateway, client, tokens, value):
        answer = await client.ask(keyed(b"echo", b"w", value, tokens.line("one")))
        assert (answer.status, answer.kind()) == (400, "malformed-header")
        assert "Idempotency-Key" in str(answer.problem()["detail"])
        assert is_first(answer)
        assert is_not_run(gateway)
        # The connection is as good as before.
        assert (await client.ask(keyed(b"echo", b"w", new_key(), tokens.line("one")))).status == 200

    @pytest.mark.parametrize(
        "lines",
        [
            (key_line(b"a"), key_line(b"a")),
            (key_line(b"a"), key_line(b"b")),
            (key_line(b"a"), key_line(b"")),
            (b"idempotency-key: a", b"IDEMPOTENCY-KEY: a"),
        ],
    )
    async def test_two_lines_of_it_are_400(self, gateway, client, tokens, lines):
        answer = await client.ask(post(b"/echo", b"w", *lines, tokens.line("one")))
        assert (answer.status, answer.kind()) == (400, "malformed-header")
        assert "Idempotency-Key" in str(answer.problem()["detail"])
        assert is_not_run(gateway)

    @pytest.mark.parametrize("name", [b"idempotency-key", b"IDEMPOTENCY-KEY", b"iDEMPOTENCY-kEY"])
    async def test_its_name_is_in_any_case(self, client, tokens, name):
        key = new_key()
        first = await client.ask(post(b"/echo", b"w", name + b":" + key, tokens.line("one")))
        assert is_again(await client.ask(keyed(b"echo", b"w", key, tokens.line("one"))), first)

    @pytest.mark.parametrize(
        "name", [b"Idempotency-Keys", b"Idempotency_Key", b"X-Idempotency-Key", b"Idempotency-Ke", b"Idempotency-Kez"]
    )
    async def test_other_names_are_none(self, gateway, client, tokens, name):
        for _ in range(2):
            answer = await client.ask(post(b"/echo", b"w", name + b": abc", tokens.line("one")))
            assert answer.status == 200
            assert is_first(answer)
        assert known_keys(gateway) == 0


class TestLength:
    @pytest.mark.parametrize(
        "value",
        [
            b"k" * (SHORTEST - 1),
            b'"' + b"k" * (SHORTEST - 1) + b'"',
            b'"' + b"k" * (SHORTEST - 2) + b'\\""',
            b" " * SHORTEST + b"k",
            b"k",
        ],
    )
    async def test_without_tokens_fewer_than_22_characters_are_400(self, embedded, samples, value):
        async with running_gateway([embedded.address]) as gateway, HttpClient(gateway.address) as client:
            answer = await client.ask(keyed(b"echo", b"w", value))
            assert (answer.status, answer.kind()) == (400, "malformed-header")
            assert "Idempotency-Key" in str(answer.problem()["detail"])
            assert "22" in str(answer.problem()["detail"])
            assert is_not_run(gateway)

    @pytest.mark.parametrize(
        "value",
        [
            b"k" * SHORTEST,
            b'"' + b"k" * SHORTEST + b'"',
            b'"' + b"k" * (SHORTEST - 1) + b'\\""',
            b"k" * LONGEST,
        ],
    )
    async def test_without_tokens_22_are_enough(self, embedded, samples, value):
        async with running_gateway([embedded.address]) as gateway, HttpClient(gateway.address) as client:
            first = await client.ask(keyed(b"echo", b"w", value))
            assert first.status == 200
            assert is_again(await client.ask(keyed(b"echo", b"w", value)), first)

    async def test_too_short_and_malformed_are_told_apart_from_reused(self, embedded, samples):
        async with running_gateway([embedded.address]) as gateway, HttpClient(gateway.address) as client:
            key = new_key()
            assert (await client.ask(keyed(b"echo", b"w", key))).status == 200
            assert (await client.ask(keyed(b"echo", b"other", key))).kind() == "key-reused"
            assert (await client.ask(keyed(b"echo", b"w", key[:5]))).kind() == "malformed-header"


class TestWithOtherThings:
    @pytest.mark.parametrize(
        "line",
        [
            b"X-Gearman-Unique: mine",
            b"X-Gearman-Unique: -",
            b"Accept: text/event-stream",
            b"X-Gearman-Stream: true",
        ],
    )
    async def test_what_it_cannot_stand_with_is_400(self, gateway, client, tokens, line):
        for lines in ((line, key_line(new_key())), (key_line(new_key()), line)):
            answer = await client.ask(post(b"/echo", b"w", *lines, tokens.line("one")))
            assert (answer.status, answer.kind()) == (400, "malformed-header")
            assert "Idempotency-Key" in str(answer.problem()["detail"])
        assert is_not_run(gateway)

    async def test_a_last_event_id_does_not_get_around_it(self, gateway, client, tokens):
        lines = (b"Accept: text/event-stream", b"Last-Event-ID: k" + b"A" * 40 + b".1", key_line(new_key()))
        answer = await client.ask(post(b"/echo", b"w", *lines, tokens.line("one")))
        assert (answer.status, answer.kind()) == (400, "malformed-header")
        assert is_not_run(gateway)

    @pytest.mark.parametrize(
        "line",
        [
            b"X-Gearman-Stream: false",
            b"X-Gearman-Background: false",
            b"Accept: */*",
            b"Accept: application/json",
            b"Prefer: wait=5",
            b"Content-Type: text/event-stream",
        ],
    )
    async def test_what_asks_for_nothing_special_is_no_hindrance(self, client, tokens, line):
        key = new_key()
        first = await client.ask(keyed(b"echo", b"w", key, line, tokens.line("one")))
        assert first.status == 200
        assert is_again(await client.ask(keyed(b"echo", b"w", key, line, tokens.line("one"))), first)

    @pytest.mark.parametrize("method", [b"PUT", b"GET", b"HEAD"])
    @pytest.mark.parametrize("value", [b"k" * SHORTEST, b"not a key"])
    async def test_with_another_method_that_submits_a_job_it_is_400(self, gateway, client, tokens, method, value):
        framing = (b"Content-Length: 0",) if method == b"PUT" else ()
        request = head(method, b"/echo", key_line(value), tokens.line("one"), *framing)
        answer = await client.ask(request, to_head=method == b"HEAD")
        assert answer.status == 400
        if method != b"HEAD":
            assert answer.kind() == "malformed-header"
            assert "Idempotency-Key" in str(answer.problem()["detail"])
        assert is_not_run(gateway)

    @pytest.mark.parametrize(("method", "status"), [(b"OPTIONS", 204), (b"DELETE", 405), (b"PATCH", 405)])
    async def test_with_a_method_that_submits_none_it_is_nothing(self, client, tokens, method, status):
        answer = await client.ask(head(method, b"/echo", key_line(new_key()), tokens.line("one")))
        assert answer.status == status
        assert is_first(answer)

    @pytest.mark.parametrize("value", [b"k" * SHORTEST, b"not a key"])
    async def test_calls_of_a_kept_job_pass_over_it(self, gateway, client, tokens, value):
        lines = (key_line(value), tokens.line("one"))
        first = await client.ask(post(b"/nobody-s", b"w", b"Prefer: respond-async", tokens.line("one")))
        location = first.headers[b"location"]
        for _ in range(2):
            assert (await client.ask(get(location, *lines))).status == 200
            assert (await client.ask(get(location + b"/result", *lines))).status == 202
        for _ in range(2):
            answer = await client.ask(post(location + b"/cancel", b"", *lines))
            assert answer.status == 200
            assert is_first(answer)
        assert (await client.ask(head(b"DELETE", location, *lines))).status == 204
        assert (await client.ask(head(b"DELETE", location, *lines))).status == 404
        assert known_keys(gateway) == 0

    async def test_refusals_that_do_not_ask_for_a_job_leave_no_key(self, gateway, client, tokens):
        line = tokens.line("one")
        for request, status in (
            (keyed(b"echo?query", b"w", new_key(), line), 400),
            (keyed(b"", b"w", new_key(), line), 404),
            (keyed(b"v1/other", b"w", new_key(), line), 404),
            (keyed(b"echo", b"w", new_key(), line, b"X-Gearman-Timeout: never"), 400),
            (keyed(b"echo", b"w", new_key(), line, b"X-Gearman-Priority: none"), 400),
            (keyed(b"echo", b"w", new_key()), 401),
        ):
            assert (await client.ask(request)).status == status
        assert is_not_run(gateway)

    async def test_under_plugin_compat_it_is_400(self, embedded, samples):
        async with (
            running_gateway([embedded.address], plugin_compat=True) as gateway,
            HttpClient(gateway.address) as client,
        ):
            for value in (new_key(), b"not a key"):
                assert (await client.ask(keyed(b"echo", b"w", value))).status == 400
            assert is_not_run(gateway)
            answer = await client.ask(post(b"/echo", b"w"))
            assert (answer.status, answer.body) == (200, b"w")


class TestTokens:
    async def test_two_tokens_with_one_key_have_two_keys(self, gateway, client, tokens):
        answers = {}
        for name in ("one", "other"):
            answers[name] = await client.ask(keyed(b"echo", name.encode(), b"k", tokens.line(name)))
            assert (answers[name].status, answers[name].body) == (200, name.encode())
            assert is_first(answers[name])
        for name, first in answers.items():
            assert is_again(await client.ask(keyed(b"echo", name.encode(), b"k", tokens.line(name))), first)
        assert known_keys(gateway) == 2

    async def test_the_name_is_whose_key_it_is_so_that_a_token_can_be_changed(self, embedded, samples, tmp_path):
        file = TokenFile(tmp_path / "rotated.toml")
        old = file.table("one")
        old_line = file.line("one")
        new = file.table("one")
        file.write(old, new)
        async with (
            running_gateway([embedded.address], tokens=str(file.path)) as gateway,
            HttpClient(gateway.address) as client,
        ):
            first = await client.ask(keyed(b"echo", b"w", b"k", old_line))
            assert is_again(await client.ask(keyed(b"echo", b"w", b"k", file.line("one"))), first)
            assert known_keys(gateway) == 1

    async def test_what_a_token_may_not_is_refused_with_a_key_of_its_too(self, embedded, samples, tmp_path):
        file = TokenFile(tmp_path / "narrow.toml")
        file.write(file.table("narrow", 'functions = ["echo"]', "background = false", 'highest_priority = "normal"'))
        line = file.line("narrow")
        async with (
            running_gateway([embedded.address], tokens=str(file.path)) as gateway,
            HttpClient(gateway.address) as client,
        ):
            first = await client.ask(keyed(b"echo", b"w", b"k", line))
            assert first.status == 200
            for request in (
                keyed(b"reverse", b"w", b"k", line),
                keyed(b"echo", b"w", b"k", line, b"X-Gearman-Background: true"),
                keyed(b"echo", b"w", b"k", line, b"X-Gearman-Priority: high"),
                keyed(b"reverse", b"w", b"new", line),
            ):
                answer = await client.ask(request)
                assert (answer.status, answer.kind()) == (403, "not-permitted")
            assert is_again(await client.ask(keyed(b"echo", b"w", b"k", line)), first)
            assert known_keys(gateway) == 1

    async def test_one_that_is_taken_away_has_its_answer_no_more(self, gateway, client, tokens, embedded):
        line = tokens.line("one")
        assert (await client.ask(keyed(b"echo", b"w", b"k", line))).status == 200
        tokens.write(tokens.table("other"))
        await gateway.process.reconfigure(gateway.process.settings)
        answer = await client.ask(keyed(b"echo", b"w", b"k", line))
        assert answer.status == 401
        assert REPLAYED not in answer.headers


async def test_what_is_counted(embedded, samples):
    async with running_gateway([embedded.address]) as gateway, HttpClient(gateway.address) as client:
        key = new_key()
        for _ in range(3):
            await client.ask(keyed(b"echo", b"w", key))
        await client.ask(keyed(b"echo", b"other", key))
        await client.ask(keyed(b"echo", b"w", b"short"))
        assert [counted(gateway, f"keys_{how}") for how in ("begun", "replayed", "joined", "reused")] == [1, 2, 0, 1]
        client.send(keyed(b"sleep", b"0.3", new_key()))
        async with HttpClient(gateway.address) as other:
            await eventually(lambda: gateway.process.keys.counters()["running"] == 1)
            key = new_key()
            other.send(keyed(b"sleep", b"0.3", key), keyed(b"sleep", b"0.3", key))
            assert [(await other.response()).status for _ in range(2)] == [200, 200]
        assert (await client.response()).status == 200
        assert [counted(gateway, f"keys_{how}") for how in ("begun", "replayed", "joined", "reused")] == [3, 2, 1, 1]
        assert (await ask_text(embedded.address, b"status")).count(b"\t0\t0\t") >= 1
