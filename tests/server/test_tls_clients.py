"""Other people's clients over TLS: each keeps its connection, shows its certificate, and is told what is wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gatewayx.address import ListenAddress
from support.browser import running_browser
from support.certificates import certificate, client_context
from support.gateway import RunningGateway, running_gateway
from support.tls import Authority
from support.tools import without_sanitizer

pytestmark = pytest.mark.anyio

RUN_S = 180.0
SUPPORT = Path(__file__).parent.parent / "support"
NODE_PROGRAM = SUPPORT / "tls_clients.js"
JAVA_PROGRAM = SUPPORT / "TlsClient.java"
PAGE = "page.example"
# Without the user's own settings and proxies.
CURL = ("curl", "-q", "--noproxy", "*", "--silent", "--show-error")


class Stage(NamedTuple):
    """A gateway that lets in clients of its authority alone; those are `shop`. shown: what they show."""

    gateway: RunningGateway
    authority: Authority
    shown: Path
    server: Path

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"https://localhost:{self.gateway.address[1]}"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The one that clients trust, and that trusts clients."""
    return Authority(tmp_path)


@pytest.fixture
def verify() -> str:
    """Whether clients must have certificates."""
    return "required"


@pytest.fixture
async def stage(embedded, samples, authority: Authority, tmp_path: Path, verify: str) -> AsyncIterator[Stage]:
    """The gateway, in front of a job server with the sample functions."""
    server = certificate(authority, tmp_path / "server.pem", "DNS:localhost", "DNS:*.example", is_server=True)
    shown = certificate(authority, tmp_path / "client.pem", "DNS:shop.example")
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('[[token]]\nname = "shop"\nsan = "DNS:shop.example"\n')
    tokens.chmod(0o600)
    async with running_gateway(
        [embedded.address],
        listen=(ListenAddress("127.0.0.1", 0, tls=True),),
        tls_certificate=(str(server),),
        tls_client_ca=str(authority.file),
        tls_client_verify=verify,
        tokens=str(tokens),
    ) as gateway:
        yield Stage(gateway, authority, shown, server)


async def run(*command: str, stdin: bytes = b"") -> tuple[int, str]:
    """Exit code and output of a program."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=without_sanitizer(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(stdin), RUN_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode("latin-1")


class TestCurl:
    @pytest.mark.parametrize("version", ["1.2", "1.3"])
    async def test_it_keeps_its_connection(self, stage, version):
        url = f"{stage.url}/reverse"
        code, output = await run(
            *(*CURL, "--cacert", str(stage.authority.file), "--cert", str(stage.shown)),
            *(
                f"--tlsv{version}",
                "--tls-max",
                version,
                "--write-out",
                "<%{http_code} %{num_connects} %{http_version}>",
            ),
            *("--data-binary", "abc", url, url, url),
        )
        assert (code, output) == (0, "cba<200 1 1.1>cba<200 0 1.1>cba<200 0 1.1>")

    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    async def test_old_versions_are_refused(self, stage, version):
        code, output = await run(
            *(*CURL, "--cacert", str(stage.authority.file), "--cert", str(stage.shown)),
            # Without it OpenSSL does not even try.
            *("--ciphers", "DEFAULT@SECLEVEL=0", f"--tlsv{version}", "--tls-max", version, f"{stage.url}/reverse?a"),
        )
        assert code == 35
        assert "alert protocol version" in output

    async def test_without_a_certificate_it_is_refused(self, stage):
        code, output = await run(*(*CURL, "--cacert", str(stage.authority.file), f"{stage.url}/reverse?a"))
        assert code in (35, 56)
        assert "certificate required" in output

    async def test_plain_http_is_told_what_is_wrong(self, stage):
        code, output = await run(
            *(*CURL, "--data-binary", "abc", "--write-out", "<%{http_code}>"),
            stage.url.replace("https", "http") + "/reverse",
        )
        assert code == 0
        assert output.endswith("<400>")
        assert json.loads(output[: -len("<400>")])["type"].endswith("plain-http")

    async def test_a_large_body_passes(self, stage, tmp_path):
        body = tmp_path / "body"
        body.write_bytes(bytes(range(256)) * 12_000)
        code, output = await run(
            *(*CURL, "--cacert", str(stage.authority.file), "--cert", str(stage.shown)),
            *("--data-binary", f"@{body}", "--output", str(tmp_path / "answer"), f"{stage.url}/echo"),
        )
        assert (code, output) == (0, "")
        assert (tmp_path / "answer").read_bytes() == body.read_bytes()


class TestPython:
    async def test_http_client_keeps_its_connection(self, stage):
        context = client_context(stage.authority, stage.shown)

        def ask() -> list[tuple[int, bytes]]:
            connection = http.client.HTTPSConnection(stage.url.partition("//")[2], timeout=RUN_S, context=context)
            found = []
            connection.connect()
            kept = connection.sock
            for body in (b"abc", b"x" * 300_000, iter([b"ab", b"c"])):
                connection.request("POST", "/reverse", body)
                answer = connection.getresponse()
                found.append((answer.status, answer.read()))
                assert connection.sock is kept
            connection.close()
            return found

        assert await asyncio.to_thread(ask) == [(200, b"cba"), (200, b"x" * 300_000), (200, b"cba")]

    @pytest.mark.parametrize("verify", ["required", "optional"])
    async def test_urllib_is_let_in_and_told_what_is_refused(self, stage, verify):
        context = client_context(stage.authority, stage.shown)
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))

        def ask() -> tuple[bytes, int]:
            opener = urllib.request.build_opener(*handlers)
            with opener.open(f"{stage.url}/reverse?abc", timeout=RUN_S) as answer:
                body = answer.read()
            with pytest.raises(urllib.error.HTTPError) as caught:
                opener.open(urllib.request.Request(f"{stage.url}/%00"), timeout=RUN_S)
            caught.value.close()
            return body, caught.value.code

        assert await asyncio.to_thread(ask) == (b"cba", 400)

    async def test_who_does_not_know_the_authority_does_not_ask(self, stage):
        def ask() -> None:
            context = ssl.create_default_context()
            urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
            ).open(f"{stage.url}/reverse?abc", timeout=RUN_S)

        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(ask)


class TestNode:
    async def test_its_agent_keeps_the_connection(self, stage):
        code, output = await run("node", str(NODE_PROGRAM), stage.url, str(stage.authority.file), str(stage.shown))
        assert code == 0, output
        told = json.loads(output)
        assert [(each["status"], each["bytes"], each["reused"]) for each in told] == [
            (200, 3, False),
            (200, 8, True),
            (200, 1_000_000, True),
        ]
        assert [each["text"] for each in told[:2]] == ["cba", "daolkrow"]
        assert {each["version"] for each in told} == {"TLSv1.3"}
        assert len({each["connection"] for each in told}) == 1

    async def test_without_a_certificate_it_is_refused(self, stage):
        code, output = await run("node", str(NODE_PROGRAM), stage.url, str(stage.authority.file), "")
        assert (code, json.loads(output)) == (1, {"error": "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED"})


class TestJava:
    @staticmethod
    async def run(stage: Stage, version: str, *own: str) -> tuple[int, str]:
        """Exit code and output of the program."""
        # Java starts sooner when it does not optimise for a long run.
        options = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
        url = f"{stage.url}/reverse"
        return await run("java", *options, str(JAVA_PROGRAM), version, url, str(stage.authority.file), *own)

    @pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
    async def test_its_client_keeps_the_connection(self, stage, version):
        assert await self.run(stage, version, str(stage.shown)) == (0, "3 bodies came back\n")
        assert stage.gateway.process.counted_in.read()["connections_accepted"] == 1

    async def test_without_a_certificate_it_is_refused(self, stage):
        code, output = await self.run(stage, "TLSv1.3")
        assert code == 1
        assert "certificate_required" in output


class TestOpenssl:
    """What only openssl's own client tries."""

    @staticmethod
    async def connect(stage: Stage, *arguments: str, stdin: bytes = b"") -> str:
        """What it says."""
        _, output = await run(
            *("openssl", "s_client", "-connect", stage.url.partition("//")[2], "-CAfile", str(stage.authority.file)),
            *("-cert", str(stage.shown), "-verify_return_error", *arguments),
            stdin=stdin,
        )
        return output

    async def test_renegotiation_is_refused(self, stage):
        # A line that is R alone asks for it.
        output = await self.connect(stage, "-tls1_2", stdin=b"R\n")
        assert "Verify return code: 0 (ok)" in output
        assert "RENEGOTIATING" in output
        assert re.search("no renegotiation", output)

    async def test_requests_before_the_handshake_are_not_offered(self, stage, tmp_path):
        session = str(tmp_path / "session")
        request = b"POST /reverse HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
        output = await self.connect(stage, "-tls1_3", "-sess_out", session, "-ign_eof", stdin=request)
        assert "cba" in output
        (tmp_path / "early").write_bytes(request)
        again = await self.connect(
            stage, "-tls1_3", "-sess_in", session, "-early_data", str(tmp_path / "early"), "-ign_eof", stdin=request
        )
        assert "Reused, TLSv1.3" in again
        # The ticket does not allow it, so it was not sent: one answer to one request.
        assert "Early data was not sent" in again
        assert again.count("cba") == 1

    async def test_only_http_1_1_is_spoken(self, stage):
        assert "ALPN protocol: http/1.1" in await self.connect(stage, "-alpn", "h2,http/1.1")
        assert "No ALPN negotiated" in await self.connect(stage, "-alpn", "h2")


def spki_of(file: Path) -> str:
    """How Chromium names the key of a certificate: base64 of the SHA-256 of its SubjectPublicKeyInfo."""
    key = x509.load_pem_x509_certificate(file.read_bytes()).public_key()
    found = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(found).digest()).decode()


class TestBrowser:
    async def test_pages_ask_over_tls_and_see_what_cors_lets_them(self, embedded, samples, authority, tmp_path):
        server = certificate(authority, tmp_path / "server.pem", "DNS:*.example", is_server=True)
        with contextlib.ExitStack() as stack:
            browser = stack.enter_context(running_browser(f"--ignore-certificate-errors-spki-list={spki_of(server)}"))
            async with running_gateway(
                [embedded.address],
                listen=(ListenAddress("127.0.0.1", 0, tls=True),),
                tls_certificate=(str(server),),
                tls_client_ca=str(authority.file),
                tls_client_verify="optional",
                origin=(browser.origin(PAGE),),
            ) as gateway:
                url = f"https://gateway.example:{gateway.address[1]}"
                told = await browser.run(
                    PAGE,
                    f"""
                    const one = await told("{url}/reverse", {{ method: "POST", body: "abc" }});
                    const headers = {{ "X-Gearman-Priority": "low" }};
                    const two = await told("{url}/reverse", {{ method: "POST", body: "abc", headers }});
                    const three = await told("{url}/echo", {{ method: "POST", body: "x".repeat(1000000) }});
                    return [one.status, one.body, two.status, two.headers["x-gearman-command"], three.body.length];
                    """,
                )
                assert told == [200, "cba", 200, "WORK_COMPLETE", 1_000_000]
                other = await browser.run(
                    "other.example", f"""return await told("{url}/reverse", {{ method: "POST", body: "abc" }});"""
                )
                assert other == {"error": "TypeError"}
                assert gateway.process.counted_in.read()["tls_failed"] == 0
                # Its connections go with it.
                stack.close()
