"""A gateway of one or two worker processes for one input of the target http_connection, and what must hold of it."""

from __future__ import annotations

import gc
import itertools
import random
import re
import time
from collections import Counter

from fuzz import batches
from fuzz.held import OF_JOB_SERVERS, still_held
from fuzz.http_inputs import (
    COMPAT,
    CUT_SHIFT,
    DECLARATIONS,
    FEW_JOBS,
    GOOD,
    MAX_BODY_BYTES,
    MAX_PARKED,
    ONE_CONNECTION,
    OPTION_ANSWERS,
    PARKED_S,
    TIGHT_BUDGET,
)
from fuzz.keyed import REPLAYED, check_answers, check_jobs, requests_of
from fuzz.links import Links
from fuzz.processes import make_processes
from fuzz.responses import Response, responses_of
from fuzz.world import Failures, FakeStream, JobServer, Loop, OptionAnswer
from gatewayx.address import ServerAddress
from gatewayx.config.settings import Settings
from gatewayx.gearman.job_table import JobTable
from gatewayx.gearman.packet import PacketType
from gatewayx.server.process import GatewayProcess

FIRST_PORT, SECOND_PORT = 4730, 4731
# Job servers that hang hold up the start so long.
START_S = 1.0
# Connections beside those of the clients that play.
PARKED_CONNECTIONS = 8
MAX_RESULT_BYTES = 150_000
MAX_HELD_BYTES = 1 << 20
TIGHT_RESULT_BYTES = 40_000
TIGHT_HELD_BYTES = 160_000
# Of the bytes that may be held, in eighths; and what is never refused and counts above: answers that are no results.
SHARES = {"small": 1, "bodies": 3, "results": 4}
UNREFUSED_BYTES = {"small": 1 << 16, "bodies": 0, "results": 0}
SIZES = (1, 2, 3, 5, 9, 17, 33, 65, 127, 255, 500, 1000, 2000, 3000, 4000, 5000)
# Requests that fit into an input, by far.
MAX_ROUNDS = 1000
# A job server that hangs is known to hang after so many checks.
CHECKS = 3
# What is put off for a moment, such as refusals, must not happen when everything else is overdue.
SOON_S = 0.1
SOON_STEPS = 2
# More than any deadline, so that nothing waits any more.
LONG_S = 500.0
REQUEST_ID = re.compile(rb"[a-z2-7]{13}-[0-9]{14}")
# It had to make room, or there is none to answer with it now.
WITHOUT_RESULT = (410, 503)
KEY_NAME = b"idempotency-key"
OWN_UNIQUE = re.compile(rb"gatewayx-[a-z2-7]+-([0-9]+)")


class Client(FakeStream):
    """A client's connection, and how much of its bytes it has sent."""

    def __init__(self, loop: Loop, process: GatewayProcess, data: bytes, host: str) -> None:
        super().__init__(loop, process.http.connection())
        self.data = data
        self.host = host
        self.sent = 0
        # It has reset the connection, or closed its sending side: requests of it may be dropped.
        self.was_reset = False
        self.has_hung_up = False
        self.open()

    @property
    def has_ended_it(self) -> bool:
        """Whether the client has ended the connection, or did not read what it was sent."""
        return self.was_reset or self.has_hung_up or self.dropped_after_s is not None

    def send(self, size: int) -> None:
        """Send the next bytes, if the gateway reads."""
        if self.reads and not self.closed and self.sent < len(self.data):
            begin, self.sent = self.sent, min(self.sent + size, len(self.data))
            self.receive(self.data[begin : self.sent])

    def hang_up(self) -> None:
        """Close the sending side; whether the gateway reads or not."""
        if not self.closed:
            self.has_hung_up = True
            self.receive_eof()

    def break_off(self) -> None:
        """End the connection at once."""
        self.was_reset = True
        self.lose(ConnectionResetError("reset"))


class World:
    """A gateway with one or two worker processes and one or two job servers, for one input."""

    def __init__(self, bits: int, workers: int = 1) -> None:
        # The pool's back-off is the only thing left to chance.
        random.seed(bits)
        self.loop = Loop()
        self.failures = Failures()
        self.failures.__enter__()
        self.server = JobServer(self.loop)
        self.clients: list[Client] = []
        # Responses to clients that have gone.
        self.responses = 0
        self.draining = False
        # What each of those declares that send nothing more; the kinds stand for those that are asked for again later.
        self.parked_kinds: list[int] = []
        ports = (FIRST_PORT,) if bits & ONE_CONNECTION else (FIRST_PORT, SECOND_PORT)
        if bits & FEW_JOBS:
            self.server.hanging_ports.add(SECOND_PORT)
        self.server.option_answer = OPTION_ANSWERS.get(bits >> CUT_SHIFT, OptionAnswer.TAKEN)
        self.settings = Settings(
            server=tuple(ServerAddress("127.0.0.1", port) for port in ports),
            connections_per_server=1 if bits & ONE_CONNECTION else 2,
            max_connections=2 + PARKED_CONNECTIONS,
            max_pipelined=4,
            max_jobs=3 if bits & FEW_JOBS else 100,
            max_relayed=2 if bits & FEW_JOBS else 100,
            max_keys=2 if bits & FEW_JOBS else 100,
            max_target_bytes=256,
            max_header_bytes=1024,
            max_headers=12,
            max_body_bytes=MAX_BODY_BYTES,
            max_chunk_extensions_bytes=64,
            max_result_bytes=TIGHT_RESULT_BYTES if bits & TIGHT_BUDGET else MAX_RESULT_BYTES,
            max_held_bytes=TIGHT_HELD_BYTES if bits & TIGHT_BUDGET else MAX_HELD_BYTES,
            plugin_compat=bool(bits & COMPAT),
            half_closed="answer" if bits >> CUT_SHIFT & 1 else "hang-up",
        )
        self.links = Links(self.loop)
        self.cut(SIZES[bits >> CUT_SHIFT] if bits >> CUT_SHIFT else 0)
        self.processes = self.loop.run(make_processes(self.settings, self.server, self.links, workers))
        starting = [self.loop.create_task(process.pool.start()) for process in self.processes]
        self.loop.settle()
        self.pass_time(START_S)
        assert all(task.done() for task in starting), "a job server that hangs holds up the start"

    def open_client(self, data: bytes, host: str = "192.0.2.1") -> Client:
        """One more client of each process in turn, with these bytes to send."""
        client = Client(self.loop, self.processes[len(self.clients) % len(self.processes)], data, host)
        self.clients.append(client)
        return client

    def park(self, kind: int) -> None:
        """One more client that declares a body and sends nothing of it."""
        if len(self.parked_kinds) < MAX_PARKED:
            self.parked_kinds.append(kind)
            self._park(kind)

    def _park(self, kind: int) -> None:
        data = DECLARATIONS[kind % len(DECLARATIONS)]
        self.open_client(data, f"198.51.100.{kind}").send(len(data))

    def cut(self, size_bytes: int) -> None:
        """What a job server or another worker process sends comes in pieces of so many bytes; 0 for whole."""
        self.server.cut_bytes = self.links.cut_bytes = size_bytes

    def pass_time(self, seconds: float) -> None:
        """Let time pass; what is due happens, what is due soon while it is soon."""
        for step_s in (*(SOON_S for _ in range(SOON_STEPS) if seconds > SOON_STEPS * SOON_S), seconds):
            self.loop.now_s += step_s
            self.loop.settle()

    def check(self) -> None:
        """What must hold at any time."""
        self.failures.check()
        assert not self.loop.failures, self.loop.failures
        budgets = [process.budget.counters() for process in self.processes]
        for account, share in SHARES.items():
            held = sum(counters[f"{account}_bytes"] for counters in budgets)
            bound = self.settings.max_held_bytes * share // 8
            unrefused_bytes = UNREFUSED_BYTES[account] * len(self.processes)
            assert 0 <= held <= bound + unrefused_bytes, f"{held} bytes of {bound} are held in {account}"

    def counted(self, name: str) -> int:
        """A counter, of all processes."""
        # process.counters() asks every part for all of its own, which takes long where the question comes so often.
        part, _, of_part = name.partition(".")
        return sum(getattr(process, part).counters()[of_part] for process in self.processes)

    def serves(self) -> None:
        """A good request is answered, once all others are finished, beside those that declare and do not send.

        It is so, too, while the second job server hangs.
        """
        self.server.hanging_ports.add(SECOND_PORT)
        for connection in list(self.server.open()):
            if connection.sent_garbage:
                connection.lose(None)
        for _ in range(CHECKS):
            self.pass_time(self.settings.server_check_interval_s)
        self.clients = []
        self.server.submissions.clear()
        for kind in self.parked_kinds:
            self._park(kind)
        # Then room may be made for others.
        self.pass_time(PARKED_S)
        good = self.open_client(GOOD)
        good.send(len(GOOD))
        self.answer_all()
        statuses = [response.status for response in responses_of(bytes(good.written))]
        assert self.draining or statuses == [200], f"a good request is told {statuses}"
        self.finish()

    def finish(self) -> None:
        """Bring everything to its end; nothing may be left."""
        # Twice: what was paused in the first round goes on in the second.
        for _ in range(2):
            for client in self.clients:
                client.take()
            self.links.refusing = False
            self.links.take()
            self.answer_all()
            for _ in range(MAX_ROUNDS):
                if not self._waits_for_ends():
                    break
                # Ends that never come: the requests that wait for them are too late at some time, then the next ones.
                self.pass_time(LONG_S)
                self.answer_all()
            self._check_ends()
            for client in self.clients:
                client.receive_eof()
            self.pass_time(LONG_S)
        self.answer_all()
        self.loop.settle()
        self._forget_keys()
        left = sum((Counter(still_held(process)) for process in self.processes), Counter())
        # Links that are kept for the next request, which both ends know of.
        left -= Counter({"http.connections": left.pop("relay.idle_connections", 0)})
        # A broken job server may have left out the end of a job, and nothing else.
        expected = self.expected_ends()
        for name in OF_JOB_SERVERS:
            if left.get(name, 0) <= expected:
                left.pop(name, None)
        assert not left, f"held at the end: {left}, and {expected} jobs are expected to end"
        assert all(client.gone for client in self.clients)
        # An answer that is relayed comes in pieces.
        may_be_cut = len(self.processes) > 1
        responses = [responses_of(bytes(client.written), may_be_cut=may_be_cut) for client in self.clients]
        self.responses += sum(map(len, responses))
        # One whose body did not come to its end may have had none of it.
        self.responses -= sum(
            own[-1].unfinished or (may_be_cut and (own[-1].is_cut or own[-1].to_head)) for own in responses if own
        )
        # One that makes room for another connection is told so beside its requests.
        answered = sum(
            self.counted(f"http.{name}") for name in ("requests_answered", "connections_refused", "connections_evicted")
        )
        assert self.responses <= answered, "more responses than requests"
        self._check_owners()
        self._check_jobs(responses)
        self._check_all_answered(responses)
        unfinished = sum(
            own[-1].is_cut and not client.has_ended_it
            for client, own in zip(self.clients, responses, strict=True)
            if own
        )
        assert unfinished <= self.counted("http.answers_cut"), "a part of an answer is missing"
        cut = sum(map(self._was_cut, self.clients))
        assert cut <= self.counted("http.answers_ended"), "an answer that had begun was cut"
        for client, own in zip(self.clients, responses, strict=True):
            self._check_responses(client, own)
        self.check()

    def _check_ends(self) -> None:
        """All jobs have ended and all clients read: at most an unfinished request and its deadline are left of each."""
        unfinished = self.requests_in_flight - self.relayed
        assert self.relayed <= unfinished <= len(self.clients), "a request is not answered though its job has ended"
        armed = sum(process.wheel.armed for process in self.processes)
        assert armed <= len(self.clients) + self.relayed, "a deadline is left of a job that has ended"
        for connection in self.server.open():
            (table,) = [held for held in gc.get_referents(connection.owner) if type(held) is JobTable]
            known = [held for held in gc.get_referents(table) if isinstance(held, dict)]
            if not connection.told.expects:
                lengths = [len(held) for held in known]
                assert lengths == [0, 0, 0], f"jobs that have ended, their pins or handles are still known: {known}"

    @property
    def requests_in_flight(self) -> int:
        """Requests that have begun and are not answered; those that are relayed twice."""
        return self.counted("http.requests_in_flight")

    @property
    def relayed(self) -> int:
        """Requests that are with another worker process, which has them and their deadlines too."""
        return self.counted("relay.relayed") if len(self.processes) > 1 else 0

    def expected_ends(self) -> int:
        """Jobs of which the gateway must still expect packets, since a broken job server has swallowed them."""
        return sum(connection.told.expects for connection in self.server.open())

    def _waits_for_ends(self) -> bool:
        """Whether requests wait for such ends; their jobs have deadlines beside those of their clients' connections."""
        jobs_in_flight = self.counted("pool.outstanding_jobs")
        return self.expected_ends() > 0 and (
            jobs_in_flight > 0 or self.requests_in_flight - self.relayed > len(self.clients)
        )

    def answer_all(self) -> None:
        """Let every job come to its end, those of requests that are read only then too."""
        for connection in list(self.server.open()):
            connection.take()
        # Each round ends the jobs of at least one request.
        for _ in range(MAX_ROUNDS):
            self.loop.settle()
            busy = [connection for connection in self.server.open() if connection.pending or connection.jobs]
            if not busy:
                return
            for connection in busy:
                connection.run_all()
        raise AssertionError("the gateway submits without end")

    def _check_owners(self) -> None:
        """Jobs with a unique of a client's come from one worker process alone, which can then merge them."""
        for key, places in self.server.submitted_by.items():
            assert len(places) == 1, f"{len(places)} worker processes have submitted {key}"

    def _check_jobs(self, responses: list[list[Response]]) -> None:
        """No job was submitted twice, and each answer tells of what was asked for; by key, and by line of a batch."""
        asked = [requests_of(client.data[: client.sent], self.settings) for client in self.clients]
        if any(requests is None for requests in asked):
            return
        submitted = {
            unique: (function, workload)
            for _, function, unique, workload in self.server.submissions
            if OWN_UNIQUE.fullmatch(unique)
        }
        accepted = Counter(job for unique, job in submitted.items() if unique in self.server.accepted)
        check_jobs(list(itertools.chain.from_iterable(asked)), accepted)
        answered = [
            pair for requests, own in zip(asked, responses, strict=True) for pair in zip(requests, own, strict=False)
        ]
        check_answers(iter(answered), submitted)
        for request, response in answered:
            if batches.is_batch(response):
                batches.check_answer(request.workload, response, self.server.ends, submitted)

    def _forget_keys(self) -> None:
        """The time of all idempotency keys is over."""
        for process in self.processes:
            for ttl_s in (0.0, self.settings.kept_ttl_s):
                process.keys.change(ttl_s=ttl_s, max_keys=self.settings.max_keys)
                process.keys.tick(time.monotonic())

    def _check_all_answered(self, responses: list[list[Response]]) -> None:
        """Each job that was submitted has its answer: none belongs to a request behind the last one (RFC 9112 9.6).

        Unless a client has gone: of its answers some may be missing.
        """
        if any(client.has_ended_it for client in self.clients) or self.counted("http.answers_cut"):
            return
        if any(map(self._has_owners, self.clients)):
            # The way to the owner of a key may be lost, and its job goes on.
            return
        submitted = {unique for _, _, unique, _ in self.server.submissions if OWN_UNIQUE.fullmatch(unique)}
        answered = {response.headers.get(b"x-gearman-unique") for own in responses for response in own}
        answered |= {
            (line["unique"] or "").encode()
            for response in itertools.chain.from_iterable(responses)
            if batches.is_batch(response)
            for line in batches.answers_in(response)
        }
        assert submitted <= answered, "a job was submitted whose request has no answer"

    def _has_owners(self, client: Client) -> bool:
        """Whether its requests may have idempotency keys of another worker process, which submits their jobs."""
        return len(self.processes) > 1 and KEY_NAME in client.data.lower()

    def _was_cut(self, client: Client) -> bool:
        """Not all that was written has left, and the client has neither ended the connection nor not read for too long.

        Only one that reads too slowly while the budget is crowded may be cut.
        """
        if client.was_reset or client.dropped_after_s is None:
            return False
        return client.dropped_after_s < self.settings.write_timeout_s

    def _check_responses(self, client: Client, responses: list[Response]) -> None:
        sent = client.data[: client.sent]
        # Each request has a version; the last may have been refused before its.
        assert len(responses) <= sent.count(b"HTTP/") + 1, "more responses than requests"
        latest = 0
        for response in responses:
            may_be_cut = response is responses[-1] and (client.has_ended_it or self.counted("http.answers_cut"))
            assert not response.to_head or b"HEAD" in sent or response.body or may_be_cut, "a body is missing"
            unique = response.headers.get(b"x-gearman-unique", b"")
            own = OWN_UNIQUE.fullmatch(unique)
            if own and REPLAYED not in response.headers and not self._has_owners(client):
                assert int(own[1]) > latest, "answered twice, or out of order"
                latest = int(own[1])
            if response.status == 200 and not batches.is_batch(response):
                assert b"x-gearman-command" in response.headers, "success without a job"
            if b"x-gearman-command" in response.headers:
                self._check_end(response, unique)

    def _check_end(self, response: Response, unique: bytes) -> None:
        """A response that tells how its job has ended."""
        command = PacketType[response.headers[b"x-gearman-command"].decode()]
        ends = self.server.ends.get((response.headers[b"x-gearman-job-handle"], unique), set())
        bodies = [result for packet_type, result in ends if packet_type == command]
        assert bodies, "another request's job, or one that has not ended like this"
        if response.status in WITHOUT_RESULT and REPLAYED in response.headers:
            return
        succeeded = command in (PacketType.WORK_COMPLETE, PacketType.JOB_CREATED)
        assert response.status == (200 if succeeded or self.settings.plugin_compat else 500), response
        if not succeeded and self.settings.plugin_compat:
            bodies = [b""]
        elif command == PacketType.WORK_FAIL:
            # A problem of our own.
            return
        assert int(response.headers[b"content-length"]) in map(len, bodies)
        is_given = response.body in bodies or (
            response.is_cut and any(body.startswith(response.body) for body in bodies)
        )
        assert response.to_head or is_given, "another result than the job server gave"

    def close(self) -> None:
        """Close the gateway."""
        try:
            for process in self.processes:
                self.loop.run(process.close())
            self.check()
        finally:
            self.failures.__exit__()
            self.loop.close()
