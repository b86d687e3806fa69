"""A fault of the gateway's own while it serves an idempotency key ends what it was met in, and nothing else."""

from __future__ import annotations

import pytest

from gatewayx.gateway import exchange, keyed_exchange
from support.gateway import running_gateway
from support.http import HttpClient
from support.job_servers import nobody_listens
from support.keys import is_again, is_first, key_of, keyed, new_key, waits

pytestmark = pytest.mark.anyio


class TestOurOwnFaults:
    async def test_an_exception_while_the_job_is_submitted_is_500_for_all_and_holds_nothing(self, monkeypatch, caplog):
        async with (
            running_gateway([nobody_listens()]) as gateway,
            HttpClient(gateway.address) as client,
        ):
            request = keyed(b"f", b"w", new_key())
            # The problem of a 503, which is looked up when it is answered.
            monkeypatch.setattr(exchange, "NO_JOB_SERVER", 503)
            first = await client.ask(request)
            monkeypatch.undo()
            assert (first.status, first.kind(), is_first(first)) == (500, "internal-error", True)
            assert "a request of the gateway's own failed" in caplog.messages
            # What became of it is not known, so it is not run again.
            assert is_again(await client.ask(request), first)
            assert gateway.process.keys.counters() == {"ended": 1, "running": 0}
            assert (await client.ask(keyed(b"f", b"w", new_key()))).kind() == "no-job-server"

    async def test_an_exception_while_one_is_answered_is_its_own(
        self, gateway, client, worker, function, monkeypatch, caplog
    ):
        request = keyed(function, b"w", new_key())
        async with HttpClient(gateway.address) as impatient, HttpClient(gateway.address) as other:
            client.send(request)
            handle, _, _, _ = await worker.take()
            before = gateway.count("gateway.open_exchanges")
            with gateway.within_a_tick():
                impatient.send(keyed(function, b"w", key_of(request), b"X-Gearman-Timeout: 0.3"))
                before = await waits(gateway, before)
                other.send(request)
                await waits(gateway, before)
                monkeypatch.setattr(keyed_exchange, "JOB_TIMEOUT", 504)
            answer = await impatient.response()
            monkeypatch.undo()
            assert (answer.status, answer.kind()) == (500, "internal-error")
            assert "a request that watches a job failed" in caplog.messages
            worker.complete(handle, b"undisturbed")
            first = await client.response()
            assert (first.status, first.body) == (200, b"undisturbed")
            assert is_again(await other.response(), first)
