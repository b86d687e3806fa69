"""HOST:PORT as written in settings and messages."""

import pytest

from gatewayx.address import Address, AddressError, ListenAddress, ServerAddress, UnixAddress, parse_listen


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("localhost:1", "localhost", 1),
        ("job_server-2.internal.:65535", "job_server-2.internal.", 65535),
        ("4u:80", "4u", 80),
        ("[::1]:8080", "::1", 8080),
        ("[::]:80", "::", 80),
        ("[::ffff:10.0.0.1]:80", "::ffff:10.0.0.1", 80),
        ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
    ],
)
def test_an_address_is_read_and_written_back_the_same(text: str, host: str, port: int) -> None:
    address = Address.parse(text)

    assert address == (host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "8080",
        ":8080",
        "localhost",
        "localhost:",
        "localhost:http",
        "localhost:-1",
        "localhost:+1",
        "localhost:65536",
        "localhost:000080",
        "localhost:\uff180",
        "localhost: 80",
        "local host:80",
        "-host:80",
        ".host:80",
        "a..b:80",
        "höst:80",
        "host\n:80",
        "host:80\n",
        "host\x00:80",
        "host\udcff:80",
        f"{'a' * 254}:80",
        "127.0.0.256:80",
        "127.1:80",
        "1:80",
        "::1:80",
        "[::1]",
        "[]:80",
        "[127.0.0.1]:80",
        "[::1:80",
        "::1]:80",
        "[:::]:80",
        "[fe80::1%]:80",
        "[fe80::1%a b]:80",
        "http://localhost:80",
        "user@localhost:80",
        "localhost:80/path",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:4730", ServerAddress("localhost", 4730)),
        ("tls://localhost:4730", ServerAddress("localhost", 4730, tls=True)),
        ("tls://[::1]:1", ServerAddress("::1", 1, tls=True)),
        ("[fe80::1%eth0]:4730", ServerAddress("fe80::1%eth0", 4730)),
        ("each://jobs.test:4730", ServerAddress("jobs.test", 4730, each=True)),
        ("each+tls://jobs.test:4730", ServerAddress("jobs.test", 4730, tls=True, each=True)),
    ],
)
def test_a_server_s_address_is_read_and_written_back_the_same(text: str, address: ServerAddress) -> None:
    assert ServerAddress.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tls://",
        "tls:a:1",
        "TLS://a:1",
        "tls://tls://a:1",
        "http://a:1",
        "tls://a",
        "each://",
        "each:a:1",
        "tls+each://a:1",
        "each://tls://a:1",
        "each+://a:1",
    ],
)
def test_what_is_no_server_s_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        ServerAddress.parse(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:80", Address("localhost", 80)),
        ("[::1]:0", Address("::1", 0)),
        ("unix:/run/a", UnixAddress("/run/a")),
        ("https://localhost:443", ListenAddress("localhost", 443, tls=True)),
        ("https://[fe80::1%eth0]:0", ListenAddress("fe80::1%eth0", 0, tls=True)),
        ("proxy://10.0.0.1:80", ListenAddress("10.0.0.1", 80, proxy=True)),
        ("proxy+https://[::]:443", ListenAddress("::", 443, tls=True, proxy=True)),
    ],
)
def test_how_clients_come_in_is_read_and_written_back_the_same(text, address):
    assert parse_listen(text) == address
    assert type(parse_listen(text)) is type(address)
    assert str(address) == text


def test_plain_http_may_be_named_and_is_not_written():
    assert parse_listen("http://localhost:80") == Address("localhost", 80)
    assert str(ListenAddress("localhost", 80)) == "http://localhost:80"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "https:localhost:1",
        "https://localhost",
        "https://localhost:1/",
        "HTTPS://localhost:1",
        "tls://localhost:1",
        "https+proxy://localhost:1",
        "proxy+http://localhost:1",
        "proxy://proxy://localhost:1",
        "proxy://unix:/run/a",
        "https://unix:/run/a",
        "unix:https://localhost:1",
    ],
)
def test_what_says_of_no_address_how_clients_come_in_is_refused(text):
    with pytest.raises(AddressError):
        parse_listen(text)


@pytest.mark.parametrize("path", ["/a", "/run/gatewayx/http.sock", "/a b/c:1", "/\u00e4", f"/{'a' * 106}"])
def test_a_unix_socket_s_address_is_read_and_written_back_the_same(path: str) -> None:
    assert UnixAddress.parse(f"unix:{path}") == UnixAddress(path)
    assert str(UnixAddress(path)) == f"unix:{path}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/a",
        "unix:",
        "unix:/",
        "unix:a",
        "unix:./a",
        "unix:@a",
        "unix:\0a",
        "unix://a",
        "unix:/a/",
        "unix:/a//b",
        "unix:/./a",
        "unix:/a/..",
        "unix:/a,b",
        "unix:/a\n",
        "unix:/a\0b",
        "unix:/a\x7f",
        "unix:/\udcff",
        "Unix:/a",
        f"unix:/{'a' * 107}",
        f"unix:/{chr(0xE4) * 54}",
    ],
)
def test_what_is_no_unix_socket_s_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        UnixAddress.parse(text)
