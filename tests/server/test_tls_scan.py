"""sslyze looks for weaknesses of TLS in a running gateway, and holds it against what Mozilla recommends."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support.certificates import KEYS, certificate
from support.gateway import ServeProcess
from support.tls import Authority
from support.tools import without_sanitizer

pytestmark = pytest.mark.anyio

# It takes a second or two, and on a slow build a minute.
RUN_S = 280.0
SCANS = (
    *("certinfo", "sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3", "elliptic_curves", "ems", "fallback"),
    *("compression", "reneg", "early_data", "resum", "heartbleed", "openssl_ccs", "robot"),
)
COMPLIANT = "OK - Compliant."
NOT_COMPLIANT = "FAILED - Not compliant."


async def scan(port: int, authority: Authority, level: str) -> tuple[str, dict[str, Any]]:
    """What sslyze says of a server, and the results of its scans by name."""
    told = authority.directory / "told.json"
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("sslyze")),
        *(f"--{name}" for name in SCANS),
        *("--certinfo_ca_file", str(authority.file), "--json_out", str(told), "--mozilla_config", level),
        f"localhost:{port}{{127.0.0.1}}",
        env=without_sanitizer(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), RUN_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    [result] = json.loads(told.read_text())["server_scan_results"]
    assert result["scan_status"] == "COMPLETED", said.decode()
    scans = {name: found for name, found in result["scan_result"].items() if found["status"] != "NOT_SCHEDULED"}
    assert {found["status"] for found in scans.values()} == {"COMPLETED"}, said.decode()
    return said.decode(), {name: found["result"] for name, found in scans.items()}


def serving(authority: Authority, kind: str, *arguments: str) -> ServeProcess:
    """A gateway of two worker processes that shows a certificate of this kind."""
    file = authority.directory / "server.pem"
    certificate(authority, file, "DNS:localhost", kind=kind, is_server=True)
    return ServeProcess(
        *("--listen", "https://127.0.0.1:0", "--workers", "2", "--server", "127.0.0.1:1"),
        *("--tls-certificate", str(file), *arguments),
    )


@pytest.mark.parametrize("kind", KEYS)
async def test_it_finds_nothing_to_complain_of(tmp_path, kind):
    authority = Authority(tmp_path)
    async with serving(authority, kind) as served:
        _, port = await served.address()
        said, found = await scan(port, authority, "intermediate")
    assert COMPLIANT in said, said
    for name in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        assert found[f"{name}_cipher_suites"]["accepted_cipher_suites"] == []
    for name in ("tls_1_2", "tls_1_3"):
        assert len(found[f"{name}_cipher_suites"]["accepted_cipher_suites"]) == 3
    assert {each["name"] for each in found["elliptic_curves"]["supported_curves"]} == {
        *("X25519", "secp256r1", "secp384r1")
    }
    assert found["tls_compression"] == {"supports_compression": False}
    assert found["tls_1_3_early_data"] == {"supports_early_data": False}
    assert found["tls_fallback_scsv"] == {"supports_fallback_scsv": True}
    assert found["tls_extended_master_secret"] == {"supports_ems_extension": True}
    assert found["heartbleed"] == {"is_vulnerable_to_heartbleed": False}
    assert found["openssl_ccs_injection"] == {"is_vulnerable_to_ccs_injection": False}
    assert found["robot"] == {"robot_result": "NOT_VULNERABLE_RSA_NOT_SUPPORTED"}
    assert found["session_renegotiation"] == {
        "supports_secure_renegotiation": True,
        "is_vulnerable_to_client_renegotiation_dos": False,
        "client_renegotiations_success_count": 0,
    }
    # Whichever process has given it.
    assert found["session_resumption"]["tls_ticket_resumption_result"] == "FULLY_SUPPORTED"


async def test_with_the_newest_version_alone_it_is_modern(tmp_path):
    authority = Authority(tmp_path)
    async with serving(authority, "ecdsa", "--tls-min", "1.3") as served:
        _, port = await served.address()
        said, found = await scan(port, authority, "modern")
    assert COMPLIANT in said, said
    assert found["tls_1_2_cipher_suites"]["accepted_cipher_suites"] == []


async def test_what_is_no_good_is_found(tmp_path):
    authority = Authority(tmp_path)
    async with serving(authority, "ecdsa") as served:
        _, port = await served.address()
        said, _ = await scan(port, authority, "modern")
    assert NOT_COMPLIANT in said
    assert "tls_versions" in said
