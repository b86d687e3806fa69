"""The admin process: it answers whatever becomes of the worker processes, and it comes back."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.admin import ADMIN, AdminAddress, admin_of, until
from support.gateway import ServeProcess, children_of, eventually
from support.http import HttpClient, post
from support.imports import imported_with
from support.job_servers import hand_worker
from support.times import HANGS_S, PROCESS_S

pytestmark = pytest.mark.anyio

# A line of the log that tells of no error; those of a traceback do not begin so.
LINE_WITHOUT_ERROR = re.compile(r"\S+ \S+ (?:INFO|WARNING) ")


@pytest.fixture
def arguments() -> tuple[str, ...]:
    """Further flags; a test changes them by parametrizing `arguments`."""
    return ()


@pytest.fixture
async def served(embedded, arguments) -> AsyncIterator[ServeProcess]:
    """Two worker processes and an admin process, in front of the embedded job server."""
    host, port = embedded.address
    async with ServeProcess(*ADMIN, "--server", f"{host}:{port}", "--workers", "2", *arguments) as served:
        yield served


@pytest.fixture
async def admin(served) -> AdminAddress:
    """The admin address of that."""
    return await admin_of(served)


async def test_it_lives_and_is_ready(admin):
    for target in ("/livez", "/readyz"):
        answer = await admin.ask(target)
        assert (answer.status, answer.body) == (200, b"ok")


async def test_its_process_is_neither_the_master_nor_a_place(served, admin):
    status = await admin.status()
    processes = {process["process"]: process["pid"] for process in status["processes"]}
    assert set(processes) == {"master", "admin", "worker-0", "worker-1"}
    assert processes["master"] == served.process.pid
    assert sorted(children_of(served.process.pid)) == sorted(set(processes.values()) - {served.process.pid})
    assert [worker["state"] for worker in status["workers"]] == ["ready", "ready"]


async def test_it_answers_while_all_worker_processes_are_stopped_and_says_so(admin):
    workers = await admin.workers()
    for process_id in workers:
        os.kill(process_id, signal.SIGSTOP)
    try:
        for target in ("/livez", "/metrics", "/status"):
            assert (await admin.ask(target)).status == 200
        await admin.becomes("/readyz", 503)
        body = (await admin.ask("/readyz")).body
        assert b"[-]workers failed: 0 of 2 worker processes are ready, since 2" in body
        assert body.endswith(b"readyz check failed\n")
        assert [worker["state"] for worker in (await admin.status())["workers"]] == ["still", "still"]
        # They may come back: what hangs is replaced after worker-timeout, and until then it lives.
        assert await admin.code("/livez") == 200
    finally:
        for process_id in workers:
            os.kill(process_id, signal.SIGCONT)
    await admin.becomes("/readyz", 200)


@pytest.mark.parametrize("arguments", [("--worker-timeout", str(HANGS_S))])
async def test_a_gateway_in_which_no_loop_turns_does_not_live(admin):
    # The master would replace one of them after the other; it is stopped as well.
    stopped = [await admin.process_id("master"), *(await admin.workers())]
    for process_id in stopped:
        os.kill(process_id, signal.SIGSTOP)
    try:
        await admin.becomes("/livez", 503)
        assert b"[-]worker-loops failed: no worker process has turned" in (await admin.ask("/livez")).body
    finally:
        for process_id in stopped:
            os.kill(process_id, signal.SIGCONT)
    await admin.becomes("/livez", 200)


async def test_a_worker_process_that_is_killed_is_counted_and_no_count_falls(admin):
    before = await admin.metrics()
    os.kill((await admin.workers())[0], signal.SIGKILL)

    async def is_counted() -> bool:
        [worker, _] = (await admin.status())["workers"]
        return worker["restarts"] == 1 and worker["state"] == "ready"

    await until(is_counted)

    async def is_exposed() -> bool:
        return await admin.metric("gatewayx_worker_restarts_total", reason="oom") == 1

    await until(is_exposed)
    assert fallen(before, await admin.metrics()) == {}


async def test_a_worker_process_is_told_of_with_its_start_which_is_another_ones_after_it(admin):
    status = await admin.status()
    before = [worker["started"] for worker in status["workers"]]
    # Ready is what it became after that.
    for worker in status["workers"]:
        assert status["started"] <= worker["started"] <= worker["since"]
    os.kill(status["workers"][0]["pid"], signal.SIGKILL)

    async def is_replaced() -> bool:
        [worker, _] = (await admin.status())["workers"]
        return worker["restarts"] == 1 and worker["state"] == "ready"

    await until(is_replaced)
    after = [worker["started"] for worker in (await admin.status())["workers"]]
    assert after[0] > before[0]
    assert after[1] == before[1]


def fallen(before: dict, after: dict) -> dict:
    """The counts that are lower than they were, or gone."""
    return {
        key: (value, after.get(key))
        for key, value in before.items()
        if key[0].endswith(("_total", "_bucket", "_count", "_sum")) and after.get(key, -1) < value
    }


@pytest.mark.parametrize("arguments", [("--ready-requires", "all")])
async def test_it_is_replaced_when_it_is_killed_and_goes_on_where_it_was(served, admin):
    async def since() -> list[tuple[str, str, str]]:
        checks = json.loads((await admin.ask("/readyz", b"Accept: application/json")).body)["checks"]
        return [(check["name"], check["status"], check["since"]) for check in checks]

    os.kill((await admin.workers())[0], signal.SIGKILL)

    async def is_replaced() -> bool:
        return (await admin.status())["workers"][0]["restarts"] == 1

    await until(is_replaced)
    before = await admin.status()
    checks = await since()
    metrics = await admin.metrics()
    killed = await admin.process_id("admin")
    os.kill(killed, signal.SIGKILL)
    # Whoever asks meanwhile waits for the next one.
    assert (await admin.ask("/livez")).status == 200
    await served.until(f"admin process (pid {killed}) was ended by SIGKILL")
    after = await admin.status()
    assert await admin.process_id("admin") != killed
    assert (after["started"], after["workers"][0]["restarts"]) == (before["started"], 1)
    assert await since() == checks
    assert [process["restarts"] for process in after["processes"]] == [0, 1, 1, 0]
    told = await admin.metrics()
    restarts = {labels: count for (name, labels), count in told.items() if name == "gatewayx_process_restarts_total"}
    expected = {"admin": 1, "worker-0": 1, "worker-1": 0}
    assert restarts == {frozenset({("process", name)}): count for name, count in expected.items()}
    assert fallen(metrics, told) == {}


async def test_one_that_hangs_is_replaced(embedded):
    host, port = embedded.address
    arguments = (*ADMIN, "--server", f"{host}:{port}", "--workers", "1", "--worker-timeout", str(HANGS_S))
    async with ServeProcess(*arguments) as served:
        admin = await admin_of(served)
        hangs = await admin.process_id("admin")
        os.kill(hangs, signal.SIGSTOP)
        await served.until("the admin process")
        await served.until(f"admin process (pid {hangs}) was ended by SIGABRT")
        assert await admin.process_id("admin") != hangs


async def test_one_that_hangs_before_it_is_ready_is_replaced_and_the_master_rests_meanwhile(embedded, tmp_path):
    host, port = embedded.address
    before = (
        "import os, time\n"
        "from gatewayx.server import admin\n"
        "run = admin.run\n"
        "def hang_once(*arguments):\n"
        f"    if not os.path.exists({str(tmp_path / 'has hung')!r}):\n"
        f"        os.mkdir({str(tmp_path / 'has hung')!r})\n"
        "        time.sleep(1000)\n"
        "    return run(*arguments)\n"
        "admin.run = hang_once\n"
    )
    arguments = (*ADMIN, "--server", f"{host}:{port}", "--workers", "1", "--worker-timeout", str(HANGS_S))
    async with ServeProcess(*arguments, before=before) as served:
        admin = await admin_of(served)

        def rests() -> int:
            told = Path(f"/proc/{served.process.pid}/status").read_text()
            return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", told, re.MULTILINE)[1])

        before_it = rests()
        await served.until("has not turned its loop: it is aborted")
        # It looks at everything five times within the worker timeout.
        assert rests() - before_it < 25
        await served.until("was ended by SIGABRT")
        assert (await admin.ask("/livez")).status == 200


async def test_a_broken_file_is_told_of_and_changes_nothing(embedded, tmp_path):
    host, port = embedded.address
    file = tmp_path / "gatewayx.toml"
    file.write_text("max-jobs = 7\n")
    async with ServeProcess(*ADMIN, "--server", f"{host}:{port}", "--config", str(file)) as served:
        admin = await admin_of(served)
        assert (await admin.status())["reload"]["result"] == "none"
        assert await admin.metric("gatewayx_config_last_reload_successful") == 1
        file.write_text("max-jobs = nonsense\n")
        served.signal(signal.SIGHUP)
        await served.until("SIGHUP: no setting changes")

        async def has_failed() -> bool:
            return (await admin.status())["reload"]["result"] == "failed"

        await until(has_failed)
        reload = (await admin.status())["reload"]
        assert str(file) in reload["detail"]
        assert reload["at"] > reload["last_successful"]
        assert (await admin.status())["limits"]["jobs"]["limit"] == 7
        assert await admin.code("/readyz") == 200

        file.write_text("max-jobs = 8\nadmin-host = 'gateway.internal'\n")
        served.signal(signal.SIGHUP)
        await served.until("all worker processes have the settings")

        async def has_changed() -> bool:
            status = await admin.status()
            return status["reload"]["result"] == "successful" and status["limits"]["jobs"]["limit"] == 8

        await until(has_changed)
        status = await admin.status()
        assert status["reload"]["at"] == status["reload"]["last_successful"]
        named = b"GET /livez HTTP/1.1\r\nHost: gateway.internal\r\n\r\n"
        assert (await admin.send(named)).status == 200


@pytest.mark.parametrize("arguments", [("--shutdown-delay", "1")])
async def test_a_stop_is_told_at_once_and_up_to_its_end(served, admin, embedded):
    line = next(line for line in served.lines if "listens on" in line)
    host, port = served.listens_on.search(line).groups()
    async with hand_worker(embedded.address, b"slow") as worker, HttpClient((host, int(port))) as client:
        client.send(post(b"/slow"))
        handle, *_ = await worker.take()
        served.signal(signal.SIGTERM)
        await served.until("stopping in 1 s")
        await admin.becomes("/readyz", 503)
        assert b"[-]stop failed: the gateway is told to stop" in (await admin.ask("/readyz")).body
        await served.until("stopping: answering what is in flight")
        # The worker processes accept no more, and this address goes on.
        assert await admin.code("/readyz") == 503
        assert await admin.code("/livez") == 200
        assert (await admin.status())["stopping"] is not None
        worker.complete(handle, b"done")
        assert (await client.response()).body == b"done"
    assert await served.ended() == 0
    with pytest.raises(ConnectionRefusedError):
        await admin.ask("/livez")


async def test_it_ends_with_the_master(served, admin):
    processes = children_of(served.process.pid)
    admin_id = await admin.process_id("admin")
    served.process.kill()
    await eventually(lambda: not Path(f"/proc/{admin_id}").exists(), PROCESS_S)
    await eventually(lambda: not any(Path(f"/proc/{process_id}").exists() for process_id in processes), PROCESS_S)


async def test_a_stop_says_nothing_of_an_error(served, admin):
    await admin.status()
    served.signal(signal.SIGTERM)
    assert await served.ended() == 0
    assert [line for line in served.lines if not LINE_WITHOUT_ERROR.match(line)] == []


async def test_of_a_master_that_is_killed_only_those_tell_who_drain(served, admin):
    await admin.status()
    served.process.kill()
    # Up to the end of the last process, which has the other end of the pipe.
    await served.ended()
    told = [line for line in served.lines if not LINE_WITHOUT_ERROR.match(line)]
    assert len(told) == 2
    assert all("ERROR worker process" in line and "the master is gone" in line for line in told)


async def test_a_default_address_that_is_taken_is_one_warning(embedded):
    host, port = embedded.address
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        # The default may be taken here by anybody, so another one stands for it.
        before = (
            "from gatewayx.server import master\n"
            "original = master.run\n"
            "master.run = lambda *a, **k: original(*a, **{**k, 'admin_is_default': True})\n"
        )
        arguments = ("--admin", address, "--listen", "127.0.0.1:0", "--server", f"{host}:{port}", "--workers", "1")
        async with ServeProcess(*arguments, before=before) as served:
            await served.address()
            assert len(children_of(served.process.pid)) == 1
            told = [line for line in served.lines if "admin" in line]
            assert len(told) == 1
            assert f"WARNING going on without an admin address, since {address} cannot be had" in told[0]
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0


async def test_an_address_that_was_set_and_is_taken_ends_the_start(embedded):
    host, port = embedded.address
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = ("--admin", address, "--listen", "127.0.0.1:0", "--server", f"{host}:{port}")
        async with ServeProcess(*arguments) as served:
            assert await served.ended() == 1
    assert served.lines[-1] == f"gatewayx: the admin address {address} cannot be had: Address already in use\n"


async def test_an_address_that_others_reach_is_warned_of(embedded):
    host, port = embedded.address
    arguments = ("--admin", "0.0.0.0:0", "--listen", "127.0.0.1:0", "--server", f"{host}:{port}")
    async with ServeProcess(*arguments) as served:
        await served.address()
    assert any("WARNING the admin address 0.0.0.0:0 can be reached by other hosts" in line for line in served.lines)


async def test_a_worker_process_has_neither_its_socket_nor_what_it_imports(served, admin):
    [worker, _] = await admin.workers()
    own = (await admin.process_id("admin"), await admin.process_id("master"))

    def listening(process_id: int) -> bool:
        inodes = {str(path.readlink()) for path in Path(f"/proc/{process_id}/fd").iterdir()}
        port = f":{admin.address[1]:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return any(f"socket:[{row[9]}]" in inodes for row in rows if row[1].endswith(port) and row[3] == "0A")

    assert [listening(process_id) for process_id in (worker, *own)] == [False, True, True]


def test_nothing_that_only_the_admin_process_needs_is_imported_before_it_is_forked():
    own = ("prometheus_client", "gatewayx.admin", "gatewayx.server.admin", "gzip")
    found = imported_with("gatewayx.cli", "gatewayx.server.master", "gatewayx.server.worker", of=own)
    assert found == ["gatewayx.server.admin_socket"]
