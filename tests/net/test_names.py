"""Names of hosts, and numbers, which need no lookup."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from gatewayx.net import names
from gatewayx.net.names import NumericHost, Resolver
from support.lookups import numeric

LOOPBACK = socket.if_nametoindex("lo")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("127.0.0.1", NumericHost(socket.AF_INET, "127.0.0.1")),
        ("::1", NumericHost(socket.AF_INET6, "::1")),
        ("FE80:0::1", NumericHost(socket.AF_INET6, "fe80::1")),
        ("::ffff:10.0.0.1", NumericHost(socket.AF_INET6, "::ffff:10.0.0.1")),
        ("fe80::1%lo", NumericHost(socket.AF_INET6, "fe80::1", LOOPBACK)),
        (f"fe80::1%{LOOPBACK}", NumericHost(socket.AF_INET6, "fe80::1", LOOPBACK)),
        ("fe80::1%4294", NumericHost(socket.AF_INET6, "fe80::1", 4294)),
        *[(text, None) for text in ("", "localhost", "127.1", "127.0.0.1%lo", "fe80::1::%lo", "a%lo", "1.2.3.4.")],
    ],
)
def test_a_number_is_told_from_a_name(text: str, host: NumericHost | None) -> None:
    assert NumericHost.parse(text) == host


@pytest.mark.parametrize("zone", ["nowhere0", "0", "99999999999", "٣"])
def test_a_zone_that_is_no_interface_is_an_error(zone: str) -> None:
    with pytest.raises(OSError, match=r"is no interface of this machine"):
        NumericHost.parse(f"fe80::1%{zone}")


def test_it_is_written_with_its_zone() -> None:
    assert [str(host) for host in numeric("10.0.0.1", "::1", "fe80::1%lo", "fe80::1%4294")] == [
        "10.0.0.1",
        "::1",
        "fe80::1%lo",
        "fe80::1%4294",
    ]


def test_a_lookup_keeps_scopes_and_tells_each_address_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 0, 0, 7)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 0, 0, 8)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
    assert names.look_up("name.test") == [
        NumericHost(socket.AF_INET6, "fe80::1", 7),
        NumericHost(socket.AF_INET6, "fe80::1", 8),
        NumericHost(socket.AF_INET, "10.0.0.1"),
    ]


@pytest.mark.anyio
class TestResolver:
    async def test_all_who_ask_meanwhile_share_one_lookup_whatever_the_case(self, monkeypatch):
        asked = []
        go_on = threading.Event()

        def look_up(host):
            asked.append(host)
            go_on.wait()
            return numeric("10.0.0.1")

        monkeypatch.setattr(names, "look_up", look_up)
        resolver = Resolver(asyncio.get_running_loop())
        waiting = [asyncio.create_task(resolver.resolve(host)) for host in ("a.test", "A.test", "a.test", "b.test")]
        await asyncio.sleep(0.05)
        # One that does not wait any more takes the lookup from nobody.
        waiting.pop(0).cancel()
        waiting.append(asyncio.create_task(resolver.resolve("a.test")))
        await asyncio.sleep(0.05)
        go_on.set()
        assert await asyncio.gather(*waiting) == [numeric("10.0.0.1")] * 4
        assert sorted(asked) == ["a.test", "b.test"]
        await resolver.resolve("a.test")
        assert len(asked) == 3

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
            (UnicodeError("label too long"), "label too long"),
            (OSError(), "OSError"),
            (None, "its name has no address"),
        ],
    )
    async def test_a_lookup_that_fails_is_an_error_for_all(self, monkeypatch, error, told):
        def look_up(host):
            if error is None:
                return []
            raise error

        monkeypatch.setattr(names, "look_up", look_up)
        resolver = Resolver(asyncio.get_running_loop())
        results = await asyncio.gather(*(resolver.resolve("a.test") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(result, OSError) and told in str(result) for result in results)

    async def test_a_system_without_threads_to_spare_is_an_error_and_no_end(self, monkeypatch):
        def refuse(thread):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(names, "look_up", lambda host: numeric("10.0.0.1"))
        resolver = Resolver(asyncio.get_running_loop())
        with monkeypatch.context() as without:
            without.setattr(threading.Thread, "start", refuse)
            with pytest.raises(OSError, match="can't start new thread"):
                await resolver.resolve("a.test")
        assert await resolver.resolve("a.test") == numeric("10.0.0.1")

    async def test_who_waits_hears_so_again_and_again(self, monkeypatch):
        go_on = threading.Event()
        told = []

        def look_up(host):
            go_on.wait()
            return numeric("10.0.0.1")

        def tell(reason):
            told.append(reason)
            if len(told) == 3:
                go_on.set()

        monkeypatch.setattr(names, "look_up", look_up)
        monkeypatch.setattr(names, "SLOW_S", 0.02)
        assert await Resolver(asyncio.get_running_loop()).resolve("a.test", tell) == numeric("10.0.0.1")
        assert set(told) == {"its name is not resolved within 0.02 s"}
