"""What settings mean: how clients come in: TLS, and the proxies in front."""

from __future__ import annotations

from gatewayx.config.client_kinds import FileList, KeyFileList, ProxyList
from gatewayx.config.kinds import Choice, FilePath, Integer
from gatewayx.config.setting import Setting

CLIENT_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "tls_certificate",
        "tls-certificate",
        FileList(),
        "TLS to clients",
        "PEM file of a certificate, with those up to its authority behind it; may be repeated. A client gets the first "
        "that has the name that it asks for, else one for all names of that domain, else the first of all. It is read "
        "anew when it changes.",
        "nginx ssl_certificate; HAProxy crt",
        live=False,
    ),
    Setting(
        "tls_key",
        "tls-key",
        KeyFileList(),
        "TLS to clients",
        "PEM file of the key of each tls-certificate, in the same order; without it the keys are in the certificates' "
        "files. It is read anew when it changes.",
        "nginx ssl_certificate_key",
        live=False,
    ),
    Setting(
        "tls_min",
        "tls-min",
        Choice("1.2", "1.3"),
        "TLS to clients",
        "Oldest version of TLS that clients may speak.",
        "nginx ssl_protocols: TLSv1.2 TLSv1.3; granian: 1.3",
        live=False,
    ),
    Setting(
        "tls_client_ca",
        "tls-client-ca",
        FilePath(),
        "TLS to clients",
        "PEM file of the authorities by which clients' certificates are trusted; with none clients are not asked for "
        "one. It is read anew when it changes.",
        "nginx ssl_client_certificate; HAProxy ca-file",
        live=False,
    ),
    Setting(
        "tls_client_verify",
        "tls-client-verify",
        Choice("required", "optional"),
        "TLS to clients",
        "Whether clients must have a certificate of tls-client-ca, or may. A name in it may stand for a token.",
        "nginx ssl_verify_client on, optional; HAProxy verify required, optional",
        live=False,
    ),
    Setting(
        "max_handshakes",
        "max-handshakes",
        Integer(1, 1_000_000),
        "TLS to clients",
        "TLS handshakes under way at once, of each worker process; for a further one the oldest is given up.",
        "Envoy: none; HAProxy maxsslrate: connections a second",
    ),
    Setting(
        "trusted_proxy",
        "trusted-proxy",
        ProxyList(),
        "Proxies in front",
        "Addresses of proxies, each with or without the length of a prefix, that are believed when they tell whose "
        "request they pass on; may be repeated. unix: trusts whoever connects to a unix socket, unix:/path to that "
        "one.",
        "nginx set_real_ip_from; Caddy trusted_proxies: none",
    ),
    Setting(
        "client_address",
        "client-address",
        Choice("connection", "forwarded", "x-forwarded-for"),
        "Proxies in front",
        "Where the client's address stands: in that of its connection, or in the Forwarded or the X-Forwarded-For "
        "header of trusted proxies, of which the last one that is no proxy's counts.",
        "nginx real_ip_header: X-Real-IP; Envoy use_remote_address",
    ),
)
