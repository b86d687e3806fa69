"""Whose request a proxy has passed on, by Forwarded (RFC 7239) and X-Forwarded-For."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayx.http.forwarded import MOST_ENTRIES, MOST_NAME_BYTES, TrustedProxies, name_of

PROXIES = ("10.0.0.0/8", "2001:db8:1::/48")
BY_FORWARDED = TrustedProxies(PROXIES, "forwarded")
BY_X_FORWARDED_FOR = TrustedProxies(PROXIES, "x-forwarded-for")


def forwarded(*lines: bytes) -> str | None:
    """The client by these lines of Forwarded."""
    return BY_FORWARDED.client_of([part for line in lines for part in (b"Forwarded", line)])


def x_forwarded_for(*lines: bytes) -> str | None:
    """The client by these lines of X-Forwarded-For."""
    return BY_X_FORWARDED_FOR.client_of([part for line in lines for part in (b"X-Forwarded-For", line)])


class TestXForwardedFor:
    @pytest.mark.parametrize(
        ("line", "client"),
        [
            (b"192.0.2.1", "192.0.2.1"),
            (b" \t192.0.2.1\t ", "192.0.2.1"),
            (b"192.0.2.1:4711", "192.0.2.1"),
            (b"192.0.2.1:0", "192.0.2.1"),
            (b"2001:db8::1", "2001:db8::1"),
            (b"2001:DB8:0::1", "2001:db8::1"),
            (b"[2001:db8::1]", "2001:db8::1"),
            (b"[2001:db8::1]:4711", "2001:db8::1"),
            (b"fe80::1%eth0", "fe80::1"),
            (b"[fe80::1%25]:1", "fe80::1"),
            (b"::ffff:192.0.2.1", "192.0.2.1"),
            (b"[::ffff:192.0.2.1]:80", "192.0.2.1"),
            (b"6.6.6.6, 192.0.2.1", "192.0.2.1"),
            (b"6.6.6.6,192.0.2.1,10.0.0.1", "192.0.2.1"),
            (b"6.6.6.6 , 192.0.2.1\t,\t10.0.0.1 , 10.0.0.2:80", "192.0.2.1"),
            (b"192.0.2.1, ::ffff:10.0.0.1, 2001:db8:1::1", "192.0.2.1"),
            (b"192.0.2.1,,10.0.0.1, ,", "192.0.2.1"),
            # All of them are trusted: it is the leftmost.
            (b"10.0.0.3, 10.0.0.2, 10.0.0.1", "10.0.0.3"),
            (b"10.0.0.3", "10.0.0.3"),
            # Who stands left of what is no address is nobody's word.
            (b"192.0.2.1, unknown, 10.0.0.2, 10.0.0.1", "10.0.0.2"),
            (b"192.0.2.1, _hidden, 10.0.0.1", "10.0.0.1"),
            (b'192.0.2.1, "10.0.0.1"', None),
            (b"192.0.2.1, unknown", None),
            (b"192.0.2.1, 10.0.0.256", None),
            (b"192.0.2.1, 10.0.0.1:x", None),
            (b"192.0.2.1, 10.0.0.1:", None),
            (b"192.0.2.1, 10.0.0.1:123456", None),
            (b"192.0.2.1, 10.0.0.1 10.0.0.2", None),
            (b"192.0.2.1, 10.0.0.1;", None),
            (b"192.0.2.1, for=10.0.0.1", None),
            (b"192.0.2.1, [10.0.0.1]", None),
            (b"192.0.2.1, [2001:db8:1::1", None),
            (b"192.0.2.1, 2001:db8:1::1]", None),
            (b"192.0.2.1, [2001:db8:1::1]4711", None),
            (b"192.0.2.1, [2001:db8:1::1]:", None),
            (b"192.0.2.1, 2001:db8:1::1%", None),
            (b"192.0.2.1, 2001:db8:1::1%a b", None),
            (b"192.0.2.1, 10.0.0.1%a", None),
            (b"192.0.2.1, \xff", None),
            (b"", None),
            (b",", None),
            (b" , ,", None),
        ],
    )
    def test_a_line(self, line, client):
        assert x_forwarded_for(line) == client

    def test_lines_are_one_list(self):
        assert x_forwarded_for(b"6.6.6.6", b"192.0.2.1", b"10.0.0.1") == "192.0.2.1"
        assert x_forwarded_for(b"192.0.2.1", b"", b"10.0.0.1, 10.0.0.2") == "192.0.2.1"
        assert x_forwarded_for(b"192.0.2.1", b"unknown", b"10.0.0.1") == "10.0.0.1"
        # No address goes on from one line to the next.
        assert x_forwarded_for(b"192.0.2.", b"1") is None

    def test_so_many_entries_are_looked_at_and_no_more(self):
        assert x_forwarded_for(b"192.0.2.1" + b", 10.0.0.1" * (MOST_ENTRIES - 1)) == "192.0.2.1"
        assert x_forwarded_for(b"192.0.2.1" + b", 10.0.0.1" * MOST_ENTRIES) == "10.0.0.1"
        assert x_forwarded_for(b"192.0.2.1" + b"," * (MOST_ENTRIES - 1)) == "192.0.2.1"
        assert x_forwarded_for(b"192.0.2.1" + b"," * MOST_ENTRIES) is None
        assert x_forwarded_for(b"192.0.2.1", *[b"10.0.0.1"] * MOST_ENTRIES) == "10.0.0.1"

    def test_a_header_of_another_name_is_none(self):
        headers = [b"X-Forwarded-Foo", b"192.0.2.1", b"X-Forwarded-Fo", b"192.0.2.1", b"Forwarded", b"for=192.0.2.1"]
        assert BY_X_FORWARDED_FOR.client_of(headers) is None
        assert BY_X_FORWARDED_FOR.client_of([*headers, b"x-FORWARDED-for", b"192.0.2.2"]) == "192.0.2.2"


class TestForwarded:
    @pytest.mark.parametrize(
        ("line", "client"),
        [
            (b"for=192.0.2.43", "192.0.2.43"),
            (b"For=192.0.2.43", "192.0.2.43"),
            (b'FOR="192.0.2.43"', "192.0.2.43"),
            (b'for="192.0.2.43:47011"', "192.0.2.43"),
            (b'for="192.0.2.43:_a.b-C_9"', "192.0.2.43"),
            (b'for="[2001:db8:cafe::17]"', "2001:db8:cafe::17"),
            (b'for="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17"),
            (b'for="[2001:db8:cafe::17]:_x"', "2001:db8:cafe::17"),
            (b'for="[fe80::1%eth0]"', "fe80::1"),
            (b'for="[::ffff:192.0.2.1]"', "192.0.2.1"),
            (b'for="1\\92.0.2.43"', "192.0.2.43"),
            (b"for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            (b"proto=http;by=203.0.113.43;for=192.0.2.60", "192.0.2.60"),
            (b"for=192.0.2.60 ; proto=http\t;\tby=203.0.113.43", "192.0.2.60"),
            (b";for=192.0.2.60;;", "192.0.2.60"),
            (b'for=192.0.2.60;host="a,b;for=6.6.6.6, for=6.6.6.7"', "192.0.2.60"),
            (b'for=6.6.6.6, for=192.0.2.60;host="a\\", for=10.0.0.1;x=\\""', "192.0.2.60"),
            (b'for=192.0.2.60;host="\\\\"', "192.0.2.60"),
            (b'for=192.0.2.60;host=""', "192.0.2.60"),
            (b"for=6.6.6.6, for=192.0.2.43, for=10.0.0.1", "192.0.2.43"),
            (b'for=192.0.2.43,for="[2001:db8:1::1]:80"', "192.0.2.43"),
            (b"for=192.0.2.43,, for=10.0.0.1 ,", "192.0.2.43"),
            (b"for=10.0.0.2, for=10.0.0.1", "10.0.0.2"),
            (b"for=192.0.2.43, for=unknown, for=10.0.0.2, for=10.0.0.1", "10.0.0.2"),
            (b'for=192.0.2.43, for="_gazonk", for=10.0.0.1', "10.0.0.1"),
            # What a client leaves open swallows nothing of what the proxies have added.
            (b'for="6.6.6.6, for=192.0.2.43', "192.0.2.43"),
            (b'for="6.6.6.6\\, for=192.0.2.43;host="a"', "192.0.2.43"),
            (b'"\\, for="[2001:db8::1]", for=10.0.0.1', "2001:db8::1"),
            # None of these elements is one.
            (b"for=192.0.2.43, for=10.0.0.2;for=10.0.0.2", None),
            (b"for=192.0.2.43, for=10.0.0.2;FOR=10.0.0.1", None),
            (b"for=192.0.2.43, proto=http", None),
            (b"for=192.0.2.43, ;", None),
            (b"for=192.0.2.43, 10.0.0.1", None),
            (b"for=192.0.2.43, for", None),
            (b"for=192.0.2.43, for=", None),
            (b'for=192.0.2.43, for=""', None),
            (b"for=192.0.2.43, =10.0.0.1", None),
            (b"for=192.0.2.43, for =10.0.0.1", None),
            (b"for=192.0.2.43, for= 10.0.0.1", None),
            (b"for=192.0.2.43, for=10.0.0.1:80", None),
            (b"for=192.0.2.43, for=[2001:db8:1::1]", None),
            (b'for=192.0.2.43, for="2001:db8:1::1"', None),
            (b'for=192.0.2.43, for="[10.0.0.1]"', None),
            (b'for=192.0.2.43, for="10.0.0.1:_"', None),
            (b'for=192.0.2.43, for="10.0.0.1:_ "', None),
            (b'for=192.0.2.43, for="10.0.0.1:-1"', None),
            (b'for=192.0.2.43, for=" 10.0.0.1"', None),
            (b'for=192.0.2.43, for="10.0.0.1', None),
            (b'for=192.0.2.43, for="10.0.0.1\\"', None),
            (b'for=192.0.2.43, for="10.0.0.1"x', None),
            (b'for=192.0.2.43, for="10.0.0.1";"', None),
            (b"for=192.0.2.43, for=10.0.0.1 x", None),
            (b"for=192.0.2.43, for=10.0.0.1;p", None),
            (b"for=192.0.2.43, for=10.0.0.1;p=", None),
            (b"for=192.0.2.43, for=10.0.0.1;p q=r", None),
            (b'for=192.0.2.43, for="10.0.0.1:_' + b"x" * 200 + b'"', None),
            (b"for=192.0.2.43, for=\xff", None),
            (b"", None),
            (b" , ", None),
        ],
    )
    def test_a_line(self, line, client):
        assert forwarded(line) == client

    def test_lines_are_one_list_in_which_no_quotes_go_on(self):
        assert forwarded(b"for=6.6.6.6", b"for=192.0.2.43;proto=http", b"for=10.0.0.1") == "192.0.2.43"
        assert forwarded(b'for=192.0.2.43;host="a', b'b", for=10.0.0.1') == "10.0.0.1"
        assert forwarded(b'for="6.6.6.6', b"for=192.0.2.43") == "192.0.2.43"

    def test_so_many_elements_are_looked_at_and_no_more(self):
        assert forwarded(b"for=192.0.2.1" + b", for=10.0.0.1" * (MOST_ENTRIES - 1)) == "192.0.2.1"
        assert forwarded(b"for=192.0.2.1" + b", for=10.0.0.1" * MOST_ENTRIES) == "10.0.0.1"
        assert forwarded(b"for=192.0.2.1" + b"," * MOST_ENTRIES) is None

    def test_the_other_header_is_none(self):
        assert BY_FORWARDED.client_of([b"X-Forwarded-For", b"192.0.2.1", b"X-Forwarded", b"for=192.0.2.1"]) is None


ANYTHING = st.text(
    st.one_of(st.sampled_from(list('",;=\\ \tfor[]:.%_')), st.characters(min_codepoint=0x20, max_codepoint=0xFF)),
    max_size=60,
).map(lambda text: text.replace("\x7f", "").encode("latin-1"))
PORTS = st.one_of(st.just(""), st.integers(0, 65535).map(":{}".format))
STRANGERS = st.one_of(st.ip_addresses(network="192.0.2.0/24"), st.ip_addresses(v=6, network="2001:db8:2::/48"))
TRUSTED = st.one_of(st.ip_addresses(network="10.0.0.0/8"), st.ip_addresses(v=6, network="2001:db8:1::/48"))
PAIRS = st.lists(st.sampled_from(["proto=https", 'host="a,b;\\"c\\\\"', "by=_x", ""]), max_size=3)


@st.composite
def entries_x(draw: st.DrawFn, addresses: st.SearchStrategy[object]) -> bytes:
    """An entry of X-Forwarded-For as proxies write it."""
    address, port = draw(addresses), draw(PORTS)
    return (f"[{address}]{port}" if address.version == 6 and port else f"{address}{port}").encode()


@st.composite
def elements(draw: st.DrawFn, addresses: st.SearchStrategy[object]) -> bytes:
    """An element of Forwarded as proxies write it."""
    address, port = draw(addresses), draw(PORTS)
    node = f"[{address}]{port}" if address.version == 6 else f"{address}{port}"
    pairs = draw(PAIRS)
    pairs.insert(
        draw(st.integers(0, len(pairs))), f'for="{node}"' if not node[-1].isdigit() or ":" in node else f"for={node}"
    )
    return ";".join(pairs).encode()


class TestWhateverAClientSends:
    @given(st.data(), st.lists(ANYTHING, max_size=3), st.sampled_from(["x", "forwarded"]))
    def test_changes_nothing_of_whom_the_proxies_have_it_from(self, data, forged, which):
        one = entries_x if which == "x" else elements
        read = x_forwarded_for if which == "x" else forwarded
        address = data.draw(STRANGERS)
        told = [data.draw(one(st.just(address))), *data.draw(st.lists(one(TRUSTED), max_size=4))]
        assert read(b", ".join(told)) == str(address)
        assert read(*told) == str(address)
        assert read(*forged, b",".join(told)) == str(address)
        assert read(b", ".join([*forged, *told])) == str(address)

    @given(st.lists(ANYTHING, max_size=4))
    def test_names_an_address_or_nobody(self, lines):
        for read in (forwarded, x_forwarded_for):
            client = read(*lines)
            assert client is None or ipaddress.ip_address(client)


class TestWhoIsTrusted:
    def test_a_connection_by_its_address(self):
        proxies = TrustedProxies(PROXIES)
        for host in ("10.1.2.3", "2001:db8:1::5", "2001:db8:1::5%eth0"):
            assert proxies.are(host)
        for host in ("11.0.0.1", "2001:db8:2::5"):
            assert not proxies.are(host)
        assert not proxies.are(None)
        assert not proxies.are(None, "/run/a.sock")

    def test_a_unix_socket_only_if_it_is_named(self):
        assert TrustedProxies(["unix:"]).are(None)
        assert TrustedProxies(["unix:"]).are(None, "/run/a.sock")
        assert not TrustedProxies(["unix:"]).are("127.0.0.1")
        one = TrustedProxies(["unix:/run/a.sock", "10.0.0.0/8"])
        assert one.are(None, "/run/a.sock")
        assert not one.are(None, "/run/b.sock")
        assert not one.are(None, "/run/a.sock/")
        assert not one.are(None)
        assert one.are("10.0.0.1", "/run/b.sock")

    def test_each_can_be_told_from_the_others(self):
        assert TrustedProxies(PROXIES).serial != TrustedProxies(PROXIES).serial != 0

    def test_where_the_connection_tells_no_header_does(self):
        headers = [b"Forwarded", b"for=192.0.2.1", b"X-Forwarded-For", b"192.0.2.1"]
        assert not TrustedProxies(PROXIES).reads_clients
        assert TrustedProxies(PROXIES, "x-forwarded-for").reads_clients
        assert TrustedProxies(PROXIES, "forwarded").client_of(headers) == "192.0.2.1"

    @pytest.mark.parametrize(
        ("trusted", "source"), [(["x"], "connection"), ([], "x-real-ip"), (["10.0.0.0/33"], "forwarded")]
    )
    def test_what_is_neither_is_refused(self, trusted, source):
        with pytest.raises(ValueError, match=r"."):
            TrustedProxies(trusted, source)


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [b"a", b"4bf92f3577b34da6a3ce929d0e0e4736", b"Az09._~:/+=@-", b"x" * MOST_NAME_BYTES, b"5b3f:1/2"],
    )
    def test_one_that_is_taken(self, name):
        assert name_of([b"x-request-ID", name]) == name
        assert name_of([b"X-Request-Id", b" " + name + b"\t", b"X-Request-Idx", b"y"]) == name

    @pytest.mark.parametrize(
        "name",
        [
            b"",
            b" ",
            b"x" * (MOST_NAME_BYTES + 1),
            b"a b",
            b'a"',
            b"a\\",
            b"a,b",
            b"a;b",
            b"a%41",
            b"a<",
            b"\xff",
            b"a\tb",
            b"a'",
        ],
    )
    def test_one_that_is_not(self, name):
        assert name_of([b"X-Request-Id", name]) is None

    @given(st.integers(0x20, 0xFF))
    def test_each_byte(self, byte):
        taken = chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "._~:/+=@-")
        assert (name_of([b"X-Request-Id", b"a%cb" % byte]) is not None) == taken

    def test_several_lines_name_nothing(self):
        assert name_of([b"X-Request-Id", b"a", b"X-Request-Id", b"a"]) is None
        assert name_of([b"X-Request-Id", b"a", b"X-Request-Id", b""]) is None
        assert name_of([]) is None
