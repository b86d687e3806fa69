"""What is made of the files of TLS: what they hold, which faults are told how, and which certificate a client gets."""

from __future__ import annotations

import datetime
import errno
import os
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from gatewayx.address import ServerAddress
from gatewayx.config.settings import Settings
from gatewayx.errors import StartError
from gatewayx.net import pem
from gatewayx.net.pem import MOST_FILE_BYTES, NoRoomError
from gatewayx.server.certificates import Certificates, TlsContexts
from gatewayx.server.reloading import ClientFilesError, JobServerFilesError, check_files
from gatewayx.server.tls_files import TlsFiles, read_clients, read_job_servers
from support.imports import imported_with
from support.tls import Authority, shake

ENCRYPTED = b"""-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAi4
-----END ENCRYPTED PRIVATE KEY-----
"""
# As OpenSSL wrote it before PKCS #8.
OLD_ENCRYPTED = b"""-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-256-CBC,00

AAAA
-----END EC PRIVATE KEY-----
"""
SECOND = datetime.timedelta(seconds=1)


# Loaded by OpenSSL, which has no way to sign a handshake with them.
USELESS_KEYS = {
    "dsa": lambda: dsa.generate_private_key(2048),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
}
GOOD_KEYS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "p-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
SERIAL = 100
# As it begins with its version, and with its serial number behind that.
BEGIN = bytes.fromhex("a003020102")
# What is written in the place of what, both of one length: OpenSSL takes such a certificate, and cryptography does not.
# The last number of each oid.
OTHER_EXTENSIONS = (101, 102)
FIRST_EXTENSION, SECOND_EXTENSION = (bytes.fromhex(f"06082b060105050701{last:02x}") for last in OTHER_EXTENSIONS)
ODD_PARTS = {
    "an extension that is there twice": (SECOND_EXTENSION, FIRST_EXTENSION),
    "a version that there is not": (bytes.fromhex("a003020102"), bytes.fromhex("a003020107")),
    "a name of a kind that nobody uses": (b"\x82\x03abc", b"\xa3\x03abc"),
}


def self_signed(file: Path, key, replaced: tuple[bytes, bytes] = (b"", b"")) -> str:
    """Write a certificate, some bytes of which are others, and its key to the file; returns its path."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(SERIAL)
        # time() of C may be a tick behind, and in the last second.
        .not_valid_before(now - SECOND)
        .not_valid_after(now + 1000 * SECOND)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("abc")]), critical=False)
    )
    for number in OTHER_EXTENSIONS:
        oid = x509.ObjectIdentifier(f"1.3.6.1.5.5.7.1.{number}")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, b"\x05\x00"), critical=False)
    made = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    content = made.public_bytes(serialization.Encoding.DER)
    assert replaced[0] in content
    file.write_bytes(
        ssl.DER_cert_to_PEM_cert(content.replace(*replaced, 1) if replaced[0] else content).encode()
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(file)


@pytest.fixture
def trusted(tmp_path) -> Authority:
    """The one whose certificates are used."""
    return Authority(tmp_path)


class Pairs:
    """Files of certificates and keys, and settings that name them."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder
        self.authority = authority
        self.certificates: list[str] = []
        self.keys: list[str] = []

    def add(self, *names: str, **how: object) -> None:
        """One more pair, for these names."""
        number = len(self.certificates)
        for kind, content in zip((self.certificates, self.keys), self.authority.pair(*names, **how), strict=True):
            path = self.folder / f"{number}-{'key' if kind is self.keys else 'certificate'}.pem"
            path.write_bytes(content)
            kind.append(str(path))

    def settings(self, **others: object) -> Settings:
        """What names them."""
        return Settings(tls_certificate=tuple(self.certificates), tls_key=tuple(self.keys), **others)

    def made(self, **others: object) -> Certificates:
        """What comes of them."""
        settings = self.settings(**others)
        files = read_clients(settings)
        assert files is not None
        return Certificates(settings, files)


@pytest.fixture
def pairs(tmp_path, trusted) -> Pairs:
    """None yet."""
    return Pairs(tmp_path, trusted)


def shown(certificates: Certificates, trusted: Authority, name: str | None) -> str:
    """The first name in what a client is shown that asks for this name."""
    context = trusted.context()
    context.check_hostname = False
    client, _ = shake(certificates.context, context, name)
    return client.getpeercert()["subjectAltName"][0][1]


class TestWhichOne:
    @pytest.mark.parametrize(
        ("asked", "first"),
        [
            ("a.test", "a.test"),
            ("A.TEST", "a.test"),
            ("b.test", "b.test"),
            ("c.test", "b.test"),
            ("x.wild.test", "*.wild.test"),
            ("X.Wild.Test", "*.wild.test"),
            # A wildcard is one label, and not none.
            ("x.y.wild.test", "a.test"),
            ("wild.test", "a.test"),
            # The exact name comes before an earlier wildcard, the first pair before a later one.
            ("exact.wild.test", "exact.wild.test"),
            ("unknown.test", "a.test"),
            ("localhost", "a.test"),
            (None, "a.test"),
        ],
    )
    def test_it_is_the_first_that_is_for_the_name(self, pairs, trusted, asked, first):
        pairs.add("a.test")
        pairs.add("*.wild.test")
        pairs.add("b.test", "c.test")
        pairs.add("exact.wild.test")
        pairs.add("later.test", "b.test", "*.wild.test")
        assert shown(pairs.made(), trusted, asked) == first

    def test_a_common_name_counts_for_nothing(self, pairs, trusted):
        pairs.add("a.test")
        pairs.add("b.test", common_name="common.test")
        assert shown(pairs.made(), trusted, "common.test") == "a.test"

    def test_one_with_addresses_alone_is_shown_to_those_who_ask_for_no_name(self, pairs, trusted):
        pairs.add("192.0.2.1", "2001:db8::1")
        made = pairs.made()
        assert shown(made, trusted, None) == "192.0.2.1"
        assert read_clients(pairs.settings()).pairs[0].addresses == ("192.0.2.1", "2001:db8::1")

    def test_two_certificates_may_have_one_key(self, tmp_path):
        key = GOOD_KEYS["p-256"]()
        one, other = (self_signed(tmp_path / name, key) for name in ("one.pem", "other.pem"))
        files = read_clients(Settings(tls_certificate=(one, other), tls_key=(one, one)))
        assert [(pair.certificate.path, pair.key.path) for pair in files.pairs] == [(one, one), (other, one)]

    def test_a_key_may_be_in_the_file_of_its_certificate(self, trusted, tmp_path):
        settings = Settings(tls_certificate=(str(trusted.certificate("a.test")),))
        assert shown(Certificates(settings, read_clients(settings)), trusted, "a.test") == "a.test"

    @pytest.mark.parametrize("key_type", list(trustme.KeyType))
    def test_every_kind_of_key_is_used(self, pairs, trusted, key_type):
        pairs.add("a.test", key_type=key_type)
        assert shown(pairs.made(), trusted, "a.test") == "a.test"


class TestHowItSpeaks:
    @pytest.mark.parametrize(
        ("least", "version", "is_spoken"),
        [
            ("1.2", ssl.TLSVersion.TLSv1_2, True),
            ("1.2", ssl.TLSVersion.TLSv1_3, True),
            ("1.3", ssl.TLSVersion.TLSv1_2, False),
            ("1.3", ssl.TLSVersion.TLSv1_3, True),
        ],
    )
    def test_the_oldest_version_is_that_of_the_settings(self, pairs, trusted, least, version, is_spoken):
        pairs.add("a.test")
        context = trusted.context()
        context.minimum_version = context.maximum_version = version
        made = pairs.made(tls_min=least)
        if is_spoken:
            client, _ = shake(made.context, context, "a.test")
            assert client.version() == version.name.replace("_", ".")
        else:
            with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL"):
                shake(made.context, context, "a.test")

    @pytest.mark.parametrize("ciphers", ["AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA384", "DHE-RSA-AES256-GCM-SHA384"])
    def test_nothing_without_forward_secrecy_and_authentication_is_spoken(self, pairs, trusted, ciphers):
        pairs.add("a.test")
        context = trusted.context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError):
            shake(pairs.made().context, context, "a.test")

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)])
    def test_http_1_1_is_the_only_protocol_that_is_chosen(self, pairs, trusted, count, offered, chosen):
        for number in range(count):
            pairs.add(f"{number}.test")
        context = trusted.context()
        context.set_alpn_protocols(offered)
        client, server = shake(pairs.made().context, context, f"{count - 1}.test")
        assert client.selected_alpn_protocol() == server.selected_alpn_protocol() == chosen


class TestClients:
    @pytest.mark.parametrize("verify", ["required", "optional"])
    @pytest.mark.parametrize("count", [1, 2])
    def test_their_certificates_are_asked_for_and_looked_at(self, pairs, trusted, tmp_path, verify, count):
        for number in range(count):
            pairs.add(f"{number}.test")
        asked = f"{count - 1}.test"
        clients = Authority(tmp_path, "clients")
        made = pairs.made(tls_client_ca=str(clients.file), tls_client_verify=verify)
        context = trusted.context()
        if verify == "required":
            with pytest.raises(
                ssl.SSLError, match=r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|PEER_DID_NOT_RETURN_A_CERTIFICATE"
            ):
                shake(made.context, context, asked)
        else:
            assert not shake(made.context, context, asked)[1].getpeercert()
        context.load_cert_chain(clients.certificate("shop.test"))
        assert shake(made.context, context, asked)[1].getpeercert()["subjectAltName"] == (("DNS", "shop.test"),)
        # More than anybody needs behind it would be decoded in vain.
        long = tmp_path / "long.pem"
        long.write_bytes(clients.certificate("shop.test").read_bytes() + clients.file.read_bytes() * 60)
        context.load_cert_chain(long)
        with pytest.raises(ssl.SSLError, match="EXCESSIVE_MESSAGE_SIZE"):
            shake(made.context, context, asked)
        context = trusted.context()
        context.load_cert_chain(trusted.certificate("shop.test"))
        with pytest.raises(ssl.SSLError):
            shake(made.context, context, asked)


class TestInPlace:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    @pytest.mark.parametrize("key_type", list(trustme.KeyType))
    def test_who_comes_after_a_change_is_shown_the_new_one_and_old_sessions_go_on(
        self, pairs, trusted, version, key_type
    ):
        pairs.add("a.test")
        made = pairs.made()
        context = trusted.context()
        context.maximum_version = version
        before, _ = shake(made.context, context, "a.test")
        first = made.context
        serial = before.getpeercert()["serialNumber"]
        pairs.certificates.clear()
        pairs.keys.clear()
        pairs.add("a.test", key_type=key_type)
        made.change(read_clients(pairs.settings()))
        assert made.context is first
        after, _ = shake(made.context, context, "a.test")
        assert not after.session_reused
        assert after.getpeercert()["serialNumber"] != serial
        again, _ = shake(made.context, context, "a.test", before.session)
        assert again.session_reused

    def test_other_authorities_end_the_sessions_of_those_who_were_trusted_before(self, pairs, trusted, tmp_path):
        pairs.add("a.test")
        old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
        made = pairs.made(tls_client_ca=str(old.file))
        context = trusted.context()
        context.load_cert_chain(old.certificate("shop.test"))
        client, _ = shake(made.context, context, "a.test")
        assert shake(made.context, context, "a.test", client.session)[0].session_reused
        made.change(read_clients(pairs.settings(tls_client_ca=str(new.file))))
        with pytest.raises(ssl.SSLError):
            shake(made.context, context, "a.test", client.session)
        context = trusted.context()
        context.load_cert_chain(new.certificate("shop.test"))
        assert not shake(made.context, context, "a.test")[0].session_reused

    def test_contexts_are_made_for_the_pairs_that_are_others_alone(self, pairs, trusted, tmp_path):
        for name in ("a.test", "b.test", "c.test"):
            pairs.add(name)
        made = pairs.made()
        before = [made.chosen(name) for name in ("a.test", "b.test", "c.test")]
        for path, content in zip((pairs.certificates[1], pairs.keys[1]), trusted.pair("d.test"), strict=True):
            Path(path).write_bytes(content)
        made.change(read_clients(pairs.settings()))
        assert made.chosen("c.test") is before[2]
        assert made.chosen("b.test") is made.chosen("a.test") is before[0]
        assert made.chosen("d.test") not in before
        assert [shown(made, trusted, name) for name in ("a.test", "d.test", "c.test")] == ["a.test", "d.test", "c.test"]
        # Whom they trust is theirs.
        made.change(read_clients(pairs.settings(tls_client_ca=str(Authority(tmp_path, "clients").file))))
        assert not {made.chosen(name) for name in ("a.test", "c.test")} & set(before)

    def test_what_cannot_be_loaded_changes_nothing(self, pairs, trusted, monkeypatch):
        pairs.add("a.test")
        made = pairs.made()
        pairs.certificates.clear()
        pairs.keys.clear()
        pairs.add("b.test")
        files = read_clients(pairs.settings())

        def none_left(*_: object) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as without:
            without.setattr(pem.os, "memfd_create", none_left)
            with pytest.raises(NoRoomError):
                made.change(files)
        assert shown(made, trusted, "b.test") == "a.test"
        made.change(files)
        assert shown(made, trusted, "b.test") == "b.test"

    def test_the_context_for_job_servers_stays_while_there_are_none_with_tls(self, trusted):
        settings = Settings(server=(ServerAddress("localhost", 4730, tls=True),), server_ca=str(trusted.file))
        contexts = TlsContexts(settings, TlsFiles(job_servers=read_job_servers(settings)))
        before = contexts.job_servers
        assert before is not None
        # Those that leave are connected for a while.
        contexts.change(TlsFiles())
        assert contexts.job_servers is before
        contexts.change(TlsFiles(job_servers=read_job_servers(settings)))
        assert contexts.job_servers is not before


class TestFaults:
    @pytest.mark.parametrize("part", ODD_PARTS)
    def test_what_openssl_alone_can_decode_is_a_fault(self, part, tmp_path):
        path = self_signed(tmp_path / "odd.pem", GOOD_KEYS["p-256"](), ODD_PARTS[part])
        with pytest.raises(
            StartError, match=r"certificate = '.*odd\.pem' cannot be used: its certificate cannot be dec"
        ):
            read_clients(Settings(tls_certificate=(path,)))

    @pytest.mark.parametrize("serial", [0, -28])
    def test_a_serial_number_that_none_should_have_is_none(self, serial, tmp_path, recwarn):
        whole, odd = (BEGIN + b"\x02\x01" + number.to_bytes(1, "big", signed=True) for number in (SERIAL, serial))
        path = self_signed(tmp_path / "odd.pem", GOOD_KEYS["p-256"](), (whole, odd))
        settings = Settings(tls_certificate=(path,), tls_client_ca=path)
        assert Certificates(settings, read_clients(settings))
        assert [str(each.message) for each in recwarn] == []

    @pytest.mark.parametrize("kind", USELESS_KEYS)
    def test_a_key_that_signs_no_handshake_is_a_fault(self, kind, tmp_path):
        path = self_signed(tmp_path / "odd.pem", USELESS_KEYS[kind]())
        with pytest.raises(
            StartError, match="cannot be used: no client takes a key of its kind, but RSA, P-256, P-384"
        ):
            read_clients(Settings(tls_certificate=(path,)))

    @pytest.mark.parametrize("kind", GOOD_KEYS)
    def test_a_key_of_any_other_kind_is_shown(self, kind, tmp_path):
        settings = Settings(tls_certificate=(self_signed(tmp_path / "good.pem", GOOD_KEYS[kind]()),))
        made = Certificates(settings, read_clients(settings))
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.load_verify_locations(settings.tls_certificate[0])
        assert shake(made.context, client, "abc")

    @pytest.mark.parametrize("of_clients", [True, False])
    @pytest.mark.parametrize(
        ("certificate", "key", "told"),
        [
            ("missing", "key", r"CERTIFICATE = '.*missing' cannot be used: No such file or directory"),
            ("folder", "key", r"CERTIFICATE = '.*folder' cannot be used: it is no regular file"),
            ("pipe", "key", r"CERTIFICATE = '.*pipe' cannot be used: it is no regular file"),
            ("huge", "key", rf"CERTIFICATE = '.*huge' cannot be used: it is larger than {MOST_FILE_BYTES} bytes"),
            ("nonsense", "key", r"CERTIFICATE = '.*nonsense' cannot be used: it has no certificate in PEM"),
            ("empty", "key", r"CERTIFICATE = '.*empty' cannot be used: it is empty"),
            ("key", "key", r"CERTIFICATE = '.*key' cannot be used: it has no certificate in PEM, but a key"),
            ("der", "key", r"CERTIFICATE = '.*der' cannot be used: it has no certificate in PEM: it seems to be DER"),
            ("half", "key", r"^CERTIFICATE = '[^']*half' cannot be used: what it has in PEM is cut off or damaged"),
            ("begun", "key", r"^CERTIFICATE = '[^']*begun' cannot be used: what it has in PEM is cut off or damaged"),
            (
                "chain half",
                "key",
                r"^CERTIFICATE = '[^']*half' cannot be used: what it has in PEM is cut off or damaged",
            ),
            (
                "short key",
                "key",
                r"^CERTIFICATE = '[^']*short key' cannot be used: its key is too short \(OpenSSL says EE_",
            ),
            ("last", "key", r"'.*last' with KEY = '.*key' cannot be used: the key is that of a later certificate in"),
            ("certificate", "missing", r"KEY = '.*missing' cannot be used: No such file or directory"),
            ("certificate", "nonsense", r"KEY = '.*nonsense' cannot be used: it has no key in PEM"),
            ("certificate", "empty", r"KEY = '.*empty' cannot be used: it is empty"),
            (
                "certificate",
                "certificate",
                r"KEY = '.*certificate' cannot be used: it has no key in PEM, but a certificate",
            ),
            (
                "certificate",
                None,
                r"CERTIFICATE = '.*' cannot be used: it has no key in PEM, .* and KEY names no other file",
            ),
            (
                "certificate",
                "half key",
                r"^KEY = '[^']*half key' cannot be used: what it has in PEM is cut off or damaged",
            ),
            (
                "half both",
                None,
                r"^CERTIFICATE = '[^']*half both' cannot be used: what it has in PEM is cut off or damaged",
            ),
            ("certificate", "other", r"with KEY = '.*other' cannot be used: the key is not that of the certificate"),
            ("certificate", "rsa", r"with KEY = '.*rsa' cannot be used: the key is not that of the certificate"),
            ("certificate", "encrypted", r"KEY = '.*encrypted' cannot be used: its key is encrypted"),
            ("certificate", "old encrypted", r"KEY = '.*old encrypted' cannot be used: its key is encrypted"),
        ],
    )
    def test_of_a_pair_are_told(self, trusted, tmp_path, of_clients, certificate, key, told):
        shown, own = trusted.pair("a.test")
        for name, content in {
            "certificate": shown,
            "key": own,
            "half": shown[: len(shown) // 2],
            "half key": own[: len(own) // 2],
            "half both": shown + own[: len(own) // 2],
            "chain half": shown + trusted.file.read_bytes()[:-60],
            "last": trusted.file.read_bytes() + shown,
            "begun": shown[:30],
            "empty": b"\n",
            "der": ssl.PEM_cert_to_DER_cert(shown.decode()),
            "short key": Path(self_signed(tmp_path / "short", rsa.generate_private_key(65537, 1024))).read_bytes(),
            "rsa": trusted.pair("a.test", key_type=trustme.KeyType.RSA)[1],
            "other": trusted.pair("a.test")[1],
            "nonsense": b"\x00nonsense",
            "encrypted": ENCRYPTED,
            "old encrypted": OLD_ENCRYPTED,
            "huge": shown + bytes(MOST_FILE_BYTES),
        }.items():
            (tmp_path / name).write_bytes(content)
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "pipe")
        path = str(tmp_path / certificate)
        key_path = None if key is None else str(tmp_path / key)
        prefix = "tls" if of_clients else "server"
        if of_clients:
            settings = Settings(tls_certificate=(path,), tls_key=() if key_path is None else (key_path,))
        else:
            server = (ServerAddress("localhost", 4730, tls=True),)
            settings = Settings(server=server, server_certificate=path, server_key=key_path)
        told = told.replace("CERTIFICATE", f"{prefix}-certificate").replace("KEY", f"{prefix}-key")
        kind = ClientFilesError if of_clients else JobServerFilesError
        with pytest.raises(kind, match=told) as caught:
            check_files(settings)
        message = str(caught.value)
        assert message.isprintable()
        # No part of a key.
        assert not any(line in message for line in own.decode().splitlines()[1:-1])

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("missing", "No such file"),
            ("folder", "no regular file"),
            ("empty", "is empty"),
            ("der", "it seems to be DER"),
            ("key", "no certificate in PEM, but a key"),
            ("half", "cut off"),
            ("leaf", "no certificate in it is that of an authority"),
        ],
    )
    def test_of_authorities_are_told(self, pairs, trusted, tmp_path, name, told):
        pairs.add("a.test")
        (tmp_path / "key").write_bytes(trusted.pair("a.test")[1])
        (tmp_path / "half").write_bytes(trusted.file.read_bytes()[:200])
        (tmp_path / "folder").mkdir()
        (tmp_path / "empty").touch()
        (tmp_path / "der").write_bytes(ssl.PEM_cert_to_DER_cert(trusted.file.read_text()))
        (tmp_path / "leaf").write_bytes(trusted.pair("b.test")[0])
        with pytest.raises(StartError, match=f"tls-client-ca = '.*{name}' cannot be used: .*{told}"):
            read_clients(pairs.settings(tls_client_ca=str(tmp_path / name)))

    def test_who_has_issued_himself_may_be_trusted_alone(self, pairs, trusted, tmp_path):
        pairs.add("a.test")
        own = tmp_path / "own.pem"
        made = pairs.made(tls_client_ca=self_signed(own, GOOD_KEYS["p-256"]()))
        context = trusted.context()
        context.load_cert_chain(own)
        assert shake(made.context, context, "a.test")

    def test_one_that_must_not_be_read_is_told(self, pairs, monkeypatch):
        pairs.add("a.test")
        opened = os.open

        def refused(path: str, *how: object) -> int:
            # Root may read whatever the file's mode is.
            if path == pairs.keys[0]:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return opened(path, *how)

        monkeypatch.setattr(pem.os, "open", refused)
        with pytest.raises(StartError, match=r"tls-key = '.*' cannot be used: Permission denied"):
            read_clients(pairs.settings())

    @pytest.mark.parametrize("days", [-2, 2])
    def test_one_that_is_not_good_now_is_used(self, pairs, trusted, days):
        begins = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
        pairs.add("a.test", begins=begins, ends=begins + datetime.timedelta(days=1))
        [pair] = read_clients(pairs.settings()).pairs
        assert not pair.is_good(datetime.datetime.now().timestamp())
        assert pair.is_good((begins + SECOND).timestamp())

    def test_the_package_that_decodes_certificates_is_loaded_with_certificates_alone(self):
        served = ("gatewayx.cli", "gatewayx.server.master", "gatewayx.server.worker", "gatewayx.server.admin")
        assert imported_with(*served, of=("cryptography", "_cffi")) == []
