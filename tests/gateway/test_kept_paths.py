"""The paths of jobs that outlive their requests: which there are, what is served there, and what is no id."""

from __future__ import annotations

import pytest

from support.gateway import running_gateway
from support.http import head, post
from support.kept import asked, at, job_of

pytestmark = pytest.mark.anyio


class TestPaths:
    async def test_options_names_what_is_served(self, kept, function):
        job_id = await kept.submit(function)
        for part, allowed in (
            ("", b"GET, HEAD, DELETE, OPTIONS"),
            ("result", b"GET, HEAD, OPTIONS"),
            ("events", b"GET, HEAD, OPTIONS"),
            ("cancel", b"POST, OPTIONS"),
        ):
            answer = await kept.call(b"OPTIONS", at(job_id, part))
            assert (answer.status, answer.headers[b"allow"]) == (204, allowed)

    @pytest.mark.parametrize(
        ("method", "part", "allowed"),
        [
            (b"POST", "", b"GET, HEAD, DELETE, OPTIONS"),
            (b"PUT", "", b"GET, HEAD, DELETE, OPTIONS"),
            (b"PATCH", "", b"GET, HEAD, DELETE, OPTIONS"),
            (b"DELETE", "result", b"GET, HEAD, OPTIONS"),
            (b"POST", "result", b"GET, HEAD, OPTIONS"),
            (b"POST", "events", b"GET, HEAD, OPTIONS"),
            (b"GET", "cancel", b"POST, OPTIONS"),
            (b"DELETE", "cancel", b"POST, OPTIONS"),
        ],
    )
    async def test_any_other_method_is_405(self, kept, function, method, part, allowed):
        job_id = await kept.submit(function)
        answer = await kept.call(method, at(job_id, part))
        assert (answer.status, answer.kind(), answer.headers[b"allow"]) == (405, "method-not-allowed", allowed)

    @pytest.mark.parametrize(
        "target",
        [
            b"/v1/",
            b"/v1/jobs",
            b"/v1/jobs/",
            b"/v1/other",
            b"/v1/jobs/%b/",
            b"/v1/jobs/%b/other",
            b"/v1/jobs/%b/result/",
            b"/v1//jobs/%b",
        ],
    )
    @pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE", b"OPTIONS"])
    async def test_unknown_ones_are_404(self, kept, function, target, method):
        job_id = await kept.submit(function)
        target = target % job_id.encode() if b"%" in target else target
        answer = await kept.call(method, target)
        assert answer.status == 404
        assert answer.kind() in ("reserved-path", "job-unknown")

    @pytest.mark.parametrize("method", [b"GET", b"DELETE"])
    async def test_a_body_is_400(self, kept, function, method):
        job_id = await kept.submit(function)
        answer = await kept.http.ask(head(method, at(job_id), b"Content-Length: 3"), b"abc")
        assert (answer.status, answer.kind()) == (400, "unexpected-body")

    async def test_the_body_of_a_cancellation_is_passed_over(self, kept, function):
        job_id = await kept.submit(function)
        answer = await kept.http.ask(post(at(job_id, "cancel"), b"because"))
        assert answer.status == 200
        assert job_of(answer)["state"] == "cancelled"


def unreadable(job_id: str) -> dict[str, bytes]:
    """Texts that are not this id, by what was done to it."""
    letters = job_id.encode()
    flipped = {
        f"letter-{place}": letters[:place]
        + (b"B" if letters[place : place + 1] == b"A" else b"A")
        + letters[place + 1 :]
        for place in range(len(letters))
    }
    return {
        "guessed": b"k" + b"A" * 40,
        "short": letters[:-1],
        "shorter": letters[:20],
        "one-letter": b"k",
        "lengthened": letters + b"A",
        "doubled": letters * 2,
        "padded": letters + b"%3D",
        "other-kind": b"b" + letters[1:],
        "nul": letters + b"%00",
        "nul-inside": letters[:10] + b"%00" + letters[11:],
        "nul-alone": b"%00",
        "bytes": b"%FF%FE" + letters,
        "slash": letters + b"%2Fresult",
        "blank": b"%20" + letters,
        "huge": b"k" + b"A" * 4000,
        "upper": letters.swapcase(),
        **flipped,
    }


class TestIds:
    async def test_one_that_is_none_is_the_same_404_everywhere(self, gateway, kept, function):
        job_id = await kept.submit(function)
        bodies = set()
        for letters in unreadable(job_id).values():
            for method, part in (
                (b"GET", ""),
                (b"GET", "?wait=60"),
                (b"GET", "/result"),
                (b"GET", "/events"),
                (b"POST", "/cancel"),
                (b"DELETE", ""),
            ):
                answer = await kept.call(method, b"/v1/jobs/" + letters + part.encode())
                assert (answer.status, answer.kind()) == (404, "job-unknown"), letters
                bodies.add(str(answer.problem()["detail"]))
        assert len(bodies) == 1
        assert (await kept.poll(job_id))["state"] == "queued"

    async def test_percent_encoding_makes_it_no_other(self, kept, function):
        job_id = await kept.submit(function)
        encoded = "".join(f"%{ord(letter):02{case}}" for letter, case in zip(job_id, "xX" * 21, strict=False))
        assert (await kept.poll(job_id)) == job_of(await kept.call(b"GET", at(encoded)))

    async def test_all_differ(self, kept, function):
        ids = {await kept.submit(function) for _ in range(100)}
        assert len(ids) == 100

    async def test_it_is_none_any_more_once_it_is_forgotten(self, kept, function):
        job_id = await kept.submit(function)
        answer = await kept.forget(job_id)
        assert (answer.status, answer.body) == (204, b"")
        assert (await kept.forget(job_id)).kind() == "job-unknown"
        assert (await kept.call(b"GET", at(job_id))).kind() == "job-unknown"

    async def test_those_of_one_gateway_are_none_of_another(self, gateway, kept, job_server, function):
        job_id = await kept.submit(function)
        async with running_gateway([job_server.address]) as other:
            answer = await asked(other.address, at(job_id))
            assert (answer.status, answer.kind()) == (404, "job-unknown")
