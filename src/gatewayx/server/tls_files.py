"""The files of TLS that settings name: what they hold, for clients and for job servers.

Only who reads the files anew decodes certificates; the other processes are handed what came of it.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from typing import TYPE_CHECKING

import msgspec

from gatewayx.errors import StartError
from gatewayx.net import pem
from gatewayx.net.pem import Pem, decoded, load_authorities, load_pair

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cryptography import x509

    from gatewayx.config.settings import Settings

# So many of the names in a certificate are told in messages.
MOST_TOLD_NAMES = 3
# So much of the name of an authority.
MOST_NAME_CHARACTERS = 200
# The curves of keys that sign handshakes (RFC 8446 4.2.3), as cryptography names them, by the name that messages have.
CURVES = {"P-256": "secp256r1", "P-384": "secp384r1", "P-521": "secp521r1"}


class Term(msgspec.Struct, frozen=True):
    """How long a certificate in a file is good."""

    # The key of the setting that names the file, and its path there.
    setting: str
    path: str
    # Whose it is, as messages tell it; and the names in it.
    whose: str
    names: tuple[str, ...]
    # From when to when it is good, in seconds since the epoch.
    not_before_s: float
    not_after_s: float

    def __str__(self) -> str:
        """As messages name it."""
        return f"{pem.named(self.setting, self.path)} ({self.whose})"


class Pair(msgspec.Struct, frozen=True):
    """A certificate, with those behind it in its file, and its key."""

    certificate: Pem
    # None: it is in the certificate's file.
    key: Pem | None
    # Of the certificate's subjectAltName: DNS names in lower case, and addresses. Its CN counts for nothing.
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    # From when to when it is good, in seconds since the epoch.
    not_before_s: float
    not_after_s: float

    def is_good(self, now_s: float) -> bool:
        """Whether those who look at the time trust it; now_s: since the epoch."""
        return self.not_before_s <= now_s < self.not_after_s

    @property
    def term(self) -> Term:
        """How long it is good."""
        file, names = self.certificate, (*self.names, *self.addresses)
        return Term(file.setting, file.path, f"for {self.subjects}", names, self.not_before_s, self.not_after_s)

    def without_key(self) -> Pair:
        """What is told of it: nothing of the contents of its files."""
        bare = msgspec.structs.replace(self.certificate, content=b"")
        return msgspec.structs.replace(self, certificate=bare, key=None)

    @property
    def subjects(self) -> str:
        """Whom it is for, as messages tell it."""
        found = [*self.names, *self.addresses]
        told = ", ".join(found[:MOST_TOLD_NAMES]) or "no name"
        return f"{told} and {len(found) - MOST_TOLD_NAMES} more" if len(found) > MOST_TOLD_NAMES else told


class ClientFiles(msgspec.Struct, frozen=True):
    """For clients with TLS."""

    # In the order of the settings, at least one.
    pairs: tuple[Pair, ...]
    # By which clients' certificates are trusted; None where clients are not asked for one.
    authorities: Pem | None = None
    # Of the authority among them that ends next; None if none can be decoded.
    authority_term: Term | None = None


class JobServerFiles(msgspec.Struct, frozen=True):
    """For job servers with TLS."""

    # By which their certificates are trusted; None for the system's authorities.
    authorities: Pem | None = None
    # What the gateway shows of itself; None for nothing.
    pair: Pair | None = None
    # As ClientFiles has it.
    authority_term: Term | None = None

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """As ClientFiles has them."""
        return () if self.pair is None else (self.pair,)


class TlsFiles(msgspec.Struct, frozen=True):
    """Both; None where nobody speaks TLS."""

    clients: ClientFiles | None = None
    job_servers: JobServerFiles | None = None

    def terms(self) -> Iterator[tuple[str, Term]]:
        """Of all certificates, each with whom it is shown to, and of authorities, with whom they vouch for."""
        for purpose, vouched, files in (
            ("clients", "client-authorities", self.clients),
            ("job-servers", "job-server-authorities", self.job_servers),
        ):
            if files is not None:
                yield from ((purpose, pair.term) for pair in files.pairs)
                if files.authority_term is not None:
                    yield vouched, files.authority_term

    def without_client_keys(self) -> TlsFiles:
        """The same for a process that shows clients nothing."""
        if self.clients is None:
            return self
        pairs = tuple(pair.without_key() for pair in self.clients.pairs)
        return msgspec.structs.replace(self, clients=msgspec.structs.replace(self.clients, pairs=pairs))


# What the files hold while nobody speaks TLS.
NO_TLS = TlsFiles()


def client_paths(settings: Settings) -> list[tuple[str, str]]:
    """The files for clients with TLS, as (setting, path); none without a certificate."""
    if not settings.tls_certificate:
        return []
    return [
        *(("tls-certificate", path) for path in settings.tls_certificate),
        *(("tls-key", path) for path in settings.tls_key),
        *_named(("tls-client-ca", settings.tls_client_ca)),
    ]


def job_server_paths(settings: Settings) -> list[tuple[str, str]]:
    """The files for job servers with TLS, likewise; none without such a job server."""
    if not any(server.tls for server in settings.server):
        return []
    if settings.server_key is not None and settings.server_certificate is None:
        raise StartError(f"{pem.named('server-key', settings.server_key)} is of no use without server-certificate")
    return _named(
        ("server-ca", settings.server_ca),
        ("server-certificate", settings.server_certificate),
        ("server-key", settings.server_key),
    )


def _named(*files: tuple[str, str | None]) -> list[tuple[str, str]]:
    return [(setting, path) for setting, path in files if path is not None]


def read_clients(settings: Settings) -> ClientFiles | None:
    """What the files for clients hold; None without TLS. Raises StartError."""
    paths = client_paths(settings)
    return judged_clients(settings, read_all(paths)) if paths else None


def read_job_servers(settings: Settings) -> JobServerFiles | None:
    """What the files for job servers hold; None without TLS. Raises StartError."""
    if not any(server.tls for server in settings.server):
        return None
    return judged_job_servers(settings, read_all(job_server_paths(settings)))


def read_all(paths: list[tuple[str, str]]) -> Mapping[tuple[str, str], Pem]:
    """The files, as they are now. Raises StartError."""
    return {(setting, path): pem.read(setting, path) for setting, path in paths}


def judged_clients(settings: Settings, read: Mapping[tuple[str, str], Pem]) -> ClientFiles:
    """What these files hold. Raises StartError."""
    keys = settings.tls_key or (None,) * len(settings.tls_certificate)
    pairs = tuple(
        pair_of(read["tls-certificate", certificate], None if key is None else read["tls-key", key], is_server=True)
        for certificate, key in zip(settings.tls_certificate, keys, strict=True)
    )
    authorities = None if settings.tls_client_ca is None else read["tls-client-ca", settings.tls_client_ca]
    if authorities is None:
        return ClientFiles(pairs)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_authorities(context.load_verify_locations, authorities)
    found = _certificates(authorities)
    # One that has issued itself vouches for itself at least.
    if found and context.cert_store_stats()["x509_ca"] == 0 and all(each.subject != each.issuer for each in found):
        raise StartError(f"{authorities} cannot be used: no certificate in it is that of an authority")
    return ClientFiles(pairs, authorities, _next_end(authorities, found, time.time()))


def judged_job_servers(settings: Settings, read: Mapping[tuple[str, str], Pem]) -> JobServerFiles:
    """What these files hold. Raises StartError."""
    by_setting = {setting: file for (setting, _), file in read.items()}
    certificate = by_setting.get("server-certificate")
    pair = None if certificate is None else pair_of(certificate, by_setting.get("server-key"))
    authorities = by_setting.get("server-ca")
    if authorities is None:
        return JobServerFiles(pair=pair)
    load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations, authorities)
    return JobServerFiles(authorities, pair, _next_end(authorities, _certificates(authorities), time.time()))


def _certificates(authorities: Pem) -> list[x509.Certificate]:
    """The certificates in a file of authorities, but for those that OpenSSL alone can decode."""
    found = []
    for part in pem.certificates(authorities.content):
        with contextlib.suppress(Exception):
            each = decoded(part)
            # All that is asked for later, since each is decoded only then.
            each.subject.rfc4514_string()
            each.issuer.rfc4514_string()
            found.append(each)
    return found


def _next_end(authorities: Pem, found: list[x509.Certificate], now_s: float) -> Term | None:
    """Of the authority that ends next. One that has ended is told of only where no other is left: it was replaced."""
    ends = sorted((each.not_valid_after_utc.timestamp(), number) for number, each in enumerate(found))
    if not ends:
        return None
    _, number = next((end for end in ends if end[0] > now_s), ends[-1])
    each = found[number]
    name = each.subject.rfc4514_string()[:MOST_NAME_CHARACTERS]
    whose = f"its authority {name!a}" if len(found) == 1 else f"one of its authorities, {name!a}"
    begins_s, ends_s = each.not_valid_before_utc.timestamp(), each.not_valid_after_utc.timestamp()
    return Term(authorities.setting, authorities.path, whose, (name,), begins_s, ends_s)


def pair_of(certificate: Pem, key: Pem | None, *, is_server: bool = False) -> Pair:
    """A certificate and its key. is_server: it is shown to clients. Raises StartError."""
    load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)
    # Without certificates nobody needs it.
    from cryptography import x509

    try:
        # The first one of the file is shown, and the others are its authorities'.
        leaf = decoded(certificate.content)
        public_key = leaf.public_key()
        not_before_s = leaf.not_valid_before_utc.timestamp()
        not_after_s = leaf.not_valid_after_utc.timestamp()
        try:
            alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            alternatives = None
    except Exception as error:
        # Some of what OpenSSL takes, such as an extension that is there twice, has a type of error of its own.
        raise StartError(f"{certificate} cannot be used: its certificate cannot be decoded: {str(error)!a}") from error
    if is_server and not _signs_handshakes(public_key):
        raise StartError(
            f"{certificate} cannot be used: no client takes a key of its kind, but RSA, {', '.join(CURVES)} and EdDSA"
        )
    names: list[str] = []
    addresses: list[str] = []
    if alternatives is not None:
        names += (name.lower() for name in alternatives.get_values_for_type(x509.DNSName))
        addresses += map(str, alternatives.get_values_for_type(x509.IPAddress))
    return Pair(certificate, key, tuple(names), tuple(addresses), not_before_s, not_after_s)


def _signs_handshakes(public_key: object) -> bool:
    """Whether clients can be shown a certificate of this key: OpenSSL loads others, with which each handshake fails."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return public_key.curve.name in CURVES.values()
    return isinstance(public_key, (rsa.RSAPublicKey, ed25519.Ed25519PublicKey, ed448.Ed448PublicKey))
