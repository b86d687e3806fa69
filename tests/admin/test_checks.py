"""The checks of /livez and /readyz, and how they are shown."""

from __future__ import annotations

import json

import pytest

from gatewayx.admin.checks import CHECKS, MASTER_STILL_S, Health
from gatewayx.admin.exposition import Exposition
from gatewayx.admin.site import Site
from gatewayx.http.python_handler import PlainAnswer, PlainRequest
from support.views import NOW_S, job_server, view, worker

LINE_SINCE = "2027-01-15T08:00:00.250Z"


class Memory:
    """Where checks are noted."""

    def __init__(self) -> None:
        self.noted: dict[int, tuple[bool, float]] = {}

    def recall(self, number: int) -> tuple[bool, float] | None:
        return self.noted.get(number)

    def note(self, number: int, since_s: float, *, is_ok: bool) -> None:
        self.noted[number] = (is_ok, since_s)


def failed(gateway, requires: str = "none") -> set[str]:
    """Which checks of a gateway fail."""
    health = Health(Memory(), requires)
    health.look(gateway)
    return {check.name for endpoint in CHECKS for check in health.checks(endpoint) if not check.is_ok}


@pytest.mark.parametrize(
    ("changes", "requires", "names"),
    [
        ({}, "all", set()),
        ({"has_started": False}, "none", {"started"}),
        ({"draining_s": NOW_S}, "none", {"stop"}),
        ({"master_still_s": None}, "none", {"master"}),
        ({"master_still_s": MASTER_STILL_S}, "none", {"master"}),
        ({"workers": [worker(0, "still"), worker(1, "starting")]}, "none", {"workers"}),
        ({"workers": [worker(0, "still", 31.0), worker(1)]}, "none", set()),
        ({"workers": [worker(0, "still", 31.0), worker(1, "away")]}, "none", {"workers", "worker-loops"}),
        ({"workers": [worker(0, "ending", 1.0)]}, "none", {"workers", "worker-loops"}),
        ({"workers": [worker(0, "draining")]}, "none", {"workers"}),
        ({"job_servers": [job_server(is_up=False)], "all_job_servers_up": False}, "none", set()),
        ({"job_servers": [job_server(is_up=False)], "all_job_servers_up": False}, "any", {"job-servers"}),
        ({"job_servers": [job_server(is_up=False), job_server("b:1")], "all_job_servers_up": False}, "any", set()),
        (
            {"job_servers": [job_server(is_up=False), job_server("b:1")], "all_job_servers_up": False},
            "all",
            {"job-servers"},
        ),
        # A name with each:// that has no address yet.
        ({"job_servers": [], "all_job_servers_up": False}, "all", {"job-servers"}),
    ],
)
def test_a_check_fails_when_it_should_and_no_other_does(changes, requires, names):
    assert failed(view(**changes), requires) == names


def test_since_is_when_the_state_began():
    memory = Memory()
    health = Health(memory, "none")
    for later_s, is_draining, since_s in ((0, False, 0), (1, False, 0), (2, True, 2), (3, True, 2), (4, False, 4)):
        health.look(view(now_s=NOW_S + later_s, draining_s=NOW_S * is_draining))
        [check] = [check for check in health.checks("readyz") if check.name == "stop"]
        assert (check.is_ok, check.since_s) == (not is_draining, NOW_S + since_s)


def test_another_process_goes_on_with_what_was_noted():
    memory = Memory()
    Health(memory, "all").look(view(now_s=NOW_S))
    other = Health(memory, "all")
    unknown = {"job_servers": [job_server(is_up=False)], "all_job_servers_up": False, "job_servers_asked": False}
    other.look(view(now_s=NOW_S + 5, **unknown))
    assert {(check.is_ok, check.since_s) for check in other.checks("readyz")} == {(True, NOW_S)}
    other.look(view(now_s=NOW_S + 6, **{**unknown, "job_servers_asked": True}))
    assert [(check.is_ok, check.since_s) for check in other.checks("readyz")][-1] == (False, NOW_S + 6)


def test_a_first_process_does_not_call_job_servers_up_that_it_has_not_asked():
    assert failed(view(all_job_servers_up=False, job_servers_asked=False), "all") == {"job-servers"}


def site(gateway, requires: str = "none", names: tuple[str, ...] = ()) -> Site:
    """The admin address of a gateway that does not change."""
    return Site(lambda: gateway, Health(Memory(), requires), Exposition([], lambda: 0.0).answer, names, bytes)


def ask(found: Site, target: str, method: str = "GET", **headers: bytes) -> PlainAnswer:
    """An answer of it."""
    path, _, query = target.encode().partition(b"?")
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return found.respond(PlainRequest(method, path, query, {b"host": b"localhost", **named}))


WELL = (
    f"[+]started ok since {LINE_SINCE}: the start is over\n"
    f"[+]workers ok since {LINE_SINCE}: 2 of 2 worker processes are ready\n"
    f"[+]stop ok since {LINE_SINCE}: the gateway is not told to stop\n"
    f"[+]job-servers ok since {LINE_SINCE}: 1 of 1 job servers answer, none required\n"
)
STOP_FAILED = f"[-]stop failed: the gateway is told to stop, since {LINE_SINCE}\n"


@pytest.mark.parametrize(
    ("target", "status", "body"),
    [
        ("/readyz", 200, "ok"),
        ("/readyz?verbose", 200, f"{WELL}readyz check passed\n"),
        ("/readyz?verbose=1&exclude=stop", 200, None),
        ("/readyz/stop", 200, "ok"),
        (
            "/readyz/stop?verbose",
            200,
            f"[+]stop ok since {LINE_SINCE}: the gateway is not told to stop\nreadyz/stop check passed\n",
        ),
        ("/livez", 200, "ok"),
        ("/livez/master", 200, "ok"),
        ("/livez/stop", 404, None),
        ("/readyz/nothing", 404, None),
        ("/readyz/", 404, None),
        ("/readyz/stop/", 404, None),
        ("/ready", 404, None),
        ("//readyz", 404, None),
        ("/healthz", 404, None),
        ("/", 200, None),
    ],
)
def test_a_gateway_that_is_well_says_so(target, status, body):
    answer = ask(site(view()), target)
    assert answer.status == status
    assert answer.content_type == b"text/plain; charset=utf-8"
    if body is not None:
        assert answer.body.decode() == body


@pytest.mark.parametrize(
    ("target", "status", "lines"),
    [
        ("/readyz", 503, [STOP_FAILED, "readyz check failed\n"]),
        ("/readyz?exclude=stop", 200, []),
        ("/readyz?exclude=stop&exclude=workers", 200, []),
        ("/readyz?exclude=workers", 503, ["[+]workers excluded: ok\n", STOP_FAILED]),
        ("/readyz?verbose&exclude=stop", 200, ["[+]stop excluded: ok\n", "readyz check passed\n"]),
        (
            "/readyz?verbose&exclude=stop&exclude=no%0Asuch",
            200,
            ["warn: some health checks cannot be excluded: no matches for 'no\\nsuch'\n", "readyz check passed\n"],
        ),
        ("/readyz/stop", 503, [STOP_FAILED, "readyz/stop check failed\n"]),
        ("/readyz/stop?exclude=stop", 503, [STOP_FAILED]),
        ("/readyz/workers", 200, []),
        ("/livez", 200, []),
    ],
)
def test_a_gateway_that_stops_says_so(target, status, lines):
    answer = ask(site(view(draining_s=NOW_S)), target)
    assert answer.status == status
    told = answer.body.decode().splitlines(keepends=True)
    assert [line for line in lines if line not in told] == []
    if lines and lines[-1].startswith("readyz"):
        assert told[-1] == lines[-1]


def test_the_same_as_json():
    answer = ask(site(view(draining_s=NOW_S)), "/readyz?exclude=workers", accept=b"application/json")
    assert (answer.status, answer.content_type) == (503, b"application/json")
    document = json.loads(answer.body)
    assert document["status"] == "failed"
    assert [(check["name"], check["status"]) for check in document["checks"]] == [
        ("started", "ok"),
        ("workers", "excluded"),
        ("stop", "failed"),
        ("job-servers", "ok"),
    ]
    assert {check["since"] for check in document["checks"]} == {LINE_SINCE}
    assert document["checks"][2]["detail"] == "the gateway is told to stop"


def test_a_query_of_any_length_is_not_looked_at_for_ever():
    answer = ask(site(view(draining_s=NOW_S)), "/readyz?" + "&".join(["exclude=stop"] * 1000))
    assert answer.status == 503


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", ""])
@pytest.mark.parametrize("target", ["/livez", "/metrics", "/nowhere"])
def test_nothing_can_be_changed(method, target):
    answer = ask(site(view()), target, method)
    assert (answer.status, answer.header_lines) == (405, b"Allow: GET, HEAD\r\n")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost", 200),
        (b"LOCALHOST:8081", 200),
        (b"127.0.0.1:8081", 200),
        (b"10.1.2.3", 200),
        (b"[::1]:8081", 200),
        (b"[fe80::1%25eth0]:80", 200),
        (b"gateway.internal:8081", 200),
        (b"Gateway.Internal.", 200),
        (b"localhost\t", 200),
        (b"127.0.0.1:8081 \t ", 200),
        (b"local\thost", 403),
        (b"evil.example", 403),
        (b"localhost.evil.example", 403),
        (b"127.0.0.1.evil.example", 403),
        (b"1.2.3", 403),
        (b"0x7f000001", 403),
        (b"gateway.internal.evil.example", 403),
        (b"evil.example:127.0.0.1", 403),
        (b"[::1].evil.example", 403),
        (b"evil.example@localhost", 403),
        (b"\xe4", 403),
        (b"", 403),
    ],
)
def test_a_page_of_another_origin_reads_nothing(host, status):
    for target in ("/livez", "/status", "/metrics", "/"):
        assert ask(site(view(), names=("gateway.internal",)), target, host=host).status == status


def test_who_sends_no_host_is_no_browser():
    assert site(view()).respond(PlainRequest("GET", b"/livez", b"", {})).status == 200
