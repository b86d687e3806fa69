"""Keys are exchanged in cheap groups alone, sessions are not kept, and chains have a bound."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from gatewayx.net.openssl import MOST_CHAIN_BYTES, keep_no_sessions, limit_chains, limit_groups
from support.certificates import certificate
from support.tls import Authority
from support.tls import shake as shake_and_talk

CHEAP = ("X25519", "prime256v1", "secp384r1")
# The first one takes a server a hundred times as long as X25519, and a client nothing.
DEAR = ("ffdhe8192", "ffdhe2048", "secp521r1", "X448")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The one that clients trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def shown(authority: Authority) -> Path:
    """What a server shows."""
    return certificate(authority, authority.directory / "server.pem", "DNS:localhost", is_server=True)


@pytest.fixture
def server(shown: Path) -> ssl.SSLContext:
    """A server's context, as Python makes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown)
    return context


def client_with(authority: Authority, group: str) -> ssl.SSLContext:
    """For a client that knows one group only."""
    context = authority.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ecdh_curve(group)
    return context


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Shake hands in memory. Raises ssl.SSLError."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(back, there, server_hostname="localhost"),
        server.wrap_bio(there, back, server_side=True),
    ]
    for _ in range(4):
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)
    assert sides == []


class TestGroups:
    @pytest.mark.parametrize("group", CHEAP)
    def test_those_of_every_client_are_taken(self, authority, server, group):
        assert limit_groups(server)
        shake(server, client_with(authority, group))

    @pytest.mark.parametrize("group", DEAR)
    def test_those_that_cost_the_server_more_than_the_client_are_not(self, authority, server, group):
        # By itself OpenSSL takes them.
        shake(server, client_with(authority, group))
        assert limit_groups(server)
        with pytest.raises(ssl.SSLError):
            shake(server, client_with(authority, group))

    def test_where_openssl_cannot_be_told_only_everybodys_is_left(self, authority, server, monkeypatch):
        import _ssl

        monkeypatch.delattr(_ssl, "__file__")
        monkeypatch.delattr(ssl.SSLContext, "set_groups", raising=False)
        assert not limit_groups(server)
        shake(server, client_with(authority, "prime256v1"))
        for group in (*DEAR, "X25519"):
            with pytest.raises(ssl.SSLError):
                shake(server, client_with(authority, group))


def client_of(authority: Authority, version: ssl.TLSVersion) -> ssl.SSLContext:
    """For a client that speaks this version only."""
    context = authority.context()
    context.minimum_version = context.maximum_version = version
    return context


class TestSessions:
    def test_a_client_without_tickets_is_not_remembered(self, authority, server):
        client = client_of(authority, ssl.TLSVersion.TLSv1_2)
        client.options |= ssl.OP_NO_TICKET
        # By itself OpenSSL remembers whoever has not gone without a word.
        first, first_server = shake_and_talk(server, client, "localhost")
        again, again_server = shake_and_talk(server, client, "localhost", first.session)
        assert again.session_reused
        assert server.session_stats()["number"] == 1
        assert keep_no_sessions(server)
        late, late_server = shake_and_talk(server, client, "localhost")
        assert late.session.id == b""
        assert not shake_and_talk(server, client, "localhost", late.session)[0].session_reused
        assert server.session_stats()["number"] == 1
        assert {side.version() for side in (first_server, again_server, late_server)} == {"TLSv1.2"}

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_tickets_stay(self, authority, server, version):
        assert keep_no_sessions(server)
        client = client_of(authority, version)
        first, first_server = shake_and_talk(server, client, "localhost")
        again, again_server = shake_and_talk(server, client, "localhost", first.session)
        assert again.session_reused
        assert again_server.session_reused
        assert not first_server.session_reused
        assert server.session_stats()["number"] == 0

    def test_where_openssl_cannot_be_told_all_stays_as_it_was(self, authority, server, monkeypatch):
        import _ssl

        monkeypatch.delattr(_ssl, "__file__")
        assert not keep_no_sessions(server)
        shake(server, client_with(authority, "prime256v1"))


class TestChains:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_a_long_one_is_not_read(self, authority, server, tmp_path, version):
        shown = certificate(authority, tmp_path / "client.pem", "DNS:client.example")
        server.load_verify_locations(authority.file)
        server.verify_mode = ssl.CERT_REQUIRED
        # Its authority's certificate, again and again, is none of its chain, and is read all the same.
        more = authority.file.read_text()
        one_bytes = len(ssl.PEM_cert_to_DER_cert(more))
        long = tmp_path / "long.pem"
        long.write_text(shown.read_text() + more * (MOST_CHAIN_BYTES // one_bytes))
        short = tmp_path / "short.pem"
        short.write_text(shown.read_text() + more * (MOST_CHAIN_BYTES // one_bytes - 4))
        clients = []
        for file in (short, long):
            client = client_of(authority, version)
            client.load_cert_chain(file)
            clients.append(client)
        # By itself OpenSSL reads six times as much.
        shake_and_talk(server, clients[1], "localhost")
        assert limit_chains(server)
        shake_and_talk(server, clients[0], "localhost")
        with pytest.raises(ssl.SSLError, match="EXCESSIVE_MESSAGE_SIZE"):
            shake_and_talk(server, clients[1], "localhost")

    def test_where_openssl_cannot_be_told_its_own_bound_stays(self, server, monkeypatch):
        import _ssl

        monkeypatch.delattr(_ssl, "__file__")
        assert not limit_chains(server)
