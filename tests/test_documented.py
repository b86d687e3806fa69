"""What holds answers against the OpenAPI document finds what is not in it."""

from __future__ import annotations

import json

import pytest

from support.documented import Asked, Sent, check, check_event, check_line, path_of
from support.http import chunked, get, head, post
from support.pieces import every_way

POST = Asked("POST", "/{function}")
JOB = Asked("GET", "/v1/jobs/{id}")
PROBLEM = {
    "type": "urn:gatewayx:too-many-jobs",
    "title": "Service Unavailable",
    "status": 503,
    "detail": "as many jobs are in flight as may be",
    "instance": "urn:gatewayx:request:aaaaaaaaaaaaa-00000000000001",
}
KEPT_ID = "k" + "A" * 40
KEPT = {
    "id": KEPT_ID,
    "function": "f",
    "kind": "kept",
    "state": "running",
    "progress": {"numerator": 1, "denominator": "many"},
    "created": "2026-11-27T22:09:12.744Z",
    "started": None,
    "ended": None,
    "expires": "2026-11-27T22:09:12.744Z",
    "result": None,
    "links": {
        "self": f"/v1/jobs/{KEPT_ID}",
        "result": f"/v1/jobs/{KEPT_ID}/result",
        "events": f"/v1/jobs/{KEPT_ID}/events",
        "cancel": f"/v1/jobs/{KEPT_ID}/cancel",
    },
}
LINE = {"id": None, "line": 1, "status": 200, "command": "WORK_COMPLETE", "handle": "H:1", "unique": "u", "body": ""}


def headers(media_type: str | None, **further: str) -> dict[bytes, bytes]:
    """The headers of an answer."""
    found = {
        "server": "gatewayx/1",
        "date": "Sat, 28 Nov 2026 00:00:00 GMT",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-request-id": "aaaaaaaaaaaaa-00000000000001",
        **({} if media_type is None else {"content-type": media_type}),
        **{name.replace("_", "-"): value for name, value in further.items()},
    }
    return {name.encode(): value.encode() for name, value in found.items()}


def problem(**differing: object) -> bytes:
    """The body of a problem."""
    return json.dumps(PROBLEM | differing).encode()


def refusal() -> dict[bytes, bytes]:
    """The headers of a 503."""
    return headers("application/problem+json", retry_after="1")


class TestAnswers:
    def test_what_is_documented_passes(self):
        check(POST, 503, refusal(), problem())
        check(POST, 200, headers("text/plain", x_gearman_command="WORK_COMPLETE"), b"\xff")
        check(JOB, 200, headers("application/json", etag='"1"'), json.dumps(KEPT).encode())
        check(JOB, 304, headers(None, etag='"1"'), b"")
        check(Asked("HEAD", "/{function}"), 503, refusal(), None)
        check(Asked("PATCH", "/{function}"), 405, headers("application/problem+json", allow="GET"), None)
        check(None, 503, refusal(), problem())

    @pytest.mark.parametrize(
        ("asked", "status", "told", "body"),
        [
            pytest.param(POST, 207, headers("text/plain"), b"", id="status"),
            pytest.param(None, 418, headers("text/plain"), b"", id="status-of-nothing"),
            pytest.param(None, 503, refusal(), problem(type="urn:gatewayx:new"), id="kind-of-nothing"),
            pytest.param(POST, 503, refusal(), problem(type="urn:gatewayx:new"), id="kind"),
            pytest.param(Asked("OPTIONS", "/{function}"), 503, refusal(), problem(), id="kind-of-another-operation"),
            pytest.param(POST, 503, refusal(), problem(status=500), id="status-in-the-body"),
            pytest.param(POST, 503, refusal(), problem(more=1), id="further-member"),
            pytest.param(POST, 503, refusal(), json.dumps({**PROBLEM, "detail": ""}).encode(), id="empty-detail"),
            pytest.param(POST, 503, headers("application/json"), problem(), id="media-type-of-a-problem"),
            pytest.param(POST, 200, headers("application/problem+json"), problem(), id="problem-of-another-status"),
            pytest.param(POST, 200, headers("text/plain", x_new="1"), b"", id="header"),
            pytest.param(POST, 200, headers("text/plain", etag='"1"'), b"", id="header-of-another-operation"),
            pytest.param(POST, 200, headers("text/plain", x_gearman_command="WORK"), b"", id="value-of-a-header"),
            pytest.param(JOB, 200, headers("text/plain"), b"", id="media-type"),
            pytest.param(JOB, 200, headers("application/json"), b"{}", id="no-members"),
            pytest.param(
                JOB, 200, headers("application/json"), json.dumps(KEPT | {"state": "gone"}).encode(), id="state"
            ),
            pytest.param(Asked("PATCH", "/{function}"), 200, headers("text/plain"), b"", id="answer-to-no-operation"),
        ],
    )
    def test_what_is_not_is_found(self, asked, status, told, body):
        with pytest.raises(AssertionError):
            check(asked, status, told, body)

    @pytest.mark.parametrize("name", [*headers(None)])
    def test_a_header_that_every_answer_has_is_missed(self, name):
        told = headers("text/plain")
        del told[name]
        with pytest.raises(AssertionError, match="is missing"):
            check(POST, 200, told, b"")

    @pytest.mark.parametrize("member", [*PROBLEM])
    def test_a_member_of_a_problem_is_missed(self, member):
        with pytest.raises(AssertionError):
            check(
                POST, 503, refusal(), json.dumps({name: PROBLEM[name] for name in PROBLEM if name != member}).encode()
            )

    @pytest.mark.parametrize("member", [*KEPT])
    def test_a_member_of_a_job_is_missed(self, member):
        job = {name: KEPT[name] for name in KEPT if name != member}
        with pytest.raises(AssertionError):
            check(JOB, 200, headers("application/json"), json.dumps(job).encode())

    @pytest.mark.parametrize("member", [*LINE])
    def test_a_member_of_a_line_is_missed(self, member):
        check_line(json.dumps(LINE).encode())
        with pytest.raises(AssertionError):
            check_line(json.dumps({name: LINE[name] for name in LINE if name != member}).encode())

    def test_an_event_is_one_of_those_that_are_documented(self):
        check_event("created", "{}", f"{KEPT_ID}.1")
        with pytest.raises(AssertionError):
            check_event("new", "{}", f"{KEPT_ID}.1")
        with pytest.raises(AssertionError):
            check_event("created", "{}", "1")


class TestRequests:
    @pytest.mark.parametrize(
        ("sent", "count"),
        [
            (get(b"/f?q") + post(b"/v1/batch", b"POST / HTTP/1.1\r\n\r\n") + get(b"/v1/jobs/k/result"), 3),
            (head(b"POST", b"/f", b"Transfer-Encoding: chunked") + chunked(b"GET /", b"x") + get(b"/g"), 2),
            (b"\r\n" + get(b"http://host/v1/openapi.json") + head(b"OPTIONS", b"*"), 2),
            (get(b"/f") + b"GET /half HTTP/1.1\r\nHost:", 1),
        ],
    )
    def test_they_are_read_whichever_way_they_are_cut(self, sent, count):
        whole = Sent()
        whole.feed(sent)
        assert len(whole.requests) == count
        for pieces in every_way(sent):
            cut = Sent()
            for piece in pieces:
                cut.feed(piece)
            assert cut.requests == whole.requests

    def test_what_they_ask_for_is_known(self):
        sent = Sent()
        sent.feed(post(b"/f/g", b"abc") + head(b"DELETE", b"/v1/jobs/k1") + head(b"OPTIONS", b"*") + get(b"/v1/other"))
        assert [sent.next() for _ in range(5)] == [
            Asked("POST", "/{function}"),
            Asked("DELETE", "/v1/jobs/{id}"),
            Asked("OPTIONS", "/{function}"),
            Asked("GET", None),
            None,
        ]

    @pytest.mark.parametrize(
        ("target", "path"),
        [
            (b"/", "/{function}"),
            (b"/v1", "/{function}"),
            (b"/v1/", None),
            (b"/v1/jobs/", None),
            (b"/v1/jobs//result", None),
            (b"/v1/jobs/k/other", None),
            (b"/v1/jobs/k/", None),
            (b"/v1/jobs/k/cancel?x", "/v1/jobs/{id}/cancel"),
            (b"/v1/jobs/k?wait=1", "/v1/jobs/{id}"),
            (b"HTTP://host:1/v1/batch", "/v1/batch"),
            (b"http://host", "/{function}"),
            (b"host:443", None),
        ],
    )
    def test_paths_are_those_of_the_document(self, target, path):
        assert path_of(target) == path

    def test_behind_what_is_no_request_nothing_is_known(self):
        sent = Sent()
        sent.feed(b"nonsense\r\n\r\n" + get(b"/f"))
        assert sent.next() is None
