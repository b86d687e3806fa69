"""Fuzzes gatewayx.http.forwarded against an independent reading of Forwarded and X-Forwarded-For.

An input is the lines of a header, with line feeds between them; the first byte of all says which header it is, and a
line that begins with OTHER is one of the other header. What must hold for any bytes:
- nothing is raised, and the client is the one of the model, or nobody;
- if it is no trusted proxy, nothing that stands left of its entry changes it: neither other entries, nor what was left
  open, nor lines before;
- a name is taken only if it is one of the model's.
"""

from __future__ import annotations

import ipaddress
import re

from gatewayx.http.forwarded import MOST_ENTRIES, TrustedProxies, name_of

TRUSTED = ("10.0.0.0/8", "2001:db8:1::/48")
NETWORKS = [ipaddress.ip_network(text) for text in TRUSTED]
NAMES = {"forwarded": b"Forwarded", "x-forwarded-for": b"X-Forwarded-For"}
READERS = {source: TrustedProxies(TRUSTED, source) for source in NAMES}
OTHER = b"!"
# As long as a head is by default.
MOST_BYTES = 16384

TCHAR = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
PORT = rb"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
ZONE = rb"(?:%" + TCHAR + rb"+)?"
BRACKETED = re.compile(rb"\[([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)" + ZONE + rb"\]" + PORT)
IPV4 = re.compile(rb"([0-9.]+)" + PORT)
IPV6 = re.compile(rb"([0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)" + ZONE)
QUOTED = rb'"(?:[\t !\x23-\x5B\x5D-\x7E\x80-\xFF]|\\[\t\x20-\x7E\x80-\xFF])*"'
PAIR = rb"(" + TCHAR + rb"+)=(" + TCHAR + rb"+|" + QUOTED + rb")"
PAIRS = re.compile(rb"[ \t]*(?:" + PAIR + rb")?[ \t]*(;|\Z)")
NAME = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
# The longest node that is read.
MOST_NODE_BYTES = 128
FORGED = (b"6.6.6.6, ", b'for="6.6.6.6, ', b'"\\, ', b"for=6.6.6.6;x=\\, ", b"\x80,,", b"unknown , ")

Host = ipaddress.IPv4Address | ipaddress.IPv6Address


def address(node: bytes, patterns: tuple[re.Pattern[bytes], ...]) -> Host | None:
    """The address of a node; None for a node that has none."""
    for pattern in patterns:
        found = pattern.fullmatch(node)
        if found is not None:
            try:
                read = ipaddress.ip_address(found[1].decode())
            except ValueError:
                return None
            return getattr(read, "ipv4_mapped", None) or read
    return None


def elements(line: bytes) -> list[bytes]:
    """The elements of a line of Forwarded from the right; the last is none if quotes are open where the line begins."""
    found: list[bytes] = []
    quotes = 0
    end = len(line)
    for place in range(len(line) - 1, -1, -1):
        if line[place : place + 1] == b'"':
            before = line[:place]
            quotes += (len(before) - len(before.rstrip(b"\\"))) % 2 == 0
        elif line[place : place + 1] == b"," and quotes % 2 == 0:
            found.append(line[place + 1 : end])
            end = place
    found.append(line[:end] if quotes % 2 == 0 else OTHER)
    return found


def of_element(element: bytes) -> Host | None:
    """The address of an element of Forwarded; None if it has none, or is none."""
    nodes = []
    place = 0
    while True:
        found = PAIRS.match(element, place)
        if found is None:
            return None
        if found[1] is not None and found[1].lower() == b"for":
            value = found[2]
            nodes.append(re.sub(rb"\\(.)", rb"\1", value[1:-1], flags=re.DOTALL) if value[:1] == b'"' else value)
        place = found.end()
        if found[3] != b";":
            break
    if len(nodes) != 1 or len(nodes[0]) > MOST_NODE_BYTES:
        return None
    return address(nodes[0], (BRACKETED, IPV4))


def expected(source: str, lines: list[bytes]) -> Host | None:
    """The client that these lines of the header tell of."""
    found: Host | None = None
    entries = 0
    for line in reversed(lines):
        for entry in elements(line) if source == "forwarded" else line.split(b",")[::-1]:
            if entries == MOST_ENTRIES:
                return found
            entries += 1
            text = entry.strip(b" \t")
            if not text:
                continue
            read = of_element(text) if source == "forwarded" else address(text, (BRACKETED, IPV4, IPV6))
            if read is None:
                return found
            found = read
            if not any(found in network for network in NETWORKS):
                return found
    return found


def client(source: str, lines: list[bytes]) -> str | None:
    """What the gateway reads from these lines of the header."""
    return READERS[source].client_of([part for line in lines for part in (NAMES[source], line)])


def one_input(data: bytes) -> None:
    """Read an input's lines, and lines that were forged before them."""
    source = "forwarded" if data[:1] in (b"f", b"F") else "x-forwarded-for"
    other = NAMES["x-forwarded-for" if source == "forwarded" else "forwarded"]
    headers = []
    lines = []
    for part in data[1:MOST_BYTES].split(b"\n"):
        # No other bytes pass the parser, which takes away what is around a value.
        line = re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", part).strip(b" \t")
        if line[:1] == OTHER:
            headers += [other, line[1:].strip(b" \t")]
        else:
            headers += [NAMES[source], line]
            lines.append(line)
    found = READERS[source].client_of(headers)
    model = expected(source, lines)
    read = None if found is None else ipaddress.ip_address(found)
    assert read == model, f"{headers} are read as {found!r}, and not as {model!r}"
    if model is not None and not any(model in network for network in NETWORKS):
        for forged in FORGED:
            assert client(source, [forged, *lines]) == found
            assert client(source, [forged + lines[0], *lines[1:]]) == found
    for line in lines:
        taken = name_of([b"X-Request-Id", line])
        assert taken == (line if NAME.fullmatch(line) else None)


def seeds() -> list[bytes]:
    """Inputs to begin with."""
    nodes = (
        b"192.0.2.1",
        b"192.0.2.1:80",
        b"192.0.2.1:_x",
        b"[2001:db8::1]",
        b"[2001:db8::1]:4711",
        b"2001:db8::1",
        b"fe80::1%eth0",
        b"::ffff:10.0.0.1",
        b"::ffff:192.0.2.1",
        b"10.0.0.1",
        b"[2001:db8:1::1]:1",
        b"01.2.3.4",
        b"unknown",
        b"_hidden",
        b"",
    )
    inputs = [b"x" + node + b", 10.0.0.1" for node in nodes]
    inputs += [b'ffor="' + node + b'";proto=https, for=10.0.0.1' for node in nodes]
    inputs += [
        b"x6.6.6.6\n192.0.2.1, 10.0.0.2\n10.0.0.1",
        b"x!for=6.6.6.6\n192.0.2.1",
        b"f!6.6.6.6\nfor=192.0.2.1\nFOR=10.0.0.1 ; By=_x",
        b'ffor=6.6.6.6, for=192.0.2.1;host="a,b;\\"c\\\\"',
        b'ffor="6.6.6.6, for=192.0.2.1',
        b"ffor=192.0.2.1;for=192.0.2.1",
        b"fproto=http, for=10.0.0.1",
        b"x192.0.2.1" + b", 10.0.0.1" * MOST_ENTRIES,
        b"x" + b"," * MOST_ENTRIES + b"10.0.0.1",
        b"x4bf92f3577b34da6a3ce929d0e0e4736\nAz09._~:/+=@-",
    ]
    return inputs


TOKENS = [
    *(b'"', b"\\", b'\\"', b"\\\\", b",", b";", b"=", b" ", b"\t", b"\n", b"[", b"]", b":", b"%", b"_", b"::", b"\x80"),
    *(
        b"for=",
        b'for="',
        b"10.0.0.1",
        b"192.0.2.1",
        b"[2001:db8::1]:80",
        b"::ffff:10.0.0.1",
        b"unknown",
        b"!",
        b"n" * 128,
    ),
]
