"""Which pages may ask, and by which names: tables of requests as browsers send them, and as nobody does."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest

from gatewayx.address import Address
from gatewayx.embedded.job_server import JobServer
from support.admin import TOLD, AdminAddress
from support.gateway import ServeProcess, running_gateway
from support.http import HttpClient, Response, ask
from support.job_servers import hand_worker
from support.pieces import every_way

pytestmark = pytest.mark.anyio

APP = b"https://app.example"
CROSS, SAME = b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Site: same-origin"
NAVIGATION = b"Sec-Fetch-Mode: navigate"
# A line with which no head is read the short way.
LONG_WAY = b"TE: trailers"
# Forms of a header's name.
CASES = {"as-browsers-do": lambda line: line, "small": bytes.lower, "capital": bytes.upper}


def request(
    host: bytes | None,
    *headers: bytes,
    method: bytes = b"OPTIONS",
    target: bytes = b"/f",
    body: bytes = b"",
    version: bytes = b"1.1",
) -> bytes:
    """A request to this host, None for no Host."""
    lines = [b"%b %b HTTP/%b" % (method, target, version), *headers]
    if host is not None:
        lines.insert(1, b"Host: " + host)
    return b"\r\n".join((*lines, b"Content-Length: %d" % len(body), b"", b"")) + body


def with_name(line: bytes, change) -> bytes:
    """A header line whose name is changed so."""
    name, colon, value = line.partition(b":")
    return change(name) + colon + value


def told(answer: Response) -> str:
    """What became of a request: "served", or the kind of its problem."""
    return "served" if answer.status == 204 else answer.kind()


# Host, headers, and whether such a request is refused without any setting.
PAGES = {
    "nothing that tells of a page": (b"localhost:8080", (), False),
    "a page of another site": (b"localhost:8080", (CROSS, b"Origin: https://evil.example"), True),
    "one that sends no origin": (b"localhost:8080", (CROSS,), True),
    "a navigation": (b"localhost:8080", (CROSS, NAVIGATION), True),
    "the value in capitals": (b"localhost:8080", (b"Sec-Fetch-Site: Cross-Site",), True),
    "blanks around the value": (b"localhost:8080", (b"Sec-Fetch-Site: \t cross-site \t",), True),
    "typed by its user": (b"localhost:8080", (b"Sec-Fetch-Site: none", NAVIGATION), False),
    "the same origin": (b"localhost:8080", (SAME, b"Origin: http://localhost:8080"), False),
    "another port of the same machine": (
        b"localhost:8080",
        (b"Sec-Fetch-Site: same-site", b"Origin: http://localhost:3000"),
        False,
    ),
    "a word that is none": (b"localhost:8080", (b"Sec-Fetch-Site: elsewhere", b"Origin: https://evil.example"), False),
    "an old browser, another origin": (b"localhost:8080", (b"Origin: https://evil.example",), True),
    "an old browser, another port": (b"localhost:8080", (b"Origin: http://localhost:3000",), True),
    "an old browser, another name": (b"localhost:8080", (b"Origin: http://127.0.0.1:8080",), True),
    "an old browser, a longer name": (b"localhost:8080", (b"Origin: http://xlocalhost:8080",), True),
    "an old browser, a longer port": (b"localhost:8080", (b"Origin: http://localhost:80800",), True),
    "an old browser, a sandboxed page": (b"localhost:8080", (b"Origin: null",), True),
    "an old browser, no origin at all": (b"localhost:8080", (b"Origin: ",), True),
    "an old browser, an extension": (b"localhost:8080", (b"Origin: chrome-extension://localhost:8080",), True),
    "an old browser, two origins": (
        b"localhost:8080",
        (b"Origin: http://localhost:8080", b"Origin: https://evil.example"),
        True,
    ),
    "an old browser, the same origin": (b"localhost:8080", (b"Origin: http://localhost:8080",), False),
    "an old browser, the same in capitals": (b"LOCALHOST:8080", (b"Origin: http://localhost:8080",), False),
    "an old browser, the port of http": (b"localhost", (b"Origin: http://localhost",), False),
    "an old browser, the port of http written": (b"localhost:80", (b"Origin: http://localhost",), False),
    "an old browser, the port of https written": (b"localhost:443", (b"Origin: https://localhost",), False),
    "an old browser, the port of the other": (b"localhost:443", (b"Origin: http://localhost",), True),
    "X-Forwarded-For": (b"localhost:8080", (CROSS, b"X-Forwarded-For: 203.0.113.1"), False),
    "Forwarded": (b"127.0.0.1", (CROSS, b"Forwarded: for=203.0.113.1"), False),
    "Via": (b"[::1]:8080", (b"Origin: https://evil.example", b"Via: 1.1 proxy"), False),
    "X-Forwarded-Host alone": (b"localhost:8080", (CROSS, b"X-Forwarded-Host: gateway.example"), True),
}

# Host, and whether a browser asks its own machine by it.
HOSTS = {
    b"localhost": True,
    b"LocalHost:8080": True,
    b"localhost.": True,
    b"localhost.:8080": True,
    b"app.localhost:8080": True,
    b"a.b.LOCALHOST": True,
    b"127.0.0.1": True,
    b"127.0.0.1:8080": True,
    b"127.255.255.254": True,
    b"0.0.0.0:8080": True,
    b"[::1]": True,
    b"[0:0::0:1]:8080": True,
    b"[::]:8080": True,
    b"[::ffff:127.0.0.1]:8080": True,
    b"[::FFFF:7F00:1]": True,
    b"[::ffff:0:0]": True,
    b"gateway.example": False,
    b"notlocalhost": False,
    b"localhost.example": False,
    b"localhost:8080.example": None,
    b"128.0.0.1": False,
    b"126.255.255.255": False,
    b"192.168.0.1": False,
    b"0.0.0.1": False,
    b"127.0.0.1.example": False,
    b"[::2]": False,
    b"[::ffff:128.0.0.1]": False,
    b"[fe80::1]": False,
    b"[2001:db8::1]:8080": False,
    b"x" * 300: False,
    b"x" * 300 + b".localhost": False,
}


class TestWithoutSettings:
    @pytest.mark.parametrize("way", [(), (LONG_WAY,)], ids=["short", "long"])
    async def test_only_a_page_that_reaches_into_its_visitors_machine_is_refused(self, embedded, way):
        async with running_gateway([embedded.address]) as gateway, HttpClient(gateway.address) as client:
            found = {
                name: told(await client.ask(request(host, *headers, *way)))
                for name, (host, headers, _) in PAGES.items()
            }
        assert found == {name: "foreign-page" if refused else "served" for name, (_, _, refused) in PAGES.items()}

    @pytest.mark.parametrize("way", [(), (LONG_WAY,)], ids=["short", "long"])
    async def test_what_counts_as_ones_own_machine(self, embedded, way):
        found = {}
        async with running_gateway([embedded.address]) as gateway:
            for host in HOSTS:
                answer = await ask(gateway.address, request(host, CROSS, *way))
                found[host] = None if answer.status == 400 else told(answer) == "foreign-page"
        assert found == HOSTS

    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("way", [(), (LONG_WAY,)], ids=["short", "long"])
    async def test_names_of_headers_are_of_any_case(self, embedded, case, way):
        kinds = []
        async with running_gateway([embedded.address]) as gateway, HttpClient(gateway.address) as client:
            for line in (CROSS, b"Origin: https://evil.example"):
                kinds.append(told(await client.ask(request(b"localhost", with_name(line, CASES[case]), *way))))
            for line in (b"Forwarded: for=a", b"X-Forwarded-For: a", b"Via: 1.1 a"):
                answer = await client.ask(request(b"localhost", CROSS, with_name(line, CASES[case]), *way))
                kinds.append(told(answer))
        assert kinds == ["foreign-page"] * 2 + ["served"] * 3

    async def test_a_line_that_is_only_as_long_as_one_of_these_is_none(self, embedded):
        async with running_gateway([embedded.address]) as gateway, HttpClient(gateway.address) as client:
            for line in (b"Origim: a", b"Oriqin: a", b"Sec-Fetch-Sitf: cross-site", b"Sec-Fetch-Dest: document"):
                assert told(await client.ask(request(b"localhost", line))) == "served"
            for line in (b"Vib: 1", b"Xorwarded: a", b"X-Forwarded-Fox: a", b"Forwardee: a"):
                assert told(await client.ask(request(b"localhost", CROSS, line))) == "foreign-page"

    async def test_a_request_is_refused_before_its_body_and_no_job_is_submitted(self, embedded):
        head_alone = request(b"localhost", CROSS, method=b"POST", body=b"x").removesuffix(b"x")
        async with running_gateway([embedded.address]) as gateway, HttpClient(gateway.address) as client:
            answer = await client.ask(head_alone)
            assert (answer.status, answer.kind()) == (403, "foreign-page")
            # How to allow it is for whoever runs the gateway on a machine of their own.
            assert "--origin" in str(answer.problem()["detail"])
            client.send(b"x")
            assert told(await client.ask(request(b"localhost"))) == "served"
            answer = await client.ask(request(b"localhost", CROSS, NAVIGATION, method=b"GET", target=b"/f?x"))
            assert (answer.status, answer.kind()) == (403, "foreign-page")
        assert embedded.submitted == 0

    async def test_wherever_it_is_cut_it_is_refused(self, embedded):
        refused = request(b"localhost", b"Origin: https://evil.example")
        served = request(b"localhost", b"Origin: http://localhost")
        async with running_gateway([embedded.address]) as gateway, HttpClient(gateway.address) as client:
            for pieces in itertools.chain(every_way(refused), every_way(served)):
                for piece in pieces:
                    client.send(piece)
                    # The gateway, which is in the same loop, reads it.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                expected = "foreign-page" if b"".join(pieces) == refused else "served"
                assert told(await client.response()) == expected

    async def test_a_target_with_a_host_outweighs_Host(self, embedded):  # noqa: N802
        async with running_gateway([embedded.address]) as gateway, HttpClient(gateway.address) as client:
            for target, host, expected in (
                (b"http://localhost/f", b"gateway.example", "foreign-page"),
                (b"http://127.0.0.1:8080?x", b"gateway.example", "foreign-page"),
                (b"http://gateway.example/f", b"localhost", "served"),
            ):
                assert told(await client.ask(request(host, CROSS, target=target))) == expected

    async def test_HTTP_1_0_without_a_Host_is_no_browsers(self, embedded):  # noqa: N802
        async with running_gateway([embedded.address]) as gateway:
            assert told(await ask(gateway.address, request(None, CROSS, version=b"1.0"))) == "served"

    async def test_answers_have_no_lines_of_CORS(self, embedded):  # noqa: N802
        async with running_gateway([embedded.address]) as gateway:
            answer = await ask(gateway.address, request(b"gateway.example", b"Origin: https://app.example"))
        assert answer.status == 204
        assert not [name for name in answer.headers if name.startswith(b"access-control") or name == b"vary"]

    async def test_plugin_compat_changes_nothing_of_it(self, embedded):
        async with running_gateway([embedded.address], plugin_compat=True) as gateway:
            answer = await ask(gateway.address, request(b"localhost", CROSS, method=b"POST", body=b"x"))
        assert (answer.status, answer.body) == (403, b"")
        assert embedded.submitted == 0


# Headers, and whether such a request is refused with the origins https://app.example and http://localhost:3000.
WITH_ORIGINS = {
    "no page": ((), False),
    "a page of one": ((b"Origin: https://app.example",), False),
    "a page of the other": ((CROSS, b"Origin: http://localhost:3000"), False),
    "a page of one, in another site": ((CROSS, b"Origin: https://app.example"), False),
    "another origin": ((b"Origin: https://evil.example",), True),
    "the same host with another scheme": ((b"Origin: http://app.example",), True),
    "with another port": ((b"Origin: https://app.example:8443",), True),
    "with the port of the scheme, which no browser sends": ((b"Origin: https://app.example:443",), True),
    "in capitals, which no browser sends": ((b"Origin: https://App.example",), True),
    "a name below it": ((b"Origin: https://x.app.example",), True),
    "a name that begins so": ((b"Origin: https://app.example.evil.example",), True),
    "with a path": ((b"Origin: https://app.example/",), True),
    "a sandboxed page": ((b"Origin: null",), True),
    "an empty one": ((b"Origin: ",), True),
    "two in a line": ((b"Origin: https://app.example, https://evil.example",), True),
    "two lines": ((b"Origin: https://app.example", b"Origin: https://evil.example"), True),
    "two equal lines": ((b"Origin: https://app.example", b"Origin: https://app.example"), True),
    "the gateway's own origin, which is not set": ((SAME, b"Origin: http://gateway.example"), True),
    "no origin, another site": ((CROSS,), True),
    "a navigation from another site": ((CROSS, NAVIGATION), True),
    "a navigation by its user": ((b"Sec-Fetch-Site: none", NAVIGATION), False),
    "no origin, the same": ((SAME,), False),
    "no origin, the same site": ((b"Sec-Fetch-Site: same-site",), False),
    "another site through a proxy": ((CROSS, b"X-Forwarded-For: 203.0.113.1"), True),
    "another origin through a proxy": ((b"Via: 1.1 a", b"Origin: https://evil.example"), True),
}


class TestOrigins:
    @pytest.mark.parametrize("host", [b"gateway.example", b"localhost:8080"])
    @pytest.mark.parametrize("way", [(), (LONG_WAY,)], ids=["short", "long"])
    async def test_pages_of_others_are_refused(self, embedded, host, way):
        found = {}
        origin = ("https://app.example", "http://localhost:3000")
        async with running_gateway([embedded.address], origin=origin) as gateway, HttpClient(gateway.address) as client:
            for name, (headers, _) in WITH_ORIGINS.items():
                answer = await client.ask(request(host, *headers, *way))
                found[name] = told(answer)
                allowed = answer.headers.get(b"access-control-allow-origin")
                if answer.status == 403 or not [line for line in headers if line.startswith(b"Origin")]:
                    assert allowed is None
                else:
                    assert b"Origin: " + allowed in headers
                assert answer.headers[b"vary"] == b"Origin"
        assert found == {name: "foreign-page" if refused else "served" for name, (_, refused) in WITH_ORIGINS.items()}

    async def test_a_simple_post_of_a_foreign_page_submits_nothing(self, embedded):
        # No preflight goes before it (Fetch, CORS-safelisted).
        post = request(
            b"gateway.example",
            b"Origin: https://evil.example",
            b"Content-Type: text/plain",
            method=b"POST",
            body=b"work",
        )
        async with running_gateway([embedded.address], origin=("https://app.example",)) as gateway:
            assert told(await ask(gateway.address, post.removesuffix(b"work"))) == "foreign-page"
            assert embedded.submitted == 0
            async with hand_worker(embedded.address, b"f") as worker, HttpClient(gateway.address) as client:
                client.send(post.replace(b"evil", b"app"))
                handle, _, _, workload = await worker.take()
                worker.complete(handle, b"done")
                assert workload == b"work"
                answer = await client.response()
        assert (answer.status, answer.headers[b"access-control-allow-origin"]) == (200, APP)
        assert embedded.submitted == 1

    async def test_every_page_may_with_an_asterisk(self, embedded):
        async with running_gateway([embedded.address], origin=("*",)) as gateway, HttpClient(gateway.address) as client:
            for headers in ((), (CROSS,), (b"Origin: https://evil.example",), (CROSS, b"Origin: null")):
                answer = await client.ask(request(b"localhost", *headers))
                assert answer.status == 204
                assert answer.headers[b"access-control-allow-origin"] == b"*"

    async def test_they_change_in_place(self, embedded):
        page = request(b"gateway.example", b"Origin: https://app.example")
        async with running_gateway([embedded.address]) as gateway, HttpClient(gateway.address) as client:
            for origin, status, allowed in (
                (("https://app.example",), 204, APP),
                (("https://other.example",), 403, None),
                (("*",), 204, b"*"),
                ((), 204, None),
            ):
                await gateway.process.reconfigure(msgspec.structs.replace(gateway.process.settings, origin=origin))
                answer = await client.ask(page)
                assert (answer.status, answer.headers.get(b"access-control-allow-origin")) == (status, allowed)


# Host, and whether it is served where the names are api.example, 192.0.2.1 and [2001:db8::1].
NAMED = {
    b"api.example": True,
    b"API.Example": True,
    b"api.example:8080": True,
    b"api.example.": True,
    b"api.example.:443": True,
    b"192.0.2.1:80": True,
    b"[2001:db8::1]": True,
    b"[2001:DB8:0:0::0:1]:8080": True,
    b"other.example": False,
    b"x.api.example": False,
    b"api.example.other": False,
    b"192.0.2.2": False,
    b"[2001:db8::2]": False,
    b"[::ffff:192.0.2.1]": False,
    b"[v1.a]": False,
    b"localhost": False,
    b"x" * 300: False,
    b"api%2Eexample": False,
    None: False,
}


class TestHosts:
    @pytest.mark.parametrize("way", [(), (LONG_WAY,)], ids=["short", "long"])
    async def test_only_names_that_are_set_are_served(self, embedded, way):
        found = {}
        names = ("api.example", "192.0.2.1", "[2001:db8::1]")
        async with running_gateway([embedded.address], host=names) as gateway:
            for host in (*NAMED, *reversed(NAMED)):
                version = b"1.0" if host is None else b"1.1"
                found[host] = told(await ask(gateway.address, request(host, *way, version=version)))
        assert found == {host: "served" if served else "misdirected" for host, served in NAMED.items()}

    async def test_another_one_is_421_before_its_body(self, embedded):
        post = request(b"other.example", method=b"POST", body=b"x").removesuffix(b"x")
        async with running_gateway([embedded.address], host=("api.example",)) as gateway:
            answer = await ask(gateway.address, post)
        assert (answer.status, answer.kind()) == (421, "misdirected")
        assert embedded.submitted == 0

    async def test_a_target_with_a_host_outweighs_Host(self, embedded):  # noqa: N802
        async with running_gateway([embedded.address], host=("api.example",)) as gateway:
            for target, host, kind in (
                (b"http://api.example:80/f", b"other.example", "served"),
                (b"http://other.example/f", b"api.example", "misdirected"),
            ):
                assert told(await ask(gateway.address, request(host, target=target))) == kind

    async def test_a_page_that_may_ask_sees_that_it_asked_for_another_name(self, embedded):
        settings = {"host": ("api.example",), "origin": ("https://app.example",)}
        async with running_gateway([embedded.address], **settings) as gateway, HttpClient(gateway.address) as client:
            answer = await client.ask(request(b"other.example", b"Origin: https://app.example"))
            assert (answer.kind(), answer.headers[b"access-control-allow-origin"]) == ("misdirected", APP)
            answer = await client.ask(request(b"api.example", b"Origin: https://app.example"))
            assert (answer.status, answer.headers[b"access-control-allow-origin"]) == (204, APP)

    async def test_pages_are_looked_at_as_without_it(self, embedded):
        async with running_gateway([embedded.address], host=("localhost",)) as gateway:
            assert told(await ask(gateway.address, request(b"localhost", CROSS))) == "foreign-page"


async def test_the_admin_address_is_not_concerned(embedded: JobServer):
    arguments = ("--listen", "127.0.0.1:0", "--server", "{}:{}".format(*embedded.address), "--workers", "1")
    settings = ("--admin", "127.0.0.1:0", "--origin", "https://app.example", "--host", "api.example")
    async with ServeProcess(*arguments, *settings) as served:
        admin = AdminAddress(address_in(await served.until("the admin address is")))
        address = await served.address()
        for headers in ((CROSS, NAVIGATION), (b"Origin: https://evil.example",)):
            assert told(await ask(address, request(b"api.example", *headers))) == "foreign-page"
            assert (await admin.ask("/livez", *headers)).status == 200


def address_in(line: str) -> tuple[str, int]:
    """The admin address of which a line tells."""
    host, port = TOLD.search(line).groups()
    return host, int(port)


async def test_an_own_machine_is_told_by_Host_and_not_by_where_the_gateway_listens(embedded: JobServer):  # noqa: N802
    async with running_gateway([embedded.address], listen=(Address("127.0.0.1", 0),)) as gateway:
        assert told(await ask(gateway.address, request(b"gateway.example", CROSS))) == "served"
