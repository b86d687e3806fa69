"""Which processes have the keys of what clients are shown in their memory."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from support.admin import admin_of, until
from support.gateway import ServeProcess
from support.tls import Authority

pytestmark = pytest.mark.anyio

WRITABLE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw", re.MULTILINE)
# What is larger is no process's own data, but what an address sanitizer knows of all addresses.
MOST_BYTES = 1 << 30


def number_of(key: bytes) -> bytes:
    """A key as OpenSSL has it while it is of use, and overwrites it afterwards: words, the lowest first."""
    loaded = load_pem_private_key(key, None)
    assert isinstance(loaded, EllipticCurvePrivateKey)
    return loaded.private_numbers().private_value.to_bytes(32, "little")


def line_of(key: bytes) -> bytes:
    """A line of a key's file that no other file has."""
    line = key.splitlines()[2]
    assert len(line) > 30
    return line


def has_in_memory(process_id: int, *wanted: bytes) -> bool:
    """Whether any of these bytes is where the process can write."""
    with Path(f"/proc/{process_id}/mem").open("rb", buffering=0) as memory:
        for begins, ends in WRITABLE.findall(Path(f"/proc/{process_id}/maps").read_text()):
            size_bytes = int(ends, 16) - int(begins, 16)
            if size_bytes > MOST_BYTES:
                continue
            memory.seek(int(begins, 16))
            try:
                content = memory.read(size_bytes)
            except OSError:
                # It was given back meanwhile.
                continue
            if any(data in content for data in wanted):
                return True
    return False


async def test_the_admin_process_has_none(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = (tmp_path / name for name in ("tls.crt", "tls.key"))

    def renew() -> bytes:
        shown, secret = authority.pair("127.0.0.1")
        certificate.write_bytes(shown)
        key.write_bytes(secret)
        return secret

    first = renew()
    async with ServeProcess(
        *("--listen", "https://127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1", "--server", "127.0.0.1:1"),
        *("--tls-certificate", str(certificate), "--tls-key", str(key)),
    ) as served:
        admin = await admin_of(served)
        [worker] = await admin.workers()
        its_own = await admin.process_id("admin")
        assert has_in_memory(worker, number_of(first))
        assert not has_in_memory(its_own, number_of(first))
        second = renew()
        await served.until("all worker processes have the certificates")
        assert has_in_memory(worker, number_of(second))
        assert has_in_memory(worker, line_of(second))
        assert not has_in_memory(its_own, number_of(second), line_of(second))
        # The next one is forked by a master that has both.
        os.kill(its_own, signal.SIGKILL)
        await served.until("admin process")

        async def is_there() -> bool:
            try:
                return await admin.process_id("admin") != its_own
            except OSError:
                return False

        await until(is_there)
        assert not has_in_memory(await admin.process_id("admin"), number_of(first), number_of(second))
