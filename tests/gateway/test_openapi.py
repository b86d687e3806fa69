"""The document of the interface: who is answered with it, and that it is one."""

from __future__ import annotations

import json
import re

import openapi_spec_validator
import pytest

from gatewayx.gateway import cors, openapi
from gatewayx.gateway.operations import OF_ALL, OF_EVERY_REQUEST, OF_NO_OPERATION, ON_SOME_ANSWERS, OPERATIONS
from gatewayx.http.problems import MALFORMED_LINE, PROBLEMS
from support.admin import ADMIN, admin_of
from support.gateway import ServeProcess, running_gateway
from support.http import get, head, post
from support.kept import asked
from support.tokens import TokenFile

pytestmark = pytest.mark.anyio

TARGET = b"/v1/openapi.json"
# Parameters that OpenAPI has other places for (spec.openapis.org/oas/v3.1.1, Parameter Object).
SAID_OTHERWISE = {"Authorization", "Content-Type"}


class TestServing:
    async def test_it_is_answered_with_a_tag_by_which_it_is_known(self, client):
        answer = await client.ask(get(TARGET))
        assert (answer.status, answer.headers[b"content-type"]) == (200, b"application/json")
        assert json.loads(answer.body) == openapi.document()
        again = await client.ask(get(TARGET, b"If-None-Match: " + answer.headers[b"etag"]))
        assert (again.status, again.headers[b"etag"], again.body) == (304, answer.headers[b"etag"], b"")
        other = await client.ask(get(TARGET, b'If-None-Match: "another"'))
        assert other.body == answer.body

    async def test_a_query_changes_nothing(self, client):
        assert (await client.ask(get(TARGET + b"?pretty"))).body == openapi.body()

    async def test_head_has_its_length_and_no_body(self, client):
        answer = await client.ask(head(b"HEAD", TARGET), to_head=True)
        assert (answer.status, int(answer.headers[b"content-length"])) == (200, len(openapi.body()))

    async def test_options_names_what_is_served(self, client):
        answer = await client.ask(head(b"OPTIONS", TARGET))
        assert (answer.status, answer.headers[b"allow"]) == (204, b"GET, HEAD, OPTIONS")

    @pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH"])
    async def test_any_other_method_is_405(self, client, method):
        answer = await client.ask(head(method, TARGET, b"Content-Length: 0"))
        assert (answer.status, answer.kind()) == (405, "method-not-allowed")
        assert answer.headers[b"allow"] == b"GET, HEAD, OPTIONS"

    @pytest.mark.parametrize("framing", [b"Content-Length: 1", b"Transfer-Encoding: chunked"])
    async def test_a_body_is_400(self, client, framing):
        answer = await client.ask(head(b"GET", TARGET, framing), b"1" if b"Length" in framing else b"0\r\n\r\n")
        assert (answer.status, answer.kind()) == (400, "unexpected-body")

    @pytest.mark.parametrize("target", [TARGET + b"/", b"/v1/openapi", b"/v1/openapi.json2"])
    async def test_nothing_is_served_beside_it(self, client, target):
        answer = await client.ask(get(target))
        assert (answer.status, answer.kind()) == (404, "reserved-path")

    async def test_it_needs_a_token_where_everything_does(self, job_server, tmp_path):
        tokens = TokenFile(tmp_path / "tokens.toml")
        tokens.write(tokens.table("one"))
        async with running_gateway([job_server.address], tokens=str(tokens.path)) as gateway:
            assert (await asked(gateway.address, TARGET)).kind() == "unauthenticated"
            assert (await asked(gateway.address, TARGET, tokens.line("one"))).body == openapi.body()

    async def test_pipelined_requests_for_it_have_it_each(self, client):
        client.send(*[get(TARGET)] * 20, post(b"/", b""))
        for _ in range(20):
            assert (await client.response()).body == openapi.body()
        assert (await client.response()).kind() == "no-function"

    @pytest.mark.parametrize("fits", [True, False])
    async def test_it_needs_room_as_a_result_does(self, job_server, fits):
        # Half of what is held is for results.
        held_bytes = 2 * (len(openapi.body()) + (1024 if fits else -1024))
        bounds = {"max_held_bytes": held_bytes, "max_result_bytes": 20_000, "max_body_bytes": 20_000}
        async with running_gateway([job_server.address], **bounds) as gateway:
            answer = await asked(gateway.address, TARGET)
            assert (answer.body == openapi.body()) if fits else (answer.kind() == "too-many-bytes")

    async def test_the_admin_address_has_it_too(self, job_server):
        async with ServeProcess(*ADMIN, "--server", "{}:{}".format(*job_server.address)) as served:
            answer = await (await admin_of(served)).ask(TARGET.decode())
            assert (answer.status, answer.headers[b"content-type"]) == (200, b"application/json")
            assert answer.body == openapi.body()


class TestTables:
    def test_the_document_is_a_valid_one(self):
        openapi_spec_validator.validate(openapi.document())

    def test_every_problem_can_be_answered_to_something(self):
        told = {*OF_EVERY_REQUEST, *OF_NO_OPERATION, *(kind for operation in OPERATIONS for kind in operation.problems)}
        # It stands in a batch's answer alone.
        assert {problem.kind for problem in PROBLEMS} - {problem.kind for problem in told} == {MALFORMED_LINE.kind}

    def test_pages_may_send_and_read_what_there_is(self):
        sent = {
            parameter.name
            for parameter in (*OF_ALL, *(parameter for operation in OPERATIONS for parameter in operation.parameters))
            if parameter.place == "header"
        }
        # Browsers let pages send Accept anyhow.
        assert {header.name for header in cors.REQUEST_HEADERS} == sent - {"Accept"} | SAID_OTHERWISE
        answered = {header.name for header in ON_SOME_ANSWERS}
        everywhere = {"X-Request-Id", "RateLimit-Policy", "RateLimit", "Server-Timing"}
        hidden = {"X-Accel-Buffering", *(name for name in answered if name.startswith("Access-Control-"))}
        assert {header.name for header in cors.EXPOSED_HEADERS} == answered - hidden | everywhere
        assert set(cors.METHODS) == {operation.method for operation in OPERATIONS}

    def test_operations_have_names_and_paths_of_their_own(self):
        assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)
        assert len({(operation.method, operation.path) for operation in OPERATIONS}) == len(OPERATIONS)
        for operation in OPERATIONS:
            assert {parameter.name for parameter in operation.parameters if parameter.place == "path"} == set(
                re.findall(r"\{(\w+)\}", operation.path)
            )
