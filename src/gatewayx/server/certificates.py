"""Certificates for clients with TLS: what the files make of ssl.SSLContexts, and which of them a client gets.

Theory of operation. One context lives as long as the authorities of clients are the same: the handshake of each
connection begins in it, and the keys of session tickets are its own (OpenSSL takes them from the context with which a
connection began, whichever it is given afterwards). It is made before any fork, so that each process takes up the
sessions of all. What a client is shown comes from a context of a pair, which is chosen by the name that the client asks
for. New files mean new contexts of pairs, for those who come from then on, and no connection hears of it.

Where the authorities are others, the first context is made anew too, in each process its own: a ticket of a client who
was trusted by the old ones is no way in.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from gatewayx.gearman.tls import client_context
from gatewayx.net.openssl import keep_no_sessions, limit_chains, limit_groups
from gatewayx.net.pem import load_authorities, load_pair

if TYPE_CHECKING:
    from gatewayx.config.settings import Settings
    from gatewayx.net.pem import Pem
    from gatewayx.server.tls_files import ClientFiles, Pair, TlsFiles

# Of TLS 1.2: forward secrecy and authenticated encryption alone; TLS 1.3 has nothing else.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
MINIMUM_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
VERIFY_MODES = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL}


def new_context(settings: Settings, pair: Pair, authorities: Pem | None) -> ssl.SSLContext:
    """A context that shows this certificate, and trusts clients by these authorities. Raises StartError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = MINIMUM_VERSIONS[settings.tls_min]
    context.set_ciphers(CIPHERS)
    limit_groups(context)
    keep_no_sessions(context)
    limit_chains(context)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_COMPRESSION
    # Who offers other protocols alone is answered as if it had offered none: Python has no way to send the
    # no_application_protocol of RFC 7301 3.2.
    context.set_alpn_protocols(["http/1.1"])
    load_pair(context, pair.certificate, pair.key)
    if authorities is not None:
        load_authorities(context.load_verify_locations, authorities)
        context.verify_mode = VERIFY_MODES[settings.tls_client_verify]
    return context


class TlsContexts:
    """All contexts of a process, made of these files. Raises StartError.

    settings: what else is said of TLS, none of which changes. clients: None without TLS to clients. job_servers: for
    connections to those with TLS; None before there was any.
    """

    def __init__(self, settings: Settings, files: TlsFiles) -> None:
        self.files = files
        self.clients = None if files.clients is None else Certificates(settings, files.clients)
        self.job_servers = _for_job_servers(files)

    def change(self, files: TlsFiles) -> None:
        """Go on with what these hold. Raises StartError, and then nothing has changed."""
        job_servers = self.job_servers
        # One that is of no use any more stays: job servers that leave are never spoken to without TLS.
        if files.job_servers is not None and files.job_servers != self.files.job_servers:
            job_servers = _for_job_servers(files)
        if self.clients is not None and files.clients is not None:
            self.clients.change(files.clients)
        self.job_servers = job_servers
        self.files = files

    def leave_clients(self) -> None:
        """Let go of what clients are shown, and of the keys: no client comes to this process."""
        if self.clients is not None:
            # It stands in a ring that nobody collects after a fork.
            self.clients.context.sni_callback = None
        self.clients = None
        self.files = self.files.without_client_keys()


def _for_job_servers(files: TlsFiles) -> ssl.SSLContext | None:
    if files.job_servers is None:
        return None
    pair = files.job_servers.pair
    certificate, key = (None, None) if pair is None else (pair.certificate, pair.key)
    return client_context(files.job_servers.authorities, certificate, key)


class Certificates:
    """The certificates of these files. Raises StartError.

    settings: what else is said of TLS to clients, none of which changes. context: where each handshake begins.
    """

    def __init__(self, settings: Settings, files: ClientFiles) -> None:
        self._settings = settings
        self._files = files
        self._contexts = [self._new_context(pair, files) for pair in files.pairs]
        self.context = self._contexts[0]
        self._show(files)

    def change(self, files: ClientFiles) -> None:
        """Show these from now on. Raises StartError, and then nothing has changed."""
        if files == self._files:
            return
        before = dict(zip(self._files.pairs, self._contexts, strict=True))
        has_others = files.authorities != self._files.authorities
        if has_others:
            before.clear()
        # A pair that is as it was keeps its context: connections wait while others are made.
        self._contexts = [before.get(pair) or self._new_context(pair, files) for pair in files.pairs]
        if has_others:
            self.context = self._contexts[0]
        self._show(files)

    def _show(self, files: ClientFiles) -> None:
        self._files = files
        self._by_name = _by_name(files.pairs, self._contexts)
        if self._contexts != [self.context]:
            # It costs a few microseconds of each handshake.
            self.context.sni_callback = self._choose

    def _new_context(self, pair: Pair, files: ClientFiles) -> ssl.SSLContext:
        return new_context(self._settings, pair, files.authorities)

    def _choose(self, session: ssl.SSLObject | ssl.SSLSocket, name: str | None, _first: ssl.SSLContext) -> None:
        """A client asks for this name, or for none: it has begun a handshake."""
        session.context = self.chosen(name)

    def chosen(self, name: str | None) -> ssl.SSLContext:
        """The context of the pair for this name: the exact one, or one for all names of that domain, or the first."""
        if name is not None and len(self._contexts) > 1:
            name = name.lower()
            found = self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}")
            if found is not None:
                return found
        return self._contexts[0]


def _by_name(pairs: tuple[Pair, ...], contexts: list[ssl.SSLContext]) -> dict[str, ssl.SSLContext]:
    """By name, a wildcard as it stands; the first pair that has one is its."""
    found: dict[str, ssl.SSLContext] = {}
    for pair, context in zip(pairs, contexts, strict=True):
        for name in pair.names:
            found.setdefault(name, context)
    return found
