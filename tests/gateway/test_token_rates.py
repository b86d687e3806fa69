"""How often a token may ask, and what every answer to it says of that (draft-ietf-httpapi-ratelimit-headers-11)."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from pathlib import Path

import pytest

from gatewayx.config.rate_kinds import FunctionRate, RateBound
from support.gateway import running_gateway
from support.http import HttpClient, Response, ask, head, post

pytestmark = pytest.mark.anyio

# So slow that nothing comes back while a test runs.
SLOW = 0.01
# So many seconds until it does, of which some may have passed.
NEXT_S = range(75, 101)
BACKGROUND = b"X-Gearman-Background: true"

# RFC 9651, as far as the draft needs it: one Item of the List, a String with Parameters that are Integers of at most 15
# digits, each a key; and what the draft requires of them.
POLICY = re.compile(rb'"(?P<name>[a-z]+)";q=(?P<q>0|[1-9][0-9]{0,14});w=(?P<w>[1-9][0-9]{0,14})')
LIMIT = re.compile(rb'"(?P<name>[a-z]+)";r=(?P<r>0|[1-9][0-9]{0,14})(?:;t=(?P<t>0|[1-9][0-9]{0,14}))?')


def secret(name: str) -> str:
    """The token of this name."""
    return f"gwx_{name:a<51}"


def tokens_file(path: Path, named: str = "", **tables: str) -> str:
    """A file with a token of each name, and these lines in its table; named: the name of all of them."""
    file = path / "tokens.toml"
    texts = []
    for name, lines in tables.items():
        digest = hashlib.sha256(secret(name).encode()).hexdigest()
        texts.append(f'[[token]]\nname = "{named or name}"\nsha256 = "{digest}"\n{lines}\n')
    file.write_text("\n".join(texts))
    file.chmod(0o600)
    return str(file)


def line_of(name: str) -> bytes:
    """The header line with the token of this name."""
    return f"Authorization: Bearer {secret(name)}".encode()


def told(answer: Response) -> tuple[int, int, int, int | None]:
    """What an answer tells: q and w of the policy, r and t of the limit; fails if it does not as the draft says."""
    policy = POLICY.fullmatch(answer.headers[b"ratelimit-policy"])
    limit = LIMIT.fullmatch(answer.headers[b"ratelimit"])
    assert policy is not None
    assert limit is not None
    assert policy["name"] == limit["name"] == b"token"
    t = limit["t"]
    return int(policy["q"]), int(policy["w"]), int(limit["r"]), None if t is None else int(t)


async def test_every_answer_tells_what_is_left(embedded, tmp_path):
    tokens = tokens_file(tmp_path, shop=f"rate = {SLOW}\nburst = 5\nfunctions = ['f']")
    async with running_gateway([embedded.address], tokens=tokens) as gateway, HttpClient(gateway.address) as client:
        shop = line_of("shop")
        answers = [
            await client.ask(post(b"/f", b"", BACKGROUND, shop)),
            await client.ask(head(b"OPTIONS", b"*", shop)),
            await client.ask(post(b"/other", b"", shop)),
            await client.ask(post(b"/f?lost", b"", shop)),
            await client.ask(head(b"DELETE", b"/f", shop)),
        ]
        assert [answer.status for answer in answers] == [200, 204, 403, 400, 405]
        answers.append(await client.ask(post(b"/f", b"", BACKGROUND, shop)))
        assert [told(answer)[:3] for answer in answers] == [(5, 500, left) for left in (4, 3, 2, 1, 0, 0)]
        assert all(told(answer)[3] in NEXT_S for answer in answers)
        answer = answers[-1]
        assert (answer.status, answer.kind()) == (429, "rate-exceeded")
        # RFC 9110 10.2.3, and the draft: no earlier than the end of the window.
        assert told(answer)[3] <= int(answer.headers[b"retry-after"]) <= 120
        assert "this token" in answer.problem()["detail"]


@pytest.mark.parametrize(
    ("lines", "policy"),
    [
        ("rate = 10", (10, 1)),
        ("rate = 10\nburst = 1", (1, 1)),
        ("rate = 10\nburst = 25", (25, 3)),
        ("rate = 0.5", (1, 2)),
        ("rate = 0.3\nburst = 7", (7, 24)),
        ("rate = 1000000\nburst = 1000000", (1_000_000, 1)),
        ("rate = 0.001\nburst = 86", (86, 86_000)),
    ],
)
async def test_the_policy_is_one_that_is_kept_to_without_a_refusal(embedded, tmp_path, lines, policy):
    tokens = tokens_file(tmp_path, shop=lines)
    async with running_gateway([embedded.address], tokens=tokens) as gateway:
        answer = await ask(gateway.address, head(b"OPTIONS", b"*", line_of("shop")))
        q, w, r, t = told(answer)
        assert (q, w) == policy
        assert r == q - 1
        # Nothing more than that within t.
        assert t == math.ceil(w / q) or (w == 1 and t == 1)


async def test_who_has_no_rate_and_who_has_no_token_is_told_nothing(embedded, tmp_path):
    tokens = tokens_file(tmp_path, free="", shop="rate = 1")
    async with running_gateway([embedded.address], tokens=tokens, rate=RateBound(100.0, 100)) as gateway:
        for lines, status in (([line_of("free")], 204), ([], 401), ([b"Authorization: Bearer gwx_unknown"], 401)):
            answer = await ask(gateway.address, head(b"OPTIONS", b"*", *lines))
            assert answer.status == status
            assert not {b"ratelimit", b"ratelimit-policy"} & answer.headers.keys()


@pytest.mark.parametrize(("named", "statuses"), [("shop", [204, 204, 429, 429]), ("", [204] * 4)])
async def test_two_tokens_of_a_name_have_one_rate_and_others_their_own(embedded, tmp_path, named, statuses):
    lines = f"rate = {SLOW}\nburst = 2"
    async with running_gateway(
        [embedded.address], tokens=tokens_file(tmp_path, named, old=lines, new=lines)
    ) as gateway:
        found = [
            (await ask(gateway.address, head(b"OPTIONS", b"*", line_of(name)))).status
            for name in ("old", "new", "old", "new")
        ]
        assert found == statuses


async def test_whoever_is_refused_by_a_function_has_it_back_at_the_token(embedded, tmp_path):
    tokens = tokens_file(tmp_path, shop=f"rate = {SLOW}\nburst = 4", other=f"rate = {SLOW}\nburst = 4")
    rates = (FunctionRate("f", RateBound(SLOW, 2)),)
    async with (
        running_gateway([embedded.address], tokens=tokens, function_rate=rates) as gateway,
        HttpClient(gateway.address) as client,
    ):
        # Somebody else has had all that the function has.
        for _ in range(2):
            assert (await client.ask(post(b"/f", b"", BACKGROUND, line_of("other")))).status == 200
        for _ in range(20):
            answer = await client.ask(post(b"/f", b"", BACKGROUND, line_of("shop")))
            assert answer.status == 429
            assert "this function" in answer.problem()["detail"]
            # Without a window, for Retry-After is the function's.
            assert told(answer) == (4, 400, 4, None)
        found = [(await client.ask(post(b"/g", b"", BACKGROUND, line_of("shop")))).status for _ in range(5)]
        assert found == [200] * 4 + [429]


async def test_whoever_is_refused_by_a_token_takes_nothing_from_the_function_and_by_an_address_nothing_from_the_token(
    embedded, tmp_path
):
    tokens = tokens_file(tmp_path, shop=f"rate = {SLOW}\nburst = 2", other="")
    rates = (FunctionRate("f", RateBound(SLOW, 3)),)
    settings = {"tokens": tokens, "function_rate": rates, "rate": RateBound(SLOW, 6)}

    async def statuses(client: HttpClient, name: str, count: int) -> list[int]:
        return [(await client.ask(post(b"/f", b"", BACKGROUND, line_of(name)))).status for _ in range(count)]

    async with running_gateway([embedded.address], **settings) as gateway:
        async with HttpClient(gateway.address, source="127.0.0.2") as client:
            # The address has six: one for the token, then the address is used up by requests with another one.
            assert await statuses(client, "shop", 1) == [200]
            for _ in range(5):
                assert (await client.ask(head(b"OPTIONS", b"*", line_of("other")))).status == 204
            assert await statuses(client, "shop", 5) == [429] * 5
        async with HttpClient(gateway.address, source="127.0.0.3") as client:
            # So the token has one left, and is refused three times; of the function one is left after that.
            assert await statuses(client, "shop", 4) == [200, 429, 429, 429]
            assert await statuses(client, "other", 2) == [200, 429]


async def test_whoever_has_no_good_token_takes_nothing_from_those_of_the_same_address(embedded, tmp_path):
    tokens = tokens_file(tmp_path, shop="")
    settings = {"tokens": tokens, "rate": RateBound(SLOW, 2)}
    async with running_gateway([embedded.address], **settings) as gateway, HttpClient(gateway.address) as client:
        for line in (b"X-Nothing: 1", b"Authorization: Bearer wrong"):
            for _ in range(5):
                assert (await client.ask(head(b"OPTIONS", b"*", line))).status == 401
        found = [(await client.ask(head(b"OPTIONS", b"*", line_of("shop")))).status for _ in range(3)]
        assert found == [204, 204, 429]


async def test_whoever_waits_as_long_as_told_gets_in(embedded, tmp_path):
    tokens = tokens_file(tmp_path, shop="rate = 1\nburst = 1")
    async with running_gateway([embedded.address], tokens=tokens) as gateway, HttpClient(gateway.address) as client:
        request = head(b"OPTIONS", b"*", line_of("shop"))
        assert (await client.ask(request)).status == 204
        for _ in range(2):
            # A second may have passed since the last one.
            while (answer := await client.ask(request)).status == 204:
                pass
            assert answer.status == 429
            _, _, r, t = told(answer)
            assert (r, t) == (0, 1)
            assert int(answer.headers[b"retry-after"]) >= t
            await asyncio.sleep(int(answer.headers[b"retry-after"]))
            assert (await client.ask(request)).status == 204
