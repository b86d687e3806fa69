"""Addresses in text, and the networks that they are in."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayx.net.networks import MOST_NETWORKS, Networks, canonical_address


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("0.0.0.0", "0.0.0.0"),
        ("192.0.2.255", "192.0.2.255"),
        ("::", "::"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("2001:0db8::0001", "2001:db8::1"),
        ("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", "ffff:" * 7 + "ffff"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("0:0:0:0:0:ffff:192.0.2.1", "192.0.2.1"),
        ("::fffe:192.0.2.1", "::fffe:c000:201"),
    ],
)
def test_one_address_has_one_text(text, written):
    assert canonical_address(text) == written
    assert canonical_address(written) == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "01.2.3.4",
        "1.2.3.00",
        "0x1.2.3.4",
        "1.2.3.4 ",
        " 1.2.3.4",
        "1.2.3.4\0",
        "1.2.3.4\n",
        "1.2.3.4/32",
        "1.2.3.4:80",
        "\uff11.2.3.4",
        ":",
        ":::",
        "::1::",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "00001::",
        "g::",
        "::1%lo",
        "::1%1",
        "[::1]",
        "[::1]:80",
        "::1\0",
        "::01.2.3.4",
        "::ffff:1.2.3",
        "0" * 46,
        "localhost",
        "unknown",
        "_hidden",
    ],
)
def test_what_is_no_address_is_none(text):
    assert canonical_address(text) is None
    assert text not in Networks(["0.0.0.0/0", "::/0"])


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], ["9.255.255.255", "11.0.0.0", "a00::"]),
        ("192.0.2.1", ["192.0.2.1", "::ffff:192.0.2.1"], ["192.0.2.0", "192.0.2.3", "193.0.2.1"]),
        ("192.0.2.1/32", ["192.0.2.1"], ["192.0.2.0"]),
        ("192.0.2.128/25", ["192.0.2.128", "192.0.2.255"], ["192.0.2.127", "192.0.3.128"]),
        ("172.16.0.0/12", ["172.16.0.0", "172.31.255.255"], ["172.15.255.255", "172.32.0.0"]),
        ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], ["::", "::1"]),
        ("::/0", ["::", "ffff::"], ["1.2.3.4", "::ffff:1.2.3.4"]),
        ("2001:db8::/33", ["2001:db8::", "2001:db8:7fff::"], ["2001:db8:8000::", "2001:db9::"]),
        ("2001:db8::1", ["2001:db8::1", "2001:DB8:0::1"], ["2001:db8::", "2001:db8::2"]),
        ("fe80::/10", ["fe80::1", "febf::"], ["fec0::", "fe00::"]),
        ("::ffff:10.0.0.0/104", ["10.0.0.1", "::ffff:10.0.0.1"], ["11.0.0.1", "::"]),
        ("::ffff:0:0/96", ["10.0.0.1"], ["::", "::1"]),
        ("::ffff:10.0.0.1", ["10.0.0.1"], ["10.0.0.2"]),
    ],
)
def test_a_network_has_the_addresses_of_its_prefix(network, inside, outside):
    networks = Networks(["203.0.113.7", "2001:db8:ffff:ffff::1", network])
    assert [host for host in inside if host not in networks] == []
    assert [host for host in outside if host in networks] == []


def test_there_may_be_none_and_unix_sockets_are_passed_over():
    networks = Networks(["unix:", "unix:/run/a.sock"])
    assert len(networks) == len(Networks()) == 0
    assert "127.0.0.1" not in networks
    assert "::1" not in networks


@pytest.mark.parametrize("text", ["", "a", "/8", "1.2.3.4/", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/x", "::/129"])
@pytest.mark.parametrize("behind", ["", "/24/24"])
def test_what_is_no_network_is_refused(text, behind):
    with pytest.raises(ValueError, match="is no network"):
        Networks([text + behind])


def test_there_are_no_more_than_the_setting_may_have():
    texts = [f"10.0.{number}.0/24" for number in range(MOST_NETWORKS)]
    assert "10.0.255.1" in Networks(texts)
    with pytest.raises(ValueError, match="more than 256"):
        Networks([*texts, "::1"])


def of_pton(text: str) -> str | None:
    """The address by the functions of the C library, as Python has them."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            found = ipaddress.ip_address(socket.inet_pton(family, text))
        except (OSError, ValueError):
            continue
        return str(getattr(found, "ipv4_mapped", None) or found)
    return None


@given(st.text("0123456789abcdefABCDEF.:% ", max_size=47) | st.ip_addresses().map(str))
@example("1::2.3.4.5")
def test_it_is_read_as_the_c_library_does(text):
    written = canonical_address(text)
    assert (written is None) == (of_pton(text) is None)
    if written is not None:
        assert of_pton(written) == of_pton(text)


@given(st.ip_addresses(), st.integers(0, 128), st.ip_addresses())
def test_it_is_in_the_networks_that_the_standard_library_has_it_in(host, bits, other):
    network = ipaddress.ip_network((host, min(bits, host.max_prefixlen)), strict=False)
    if getattr(host, "ipv4_mapped", None) or getattr(other, "ipv4_mapped", None):
        # Of those it is IPv4 here.
        return
    networks = Networks([str(network)])
    assert str(host) in networks
    assert (str(other) in networks) == (other in network)
