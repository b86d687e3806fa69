"""Certificates of either side, with alternative names of every kind."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from support.tls import Authority

# Subject alternative name (RFC 5280 4.2.1.6).
ALTERNATIVE_NAMES = x509.ObjectIdentifier("2.5.29.17")
# By the kind, the tag of its name as bytes.
TAGS = {"raw-email": 0x81, "raw-DNS": 0x82, "raw-URI": 0x86, "raw-IP": 0x87}
# As long as one is good from now on, and before: time() of C may be a tick behind, and in the last second.
LIFE = datetime.timedelta(days=60)
BEFORE = datetime.timedelta(days=1)
# By the kind as OpenSSL writes it.
NAMES = {
    "DNS": x509.DNSName,
    "URI": x509.UniformResourceIdentifier,
    "email": x509.RFC822Name,
    "IP": lambda value: x509.IPAddress(ipaddress.ip_address(value)),
    "RID": lambda value: x509.RegisteredID(x509.ObjectIdentifier(value)),
    "dirName": lambda value: x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value)])),
}
KEYS = {
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


def certificate(
    authority: Authority,
    file: Path,
    *names: str,
    kind: str = "ecdsa",
    is_server: bool = False,
    ends: datetime.datetime | None = None,
) -> Path:
    """Write a certificate and its key to the file; returns that.

    names: such as `DNS:shop.example`, in this order; none for a certificate without alternative names. One of `raw-DNS`
    and the like has any bytes, of Latin-1; then all have. kind: of the
    key. is_server: it is not for clients. ends: when it ends to be good.
    """
    pair = authority.authority
    key = KEYS[kind]()
    issuer = x509.load_pem_x509_certificate(pair.cert_pem.bytes())
    issuer_key = serialization.load_pem_private_key(pair.private_key_pem.bytes(), None)
    now = datetime.datetime.now(datetime.timezone.utc)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if is_server else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, ends or now) - BEFORE)
        .not_valid_after(ends or now + LIFE)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
    )
    if names:
        builder = builder.add_extension(_alternative(names), critical=False)
    made = builder.sign(issuer_key, hashes.SHA256())
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


def _alternative(names: tuple[str, ...]) -> x509.ExtensionType:
    parts = [name.partition(":") for name in names]
    if not names[0].startswith("raw-"):
        return x509.SubjectAlternativeName([NAMES[kind](value) for kind, _, value in parts])
    body = b"".join(bytes([TAGS[kind], len(value)]) + value.encode("latin-1") for kind, _, value in parts)
    return x509.UnrecognizedExtension(ALTERNATIVE_NAMES, bytes([0x30, len(body)]) + body)


def client_context(
    trusted: Authority, shown: Path | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """For clients that trust the authority and show this certificate; None for none. version: the only one spoken."""
    context = trusted.context()
    if shown is not None:
        context.load_cert_chain(shown)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context
