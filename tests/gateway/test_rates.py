"""How often an address and a function may be asked for: 429, when to come again, and what is counted for whom."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from gatewayx.address import Address, UnixAddress
from gatewayx.config.rate_kinds import FunctionRate, RateBound
from support.gateway import running_gateway
from support.http import HttpClient, Response, ask, get, head, post
from support.job_servers import hand_worker

pytestmark = pytest.mark.anyio

OPTIONS = head(b"OPTIONS", b"*")
# So slow that nothing comes back while a test runs.
SLOW = 0.01
# So many seconds until it does, of which some may have passed, and up to a fifth more.
NEXT_S = range(75, 121)


def refused(answer: Response) -> int:
    """The seconds after which a request that came too often may come again; fails if it was answered otherwise."""
    assert (answer.status, answer.kind()) == (429, "rate-exceeded"), answer
    return int(answer.headers[b"retry-after"])


async def last_of_many(client: HttpClient) -> Response:
    """The last answer to more requests at once than any burst: the slowest machine takes no longer for them."""
    client.send(OPTIONS * 8)
    return [await client.response() for _ in range(8)][-1]


class TestAddress:
    async def test_a_burst_is_let_in_and_what_is_more_is_refused_before_its_body_is_read(self, embedded):
        async with (
            hand_worker(embedded.address, b"f") as worker,
            running_gateway([embedded.address], rate=RateBound(SLOW, 3)) as gateway,
            HttpClient(gateway.address) as client,
        ):
            client.send(post(b"/f", b"1"), OPTIONS, get(b"/v1/nothing"))
            worker.complete((await worker.take())[0], b"result")
            assert [(await client.response()).status for _ in range(3)] == [200, 204, 404]
            client.send(head(b"POST", b"/f", b"Expect: 100-continue", b"Content-Length: 100"))
            answer = await client.response()
            assert refused(answer) in NEXT_S
            assert "your address" in answer.problem()["detail"]
            assert gateway.count("admission.jobs") == 0

    async def test_the_connection_goes_on_after_a_refusal(self, embedded):
        async with (
            running_gateway([embedded.address], rate=RateBound(SLOW, 1)) as gateway,
            HttpClient(gateway.address) as client,
        ):
            assert (await client.ask(OPTIONS)).status == 204
            for _ in range(3):
                refused(await client.ask(post(b"/f", b"body")))
            before = gateway.process.settings
            await gateway.process.reconfigure(msgspec.structs.replace(before, rate=None))
            assert (await client.ask(OPTIONS)).status == 204

    async def test_it_holds_for_all_connections_of_an_address_and_for_each_address_by_itself(self, embedded):
        async with running_gateway([embedded.address], rate=RateBound(SLOW, 2)) as gateway:
            for source in ("127.0.0.2", "127.0.0.3"):
                answers = []
                for _ in range(3):
                    async with HttpClient(gateway.address, source=source) as client:
                        answers.append((await client.ask(OPTIONS)).status)
                assert answers == [204, 204, 429]

    async def test_clients_of_a_unix_socket_have_no_address(self, embedded, tmp_path):
        listen = (UnixAddress(str(tmp_path / "socket")), Address("127.0.0.1", 0))
        settings = {"rate": RateBound(SLOW, 1), "connection_rate": RateBound(SLOW, 1)}
        async with running_gateway([embedded.address], listen, **settings) as gateway:
            for _ in range(3):
                assert (await ask(gateway.address, OPTIONS)).status == 204

    @pytest.mark.parametrize("rate", [RateBound(1.0, 1), RateBound(30.0, 3)], ids=str)
    async def test_whoever_waits_as_long_as_told_gets_in(self, embedded, rate):
        async with (
            running_gateway([embedded.address], rate=rate) as gateway,
            HttpClient(gateway.address) as client,
        ):
            waits_s = set()
            ends_s = time.monotonic() + 2.5
            while time.monotonic() < ends_s:
                answer = await last_of_many(client)
                while answer.status == 204:
                    answer = await last_of_many(client)
                waits_s.add(refused(answer))
                await asyncio.sleep(refused(answer))
                assert (await client.ask(OPTIONS)).status == 204
            assert waits_s <= {1, 2}

    async def test_a_rate_that_changes_holds_at_once(self, embedded):
        async with (
            running_gateway([embedded.address], rate=RateBound(SLOW, 1)) as gateway,
            HttpClient(gateway.address) as client,
        ):

            async def change(**settings: object) -> None:
                await gateway.process.reconfigure(msgspec.structs.replace(gateway.process.settings, **settings))

            assert (await client.ask(OPTIONS)).status == 204
            assert refused(await client.ask(OPTIONS)) in NEXT_S
            await change(rate=RateBound(1000.0, 1))
            # What was owed under the old rate is no more than the new one's burst.
            await client.ask(OPTIONS)
            await asyncio.sleep(0.01)
            assert (await client.ask(OPTIONS)).status == 204
            await change(rate=None)
            assert {(await client.ask(OPTIONS)).status for _ in range(20)} == {204}


class TestFunctions:
    async def test_each_counts_by_itself_whoever_asks(self, embedded):
        rates = (FunctionRate("image-*", RateBound(SLOW, 2)), FunctionRate("mail", RateBound(SLOW, 1)))
        async with running_gateway([embedded.address], function_rate=rates) as gateway:
            found = {}
            for function in (b"image-a", b"image-b", b"mail", b"other"):
                found[function] = [
                    (await ask(gateway.address, post(b"/" + function, b"", b"X-Gearman-Background: true"))).status
                    for _ in range(4)
                ]
            assert found == {
                b"image-a": [200, 200, 429, 429],
                b"image-b": [200, 200, 429, 429],
                b"mail": [200, 429, 429, 429],
                b"other": [200] * 4,
            }

    async def test_it_is_told_and_when_to_come_again(self, embedded):
        async with (
            running_gateway([embedded.address], function_rate=(FunctionRate("f", RateBound(0.5, 1)),)) as gateway,
            HttpClient(gateway.address) as client,
        ):
            background = post(b"/f", b"", b"X-Gearman-Background: true")
            # Both at once, for after two seconds another one is let in.
            client.send(background * 2)
            assert (await client.response()).status == 200
            answer = await client.response()
            assert 2 <= refused(answer) <= 3
            assert "this function" in answer.problem()["detail"]

    async def test_whoever_is_refused_by_address_takes_nothing_from_a_function(self, embedded):
        settings = {"rate": RateBound(SLOW, 2), "function_rate": (FunctionRate("f", RateBound(SLOW, 3)),)}
        background = post(b"/f", b"", b"X-Gearman-Background: true")
        async with running_gateway([embedded.address], **settings) as gateway:
            statuses = []
            for source in ("127.0.0.2", "127.0.0.3"):
                async with HttpClient(gateway.address, source=source) as client:
                    statuses += [(await client.ask(background)).status for _ in range(4)]
            # The first has had two and was refused twice by its address, so one is left for the second.
            assert statuses == [200, 200, 429, 429, 200, 429, 429, 429]

    async def test_what_is_refused_by_its_head_costs_a_function_nothing(self, embedded):
        async with (
            running_gateway([embedded.address], function_rate=(FunctionRate("f", RateBound(SLOW, 1)),)) as gateway,
            HttpClient(gateway.address) as client,
        ):
            assert (await client.ask(post(b"/f?lost"))).status == 400
            assert (await client.ask(OPTIONS)).status == 204
            background = post(b"/f", b"", b"X-Gearman-Background: true")
            assert [(await client.ask(background)).status for _ in range(2)] == [200, 429]


class TestConnections:
    async def test_further_ones_of_an_address_are_told_and_closed(self, embedded):
        async with running_gateway([embedded.address], connection_rate=RateBound(SLOW, 2)) as gateway:
            for source in ("127.0.0.2", "127.0.0.3"):
                for _ in range(2):
                    async with HttpClient(gateway.address, source=source) as client:
                        assert [(await client.ask(OPTIONS)).status for _ in range(3)] == [204] * 3
                async with HttpClient(gateway.address, source=source) as client:
                    answer = await client.response()
                    assert (answer.status, answer.kind()) == (429, "connection-rate-exceeded")
                    assert int(answer.headers[b"retry-after"]) in NEXT_S
                    assert answer.headers[b"connection"] == b"close"
                    assert await client.rest() == b""

    async def test_whoever_waits_as_long_as_told_gets_in(self, embedded):
        async with running_gateway([embedded.address], connection_rate=RateBound(1.0, 1)) as gateway:
            # One that is let in by a second that has passed meanwhile is not the one that is refused.
            while (answer := await ask(gateway.address, OPTIONS)).status == 204:
                pass
            wait_s = int(answer.headers[b"retry-after"])
            assert wait_s in (1, 2)
            await asyncio.sleep(wait_s)
            assert (await ask(gateway.address, OPTIONS)).status == 204
