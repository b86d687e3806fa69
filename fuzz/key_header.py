"""Fuzzes gatewayx.gateway.key_header.key_of against an independent reading of the value.

An input is the lines of a head, each a name, a colon and a value, with line feeds between them; a line that does not
begin with a name is a value of the header itself. What must hold for any bytes:
- nothing but a RequestError is raised, which is `malformed-header`, and whose detail names the header;
- there is a key where the header is given once, in any case of its letters, and is a token (RFC 9110 5.6.2) or a String
  (RFC 9651 3.3.3) of 1 to 255 bytes once unquoted; it is what the model says, and other headers change nothing of it;
- a String is the same key as what it says, if that is a token.
"""

from __future__ import annotations

import re

from gatewayx.gateway.key_header import key_of
from gatewayx.http.problems import MALFORMED_HEADER, RequestError

NAME = b"Idempotency-Key"
MOST_KEY_BYTES = 255
# RFC 9110 5.6.2; RFC 9651 3.3.3: what is printable in ASCII, of which a quote and a backslash are escaped.
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
STRING = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])*)"')
ESCAPED = re.compile(rb'\\(["\\])')


def expected(headers: list[bytes]) -> bytes | None:
    """The key that the headers have; None without one. Raises ValueError for a malformed one."""
    values = [value for name, value in zip(headers[::2], headers[1::2], strict=True) if name.lower() == NAME.lower()]
    if not values:
        return None
    [value] = values
    string = STRING.fullmatch(value)
    if string is not None:
        key = ESCAPED.sub(rb"\1", string[1])
    elif TOKEN.fullmatch(value) is not None:
        key = value
    else:
        raise ValueError(value)
    if not 1 <= len(key) <= MOST_KEY_BYTES:
        raise ValueError(key)
    return key


def read(headers: list[bytes]) -> bytes | RequestError | None:
    """What the headers are read as."""
    try:
        return key_of(headers)
    except RequestError as error:
        return error


def judge(headers: list[bytes]) -> bytes | None:
    """Fail unless the headers are read as the model does; returns the key, None for none and for a malformed one."""
    found = read(headers)
    try:
        key = expected(headers)
    except ValueError:
        assert isinstance(found, RequestError), f"{headers} is read as {found!r}"
        assert found.problem is MALFORMED_HEADER
        assert NAME.decode() in found.detail
        assert found.detail.isascii()
        assert found.detail.isprintable()
        return None
    assert found == key, f"{headers} is read as {found!r}, and not as {key!r}"
    return key


def one_input(data: bytes) -> None:
    """Read an input's headers, and its key as a String."""
    headers = []
    for line in data.split(b"\n"):
        name, _, value = line.partition(b":")
        # The parser lets no other names pass, and takes away what is around a value.
        headers += [name, value.strip(b" \t")] if TOKEN.fullmatch(name) else [NAME, line.strip(b" \t")]
    key = judge(headers)
    if key is not None:
        quoted = re.sub(rb'(["\\])', rb"\\\1", key)
        assert judge([b"a", b"b", NAME.upper(), b'"%b"' % quoted]) == key
        if TOKEN.fullmatch(key):
            assert judge([NAME, key]) == key


LONGEST = b"k" * MOST_KEY_BYTES


def seeds() -> list[bytes]:
    """Inputs to begin with."""
    keys = (
        b"8e03978e-40d5-43dd-bc93-6894a57f9324",
        b'"8e03978e-40d5-43dd-bc93-6894a57f9324"',
        b'"a \\"b\\" \\\\c"',
        b'""',
        b'"',
        b'"a',
        b'"a" ',
        b'"a";b=1',
        b'"a"b',
        b'"\\a"',
        b'"\\',
        b'"a\\"',
        b"a b",
        b"a,b",
        b":a:",
        b"\xff",
        b'"\x7f"',
        b'"\t"',
        LONGEST,
        LONGEST + b"k",
        b'"' + LONGEST + b'"',
        b'"' + LONGEST + b'k"',
        b'"' + b"\\\\" * MOST_KEY_BYTES + b'"',
        b'"' + b"\\\\" * MOST_KEY_BYTES + b'k"',
    )
    inputs = [NAME + b": " + key for key in keys]
    inputs += [b"Host: h\nidempotency-key: a\nX-Gearman-Priority: low", NAME + b": a\n" + NAME + b": a"]
    return [*inputs, b"Idempotency-Keys: a", b"Idempotency_Key: a", b"Host: h", b""]


TOKENS = [NAME, NAME + b": ", b'"', b"\\", b'\\"', b"\\\\", b"\n", b":", b";", b",", b" ", b"\x7f", b"\x80", LONGEST]
