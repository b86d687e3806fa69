"""Which header names are the gateway's, letters of any case."""

from __future__ import annotations

import string

import pytest

from support.still import still_gateway

# With what each refuses.
NAMES = {
    b"X-Gearman-Unique": b"x" * 64,
    b"X-Gearman-Background": b"perhaps",
    b"X-Gearman-Priority": b"highest",
    b"X-Gearman-Timeout": b"soon",
    b"X-Gearman-Stream": b"yes",
}
# RFC 9110 5.6.2: what a name may be made of.
TOKEN_BYTES = sorted(set(string.ascii_letters + string.digits) | set("!#$%&'*+-.^_`|~"))


def statuses(names: list[bytes], value: bytes) -> set[int]:
    """Of a request with each name as a header of this value."""
    with still_gateway() as gateway:
        client = gateway.client()
        for name in names:
            client.send(b"POST /f HTTP/1.1\r\nHost: h\r\n" + name + b": " + value + b"\r\nContent-Length: 0\r\n\r\n")
            gateway.loop.settle()
            for connection in gateway.server.open():
                connection.run_all()
            gateway.loop.settle()
        found = [answer.status for answer in client.responses()]
        assert len(found) == len(names)
        return set(found)


@pytest.mark.parametrize("name", NAMES, ids=bytes.decode)
def test_a_name_that_differs_by_a_byte_is_none_of_them(name):
    others = [
        name[:place] + byte.encode() + name[place + 1 :]
        for place in range(len(name))
        for byte in TOKEN_BYTES
        if byte.lower() != chr(name[place]).lower()
    ]
    assert statuses(others, NAMES[name]) == {200}


@pytest.mark.parametrize("name", NAMES, ids=bytes.decode)
def test_letters_are_of_any_case(name):
    for given in (name, name.lower(), name.upper(), name.swapcase()):
        assert statuses([given], NAMES[name]) == {400}
