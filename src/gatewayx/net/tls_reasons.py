"""Why a client's TLS is not gone on with, in words for the log."""

from __future__ import annotations

import ssl
import time

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
        # One with a name that is no text tells nothing of its time either, and stands for nobody.
        return True
    if not certificate:
        return False
    return ssl.cert_time_to_seconds(str(certificate["notAfter"])) < time.time()
