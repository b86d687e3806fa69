"""Certificates that clients show, with alternative names of every kind."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from support.tls import Authority

DAY = datetime.timedelta(days=1)
# By the kind as OpenSSL writes it.
KINDS = {
    "DNS": x509.DNSName,
    "URI": x509.UniformResourceIdentifier,
    "email": x509.RFC822Name,
    "IP": lambda value: x509.IPAddress(ipaddress.ip_address(value)),
    "RID": lambda value: x509.RegisteredID(x509.ObjectIdentifier(value)),
    "dirName": lambda value: x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value)])),
}


def client_certificate(authority: Authority, file: Path, *names: str, ends: datetime.datetime | None = None) -> Path:
    """Write a certificate that a client may show, and its key, to the file; returns that.

    names: such as `DNS:shop.example`, in this order; none for a certificate without alternative names. ends: when it
    ends to be good.
    """
    pair = authority.authority
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(pair.cert_pem.bytes())
    issuer_key = serialization.load_pem_private_key(pair.private_key_pem.bytes(), None)
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a client")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * DAY)
        .not_valid_after(ends or now + DAY)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    if names:
        parts = [name.partition(":") for name in names]
        found = [KINDS[kind](value) for kind, _, value in parts]
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    made = builder.sign(issuer_key, hashes.SHA256())
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


def client_context(
    trusted: Authority, certificate: Path | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """For clients that trust the authority and show the certificate; None for none. version: the only one spoken."""
    context = trusted.context()
    if certificate is not None:
        context.load_cert_chain(certificate)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context
