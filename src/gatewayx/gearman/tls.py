"""TLS to job servers, for the addresses that ask for it."""

from __future__ import annotations

import ssl

from gatewayx.net.pem import Pem, load_authorities, load_pair


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
