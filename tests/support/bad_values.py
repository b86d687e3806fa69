"""Texts that are no value of a setting, by kind."""

from __future__ import annotations

BAD_NUMBERS = [
    "",
    " ",
    "-1",
    "+1",
    "1_0",
    "1e3",
    "0x10",
    "nan",
    "inf",
    "\uff11",
    "1 ",
    "1\n",
    "9" * 5000,
    "many",
    "\udcff",
]
BAD_SIZES = [*BAD_NUMBERS, "1.5MiB", "1 MiB", "1mib", "1MB", "1M", "1TiB", "KiB", "9999999GiB"]
BAD_ADDRESSES = [
    "",
    ",",
    "a:1,",
    "a:1,,b:2",
    "a:1,a:1",
    "a:65536",
    "8080",
    "a:1;b:2",
    ",".join(f"a:{i}" for i in range(1, 66)),
]
BAD_NAMES = [
    ",",
    "a,",
    "a,,b",
    "a,a",
    "a*b",
    "**",
    "a\x00",
    "a\n",
    "a\x7f",
    "\udcff",
    "a" * 4097,
    ",".join(f"a{i}" for i in range(1025)),
]
BAD_TYPES = [
    "",
    "text",
    "text/",
    "/plain",
    "text/plain\r\nX: y",
    "text/plain\x7f",
    "text/plain\x00",
    "text/plän",
    "a/b c",
]

BAD_SERVERS = [
    *BAD_ADDRESSES,
    "a:0",
    "TLS://a:1",
    "tls:a:1",
    "tls://",
    "tls://tls://a:1",
    "each://",
    "tls+each://a:1",
    "each://a:1,a:1",
    "http://a:1",
    "a:1,tls://a:1",
]
BAD_WORDS = ["", "1", "yes", "True", "TRUE", "on", "true "]
BAD_LISTENS = [
    *BAD_ADDRESSES,
    "unix:",
    "unix:/",
    "unix:a",
    "unix:@a",
    "unix://a",
    "unix:/a/",
    "unix:/a//b",
    "unix:/a/./b",
    "unix:/a/../b",
    "unix:/a\x00",
    "unix:/a\nb",
    "unix:/a\x7f",
    "unix:/\udcff",
    f"unix:/{'a' * 107}",
    "unix:/a,unix:/a",
    "unix:/a,b",
    "UNIX:/a",
]
BAD_MODES = [
    "",
    "0",
    "66",
    "0x1b0",
    "0o660",
    "00660",
    "1666",
    "0668",
    "rw-rw----",
    "0660 ",
    " 660",
    "-660",
    "\uff16" * 3,
]
BAD_OWNERS = [":", "a:", "a:b:c", ":a:b", "a b", " a", "a\n", "a\x00", "a\x7f", "\udcff", "a" * 257]
BAD_PATHS = ["a\x00", "a\n", "\x7f", "\udcff", "a" * 4097]

BAD_OPTIONAL_ADDRESSES = ["", "None", "none ", "8081", ":8081", "a:65536", "a:1,b:1", "unix:/a", "http://a:1", "a:1\n"]
BAD_HOSTS = [",", "a,", "a,,b", "a,a", "a,A", "a:1", "[::1]", "a b", "-a", "a..b", ".a", "a.", "*", "a" * 64, "\xe4"]
