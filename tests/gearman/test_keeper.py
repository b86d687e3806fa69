"""What the log tells of job servers that are away."""

from __future__ import annotations

import asyncio
import datetime
import logging
import re
import signal
import socket
import time

import pytest

from gatewayx.gearman import keeper
from gatewayx.gearman.keeper import MAX_REASONS, REPEAT_S, Reasons, Upkeep
from gatewayx.net import names
from support.gateway import ServeProcess, eventually, running_gateway
from support.http import ask, post
from support.job_servers import ScriptedJobServer, nobody_listens
from support.lookups import numeric
from support.times import WAIT_S
from support.tls import Authority, TlsTerminator


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of every name, to be changed; without any no name is known."""
    addresses = ["127.0.0.1"]

    def look_up(host: str) -> object:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return numeric(*addresses)

    monkeypatch.setattr(names, "look_up", look_up)
    return addresses


class TestReasons:
    def test_each_new_one_is_due_once_and_again_after_a_minute(self):
        reasons = Reasons()
        assert not reasons
        assert [reasons.is_due(reason, 0) for reason in "aabab"] == [True, False, True, False, False]
        assert reasons
        assert not reasons.is_due("a", REPEAT_S - 0.1)
        assert reasons.is_due("a", REPEAT_S)
        assert not reasons.is_due("a", REPEAT_S + 0.1)
        assert reasons.is_due("b", REPEAT_S + 0.1)

    def test_all_are_new_once_it_was_back(self):
        reasons = Reasons()
        assert reasons.is_due("a", 0)
        reasons.forget()
        assert reasons.is_due("a", 0)

    def test_so_many_in_a_minute_and_no_more(self):
        reasons = Reasons()
        due = [reasons.is_due(f"reason {number}", number) for number in range(1000)]
        assert sum(due[: int(REPEAT_S)]) == MAX_REASONS
        assert len(reasons._told_at_s) == MAX_REASONS
        assert sum(due) <= MAX_REASONS * (1000 / REPEAT_S + 1)
        # Those that were told are still known.
        assert due[: MAX_REASONS + 1] == [True] * MAX_REASONS + [False]


def lines(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    """The messages so far with `part` in them."""
    return [record.getMessage() for record in caplog.records if part in record.getMessage()]


@pytest.mark.anyio
class TestAway:
    async def test_a_name_that_no_longer_resolves_is_told_beside_the_first_reason(self, monkeypatch, caplog):
        lookups = []

        def look_up(host):
            lookups.append(host)
            if len(lookups) <= 3:
                return numeric("127.0.0.1")
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(names, "look_up", look_up)
        port = nobody_listens()[1]
        async with running_gateway([("job-server.test", port)]):
            await eventually(lambda: len(lines(caplog, "is not connected, trying again")) == 2)
            # Several more attempts bring nothing new.
            seen = len(lookups)
            await eventually(lambda: len(lookups) >= seen + 4)
        refused, unknown = lines(caplog, "is not connected")
        assert refused.startswith(f"job server job-server.test:{port} is not connected, trying again: [Errno 111]")
        assert unknown.endswith("Name or service not known")

    async def test_it_is_told_again_while_it_holds(self, monkeypatch, caplog):
        monkeypatch.setattr(keeper, "REPEAT_S", 0.2)
        async with running_gateway([nobody_listens()]):
            await eventually(lambda: len(lines(caplog, "is not connected")) >= 3)

    async def test_an_order_of_addresses_that_changes_is_no_new_reason(self, monkeypatch, caplog):
        order = ["127.0.0.1", "127.0.0.2"]
        lookups = []

        def look_up(host):
            lookups.append(host)
            order.reverse()
            return numeric(*order)

        monkeypatch.setattr(names, "look_up", look_up)
        async with running_gateway([("job-server.test", nobody_listens()[1])]):
            await eventually(lambda: len(lookups) >= 8)
        [line] = lines(caplog, "is not connected")
        assert "127.0.0.1: [Errno 111]" in line
        assert "; 127.0.0.2: [Errno 111]" in line

    async def test_a_certificate_that_has_expired_is_told_though_another_reason_was_first(
        self, monkeypatch, caplog, tmp_path, embedded
    ):
        authority = Authority(tmp_path)
        yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
        found = ["127.0.0.2"]
        monkeypatch.setattr(names, "look_up", lambda host: numeric(*found))
        with TlsTerminator(embedded.address, authority.certificate("job-server.test", ends=yesterday)) as terminator:
            servers = [("job-server.test", terminator.port, True)]
            async with running_gateway(servers, server_ca=str(authority.file)):
                await eventually(lambda: lines(caplog, "is not connected"))
                found[:] = ["127.0.0.1"]
                await eventually(lambda: lines(caplog, "certificate has expired"))

    async def test_a_connection_that_is_not_made_beside_others_is_told(self, found, caplog):
        async with (
            ScriptedJobServer() as server,
            running_gateway([("job-server.test", server.port)], connections_per_server=2) as gateway,
        ):
            upstream = await server.connection()
            await gateway.reaches("pool.connections", 2)
            found.clear()
            upstream.close()
            await eventually(lambda: lines(caplog, "a further connection to job server"))
            assert len(lines(caplog, "was lost, making it anew")) == 1
            await asyncio.sleep(0.5)
            [line] = lines(caplog, "a further connection to job server")
            assert line.endswith("is not made, trying again: [Errno -2] Name or service not known")
            found.append("127.0.0.1")
            await gateway.reaches("pool.connections", 2)
        assert not lines(caplog, "is not connected")

    async def test_each_reason_of_a_text_connection_is_told(self, found, caplog):
        async with ScriptedJobServer() as server, running_gateway([("job-server.test", server.port)]) as gateway:
            await gateway.reaches("pool.connections", 2)
            await eventually(lambda: any(connection.is_text for connection in server.open))
            found.clear()
            [text] = [connection for connection in server.open if connection.is_text]
            text.close()
            await eventually(lambda: len(lines(caplog, "does not answer by text")) == 2)
            _, unknown = lines(caplog, "does not answer by text")
            assert unknown.endswith("Name or service not known")

    async def test_a_reason_cannot_forge_a_line(self):
        before = """
from gatewayx.net import names
def look_up(host):
    raise OSError("bad \\x1b[2J\\nname" + "x" * 5000)
names.look_up = look_up
"""
        async with ServeProcess("--listen", "127.0.0.1:0", "--server", "job-server.test:1", before=before) as served:
            line = await served.until("is not connected")
            assert "trying again: bad \\x1b[2J\\nnamexxx" in line
            assert len(line) < 700

    async def test_many_that_are_away_together_are_told_each(self):
        servers = [argument for port in range(1, 21) for argument in ("--server", f"127.0.0.1:{port}")]
        async with ServeProcess("--listen", "127.0.0.1:0", *servers, "--workers", "1") as served:
            await served.address()
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0
            # One that was not tried within the first second is told twice.
            told = [line for line in served.lines if "is not connected" in line]
            assert len({re.search(r"job server (\S+) ", line)[1] for line in told}) == 20


@pytest.mark.anyio
class TestLongQueues:
    LINE = "--hashtable-buckets 1000003"

    async def test_more_than_50000_queued_jobs_are_told_once_and_again_after_there_were_fewer(self, caplog):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1, status_interval_s=0.05),
        ):

            async def tells(*queued: int) -> list[str]:
                """The lines so far, once the gateway has looked at a status with so many jobs queued."""
                server.status = {b"f%d" % number: (jobs, 1, number) for number, jobs in enumerate(queued)}
                seen = server.statuses
                await eventually(lambda: server.statuses >= seen + 3)
                return lines(caplog, self.LINE)

            assert await tells(30_000, 20_000) == []
            [line] = await tells(30_000, 20_001)
            assert line.startswith(f"job server 127.0.0.1:{server.port} has 50001 jobs queued: ")
            assert len(await tells(900_000, 20_001)) == 1
            assert len(await tells(50_000)) == 1
            assert len(await tells()) == 1
            _, again = await tells(0, 60_000)
            assert "has 60000 jobs queued" in again

    async def test_each_job_server_is_told_of_by_itself_and_once_though_its_text_connection_is_made_anew(self, caplog):
        async with (
            ScriptedJobServer() as one,
            ScriptedJobServer() as two,
            running_gateway([one.address, two.address], connections_per_server=1, status_interval_s=0.05),
        ):
            for server in (one, two):
                server.status = {b"f": (70_000, 0, 0)}
            await eventually(lambda: len(lines(caplog, self.LINE)) == 2)
            assert {line.split(" has ")[0] for line in lines(caplog, self.LINE)} == {
                f"job server 127.0.0.1:{server.port}" for server in (one, two)
            }
            [text] = [connection for connection in one.open if connection.is_text]
            text.close()
            seen = one.statuses
            await eventually(lambda: one.statuses >= seen + 4)
            assert len(lines(caplog, self.LINE)) == 2

    async def test_numbers_that_are_made_up_do_not_overflow(self, caplog):
        async with ScriptedJobServer() as server:
            server.status_lines = lambda: [b"f%d\t%d\t0\t1\n" % (number, 10**18 - 1) for number in range(20)]
            async with running_gateway([server.address], connections_per_server=1, status_interval_s=0.05):
                await eventually(lambda: lines(caplog, self.LINE))
                assert "has 1000000000 jobs queued" in lines(caplog, self.LINE)[0]

    async def test_queued_jobs_of_a_job_server_are_counted(self, monkeypatch, caplog, address, function):
        monkeypatch.setattr(keeper, "MANY_QUEUED_JOBS", 2)
        async with running_gateway([address], status_interval_s=0.05) as gateway:
            for _ in range(3):
                answer = await ask(gateway.address, post(b"/" + function, b"", b"X-Gearman-Background: true"))
                assert answer.status == 200
            await eventually(lambda: lines(caplog, self.LINE))


@pytest.mark.parametrize(
    ("cost_s", "askers", "pause_s"),
    [(0.0, 16, 2.0), (0.01, 1, 2.0), (0.01, 16, 8.0), (0.1, 2, 10.0), (1.0, 3, 60.0), (60.0, 17, 60.0)],
)
def test_all_together_take_a_fiftieth_of_the_job_servers_time_and_ask_each_minute(cost_s, askers, pause_s):
    upkeep = Upkeep(connections_per_server=1, status_interval_s=2.0, askers=askers)
    assert upkeep.status_pause_s(cost_s) == pytest.approx(pause_s)


@pytest.mark.anyio
async def test_a_job_server_that_takes_long_for_its_status_is_asked_less_often(caplog):
    caplog.set_level(logging.INFO, "gatewayx.gearman")

    def slow() -> list[bytes]:
        # The quickest answers tell what the way takes; one of them may be late, several are not.
        if server.statuses > 5:
            time.sleep(0.1)
        return []

    async with ScriptedJobServer() as server:
        server.status_lines = slow
        async with running_gateway([server.address], connections_per_server=1, status_interval_s=0.05):
            await eventually(lambda: "it is asked for every" in caplog.text)
            seen = server.statuses
            await asyncio.sleep(1.5)
            # One each 50 ms would be 30.
            assert server.statuses <= seen + 2
    assert caplog.text.count("it is asked for every") == 1


@pytest.mark.anyio
async def test_a_job_server_that_stands_still_for_once_is_asked_as_often_as_before(caplog):
    caplog.set_level(logging.INFO, "gatewayx.gearman")

    def late_once() -> list[bytes]:
        if server.statuses == 3:
            time.sleep(1.0)
        return []

    async with ScriptedJobServer() as server:
        server.status_lines = late_once
        async with running_gateway([server.address], connections_per_server=1, status_interval_s=1.0):
            # By what the late one took, the next would be due 50 s later.
            await eventually(lambda: server.statuses >= 5)
    assert "it is asked for every" not in caplog.text


@pytest.mark.anyio
async def test_one_whose_attempt_fails_as_it_is_closed_waits_for_no_further_one(monkeypatch):
    # Nothing but being closed ends the wait after an attempt.
    monkeypatch.setattr(keeper, "random_part", lambda _most_s: 3600.0)
    fails = asyncio.get_running_loop().create_future()
    tried = []

    async def come_up(_keeper: keeper.Keeper, connection: object, _address: object) -> None:
        tried.append(connection)
        await fails

    monkeypatch.setattr(keeper.Keeper, "_come_up", come_up)
    async with running_gateway([("127.0.0.1", 1)], is_patient=False) as gateway:
        [server] = gateway.process.pool.servers
        await eventually(lambda: len(tried) == 3)
        # In one turn of the loop: wait_for() gives the error, and forgets the cancellation, before Python 3.12.
        fails.set_exception(ConnectionRefusedError("refused"))
        await asyncio.wait_for(gateway.process.pool.keeper(server).close(), WAIT_S)
