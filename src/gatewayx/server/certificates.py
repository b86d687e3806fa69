"""Certificates for clients with TLS: what the files make of an ssl.SSLContext."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from gatewayx.errors import StartError

if TYPE_CHECKING:
    from gatewayx.config.settings import Settings

# Of TLS 1.2: forward secrecy and authenticated encryption alone; TLS 1.3 has nothing else.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
MINIMUM_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Certificates:
    """The certificates that the settings name. Raises StartError."""

    def __init__(self, settings: Settings) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = MINIMUM_VERSIONS[settings.tls_min]
        self.context.set_ciphers(CIPHERS)
        self.context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_COMPRESSION
        self.context.set_alpn_protocols(["http/1.1"])
        keys = settings.tls_key or (None,) * len(settings.tls_certificate)
        for certificate, key in zip(settings.tls_certificate, keys, strict=True):
            try:
                self.context.load_cert_chain(certificate, key, password="")
            except OSError as error:
                raise StartError(f"tls-certificate = {certificate!a} cannot be used: {error}") from error

    @classmethod
    def of(cls, settings: Settings) -> Certificates | None:
        """Those of the settings; None without any. Raises StartError."""
        return cls(settings) if settings.tls_certificate else None
