"""TLS to job servers, for the addresses that ask for it."""

from __future__ import annotations

import ssl

from gatewayx.net.pem import Pem, load_authorities, load_pair

# Stands in every reason that is a certificate's fault.
CERTIFICATE = "certificate"

# By OpenSSL's name of the alert that a job server has sent: what it says of the certificate that the gateway has shown,
# or has not (RFC 8446 6.2).
REFUSALS = {
    "SSLV3_ALERT_BAD_CERTIFICATE": "it is no sound one",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it is of a kind that is not supported",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it was revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the job server does not say why",
    "TLSV1_ALERT_UNKNOWN_CA": "its authority is not known",
    "TLSV1_ALERT_ACCESS_DENIED": "it has no access",
    "TLSV1_ALERT_DECRYPT_ERROR": "its signature is wrong",
}
# Before TLS 1.3 the second of them says what the first does, and other things too.
WANTS_ONE = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
MAY_WANT_ONE = "SSLV3_ALERT_HANDSHAKE_FAILURE"


def told(error: BaseException) -> str:
    """Why a connection is not made, or was lost, in words that name the certificate where it is one's fault."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the job server's certificate is not trusted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        if error.reason in REFUSALS:
            return f"the job server refuses the gateway's certificate: {REFUSALS[error.reason]} ({error.reason})"
        if error.reason == WANTS_ONE:
            return f"the job server wants a certificate of the gateway, which server-certificate names ({error.reason})"
        if error.reason == MAY_WANT_ONE:
            return (
                "the job server refuses the handshake, perhaps for want of a certificate of the gateway, which "
                f"server-certificate names ({error.reason})"
            )
    return str(error) or type(error).__name__


def client_context(authorities: Pem | None, certificate: Pem | None, key: Pem | None) -> ssl.SSLContext:
    """What the gateway trusts, and shows of itself.

    authorities: those by which job servers are trusted; None for the system's. certificate, key: the gateway's own,
    None for none and for a key in the certificate's file. TLS 1.2 or newer; the job server's certificate must fit its
    host name. Raises StartError, which names the setting.
    """
    if authorities is None:
        context = ssl.create_default_context()
    else:
        context = load_authorities(lambda path: ssl.create_default_context(cafile=path), authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        load_pair(context, certificate, key)
    return context
