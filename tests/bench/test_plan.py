"""What is to be measured: URLs, heads, and how the work is divided."""

from __future__ import annotations

import msgspec
import pytest

from gatewayx.bench.errors import RunError, UseError
from gatewayx.bench.plan import FLOOD_SOURCES, LoadPlan, LoadSettings, Target, load_plans, request_head

TARGET = Target(url="http://a:81/f?x=1", host="a:81", address="127.0.0.1", port=81, path="/f?x=1")


def parse(url: str) -> Target:
    """A URL of this machine."""
    return Target.parse(url, allow_remote=False)


class TestTarget:
    # URL, Host header, address, port, path.
    @pytest.mark.parametrize(
        ("url", "host", "address", "port", "path"),
        [
            ("http://127.0.0.1", "127.0.0.1", "127.0.0.1", 80, "/"),
            ("http://127.0.0.1/", "127.0.0.1", "127.0.0.1", 80, "/"),
            ("http://127.0.0.1:80/", "127.0.0.1", "127.0.0.1", 80, "/"),
            ("http://127.0.0.1:8080/f", "127.0.0.1:8080", "127.0.0.1", 8080, "/f"),
            ("HTTP://127.0.0.1:8080/F", "127.0.0.1:8080", "127.0.0.1", 8080, "/F"),
            ("127.0.0.1:8080/f", "127.0.0.1:8080", "127.0.0.1", 8080, "/f"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.1", 80, "/"),
            ("http://127.0.0.1:8080?a=b", "127.0.0.1:8080", "127.0.0.1", 8080, "/?a=b"),
            ("http://127.0.0.1:8080/f/%20?a=b&c#part", "127.0.0.1:8080", "127.0.0.1", 8080, "/f/%20?a=b&c"),
            ("http://127.0.0.1:65535//", "127.0.0.1:65535", "127.0.0.1", 65535, "//"),
            ("http://127.7.7.7:8080/", "127.7.7.7:8080", "127.7.7.7", 8080, "/"),
            ("http://[::1]/f", "[::1]", "::1", 80, "/f"),
            ("http://[::1]:8080/f", "[::1]:8080", "::1", 8080, "/f"),
            ("http://[0:0:0:0:0:0:0:1]:8080/f", "[0:0:0:0:0:0:0:1]:8080", "::1", 8080, "/f"),
            ("[::1]:8080/f", "[::1]:8080", "::1", 8080, "/f"),
        ],
    )
    def test_url_is_read(self, url, host, address, port, path):
        target = parse(url)
        assert (target.host, target.address, target.port, target.path) == (host, address, port, path)

    def test_name_is_looked_up(self):
        target = parse("http://localhost:8080/f")
        assert target.host == "localhost:8080"
        assert target.address in ("127.0.0.1", "::1")

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "/",
            "http://",
            "http:///f",
            "http://:8080/f",
            "https://127.0.0.1/f",
            "ftp://127.0.0.1/f",
            "unix:///run/socket",
            "http://user@127.0.0.1/f",
            "http://user:password@127.0.0.1/f",
            "http://127.0.0.1:0/f",
            "http://127.0.0.1:65536/f",
            "http://127.0.0.1:-1/f",
            "http://127.0.0.1:http/f",
            "http://[::1/f",
            "http://[127.0.0.1]:x/",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/\u00e9",
            "http://127.0.0.1/?q=\u00e9",
            "http://b\u00fccher.test/",
            "http://127.0.0.1/f\r\nX-Injected: 1",
            "http://127.0.0.1/f\r\nX-Injected:1",
            "http://127.0.0.1\r\n/f",
            "http://127.0.0.1/\0",
            "http://127.0.0.1\0/",
            "http://127.0.0.1/\x7f",
            "http://127.0.0.1/\t",
        ],
    )
    def test_what_is_no_url_is_refused_in_a_line(self, url):
        with pytest.raises(UseError) as caught:
            parse(url)
        assert str(caught.value).isprintable()

    def test_unknown_name_is_an_error_of_the_run(self):
        with pytest.raises(RunError, match=r"cannot look up 'no-such-host\.invalid'"):
            parse("http://no-such-host.invalid/")

    @pytest.mark.parametrize("host", ["192.0.2.1", "[2001:db8::1]"])
    def test_another_machine_is_refused_unless_allowed(self, host):
        with pytest.raises(UseError, match="is not this machine: --allow-remote"):
            parse(f"http://{host}:8080/")
        assert Target.parse(f"http://{host}:8080/", allow_remote=True).host == f"{host}:8080"

    @pytest.mark.parametrize(
        ("url", "sources"),
        [
            ("http://127.0.0.1/", FLOOD_SOURCES),
            ("http://127.9.9.9/", FLOOD_SOURCES),
            ("http://[::1]/", 0),
            ("http://192.0.2.1/", 0),
        ],
    )
    def test_flood_has_many_sources_on_the_loopback_of_ipv4_alone(self, url, sources):
        assert Target.parse(url, allow_remote=True).flood_sources == sources


class TestRequestHead:
    def test_plain(self):
        assert request_head(TARGET, LoadSettings()) == b"POST /f?x=1 HTTP/1.1\r\nHost: a:81\r\n"

    def test_headers_are_sent_as_given(self):
        settings = LoadSettings(method="PUT", headers=(("X-A", "1"), ("x-a", "2\t\u00e9"), ("X-Empty", "")))
        assert request_head(TARGET, settings) == (
            b"PUT /f?x=1 HTTP/1.1\r\nHost: a:81\r\nX-A: 1\r\nx-a: 2\t\xe9\r\nX-Empty: \r\n"
        )

    def test_host_can_be_another(self):
        settings = LoadSettings(method="GET", headers=(("hOst", "b"),))
        assert request_head(TARGET, settings) == b"GET /f?x=1 HTTP/1.1\r\nhOst: b\r\n"

    def test_background(self):
        head = request_head(TARGET, LoadSettings(background=True))
        assert head.endswith(b"\r\nX-Gearman-Background: true\r\n")

    @pytest.mark.parametrize("method", ["", "GET ", "G ET", "GET\r\nX:", "G\u00c9T", "GET/", "\0"])
    def test_method_that_is_none_is_refused(self, method):
        with pytest.raises(UseError, match="is no method"):
            request_head(TARGET, LoadSettings(method=method))

    @pytest.mark.parametrize("name", ["Content-Length", "content-LENGTH", "Transfer-Encoding", "Connection"])
    def test_framing_is_not_for_the_caller(self, name):
        with pytest.raises(UseError, match="are set by the load generator"):
            request_head(TARGET, LoadSettings(headers=((name, "1"),)))

    @pytest.mark.parametrize(
        "name", ["", " ", "X A", "X:", "X\r\nY", "X\n", "\r", "X\0", "\u00c9", "X\t", "(X)", "X/Y", "Content-Length "]
    )
    def test_name_that_is_none_is_refused(self, name):
        with pytest.raises(UseError, match="is no header's name"):
            request_head(TARGET, LoadSettings(headers=((name, "1"),)))

    @pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\n", "\r", "a\0", "\x7f", "\u20ac", "\x1b[0m"])
    def test_value_that_no_header_can_have_is_refused(self, value):
        with pytest.raises(UseError, match="the value of X-A has characters that no header can have"):
            request_head(TARGET, LoadSettings(headers=(("X-A", value),)))


class TestLoadPlans:
    @pytest.mark.parametrize(
        ("connections", "processes", "shares"),
        [
            (1, 1, [1]),
            (64, 1, [64]),
            (64, 2, [32, 32]),
            (7, 2, [4, 3]),
            (10, 4, [3, 3, 2, 2]),
            (4, 4, [1, 1, 1, 1]),
        ],
    )
    def test_connections_are_divided(self, connections, processes, shares):
        plans = load_plans(TARGET, LoadSettings(connections=connections, processes=processes), 1.0)
        assert [plan.connections for plan in plans] == shares

    @pytest.mark.parametrize("rate", [None, 1000.0])
    def test_processes_take_turns_at_the_rate(self, rate):
        plans = load_plans(TARGET, LoadSettings(rate=rate, processes=3), 1.0)
        # The rate is that of all together; each process knows which requests are its own.
        assert [(plan.rate, plan.process, plan.processes) for plan in plans] == [
            (rate or 0.0, number, 3) for number in range(3)
        ]

    def test_all_send_the_same(self):
        settings = LoadSettings(processes=2, body=b"hello", check="echo", pipeline=3, timeout_s=4.0)
        for plan in load_plans(TARGET, settings, 0.5):
            assert (plan.address, plan.port, plan.head) == ("127.0.0.1", 81, request_head(TARGET, settings))
            assert (plan.body, plan.tag, plan.check) == (b"hello", b"", "echo")
            assert (plan.pipeline, plan.timeout_s, plan.interval_s) == (3, 4.0, 0.5)

    def test_unique_bodies_differ_between_processes_and_runs(self):
        settings = LoadSettings(processes=4, body=b"x" * 20, unique_bodies=True)
        tags = [plan.tag for _ in range(2) for plan in load_plans(TARGET, settings, 1.0)]
        assert len(set(tags)) == 8
        assert {len(tag) for tag in tags} == {8}

    @pytest.mark.parametrize(
        ("method", "body"), [("POST", b""), ("PUT", b""), ("GET", None), ("HEAD", None), ("OPTIONS", None)]
    )
    def test_methods_that_have_a_body_have_an_empty_one(self, method, body):
        assert load_plans(TARGET, LoadSettings(method=method), 1.0)[0].body == body
        assert load_plans(TARGET, LoadSettings(method=method, body=b"b"), 1.0)[0].body == b"b"

    def test_plan_survives_the_pipe(self):
        settings = LoadSettings(body=bytes(range(256)), unique_bodies=True, headers=(("X", "\u00e9"),), rate=12.5)
        [plan] = load_plans(TARGET, settings, 0.25)
        line = msgspec.json.encode(plan)
        assert b"\n" not in line
        assert msgspec.json.decode(line, type=LoadPlan) == plan
