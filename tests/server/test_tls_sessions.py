"""Sessions of TLS with a gateway of several worker processes: whichever gave a ticket, all take it."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from support.certificates import certificate, client_context
from support.gateway import ServeProcess
from support.http import head
from support.tls import Authority
from support.tls_sessions import Visit, visit

pytestmark = pytest.mark.anyio

LOOK = head(b"OPTIONS", b"*")
WORKERS = 4
# Clients come to each of four processes, with a session of each, long before so many visits.
MOST_VISITS = 600


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The one that clients trust, and that trusts clients."""
    return Authority(tmp_path)


def serving(authority: Authority, *arguments: str) -> ServeProcess:
    """The gateway."""
    shown = certificate(authority, authority.directory / "server.pem", "IP:127.0.0.1", is_server=True)
    return ServeProcess(
        *("--listen", "https://127.0.0.1:0", "--workers", str(WORKERS), "--tls-certificate", str(shown)),
        *("--server", "127.0.0.1:1", *arguments),
    )


def visit_all(address: tuple[str, int], context: ssl.SSLContext) -> list[Visit]:
    """Take up the sessions of each process at each process; returns all visits."""
    visits: list[Visit] = []
    given: dict[bytes, ssl.SSLSession] = {}
    while len(given) < WORKERS:
        visits.append(visit(address, context, LOOK))
        given.setdefault(visits[-1].process, visits[-1].session)
        assert len(visits) < MOST_VISITS
    missing = {(one, other) for one in given for other in given}
    while missing:
        giver, _ = min(missing)
        visits.append(visit(address, context, LOOK, given[giver]))
        assert visits[-1].is_resumed, f"{visits[-1].process!r} does not take up a session of {giver!r}"
        missing.discard((giver, visits[-1].process))
        assert len(visits) < MOST_VISITS
    return visits


def visit_each_twice(address: tuple[str, int], context: ssl.SSLContext) -> list[Visit]:
    """Come again to each process with the session that it has given; returns all visits."""
    visits: list[Visit] = []
    given: dict[bytes, ssl.SSLSession] = {}
    missing: set[bytes] = set()
    while len(given) < WORKERS or missing:
        giver = min(missing, default=None)
        visits.append(visit(address, context, LOOK, given.get(giver)))
        process = visits[-1].process
        if process == giver:
            missing.discard(giver)
        elif process not in given:
            given[process] = visits[-1].session
            missing.add(process)
        assert len(visits) < MOST_VISITS
    return visits


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("with_certificates", [False, True], ids=["anybody", "certificates"])
async def test_a_session_of_any_process_is_taken_up_by_any(authority, version, with_certificates):
    arguments = ("--tls-client-ca", str(authority.file)) if with_certificates else ()
    shown = certificate(authority, authority.directory / "client.pem", "DNS:a") if with_certificates else None
    async with serving(authority, *arguments) as served:
        address = await served.address()
        context = client_context(authority, shown, version)
        visits = await asyncio.to_thread(visit_all, address, context)
        assert {each.status for each in visits} == {204}


@pytest.mark.parametrize("with_certificates", [False, True], ids=["anybody", "certificates"])
async def test_nothing_is_kept_of_a_client_that_takes_no_tickets(authority, with_certificates):
    arguments = ("--tls-client-ca", str(authority.file)) if with_certificates else ()
    shown = certificate(authority, authority.directory / "client.pem", "DNS:a") if with_certificates else None
    async with serving(authority, *arguments) as served:
        address = await served.address()
        context = client_context(authority, shown, ssl.TLSVersion.TLSv1_2)
        context.options |= ssl.OP_NO_TICKET
        visits = await asyncio.to_thread(visit_each_twice, address, context)
        assert {(each.status, each.is_resumed, each.session.id) for each in visits} == {(204, False, b"")}
