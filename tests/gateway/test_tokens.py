"""Who may ask with a token, and for what, in front of both job servers."""

from __future__ import annotations

import datetime
import itertools

import pytest

from gatewayx.address import UnixAddress
from gatewayx.gateway.tokens import ATTEMPT_S, ATTEMPTS
from gatewayx.http.outcomes import OUTCOMES
from support.gateway import RunningGateway, running_gateway
from support.http import HttpClient, Response, ask, chunked, get, head, post
from support.job_servers import hand_worker
from support.tokens import TokenFile, bearer

pytestmark = pytest.mark.anyio

REALM = b'Bearer realm="gatewayx"'
INVALID = REALM + b', error="invalid_token"'
INSUFFICIENT = REALM + b', error="insufficient_scope"'
BACKGROUND = b"X-Gearman-Background: true"
HIGH = b"X-Gearman-Priority: high"
EXPECT = b"Expect: 100-continue"
# Nobody's.
UNKNOWN = "gwx_" + "A" * 43 + "00000000"


@pytest.fixture
def file(tmp_path) -> TokenFile:
    """The file of tokens, of nobody at first."""
    return TokenFile(tmp_path / "tokens.toml")


def gateway_with(job_server, file: TokenFile, **settings: object):
    """A gateway in front of the job server whose clients need tokens."""
    return running_gateway([job_server.address], tokens=str(file.path), **settings)


def is_unauthenticated(answer: Response, challenge: bytes = REALM) -> None:
    """It is the answer to a request without a good token."""
    assert (answer.status, answer.kind()) == (401, "unauthenticated")
    assert answer.headers[b"www-authenticate"] == challenge


def is_not_permitted(answer: Response) -> None:
    """It is the answer to one whose token does not reach so far."""
    assert (answer.status, answer.kind()) == (403, "not-permitted")
    assert answer.headers[b"www-authenticate"] == INSUFFICIENT


def counted(gateway: RunningGateway) -> dict[tuple[str, str], int]:
    """The requests with a token that have ended: by its name, and their outcome."""
    metrics = gateway.process.places.metrics()
    names = [name.decode() for name in metrics.tokens.names()]
    return {(names[token], OUTCOMES[outcome][0]): count for token, outcome, count in metrics.token_requests()}


class TestWho:
    @pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER", b"bEaReR", b"Bearer  ", b"Bearer   "])
    async def test_a_token_is_let_in_by_its_secret(self, job_server, function, file, scheme):
        file.write(file.table("other"), file.table("shop"))
        async with gateway_with(job_server, file) as gateway:
            line = bearer(file.secrets["shop"], scheme)
            for _ in range(3):
                answer = await ask(gateway.address, post(b"/" + function, b"x", BACKGROUND, line))
                assert answer.status == 200
                assert b"www-authenticate" not in answer.headers
            assert counted(gateway) == {("shop", "ok"): 3}

    @pytest.mark.parametrize(
        "lines",
        [
            [],
            [b"Authorization: "],
            [b"Authorization: Bearer"],
            [b"Authorization: Bearer "],
            [b"Authorization: Basic Z3d4OmE="],
            [b"Authorization: SECRET"],
            [b"Authorization: BearerSECRET"],
            [b"Authorization: Bearer\tSECRET"],
            [b"Authorization: Token SECRET"],
            [b"Authorization: Bearer SECRET", b"Authorization: Bearer SECRET"],
            [b"Authorization: Basic Z3d4OmE=", b"Authorization: Bearer SECRET"],
            [b"Proxy-Authorization: Bearer SECRET"],
            [b"X-Authorization: Bearer SECRET"],
        ],
    )
    async def test_without_one_it_is_401(self, job_server, function, file, lines):
        file.write(file.table("shop"))
        lines = [line.replace(b"SECRET", file.secrets["shop"].encode()) for line in lines]
        async with gateway_with(job_server, file) as gateway:
            is_unauthenticated(await ask(gateway.address, post(b"/" + function, b"x", *lines)))
            assert counted(gateway) == {}

    @pytest.mark.parametrize(
        "change",
        [
            lambda secret: UNKNOWN,
            lambda secret: secret[:-1],
            lambda secret: secret + "0",
            lambda secret: secret.lower() if secret != secret.lower() else secret.upper(),
            lambda secret: "A" + secret[1:],
            lambda secret: secret + " x",
            lambda secret: f'"{secret}"',
            lambda secret: f"{secret},{secret}",
            lambda secret: "a" * 1024,
            lambda secret: "a" * 1025,
            lambda secret: "a" * 9000,
        ],
    )
    async def test_one_that_is_not_known_is_invalid(self, job_server, function, file, change):
        file.write(file.table("shop"))
        async with gateway_with(job_server, file) as gateway, HttpClient(gateway.address) as client:
            # That the secret is remembered makes nothing else good.
            assert (await client.ask(post(b"/" + function, b"x", BACKGROUND, file.line("shop")))).status == 200
            line = bearer(change(file.secrets["shop"]))
            is_unauthenticated(await client.ask(post(b"/" + function, b"x", line)), INVALID)
            assert (await client.ask(post(b"/" + function, b"x", BACKGROUND, file.line("shop")))).status == 200

    async def test_it_is_never_taken_from_the_query(self, job_server, function, file):
        file.write(file.table("shop"))
        async with gateway_with(job_server, file) as gateway:
            query = b"?access_token=" + file.secrets["shop"].encode()
            is_unauthenticated(await ask(gateway.address, get(b"/" + function + query)))

    async def test_an_empty_file_lets_nobody_in(self, job_server, function, file):
        async with gateway_with(job_server, file) as gateway:
            is_unauthenticated(await ask(gateway.address, post(b"/" + function, b"x")))
            is_unauthenticated(await ask(gateway.address, post(b"/" + function, b"x", bearer(UNKNOWN))), INVALID)

    async def test_one_that_has_expired_is_as_unknown_as_any_and_one_that_has_not_is_good(
        self, job_server, function, file
    ):
        now = datetime.datetime.now(datetime.timezone.utc)
        tables = [
            file.table(name, f"expires = {(now + datetime.timedelta(days=days)).isoformat()}")
            for name, days in (("old", -1), ("new", 1))
        ]
        file.write(*tables)
        async with gateway_with(job_server, file) as gateway:
            good = await ask(gateway.address, post(b"/" + function, b"x", BACKGROUND, file.line("new")))
            assert good.status == 200
            old = await ask(gateway.address, post(b"/" + function, b"x", file.line("old")))
            unknown = await ask(gateway.address, post(b"/" + function, b"x", bearer(UNKNOWN)))
            is_unauthenticated(old, INVALID)
            assert old.problem()["detail"] == unknown.problem()["detail"]

    @pytest.mark.parametrize(
        "request_of",
        [
            lambda function: head(b"OPTIONS", b"*"),
            lambda function: head(b"OPTIONS", b"/" + function),
            lambda function: head(b"DELETE", b"/" + function),
            lambda function: get(b"/"),
            lambda function: get(b"/v1/jobs"),
            lambda function: head(b"HEAD", b"/" + function),
            lambda function: post(b"/" + function, b"x", b"X-Gearman-Priority: urgent"),
        ],
    )
    async def test_nothing_is_told_to_who_has_none(self, job_server, function, file, request_of):
        async with gateway_with(job_server, file) as gateway:
            request = request_of(function)
            answer = await ask(gateway.address, request, to_head=request.startswith(b"HEAD"))
            assert answer.status == 401
            assert answer.headers[b"www-authenticate"] == REALM

    async def test_it_is_told_before_a_body_is_read(self, job_server, function, file):
        async with gateway_with(job_server, file) as gateway:
            for lines in (
                (b"Content-Length: 5", EXPECT),
                (b"Content-Length: 1000000",),
                (b"Transfer-Encoding: chunked",),
            ):
                is_unauthenticated(await ask(gateway.address, head(b"POST", b"/" + function, *lines)))

    async def test_a_connection_goes_on_behind_a_refusal(self, job_server, function, file):
        file.write(file.table("shop"))
        async with gateway_with(job_server, file) as gateway, HttpClient(gateway.address) as client:
            client.send(
                post(b"/" + function, b"x"),
                post(b"/" + function, b"x", BACKGROUND, file.line("shop")),
                post(b"/" + function, b"x", bearer(UNKNOWN)),
            )
            assert [(await client.response()).status for _ in range(3)] == [401, 200, 401]

    @pytest.mark.parametrize("cut", [1, 7, 60, 100])
    async def test_it_does_not_matter_in_which_pieces_it_comes(self, job_server, function, file, cut):
        file.write(file.table("shop"))
        request = head(b"POST", b"/" + function, file.line("shop"), BACKGROUND, b"Transfer-Encoding: chunked")
        request += chunked(b"a", b"b")
        async with gateway_with(job_server, file) as gateway, HttpClient(gateway.address) as client:
            for begin in range(0, len(request), cut):
                await client.send_all(request[begin : begin + cut])
            assert (await client.response()).status == 200

    async def test_two_tokens_of_a_name_are_both_good(self, job_server, function, file):
        tables, lines = [], []
        for _ in range(2):
            tables.append(file.table("shop"))
            lines.append(file.line("shop"))
        file.write(*tables)
        async with gateway_with(job_server, file) as gateway:
            for line in lines:
                assert (await ask(gateway.address, post(b"/" + function, b"x", BACKGROUND, line))).status == 200
            assert counted(gateway) == {("shop", "ok"): 2}


class TestReach:
    @pytest.mark.parametrize("hidden", [False, True])
    async def test_functions_are_those_of_the_list_and_of_its_beginnings(self, job_server, function, file, hidden):
        name = function.decode()
        file.write(file.table("shop", f'functions = ["{name}", "{name}-img/*"]'), file.table("all"))
        async with gateway_with(job_server, file, hide_functions=hidden) as gateway:
            for asked in (function, function + b"-img/", function + b"-img/a"):
                answer = await ask(gateway.address, post(b"/" + asked, b"x", BACKGROUND, file.line("shop")))
                assert answer.status == 200
            for asked in (function + b"-img", function + b"x", function[:-1]):
                for lines in ((BACKGROUND,), (b"X-Gearman-Priority: urgent",), (EXPECT,)):
                    answer = await ask(gateway.address, post(b"/" + asked, b"x", file.line("shop"), *lines))
                    if hidden:
                        assert (answer.status, answer.kind()) == (404, "function-not-allowed")
                        assert b"www-authenticate" not in answer.headers
                    else:
                        is_not_permitted(answer)
                assert (
                    await ask(gateway.address, post(b"/" + asked, b"x", BACKGROUND, file.line("all")))
                ).status == 200

    async def test_a_hidden_function_is_told_as_one_that_nobody_may_ask_for(self, job_server, function, file):
        name = function.decode()
        file.write(file.table("shop", f'functions = ["{name}-a"]'))
        async with gateway_with(job_server, file, hide_functions=True, function=(f"{name}-a", f"{name}-b")) as gateway:
            told = []
            for asked in (function + b"-b", function + b"-c"):
                answer = await ask(gateway.address, post(b"/" + asked, b"x", file.line("shop")))
                problem = answer.problem()
                del problem["instance"]
                told.append((answer.status, sorted(answer.headers), problem))
            assert told[0] == told[1]

    @pytest.mark.parametrize(
        ("highest", "allowed"), [("low", {"low"}), ("normal", {"low", "normal"}), ("high", {"low", "normal", "high"})]
    )
    async def test_priorities_are_those_up_to_the_highest(self, job_server, function, file, highest, allowed):
        file.write(file.table("shop", f'highest_priority = "{highest}"'))
        async with gateway_with(job_server, file) as gateway:
            for priority in ("low", "normal", "high"):
                line = b"X-Gearman-Priority: " + priority.encode()
                answer = await ask(gateway.address, post(b"/" + function, b"x", BACKGROUND, line, file.line("shop")))
                if priority in allowed:
                    assert answer.status == 200
                else:
                    is_not_permitted(answer)

    async def test_background_jobs_may_be_left_out(self, job_server, function, file):
        file.write(file.table("shop", "background = false"))
        async with gateway_with(job_server, file) as gateway, hand_worker(job_server.address, function) as worker:
            is_not_permitted(await ask(gateway.address, post(b"/" + function, b"x", BACKGROUND, file.line("shop"))))
            async with HttpClient(gateway.address) as client:
                client.send(post(b"/" + function, b"x", file.line("shop")))
                handle, *_ = await worker.take()
                worker.complete(handle, b"done")
                assert (await client.response()).body == b"done"

    async def test_it_is_refused_before_a_body_is_read(self, job_server, file):
        file.write(file.table("shop", 'functions = ["other"]', 'highest_priority = "low"', "background = false"))
        async with gateway_with(job_server, file) as gateway:
            for target, line in ((b"/f", b"X-A: b"), (b"/other", HIGH), (b"/other", BACKGROUND)):
                request = head(b"POST", target, b"Content-Length: 5", EXPECT, line, file.line("shop"))
                is_not_permitted(await ask(gateway.address, request))
            assert counted(gateway) == {("shop", "not-permitted"): 3}


class TestJobs:
    async def test_a_name_has_so_many_in_flight_whichever_of_its_tokens_asks(self, job_server, function, file):
        tables, lines = [], []
        for _ in range(2):
            tables.append(file.table("shop", "max_jobs = 2"))
            lines.append(file.line("shop"))
        file.write(*tables, file.table("other", "max_jobs = 1"), file.table("free"))
        async with (
            gateway_with(job_server, file) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            client.send(post(b"/" + function, b"x", lines[0]), post(b"/" + function, b"x", lines[1]))
            handles = [(await worker.take())[0] for _ in range(2)]
            for line, more in itertools.product(lines, ((), (EXPECT,))):
                answer = await ask(gateway.address, head(b"POST", b"/" + function, b"Content-Length: 1", line, *more))
                assert (answer.status, answer.kind()) == (429, "too-many-token-jobs")
                assert int(answer.headers[b"retry-after"]) >= 1
            for name in ("other", "free"):
                async with HttpClient(gateway.address) as another:
                    another.send(post(b"/" + function, b"x", file.line(name)))
                    handle, *_ = await worker.take()
                    worker.complete(handle)
                    assert (await another.response()).status == 200
            for handle in handles:
                worker.complete(handle)
            assert [(await client.response()).status for _ in range(2)] == [200, 200]
            client.send(post(b"/" + function, b"x", lines[0]))
            handle, *_ = await worker.take()
            worker.complete(handle)
            assert (await client.response()).status == 200

    async def test_a_job_whose_client_has_gone_counts_no_more(self, job_server, function, file):
        file.write(file.table("shop", "max_jobs = 1"))
        async with gateway_with(job_server, file) as gateway, hand_worker(job_server.address, function) as worker:
            async with HttpClient(gateway.address) as client:
                client.send(post(b"/" + function, b"x", file.line("shop")))
                handle, *_ = await worker.take()
            await gateway.let_go()
            worker.complete(handle)
            answer = await ask(gateway.address, post(b"/" + function, b"x", BACKGROUND, file.line("shop")))
            assert answer.status == 200

    async def test_a_body_that_comes_slowly_takes_no_place(self, job_server, function, file):
        file.write(file.table("shop", "max_jobs = 1"))
        async with gateway_with(job_server, file) as gateway, HttpClient(gateway.address) as client:
            client.send(head(b"POST", b"/" + function, b"Content-Length: 1", BACKGROUND, file.line("shop")))
            answer = await ask(gateway.address, post(b"/" + function, b"x", BACKGROUND, file.line("shop")))
            assert answer.status == 200
            assert (await client.ask(b"x")).status == 200


class TestAttempts:
    async def test_so_many_unknown_ones_and_further_ones_wait_but_a_good_one_never_does(
        self, job_server, function, file
    ):
        file.write(file.table("shop"))
        async with gateway_with(job_server, file) as gateway, HttpClient(gateway.address) as client:
            kinds = []
            for number in range(2 * ATTEMPTS):
                secret = UNKNOWN[:-8] + f"{number:08x}"
                answer = await client.ask(post(b"/" + function, b"x", bearer(secret)))
                kinds.append(answer.kind())
                if answer.status == 429:
                    # Whole seconds, and up to a fifth more.
                    assert 1 <= int(answer.headers[b"retry-after"]) <= ATTEMPT_S * 1.2 + 1
                good = await client.ask(post(b"/" + function, b"x", BACKGROUND, file.line("shop")))
                assert good.status == 200
            assert kinds[:ATTEMPTS] == ["unauthenticated"] * ATTEMPTS
            assert kinds.count("too-many-attempts") >= ATTEMPTS - 10
            # Who has none guesses nothing.
            is_unauthenticated(await client.ask(post(b"/" + function, b"x")))

    async def test_of_clients_without_an_address_none_is_told_to_wait(self, job_server, function, file, tmp_path):
        listen = (UnixAddress(str(tmp_path / "s")),)
        async with gateway_with(job_server, file, listen=listen) as gateway, HttpClient(gateway.address) as client:
            for _ in range(2 * ATTEMPTS):
                is_unauthenticated(await client.ask(post(b"/" + function, b"x", bearer(UNKNOWN))), INVALID)


class TestSecrets:
    @pytest.mark.parametrize("secret", [UNKNOWN.replace("A", "Q"), "Zq9" * 20])
    @pytest.mark.parametrize(
        "request_of",
        [
            lambda line: b"GET / HTTP/1.1\r\n" + line + b"\x00\r\nHost: a\r\n\r\n",
            lambda line: line + b"\r\nHost: a\r\n\r\n",
            lambda line: line.lower() + b"\r\nHost: a\r\n\r\n",
            lambda line: b"GET /?access_token=" + line.rpartition(b" ")[2] + b" HTTP/9.9\r\n\r\n",
            lambda line: b"GET /\x01 HTTP/1.1\r\n" + line + b"\r\n\r\n",
            lambda line: head(b"POST", b"/f", line, b"Transfer-Encoding: gzip"),
            lambda line: head(b"POST", b"/f", line, b"Transfer-Encoding: chunked") + b"x",
        ],
    )
    async def test_the_log_of_refusals_ends_where_one_may_begin(self, embedded, file, secret, request_of):
        request = request_of(bearer(secret))
        examples = []
        async with gateway_with(embedded, file) as gateway:
            for cut in range(0, len(request), 3):
                async with HttpClient(gateway.address) as client:
                    await client.send_all(request[:cut])
                    await client.send_all(request[cut:])
                    assert (await client.response()).status >= 400
                examples += [example for _, example, _ in gateway.process.http.take_events().values()]
            gateway.process.log_refusals()
        assert examples
        for example in examples:
            assert not any(secret[begin : begin + 8].encode() in example for begin in range(4, len(secret) - 8)), (
                example
            )
