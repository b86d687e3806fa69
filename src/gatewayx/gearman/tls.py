"""TLS to job servers, for the addresses that ask for it."""

from __future__ import annotations

import ssl

from gatewayx.errors import StartError


def client_context(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """What the gateway trusts, and shows of itself.

    ca: path of a PEM file with authorities; None for the system's. certificate, key: paths of the gateway's own
    certificate and its key, None for none and for a key in the certificate's file. TLS 1.2 or newer; the job server's
    certificate must fit its host name. Raises StartError, which names the setting.
    """
    if key is not None and certificate is None:
        raise StartError(f"server-key = {key!a} is of no use without server-certificate")
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    except OSError as error:
        raise StartError(f"server-ca = {ca!a} cannot be used: {_reason(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        try:
            # An empty password instead of a question on the terminal.
            context.load_cert_chain(certificate, key, password="")
        except OSError as error:
            of_key = "" if key is None else f" with server-key = {key!a}"
            problem = f"server-certificate = {certificate!a}{of_key} cannot be used: {_reason(error)}"
            raise StartError(problem) from error
    return context


def _reason(error: OSError) -> str:
    return ascii(error.strerror or str(error))[1:-1]
