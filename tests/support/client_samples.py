"""Values of the settings that say how clients come in; see setting_samples."""

from __future__ import annotations

from support.bad_values import BAD_NUMBERS, BAD_PATHS
from support.sample import Sample
from support.tls import authority

# Files of certificates and their keys, and of an authority, that are there, since `check` reads them.
CERTIFICATES = [str(authority().certificate(host)) for host in ("one.example", "two.example")]
AUTHORITY = str(authority().file)

_BAD_FILES = [*BAD_PATHS, ",", "a,", ",a", "a,,b", "a,a", ",".join(f"{number}.pem" for number in range(65))]
_BAD_NETWORKS = [
    ",",
    "10.0.0.1,",
    "10.0.0.1,,10.0.0.2",
    "10.0.0.1,10.0.0.1/32",
    "::1,0::1",
    "10.0.0.1/8",
    "2001:db8::1/32",
    "10.0.0.0/33",
    "::/129",
    "10.0.0.0/",
    "10.0.0.0/-1",
    "10.0.0.0/255.0.0.0",
    "10.0.0.0/0.0.0.255",
    "10.0.0.0 /8",
    "10.0.0.0/8/8",
    "10.0.0",
    "010.0.0.0/8",
    "10.0.0.0/\uff18",
    "\uff11.0.0.0",
    "fe80::%1",
    "fe80::%1/10",
    "[::1]",
    "10.0.0.1:80",
    "localhost",
    "*",
    "private",
    "unix",
    "UNIX:",
    "unix:a",
    "unix:/",
    "unix:/a/",
    "unix:/a/../b",
    "unix:/a,unix:/a",
    "unix:,unix:",
    f"unix:/{'a' * 107}",
    "\udcff",
    ",".join(f"10.0.{number // 256}.{number % 256}" for number in range(257)),
]
_BAD_CHOICES = ["", "1", "1.1", "1.4", "TLSv1.2", "on", "off", "Forwarded", "X-Forwarded-For", "required ", "optional,"]

CLIENT_SAMPLES = {
    "tls_certificate": Sample(
        default=(),
        toml=('["a b/\u00e4.pem", "/b.pem"]', ("a b/\u00e4.pem", "/b.pem")),
        variable=("a.pem,/b.pem", ("a.pem", "/b.pem")),
        flag=(("one,two.pem", "c"), ("one,two.pem", "c")),
        arguments=[part for path in CERTIFICATES for part in ("--tls-certificate", path)],
        shown=",".join(CERTIFICATES),
        bad=_BAD_FILES,
    ),
    "tls_key": Sample(
        default=(),
        toml=('["a b/\u00e4.key", "/b.key"]', ("a b/\u00e4.key", "/b.key")),
        variable=("a.key,/b.key", ("a.key", "/b.key")),
        flag=(("one,two.key", "c"), ("one,two.key", "c")),
        arguments=[part for path in CERTIFICATES for part in ("--tls-key", path)],
        shown=",".join(CERTIFICATES),
        bad=[value for value in _BAD_FILES if value != "a,a"],
        beside={"tls_certificate": ",".join(CERTIFICATES)},
    ),
    "tls_min": Sample(
        default="1.2",
        toml=('"1.3"', "1.3"),
        variable=("1.2", "1.2"),
        flag=("1.3", "1.3"),
        arguments=["--tls-min", "1.3"],
        shown="1.3",
        bad=_BAD_CHOICES,
    ),
    "tls_client_ca": Sample(
        default=None,
        toml=('"ca.pem"', "ca.pem"),
        variable=("/a b/\u00e4.pem", "/a b/\u00e4.pem"),
        flag=("c", "c"),
        arguments=["--tls-client-ca", AUTHORITY],
        shown=AUTHORITY,
        bad=BAD_PATHS,
        beside={"tls_certificate": CERTIFICATES[0]},
    ),
    "tls_client_verify": Sample(
        default="required",
        toml=('"optional"', "optional"),
        variable=("required", "required"),
        flag=("optional", "optional"),
        arguments=["--tls-client-verify", "optional"],
        shown="optional",
        bad=_BAD_CHOICES,
        beside={"tls_certificate": CERTIFICATES[0], "tls_client_ca": AUTHORITY},
    ),
    "max_handshakes": Sample(
        default=1000,
        toml=("1", 1),
        variable=("7", 7),
        flag=("1000000", 1_000_000),
        arguments=["--max-handshakes", "50"],
        shown="50",
        bad=[*BAD_NUMBERS, "0", "1000001", "1.0"],
    ),
    "trusted_proxy": Sample(
        default=(),
        toml=(
            '["10.0.0.0/8", "2001:DB8:0::/32", "unix:/run/a b/\u00e4.sock"]',
            ("10.0.0.0/8", "2001:db8::/32", "unix:/run/a b/\u00e4.sock"),
        ),
        variable=("192.0.2.1, ::1 ,unix:", ("192.0.2.1/32", "::1/128", "unix:")),
        flag=(("0.0.0.0/0", "::/0"), ("0.0.0.0/0", "::/0")),
        arguments=["--trusted-proxy", "10.1.2.3", "--trusted-proxy", "fd00::/8"],
        shown="10.1.2.3/32,fd00::/8",
        bad=_BAD_NETWORKS,
    ),
    "client_address": Sample(
        default="connection",
        toml=('"forwarded"', "forwarded"),
        variable=("x-forwarded-for", "x-forwarded-for"),
        flag=("forwarded", "forwarded"),
        arguments=["--client-address", "x-forwarded-for"],
        shown="x-forwarded-for",
        bad=_BAD_CHOICES,
        beside={"trusted_proxy": "10.0.0.1/32"},
    ),
}
