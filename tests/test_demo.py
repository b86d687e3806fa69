"""The demo as a user runs it."""

import base64
import hashlib
import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from support.demo import running_demo
from support.event_streams import events_of
from support.tools import without_sanitizer

STOP_TIMEOUT_S = 60


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM])
def test_the_printed_line_works_and_a_signal_stops_it_cleanly(stop_signal: signal.Signals) -> None:
    with running_demo("127.0.0.1:0") as (process, lines):
        printed = re.search(
            r"curl -d 'Hello world!' (http://127\.0\.0\.1:[1-9][0-9]*/reverse) +# !dlrow olleH", "".join(lines)
        )
        assert printed is not None, process.communicate(timeout=STOP_TIMEOUT_S)
        without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with without_proxy.open(printed[1], data=b"Hello world!", timeout=STOP_TIMEOUT_S) as answer:
            assert answer.read() == b"!dlrow olleH"
        process.send_signal(stop_signal)
        _, errors = process.communicate(timeout=STOP_TIMEOUT_S)

        assert errors == ""
        assert process.returncode == 0


class Printed:
    """The lines that the demo has printed, by what they say behind the "#"."""

    def __init__(self, lines: list[str]) -> None:
        parts = [line.partition("  # ") for line in lines if "  # " in line]
        self.commands = {remark.strip(): command.strip() for command, _, remark in parts}

    def run(self, remark: str, job_id: str = "") -> str:
        """What the line prints, of which ID is a job's; jobs that would take five seconds take a fifth of one."""
        command = self.commands[remark].replace("/ID", f"/{job_id}").replace(" -d 5 ", " -d 0.2 ")
        # curl as a user has it, and no proxy or settings of theirs.
        command = command.replace("curl ", "curl -q -sS --noproxy '*' ", 1)
        done = subprocess.run(
            command,
            shell=True,
            capture_output=True,
            text=True,
            timeout=STOP_TIMEOUT_S,
            check=True,
            env=without_sanitizer(),
        )
        return done.stdout


def test_the_lines_about_jobs_that_outlive_their_requests_work() -> None:
    with running_demo("127.0.0.1:0") as (_, lines):
        printed = Printed(lines)
        events = events_of(printed.run("the job's events, as they happen").encode())
        accepted = printed.run("202 at once; its Location is the job")
        [job_id] = re.findall(r"^Location: /v1/jobs/([\w-]+)\r?$", accepted, re.MULTILINE)
        job = json.loads(printed.run("what became of it, once it has ended", job_id))
        result = printed.run("its result, for five minutes", job_id)

    assert [event.json()["percent"] for event in events if event.kind == "status"] == list(range(5, 101, 5))
    assert (events[0].kind, events[-1].kind) == ("created", "complete")
    assert accepted.startswith("HTTP/1.1 202 Accepted")
    assert (job["id"], job["state"], job["progress"]) == (job_id, "succeeded", {"numerator": 20, "denominator": 20})
    assert result.startswith("step 1 of 20\n")
    assert result.endswith("step 20 of 20\ndone\n")


def test_its_page_may_run_its_own_script_and_ask_the_demo_and_nothing_else() -> None:
    with running_demo("127.0.0.1:0") as (_, lines):
        [line] = [line for line in lines if line.startswith("A page ")]
        url = line.rpartition(" ")[2].strip()
        without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with without_proxy.open(url, timeout=STOP_TIMEOUT_S) as answer:
            page, headers = answer.read().decode(), answer.headers
        with without_proxy.open(urllib.request.Request(url, method="HEAD"), timeout=STOP_TIMEOUT_S) as answer:
            to_head = answer.headers
        # Another request without a function wants one, as everywhere.
        with pytest.raises(urllib.error.HTTPError) as refused:
            without_proxy.open(url, data=b"workload", timeout=STOP_TIMEOUT_S)
        refused.value.close()

    policy = {
        name: values for name, *values in (part.split() for part in headers["Content-Security-Policy"].split(";"))
    }
    [script] = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    assert policy["default-src"] == ["'none'"]
    assert policy["connect-src"] == ["'self'"]
    assert policy["script-src"] == [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"]
    assert "http:" not in page
    assert "https:" not in page
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert to_head["Content-Length"] == headers["Content-Length"] == str(len(page.encode()))
    assert refused.value.code == 404


def test_a_port_already_taken_is_one_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with running_demo(address) as (process, lines):
            _, errors = process.communicate(timeout=STOP_TIMEOUT_S)

    assert process.returncode == 1
    assert errors.startswith("gatewayx: ")
    assert address in errors
    assert errors.count("\n") == 1
    assert lines == []
