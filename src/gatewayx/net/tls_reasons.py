"""Why a client's TLS is not gone on with, in words for the log."""

from __future__ import annotations

import ssl
import time

from gatewayx.net.pem import decoded

EXPIRED = "certificate has expired"


def reason_of(error: ssl.SSLError) -> str:
    """What OpenSSL says; one of a few hundred texts."""
    return str(getattr(error, "verify_message", None) or error.reason or "OpenSSL gives no reason")


def taken_up_too_late(session: ssl.SSLObject) -> bool:
    """Whether the client shows a certificate whose time is over, in a session that it has taken up again.

    OpenSSL looks at the time in a full handshake alone, and each session that is taken up gives a new one.
    """
    if not session.session_reused:
        return False
    try:
        certificate = session.getpeercert()
    except UnicodeDecodeError:
        return _ends_s(session.getpeercert(binary_form=True) or b"") < time.time()
    if not certificate:
        return False
    return ssl.cert_time_to_seconds(str(certificate["notAfter"])) < time.time()


def _ends_s(der: bytes) -> float:
    """When a certificate ends of which Python reads nothing, since a name is no text; in seconds since the epoch.

    0 if it cannot be decoded otherwise either.
    """
    # It is there already: the master has decoded the gateway's own certificates with it.
    from cryptography import x509

    try:
        return decoded(ssl.DER_cert_to_PEM_cert(der).encode()).not_valid_after_utc.timestamp()
    except (ValueError, x509.InvalidVersion):
        return 0.0
