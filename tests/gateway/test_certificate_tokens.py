"""Who may ask with a client certificate that stands for a token, and when it does not, in front of both job servers."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from gatewayx.address import ListenAddress
from gatewayx.config import tokens
from gatewayx.gateway.tokens import ATTEMPTS
from gatewayx.net import tls_reasons
from support.certificates import certificate, client_context
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import HttpClient, Response, get, head, post
from support.job_servers import hand_worker
from support.times import SOON_S
from support.tls import Authority
from support.tls_sessions import visit
from support.tokens import TokenFile, bearer

pytestmark = pytest.mark.anyio

REALM = b'Bearer realm="gatewayx"'
INVALID = REALM + b', error="invalid_token"'
LOOK = head(b"OPTIONS", b"*")
UTC = datetime.timezone.utc
PAGE = "https://page.example"
BOTH_VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


class Clients:
    """The gateway's authority of clients, its clients, and its file of tokens."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory, "clients")
        self.servers = Authority(directory, "servers")
        self.file = TokenFile(directory / "tokens.toml")
        self.made = 0

    def certificate(self, *names: str, by: Authority | None = None, ends: datetime.datetime | None = None) -> Path:
        """A certificate with these alternative names, of the clients' authority if no other is given."""
        self.made += 1
        return certificate(by or self.authority, self.directory / f"{self.made}.pem", *names, ends=ends)

    def context(self, *names: str, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """For a client that shows a certificate with these names."""
        return client_context(self.servers, self.certificate(*names), version)

    def without(self) -> ssl.SSLContext:
        """For a client that shows none."""
        return client_context(self.servers)

    def gateway(self, job_server, *, verify: str = "required", **settings: object):
        """A gateway whose clients need tokens, and may have certificates."""
        return running_gateway(
            [job_server.address],
            listen=(ListenAddress("127.0.0.1", 0, tls=True),),
            tls_certificate=(str(self.servers.certificate("127.0.0.1")),),
            tls_client_ca=str(self.authority.file),
            tls_client_verify=verify,
            **{"tokens": str(self.file.path), **settings},
        )


@pytest.fixture
def clients(tmp_path: Path) -> Clients:
    """Clients, none of whom has a token at first."""
    return Clients(tmp_path)


def table(name: str, san: str, *lines: str) -> str:
    """A table for a token that certificates stand for; san: as TOML has it."""
    return "\n".join(["[[token]]", f'name = "{name}"', f"san = {san}", *lines, ""])


async def told(gateway: RunningGateway, context: ssl.SSLContext, *request: bytes) -> Response:
    """What a new client with this certificate is answered."""
    async with HttpClient(gateway.address, context=context) as client:
        return await client.ask(*(request or (LOOK,)))


def counted(gateway: RunningGateway) -> dict[str, int]:
    """The requests that have ended, by the name of their token."""
    metrics = gateway.process.places.metrics()
    names = [name.decode() for name in metrics.tokens.names()]
    found: dict[str, int] = {}
    for token, _, count in metrics.token_requests():
        found[names[token]] = found.get(names[token], 0) + count
    return found


def is_refused(answer: Response, words: str = "", challenge: bytes = REALM) -> None:
    """It is 401, and says so in these words."""
    assert (answer.status, answer.kind()) == (401, "unauthenticated")
    assert words in answer.problem()["detail"]
    assert answer.headers[b"www-authenticate"] == challenge


def of_host(*lines: bytes) -> bytes:
    """A request for the gateway by a name that is no machine's own."""
    return b"OPTIONS * HTTP/1.1\r\nHost: gateway.example\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def changed(gateway: RunningGateway, clients: Clients, *tables: str) -> None:
    """The file says this now, and the gateway has read it."""
    clients.file.write(*tables)
    gateway.process.change_tokens(tokens.parse("t.toml", clients.file.path.read_bytes()))


@asynccontextmanager
async def shop_and_client(clients: Clients, embedded, *lines: str) -> AsyncIterator[tuple[RunningGateway, HttpClient]]:
    """A gateway that knows the token `shop`, and a client with its certificate."""
    clients.file.write(table("shop", '"DNS:shop.example"', *lines))
    async with (
        clients.gateway(embedded) as gateway,
        HttpClient(gateway.address, context=clients.context("DNS:shop.example")) as client,
    ):
        yield gateway, client


class TestNames:
    @pytest.mark.parametrize(
        ("san", "shown"),
        [
            ("DNS:shop.example", "DNS:shop.example"),
            ("DNS:Shop.Example", "DNS:sHOP.eXAMPLE"),
            ("URI:spiffe://example/shop?a=1", "URI:spiffe://example/shop?a=1"),
            ("email:shop@example.com", "email:shop@example.com"),
            ("IP:192.0.2.7", "IP:192.0.2.7"),
            ("IP:2001:DB8:0:0::7", "IP:2001:db8::7"),
            ("IP:::ffff:192.0.2.7", "IP:::ffff:192.0.2.7"),
        ],
    )
    async def test_a_certificate_stands_for_the_token_with_its_name(self, job_server, clients, san, shown):
        clients.file.write(table("other", '"DNS:other.example"'), table("shop", f'["URI:urn:a", "{san}"]'))
        async with clients.gateway(job_server) as gateway:
            assert (await told(gateway, clients.context(shown))).status == 204
            assert (
                await told(gateway, clients.context("RID:1.2.3", "dirName:a", "DNS:a.example", shown))
            ).status == 204
            assert counted(gateway) == {"shop": 2}

    @pytest.mark.parametrize(
        ("san", "shown"),
        [
            ("DNS:shop.example", ["DNS:a.shop.example"]),
            ("DNS:shop.example", ["DNS:shop.example."]),
            ("DNS:shop.example", ["DNS:*.example"]),
            ("DNS:a.shop.example", ["DNS:*.shop.example"]),
            ("DNS:shop.example", ["URI:shop.example", "email:shop.example", "dirName:shop.example"]),
            ("DNS:192.0.2.7", ["IP:192.0.2.7"]),
            ("IP:192.0.2.7", ["DNS:192.0.2.7", "IP:192.0.2.8", "IP:::ffff:192.0.2.7"]),
            ("URI:spiffe://example/shop", ["URI:spiffe://example/Shop", "URI:spiffe://example/shop/"]),
            ("email:shop@example.com", ["email:Shop@example.com"]),
            # Bytes that are no text, and letters that become others with the case: the sign for Kelvin.
            ("DNS:shop.example", ["raw-DNS:shop.example", "raw-URI:\xff"]),
            ("DNS:kitchen.example", ["raw-DNS:\xe2\x84\xaaitchen.example"]),
            ("DNS:shop.example", ["raw-DNS:shop.example\0.evil", "raw-DNS:", "raw-IP:12345"]),
            # The common name is none of its names.
            ("DNS:client", []),
            # So many names are looked at.
            ("DNS:shop.example", [*(f"DNS:{number}.example" for number in range(64)), "DNS:shop.example"]),
        ],
    )
    async def test_nothing_else_is_the_same_name(self, embedded, clients, san, shown):
        clients.file.write(table("shop", f'"{san}"'))
        async with clients.gateway(embedded) as gateway:
            for _ in range(2):
                is_refused(await told(gateway, clients.context(*shown)), "the client's certificate stands for no token")
            assert counted(gateway) == {}

    async def test_of_several_the_first_in_the_certificate_counts(self, embedded, clients):
        clients.file.write(table("shop", '"DNS:shop.example"'), table("billing", '"URI:urn:billing"'))
        async with clients.gateway(embedded) as gateway:
            await told(gateway, clients.context("DNS:a.example", "URI:urn:billing", "DNS:shop.example"))
            assert counted(gateway) == {"billing": 1}
            await told(gateway, clients.context("DNS:a.example", "DNS:shop.example", "URI:urn:billing"))
            assert counted(gateway) == {"billing": 1, "shop": 1}


class TestReach:
    async def test_it_reaches_what_its_table_says(self, job_server, clients, function):
        name = function.decode()
        clients.file.write(
            table(
                "shop", '"DNS:a.example"', f'functions = ["{name}"]', "background = false", 'highest_priority = "low"'
            )
        )
        low = b"X-Gearman-Priority: low"
        async with (
            clients.gateway(job_server) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address, context=clients.context("DNS:a.example")) as client,
        ):
            client.send(post(b"/" + function, b"workload", low))
            handle, _, _, workload = await worker.take()
            worker.complete(handle, workload[::-1])
            assert (await client.response()).body == b"daolkrow"
            for request in (
                post(b"/other", b"", low),
                post(b"/" + function, b"", low, b"X-Gearman-Background: true"),
                post(b"/" + function, b"", b"X-Gearman-Priority: normal"),
            ):
                answer = await client.ask(request)
                assert (answer.status, answer.kind()) == (403, "not-permitted")
            assert counted(gateway) == {"shop": 4}

    async def test_its_rate_and_its_jobs_are_bounded(self, embedded, clients):
        lines = ("rate = 0.001", "burst = 3", "max_jobs = 1")
        async with shop_and_client(clients, embedded, *lines) as (gateway, client):
            async with hand_worker(embedded.address, b"f") as worker:
                client.send(post(b"/f", b""))
                handle, *_ = await worker.take()
                second = await told(gateway, clients.context("DNS:shop.example"), post(b"/f", b""))
                assert (second.status, second.kind()) == (429, "too-many-token-jobs")
                worker.complete(handle, b"")
                assert (await client.response()).headers[b"ratelimit"].startswith(b'"token";r=2')
            assert (await client.ask(LOOK)).status == 204
            answer = await client.ask(LOOK)
            assert (answer.status, answer.kind()) == (429, "rate-exceeded")

    async def test_what_has_expired_is_not_known_and_slows_nobody(self, embedded, clients):
        async with shop_and_client(clients, embedded, "expires = 2020-01-01") as (gateway, client):
            for _ in range(ATTEMPTS + 5):
                is_refused(await client.ask(LOOK), "has expired")
            stranger = clients.context("DNS:other.example")
            async with HttpClient(gateway.address, context=stranger) as other:
                for _ in range(ATTEMPTS + 5):
                    is_refused(await other.ask(LOOK), "stands for no token")
            # None of these has counted as an attempt.
            is_refused(await client.ask(head(b"OPTIONS", b"*", bearer("gwx_a"))), challenge=INVALID)

    async def test_its_keys_are_those_of_its_name(self, embedded, clients):
        clients.file.write(table("shop", '"DNS:shop.example"'), clients.file.table("shop"), clients.file.table("other"))
        key = b'Idempotency-Key: "a"'
        async with (
            clients.gateway(embedded) as gateway,
            hand_worker(embedded.address, b"f") as worker,
            HttpClient(gateway.address, context=clients.context("DNS:shop.example")) as client,
        ):
            client.send(post(b"/f", b"w", key))
            handle, *_ = await worker.take()
            worker.complete(handle, b"once")
            assert (await client.response()).body == b"once"
            again = await client.ask(post(b"/f", b"w", key, clients.file.line("shop")))
            assert (again.body, again.headers[b"idempotency-replayed"]) == (b"once", b"true")
            client.send(post(b"/f", b"w", key, clients.file.line("other")))
            handle, *_ = await worker.take()
            worker.complete(handle, b"another")
            assert (await client.response()).body == b"another"


class TestAuthorization:
    async def test_where_there_is_one_it_decides_alone(self, job_server, clients):
        clients.file.write(table("shop", '"DNS:shop.example"'), clients.file.table("other"))
        async with (
            clients.gateway(job_server) as gateway,
            HttpClient(gateway.address, context=clients.context("DNS:shop.example")) as client,
        ):
            assert (await client.ask(LOOK)).status == 204
            assert counted(gateway) == {"shop": 1}
            other = clients.file.line("other")
            assert (await client.ask(head(b"OPTIONS", b"*", other))).status == 204
            is_refused(await client.ask(head(b"OPTIONS", b"*", other, other)), "several")
            is_refused(await client.ask(head(b"OPTIONS", b"*", b"Authorization: Basic YTpi")), "none of a token")
            is_refused(await client.ask(head(b"OPTIONS", b"*", b"Authorization:")), "none of a token")
            is_refused(await client.ask(head(b"OPTIONS", b"*", bearer("gwx_a"))), challenge=INVALID)
            assert (await client.ask(LOOK)).status == 204
            assert counted(gateway) == {"shop": 2, "other": 1}

    async def test_without_a_certificate_only_it_lets_in(self, embedded, clients):
        clients.file.write(table("shop", '"DNS:shop.example"'), clients.file.table("other"))
        async with (
            clients.gateway(embedded, verify="optional") as gateway,
            HttpClient(gateway.address, context=clients.without()) as client,
        ):
            is_refused(await client.ask(LOOK))
            assert (await client.ask(head(b"OPTIONS", b"*", clients.file.line("other")))).status == 204
            assert (await told(gateway, clients.context("DNS:shop.example"))).status == 204

    async def test_a_table_with_both_is_reached_by_both(self, embedded, clients):
        clients.file.write(clients.file.table("shop", 'san = ["DNS:shop.example", "DNS:store.example"]'))
        async with clients.gateway(embedded, verify="optional") as gateway:
            assert (await told(gateway, clients.context("DNS:store.example"))).status == 204
            by_secret = head(b"OPTIONS", b"*", clients.file.line("shop"))
            assert (await told(gateway, clients.without(), by_secret)).status == 204
            assert counted(gateway) == {"shop": 2}

    async def test_it_needs_a_file_of_tokens(self, embedded, clients):
        async with clients.gateway(embedded, tokens=None) as gateway:
            assert (await told(gateway, clients.context("DNS:shop.example"))).status == 204
            assert counted(gateway) == {}


class TestPages:
    """A browser shows its user's certificate to whatever page has made a request, as it does with cookies."""

    @pytest.mark.parametrize(
        "lines",
        [
            [],
            [b"Sec-Fetch-Site: same-origin"],
            [b"Sec-Fetch-Site: Same-Origin", b"Origin: https://gateway.example"],
            [b"Origin: https://gateway.example"],
            [b"Origin: https://gateway.example:443"],
            # What Node's fetch sends.
            [b"Sec-Fetch-Mode: cors"],
        ],
    )
    async def test_it_counts_for_programs_and_pages_of_the_gateways_own_origin(self, embedded, clients, lines):
        async with shop_and_client(clients, embedded) as (_, client):
            assert (await client.ask(of_host(*lines))).status == 204

    @pytest.mark.parametrize(
        "lines",
        [
            [b"Sec-Fetch-Site: cross-site"],
            # Another name below the same one may be anybody's.
            [b"Sec-Fetch-Site: same-site"],
            # A link in a mail, or an address that was typed.
            [b"Sec-Fetch-Site: none", b"Sec-Fetch-Mode: navigate"],
            [b"Sec-Fetch-Site:"],
            [b"Sec-Fetch-Site: same-origin, cross-site"],
            [b"Sec-Fetch-Site: cross-site", b"Origin: https://gateway.example"],
            [b"Origin: " + PAGE.encode()],
            [b"Origin: null"],
            [b"Origin:"],
            [b"Origin: http://gateway.example"],
            [b"Origin: https://gateway.example:8443"],
            [b"Origin: https://gateway.example.page.example"],
            [b"Origin: https://gateway.example", b"Origin: https://gateway.example"],
        ],
    )
    @pytest.mark.parametrize("origin", [(), (PAGE,), ("*",)], ids=["no-origin", "origin", "any-origin"])
    async def test_it_counts_for_no_other_page_and_no_link(self, embedded, clients, lines, origin):
        clients.file.write(clients.file.table("shop", 'san = "DNS:shop.example"'))
        async with (
            clients.gateway(embedded, origin=origin) as gateway,
            HttpClient(gateway.address, context=clients.context("DNS:shop.example")) as client,
        ):
            answer = await client.ask(of_host(*lines))
            if answer.status == 401:
                is_refused(answer, "a browser shows a certificate by itself")
            else:
                # Before it was asked who it is.
                assert (answer.status, answer.kind()) == (403, "foreign-page")
                assert origin == (PAGE,)
            # A token is what a page must have been given.
            by_token = await client.ask(of_host(*lines, clients.file.line("shop")))
            assert by_token.status == (204 if answer.status == 401 else 403)
            assert (await client.ask(LOOK)).status == 204

    async def test_a_job_that_another_page_submits_never_runs(self, job_server, clients, function):
        clients.file.write(table("shop", '"DNS:shop.example"'))
        async with (
            clients.gateway(job_server) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address, context=clients.context("DNS:shop.example")) as client,
        ):
            form = (b"Origin: " + PAGE.encode(), b"Content-Type: text/plain")
            is_refused(await client.ask(post(b"/" + function, b"theirs", *form)))
            is_refused(await client.ask(get(b"/" + function + b"?theirs", b"Sec-Fetch-Site: cross-site")))
            client.send(post(b"/" + function, b"ours"))
            handle, _, _, workload = await worker.take()
            worker.complete(handle, b"")
            assert workload == b"ours"
            assert (await client.response()).status == 200

    async def test_a_preflight_is_answered_as_ever(self, embedded, clients):
        clients.file.write(table("shop", '"DNS:shop.example"'))
        preflight = head(b"OPTIONS", b"/f", b"Origin: " + PAGE.encode(), b"Access-Control-Request-Method: POST")
        async with clients.gateway(embedded, verify="optional", origin=(PAGE,)) as gateway:
            answer = await told(gateway, clients.without(), preflight)
            assert (answer.status, answer.headers[b"access-control-allow-origin"]) == (204, PAGE.encode())
            assert b"access-control-allow-credentials" not in answer.headers


class TestChanges:
    async def test_of_the_file_count_for_the_next_request_of_a_connection(self, embedded, clients):
        async with (
            shop_and_client(clients, embedded) as (gateway, client),
            HttpClient(gateway.address, context=clients.context("DNS:other.example")) as other,
        ):
            assert (await client.ask(LOOK)).status == 204
            is_refused(await other.ask(LOOK), "stands for no token")

            changed(gateway, clients, table("other", '"DNS:other.example"'))
            is_refused(await client.ask(LOOK), "stands for no token")
            assert (await other.ask(LOOK)).status == 204

            changed(gateway, clients, clients.file.table("third"))
            is_refused(await client.ask(LOOK))
            is_refused(await other.ask(LOOK))

            changed(gateway, clients, table("shop", '"DNS:shop.example"', 'functions = ["g"]'))
            assert (await client.ask(post(b"/f", b""))).status == 403
            is_refused(await other.ask(LOOK), "stands for no token")

    async def test_a_date_that_passes_does(self, embedded, clients):
        now = datetime.datetime.now
        async with shop_and_client(clients, embedded) as (gateway, client):
            answer = await client.ask(LOOK)
            assert answer.status == 204
            ends = now(UTC) + datetime.timedelta(seconds=1)
            changed(gateway, clients, table("shop", '"DNS:shop.example"', f"expires = {ends.isoformat()}"))
            while answer.status == 204:
                assert now(UTC) < ends + datetime.timedelta(seconds=SOON_S)
                answer = await client.ask(LOOK)
            is_refused(answer, "has expired")
            assert now(UTC) >= ends


class TestHandshakes:
    @BOTH_VERSIONS
    @pytest.mark.parametrize("verify", ["required", "optional"])
    @pytest.mark.parametrize("fault", ["stranger", "expired", "none"])
    async def test_who_shows_no_good_certificate_is_refused(
        self, embedded, clients, version, verify, fault, tmp_path, caplog
    ):
        clients.file.write(table("shop", '"DNS:shop.example"'))
        if fault == "stranger":
            shown = clients.certificate("DNS:shop.example", by=Authority(tmp_path, "stranger"))
        elif fault == "expired":
            ends = datetime.datetime.now(UTC) - datetime.timedelta(hours=1)
            shown = clients.certificate("DNS:shop.example", ends=ends)
        else:
            shown = None
        context = client_context(clients.servers, shown, version)
        async with clients.gateway(embedded, verify=verify) as gateway:
            if shown is None and verify == "optional":
                is_refused(await told(gateway, context))
                return
            for _ in range(3):
                # With TLS 1.3 a client is through before its certificate was looked at.
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await told(gateway, context)
            await eventually(lambda: gateway.process.counted_in.read()["tls_failed"] == 3)
            gateway.process.log_refusals()
            told_of = [
                record
                for record in caplog.records
                if getattr(record, "about", "").startswith("a TLS handshake fails: ")
            ]
            # It counts them, and shows nothing of what came.
            assert sum(record.args[0] for record in told_of) == 3
            assert {record.args[-1] for record in told_of} == {""}
            assert counted(gateway) == {}

    @BOTH_VERSIONS
    async def test_a_session_that_is_resumed_has_its_names(self, embedded, clients, version):
        clients.file.write(table("shop", '"DNS:shop.example"'), table("other", '"DNS:other.example"'))
        async with clients.gateway(embedded) as gateway:
            for name in ("shop", "other"):
                context = clients.context(f"DNS:{name}.example", version=version)
                first = await asyncio.to_thread(visit, gateway.address, context, LOOK)
                again = await asyncio.to_thread(visit, gateway.address, context, LOOK, first.session)
                assert (first.is_resumed, first.status) == (False, 204)
                assert (again.is_resumed, again.status) == (True, 204)
            assert counted(gateway) == {"shop": 2, "other": 2}

    @BOTH_VERSIONS
    @pytest.mark.parametrize(
        ("name", "status"), [("DNS:shop.example", 204), ("raw-DNS:sh\xf6p.example", 401)], ids=["text", "no-text"]
    )
    async def test_a_certificate_whose_time_is_over_is_no_good_in_a_session_either(
        self, embedded, clients, version, name, status, monkeypatch
    ):
        now_s = time.time()
        ends = datetime.datetime.fromtimestamp(now_s + 3600, UTC)
        clients.file.write(table("shop", '"DNS:shop.example"'))
        context = client_context(clients.servers, clients.certificate(name, ends=ends), version)
        async with clients.gateway(embedded) as gateway:
            first = await asyncio.to_thread(visit, gateway.address, context, LOOK)
            again = await asyncio.to_thread(visit, gateway.address, context, LOOK, first.session)
            assert (again.status, again.is_resumed) == (status, True)
            monkeypatch.setattr(tls_reasons, "time", SimpleNamespace(time=lambda: now_s + 3601))
            with pytest.raises(OSError, match=r"closed|reset|EOF|eof"):
                await asyncio.to_thread(visit, gateway.address, context, LOOK, again.session)
            assert "a TLS handshake fails: certificate has expired" in gateway.process.http.take_events()
