"""docs/http-api.md and the OpenAPI document say the same of the interface."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gatewayx.gateway.openapi import REFUSALS, document
from gatewayx.http.problems import MALFORMED_LINE
from support.documented import Asked, kinds_of, resolved

PAGE = (Path(__file__).parent.parent / "docs" / "http-api.md").read_text(encoding="utf-8")
# Without the examples.
PROSE = re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
DOCUMENT = document()
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
# Each in the page by its name, and in OpenAPI by other means.
NO_PARAMETERS = {"Authorization", "Content-Type"}
# Kinds of problems that every request can be answered, or that the page tells of where it tells what a call has.
OF_ALL_CALLS = {kind for kinds in kinds_of(Asked("OPTIONS", "/v1/jobs/{id}")).values() for kind in kinds}
TOLD_ELSEWHERE = {"relay-full", "unexpected-body", "unexpected-query", "job-failed", "result-too-large"}


def section(heading: str) -> str:
    """A part of the page, up to the next heading of its rank or above."""
    rank = heading.partition(" ")[0]
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{len(rank)}}} |\Z)", PROSE, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of the rows of the one table whose header's first cell this is."""
    [table] = re.findall(rf"^\| {re.escape(title)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]


def names_in(cells: str) -> set[str]:
    """What stands in backquotes."""
    return set(re.findall(r"`([^`]+)`", cells))


def parameters_of(operation: dict[str, object]) -> set[str]:
    """The headers that a request may have."""
    return {each["name"] for each in resolved(operation["parameters"]) if each["in"] == "header"}


def test_operations_are_those_of_the_page() -> None:
    told = set()
    for methods, path in re.findall(r"`((?:(?:GET|HEAD|POST|PUT|DELETE)(?:, )?)+) (/[^`\s?]*)", PROSE):
        template = re.sub(r"<(\w+)>", r"{\1}", path)
        told |= {(method, template) for method in methods.split(", ")}
    # Examples of names.
    told = {(method, path) for method, path in told if path.startswith("/v1/") or "{" in path}
    assert "GET stands for HEAD as well" in PROSE
    told |= {("HEAD", path) for method, path in told if method == "GET"}
    assert "`OPTIONS` with any path" in PROSE
    told |= {("OPTIONS", path) for _, path in told}

    assert told == set(OPERATIONS)


def test_request_headers_are_those_of_the_page() -> None:
    told = {name for row in rows(section("## Request headers"), "header") for name in names_in(row[0])}
    assert told == {
        name for name in parameters_of(OPERATIONS["POST", "/{function}"]) if re.match("X-Gearman|Idempotency", name)
    }
    for_pages = {name for row in rows(PROSE, "header that may be sent") for name in names_in(row[0])}
    sent = {name for operation in OPERATIONS.values() for name in parameters_of(operation)}
    assert told | for_pages == sent - {"Accept"} | NO_PARAMETERS
    assert "`Accept: text/event-stream`" in PROSE


def test_response_headers_are_those_of_the_page() -> None:
    told = {name for row in rows(section("## Response headers"), "header") for name in names_in(row[0])}
    assert told == set(DOCUMENT["components"]["headers"]) | {"Content-Type"}
    responses = DOCUMENT["components"]["responses"].values()
    assert {name for response in responses for name in response["headers"]} == set(DOCUMENT["components"]["headers"])


def test_statuses_are_those_of_the_page() -> None:
    told = {
        int(status)
        for table in re.findall(r"(?:^\|.*\n)+", PROSE, re.MULTILINE)
        for status in re.findall(r"(?<![\w.`:,])([2-5]\d\d)(?=[,:; ]|$)(?! (?:bytes|[msKMB%]))", table, re.MULTILINE)
    }
    answered = {int(status) for operation in OPERATIONS.values() for status in operation["responses"]}
    answered |= {int(status) for status in DOCUMENT[REFUSALS]["responses"]}
    assert told == answered


def test_kinds_of_problems_are_those_of_the_page() -> None:
    told = {
        (int(row[1].partition(",")[0]), kind)
        for row in rows(section("## Problems"), "what happened")
        for kind in names_in(row[2])
    }
    answered = {(405, "method-not-allowed"), (400, "plain-http")}
    for method, path in OPERATIONS:
        for status, kinds in kinds_of(Asked(method, path)).items():
            answered |= {(status, kind) for kind in kinds}
    # It stands in the lines of a batch's answer.
    assert told == answered | {(MALFORMED_LINE.status, MALFORMED_LINE.kind)}


def test_errors_of_calls_are_those_of_the_page() -> None:
    told = {
        (int(row[0]), kind) for row in rows(section("### Errors of these calls"), "status") for kind in names_in(row[1])
    }
    submissions = kinds_of(Asked("POST", "/{function}"))
    calls: dict[int, set[str]] = {}
    for method, path in OPERATIONS:
        if path.startswith("/v1/jobs/"):
            for status, kinds in kinds_of(Asked(method, path)).items():
                calls.setdefault(status, set()).update(kinds)
    outside = {(404, "reserved-path"), (405, "method-not-allowed")}
    for status, kind in told - outside:
        assert kind in calls.get(status, ()) or kind in submissions[status], kind
    answered = {kind for kinds in calls.values() for kind in kinds}
    assert answered - OF_ALL_CALLS - TOLD_ELSEWHERE <= {kind for _, kind in told}


@pytest.mark.parametrize("schema", ["KeptJob", "BackgroundJob"])
def test_members_of_a_job_are_those_of_the_page(schema: str) -> None:
    told = [name for row in rows(section("### Submit and poll"), "field") for name in re.findall(r"`(\w+)`", row[0])]
    assert told == list(DOCUMENT["components"]["schemas"][schema]["properties"])
    states = next(row[1] for row in rows(section("### Submit and poll"), "field") if row[0] == "`state`")
    assert set(DOCUMENT["components"]["schemas"][schema]["properties"]["state"]["enum"]) <= names_in(states)
