"""Fuzzes a whole gateway over fake transports: HttpServer, Gateway, Pool and job server connections.

What must hold for any bytes and any order of events:
- nothing is raised and nothing is logged as an error, the loop comes to rest, no closed transport is written to;
- every response is whole and well formed, and what was written of it arrives, unless the client ends the connection,
  reads nothing for the write timeout, or reads too slowly for a budget that is crowded; their jobs are in the order of
  the requests, each answered at most once; no more responses than requests, and none is missing once all jobs have
  ended;
- nothing is run behind an answer that says that it is the last one;
- a response that tells how its job has ended holds exactly what the gateway was told for that request's job, by
  whatever bytes: a job server that is broken may answer for another, and then the gateway cannot know better;
- a request that was cut short is never submitted: what a beginning of the bytes submits is a beginning of what all of
  them submit;
- the same bytes cut differently give the same submissions and answers (see `same_answers` for what may differ);
- a good request is answered in the end, whatever came before, while others hold connections and only declare bodies,
  and while a job server hangs;
- each account of the byte budget bounds what is held; at the end nothing is held and no deadline is armed, but for jobs
  whose ends a broken job server has swallowed.

An input is two bytes (settings, length of the script), the script, and the client's bytes, in which FILLER_MARK stands
for FILLER. Each byte of the script is an event, its kind in the lower four bits and its argument in the upper four; see
`Play`. A script of no bytes compares the client's bytes whole, cut, and cut short instead.
"""

from __future__ import annotations

import gc
import random
import re
from typing import NamedTuple

from fuzz.held import OF_JOB_SERVERS, still_held
from fuzz.world import Failures, JobServer, JobServerTransport, Loop, OptionAnswer, Transport
from gatewayx.address import ServerAddress
from gatewayx.config.settings import Settings
from gatewayx.gearman.job_table import JobTable
from gatewayx.gearman.packet import PacketType
from gatewayx.net.stream import StreamOwner
from gatewayx.server.process import GatewayProcess

# Bits of the first byte.
COMPAT, TIGHT_BUDGET, FEW_JOBS, ONE_CONNECTION = 1, 2, 4, 8
CUT_SHIFT = 4
# Of the upper four; what job servers answer to OPTION_REQ beside what they do to those.
OPTION_ANSWERS = {12: OptionAnswer.ERROR, 13: OptionAnswer.NONE, 14: OptionAnswer.CLOSED}

MAX_CLIENTS = 3
FIRST_PORT, SECOND_PORT = 4730, 4731
# Job servers that hang hold up the start so long.
START_S = 1.0
# Clients that declare a body and send nothing of it.
MAX_PARKED = 24
PARKED_CONNECTIONS = 8
MAX_BODY_BYTES = 40_000
MAX_RESULT_BYTES = 150_000
MAX_HELD_BYTES = 1 << 20
TIGHT_RESULT_BYTES = 40_000
TIGHT_HELD_BYTES = 160_000
# Of the bytes that may be held, in eighths; and what is never refused and counts above: answers that are no results.
SHARES = {"small": 1, "bodies": 3, "results": 4}
UNREFUSED_BYTES = {"small": 1 << 16, "bodies": 0, "results": 0}
SIZES = (1, 2, 3, 5, 9, 17, 33, 65, 127, 255, 500, 1000, 2000, 3000, 4000, 5000)
PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 9.0, 10.0, 11.0, 20.0, 29.0, 31.0, 60.0, 76.0, 200.0)
RESULTS = (b"", b"data", b"x" * 5000, b"y" * 66_000, b"z" * 140_000, b"too large" * 17_000)
# A client that reads slowly takes so many times one of SIZES.
SLOW_READS = 16
# What the kernel takes for a job server that reads no more.
JOB_SERVER_ROOMS_BYTES = (0, 13, 100, 1000, 5000)
# What makes bodies larger than inputs.
FILLER_MARK = b"{8K}"
FILLER = b"w" * 8192
MAX_FILLERS = 8
# Requests that fit into an input, by far.
MAX_ROUNDS = 1000
# A job server that hangs is known to hang after so many checks.
CHECKS = 3
# What is put off for a moment, such as refusals, must not happen when everything else is overdue.
SOON_S = 0.1
SOON_STEPS = 2
# More than any deadline, so that nothing waits any more.
LONG_S = 500.0
# What arrives from a job server that is broken or is none.
GARBAGE = (
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"\0RES\0\0\0\x08\0\0\0\x08H:fuzz:1",
    b"\0RES\0\0\0\x08\0\0\0\x05\xff\r\n:x",
    b"\0RES\0\0\0\x0d\0\0\0\x0cH:fuzz:9999\0",
    b"\0RES\0\0\0\x13\0\0\0\x05code\0",
    b"\0RES\0\0\0\x1c\0\x02\0\0H:fuzz:1\0" + b"half of it" * 100,
    b"\0RES\0\0\0\x11\xff\xff\xff\xff",
    b"\0RES\0\0\0\x10\0\0\0\x01a",
    b"\0RES\0\0\0\x08\0\0\0\x0fH:fuzz:1\0behind",
    b"\0RES\0\0\0\x0e\0\x02\0\0H:fuzz:1\0" + b"the reason" * 100,
    b"\0RES\0\0\0\x0b\0\0\0\x05a\0b\0c",
)

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]+")
HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([!-~\x80-\xff](?:[ -~\x80-\xff]*[!-~\x80-\xff])?)")
OWN_UNIQUE = re.compile(rb"gatewayx-[a-z2-7]+-([0-9]+)")


class Response(NamedTuple):
    """One response; names of headers in lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    # It has none though its head says so.
    to_head: bool


def responses_of(written: bytes) -> list[Response]:
    """All final responses in what was written to a client, whatever he read of it; fails on what is none."""
    responses: list[Response] = []
    while written:
        head, separator, written = written.partition(b"\r\n\r\n")
        assert separator, f"{head!r} is no whole head"
        status_line, *lines = head.split(b"\r\n")
        matched = STATUS_LINE.fullmatch(status_line)
        assert matched, status_line
        status = int(matched[1])
        headers: dict[bytes, bytes] = {}
        for line in lines:
            field = HEADER_LINE.fullmatch(line)
            assert field, line
            assert field[1].lower() not in headers, line
            headers[field[1].lower()] = field[2]
        if status < 200:
            assert (status, headers) == (100, {})
            continue
        if status == 204:
            assert b"content-length" not in headers
            length = 0
        else:
            length = int(headers[b"content-length"])
        # Neither a problem nor a result begins like this.
        to_head = length > 0 and (not written or written.startswith(b"HTTP/1.1 "))
        body = b"" if to_head else written[:length]
        assert to_head or len(body) == length, "a body that is cut short"
        written = written[len(body) :]
        responses.append(Response(status, headers, body, to_head))
        if headers.get(b"connection") == b"close":
            assert not written, "an answer after the last one"
    return responses


class Client(Transport):
    """A client's connection, and how much of its bytes it has sent."""

    def __init__(self, loop: Loop, process: GatewayProcess, data: bytes, host: str) -> None:
        super().__init__(loop, process.http.connection())
        self.data = data
        self.host = host
        self.sent = 0
        # It has reset the connection, or closed its sending side: requests of it may be dropped.
        self.was_reset = False
        self.has_hung_up = False
        self.protocol.connection_made(self)

    def send(self, size: int) -> None:
        """Send the next bytes, if the gateway reads."""
        if self.reads and not self.closing and self.sent < len(self.data):
            begin, self.sent = self.sent, min(self.sent + size, len(self.data))
            self.receive(self.data[begin : self.sent])

    def hang_up(self) -> None:
        """Close the sending side, once the gateway has read what was sent."""
        if self.reads and not self.closing:
            self.has_hung_up = True
            self.receive_eof()

    def reset(self) -> None:
        """End the connection at once."""
        self.was_reset = True
        self.lose(ConnectionResetError("reset"))


class World:
    """A gateway with one or two job servers, for one input."""

    def __init__(self, bits: int) -> None:
        # The pool's back-off is the only thing left to chance.
        random.seed(bits)
        self.loop = Loop()
        self.failures = Failures()
        self.failures.__enter__()
        self.server = JobServer(self.loop)
        self.loop.connect = self.server.connect
        self.clients: list[Client] = []
        # Responses to clients that have gone.
        self.responses = 0
        self.draining = False
        # What each of those declares that send nothing more; the kinds stand for those that are asked for again later.
        self.parked_kinds: list[int] = []
        ports = (FIRST_PORT,) if bits & ONE_CONNECTION else (FIRST_PORT, SECOND_PORT)
        if bits & FEW_JOBS:
            self.server.hanging_ports.add(SECOND_PORT)
        self.server.cut_bytes = SIZES[bits >> CUT_SHIFT] if bits >> CUT_SHIFT else 0
        self.server.option_answer = OPTION_ANSWERS.get(bits >> CUT_SHIFT, OptionAnswer.TAKEN)
        self.settings = Settings(
            server=tuple(ServerAddress("127.0.0.1", port) for port in ports),
            connections_per_server=1 if bits & ONE_CONNECTION else 2,
            max_connections=2 + PARKED_CONNECTIONS,
            max_pipelined=4,
            max_jobs=3 if bits & FEW_JOBS else 100,
            max_target_bytes=256,
            max_header_bytes=1024,
            max_headers=12,
            max_body_bytes=MAX_BODY_BYTES,
            max_chunk_extensions_bytes=64,
            max_result_bytes=TIGHT_RESULT_BYTES if bits & TIGHT_BUDGET else MAX_RESULT_BYTES,
            max_held_bytes=TIGHT_HELD_BYTES if bits & TIGHT_BUDGET else MAX_HELD_BYTES,
            plugin_compat=bool(bits & COMPAT),
        )
        self.loop.run(self._make())
        starting = self.loop.create_task(self.process.pool.start())
        self.loop.settle()
        self.pass_time(START_S)
        assert starting.done(), "a job server that hangs holds up the start"

    async def _make(self) -> None:
        self.process = GatewayProcess(self.settings)
        self.process._tick()

    def open_client(self, data: bytes, host: str = "192.0.2.1") -> Client:
        """One more client, with these bytes to send."""
        client = Client(self.loop, self.process, data, host)
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

    def pass_time(self, seconds: float) -> None:
        """Let time pass; what is due happens, what is due soon while it is soon."""
        for step_s in (*(SOON_S for _ in range(SOON_STEPS) if seconds > SOON_STEPS * SOON_S), seconds):
            self.loop.now_s += step_s
            self.loop.settle()

    def check(self) -> None:
        """What must hold at any time."""
        self.failures.check()
        assert not self.loop.failures, self.loop.failures
        counters = self.process.counters()
        for account, share in SHARES.items():
            held = counters[f"budget.{account}_bytes"]
            bound = self.settings.max_held_bytes * share // 8
            assert 0 <= held <= bound + UNREFUSED_BYTES[account], f"{held} bytes of {bound} are held in {account}"

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
            self.answer_all()
            for _ in range(MAX_ROUNDS):
                if not self._waits_for_ends():
                    break
                # Ends that never come: the requests that wait for them are too late at some time, then the next ones.
                self.pass_time(LONG_S)
                self.answer_all()
            self._check_ends()
            for client in self.clients:
                if client.reads:
                    client.receive_eof()
            self.pass_time(LONG_S)
        self.answer_all()
        self.loop.settle()
        counters = self.process.counters()
        left = still_held(self.process)
        # A broken job server may have left out the end of a job, and nothing else.
        expected = self.expected_ends()
        for name in OF_JOB_SERVERS:
            if left.get(name, 0) <= expected:
                left.pop(name, None)
        assert not left, f"held at the end: {left}, and {expected} jobs are expected to end"
        assert all(client.lost for client in self.clients)
        responses = [responses_of(bytes(client.written)) for client in self.clients]
        self.responses += sum(map(len, responses))
        # One that makes room for another connection is told so beside its requests.
        answered = sum(
            counters[f"http.{name}"] for name in ("requests_answered", "connections_refused", "connections_evicted")
        )
        assert self.responses <= answered, "more responses than requests"
        self._check_all_answered(responses)
        cut = sum(map(self._was_cut, self.clients))
        assert cut <= counters["http.answers_ended"], "an answer that had begun was cut"
        for client, own in zip(self.clients, responses, strict=True):
            self._check_responses(client, own)
        self.check()

    def _check_ends(self) -> None:
        """All jobs have ended and all clients read: at most an unfinished request and its deadline are left of each."""
        assert self.requests_in_flight <= len(self.clients), "a request is not answered though its job has ended"
        assert self.process.wheel.armed <= len(self.clients), "a deadline is left of a job that has ended"
        for connection in self.server.open():
            (owner,) = [held for held in gc.get_referents(connection.protocol) if isinstance(held, StreamOwner)]
            (table,) = [held for held in gc.get_referents(owner) if type(held) is JobTable]
            known = [held for held in gc.get_referents(table) if type(held) is dict]
            if not connection.told.expects:
                assert known == [{}, {}, {}], f"jobs that have ended, their pins or handles are still known: {known}"

    @property
    def requests_in_flight(self) -> int:
        """Requests that have begun and are not answered."""
        return self.process.counters()["http.requests_in_flight"]

    def expected_ends(self) -> int:
        """Jobs of which the gateway must still expect packets, since a broken job server has swallowed them."""
        return sum(connection.told.expects for connection in self.server.open())

    def _waits_for_ends(self) -> bool:
        """Whether requests wait for such ends; their jobs have deadlines beside those of their clients' connections."""
        jobs_in_flight = self.process.counters()["pool.outstanding_jobs"]
        return self.expected_ends() > 0 and (jobs_in_flight > 0 or self.requests_in_flight > len(self.clients))

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

    def _check_all_answered(self, responses: list[list[Response]]) -> None:
        """Each job that was submitted has its answer: none belongs to a request behind the last one (RFC 9112 9.6).

        Unless a client has gone: of its answers some may be missing.
        """
        if any(client.was_reset or client.has_hung_up or client.dropped_after_s is not None for client in self.clients):
            return
        submitted = {unique for _, _, unique, _ in self.server.submissions if OWN_UNIQUE.fullmatch(unique)}
        answered = {response.headers.get(b"x-gearman-unique") for own in responses for response in own}
        assert submitted <= answered, "a job was submitted whose request has no answer"

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
            assert not response.to_head or b"HEAD" in sent or response.body, "a body is missing"
            unique = response.headers.get(b"x-gearman-unique", b"")
            own = OWN_UNIQUE.fullmatch(unique)
            if own:
                assert int(own[1]) > latest, "answered twice, or out of order"
                latest = int(own[1])
            if response.status == 200:
                assert b"x-gearman-command" in response.headers, "success without a job"
            if b"x-gearman-command" in response.headers:
                self._check_end(response, unique)

    def _check_end(self, response: Response, unique: bytes) -> None:
        """A response that tells how its job has ended."""
        command = PacketType[response.headers[b"x-gearman-command"].decode()]
        ends = self.server.ends.get((response.headers[b"x-gearman-job-handle"], unique), set())
        bodies = [result for packet_type, result in ends if packet_type == command]
        assert bodies, "another request's job, or one that has not ended like this"
        succeeded = command in (PacketType.WORK_COMPLETE, PacketType.JOB_CREATED)
        assert response.status == (200 if succeeded or self.settings.plugin_compat else 500)
        if not succeeded and self.settings.plugin_compat:
            bodies = [b""]
        elif command == PacketType.WORK_FAIL:
            # A problem of our own.
            return
        assert int(response.headers[b"content-length"]) in map(len, bodies)
        assert response.to_head or response.body in bodies, "another result than the job server gave"

    def close(self) -> None:
        """Close the gateway."""
        try:
            self.loop.run(self.process.close())
            self.check()
        finally:
            self.failures.__exit__()
            self.loop.close()


class Play:
    """What each event of a script does."""

    def __init__(self, world: World, data: bytes) -> None:
        self.world = world
        self.data = data
        self.clients: list[Client] = []
        self.current = 0
        self.open_client()

    def open_client(self) -> None:
        """One more client that has the same bytes to send."""
        if len(self.clients) < MAX_CLIENTS:
            self.clients.append(self.world.open_client(self.data))
            self.current = len(self.clients) - 1

    def event(self, kind: int, argument: int) -> None:
        """One event; one that is impossible now is nothing."""
        world = self.world
        client = self.clients[self.current]
        if kind == 0:
            client.send(SIZES[argument])
        elif kind == 1:
            client.send(len(self.data))
        elif kind == 2:
            world.loop.turn()
        elif kind == 3:
            world.pass_time(PAUSES_S[argument])
        elif kind == 4:
            client.stop_taking(SIZES[argument] - 1)
        elif kind == 5:
            client.take(None if argument < 8 else SIZES[argument] * SLOW_READS)
        elif kind == 6:
            client.hang_up()
        elif kind == 7:
            client.reset()
        elif kind == 8 and argument < 4:
            self.open_client()
        elif kind == 8 and argument < 8:
            world.park(argument)
        elif kind == 8:
            self.current = argument % len(self.clients)
        elif kind == 9 and argument == 15:
            world.draining = True
            world.process.http.drain()
        elif kind == 9 and argument == 14:
            world.process.http.refuse_unfinished()
        elif kind == 9:
            world.server.cut_bytes = argument
        else:
            world.loop.settle()
            connections = world.server.open()
            if connections:
                self.job_server_event(connections[argument % len(connections)], kind, argument >> 1)

    def job_server_event(self, connection: JobServerTransport, kind: int, argument: int) -> None:
        """An event on a connection to the job server."""
        if kind == 10 and connection.pending:
            connection.create()
        elif kind == 11 and connection.pending:
            if argument < 4:
                connection.refuse(full=argument < 2)
            else:
                connection.run_all()
        elif kind in (12, 13) and connection.jobs:
            job = connection.jobs[argument % len(connection.jobs)]
            packet_type = PacketType.WORK_COMPLETE if kind == 12 else PacketType.WORK_DATA
            connection.work(job, packet_type, RESULTS[argument % len(RESULTS)] + b" of " + job.handle)
        elif kind == 14 and connection.jobs:
            types = (
                PacketType.WORK_FAIL,
                PacketType.WORK_EXCEPTION,
                PacketType.WORK_STATUS,
                PacketType.WORK_WARNING,
            )
            reason = b"because of the job" if argument < 4 else b""
            connection.work(connection.jobs[-1], types[argument % len(types)], reason)
        elif kind == 15 and argument < 5:
            if connection.room_bytes is None:
                connection.stop_taking(JOB_SERVER_ROOMS_BYTES[argument])
            else:
                connection.take()
        elif kind == 15 and argument == 5:
            connection.lose(None)
        elif kind == 15 and argument == 6:
            connection.receive_eof()
        elif kind == 15:
            connection.sent_garbage = True
            connection.receive(GARBAGE[len(self.data) % len(GARBAGE)])


def play(bits: int, script: bytes, data: bytes) -> None:
    """Run a script."""
    world = World(bits)
    try:
        player = Play(world, data)
        for event in script:
            player.event(event & 15, event >> 4)
            world.check()
        world.finish()
        world.serves()
    finally:
        world.close()


class Run(NamedTuple):
    """What came of a client's bytes."""

    # Type, function, unique if the client chose it, and workload of each job.
    submissions: list[tuple[int, bytes, bytes, bytes]]
    # Status, and body unless it names the job.
    answers: list[tuple[int, bytes]]


def run_alone(bits: int, pieces: list[bytes]) -> Run:
    """Send the pieces to a gateway whose job server answers everything at once."""
    # Over one connection, since only there the submissions keep the order of the requests.
    world = World(bits & COMPAT | ONE_CONNECTION)
    world.server.automatic = True
    try:
        client = world.open_client(b"".join(pieces))
        for piece in pieces:
            for _ in range(len(client.data)):
                if client.reads or client.closing:
                    break
                world.loop.settle()
            client.send(len(piece))
            world.loop.settle()
        jobs = [found for found in responses_of(bytes(client.written)) if b"x-gearman-job-handle" in found.headers]
        assert len(jobs) == len(world.server.submissions), "not every job was answered"
        world.finish()
    finally:
        world.close()
    submissions = [
        (packet_type, function, b"" if OWN_UNIQUE.fullmatch(unique) else unique, workload)
        for packet_type, function, unique, workload in world.server.submissions
    ]
    answers = [
        (response.status, b"" if response.status == 200 or response.to_head else response.body)
        for response in responses_of(bytes(client.written))
    ]
    return Run(submissions, answers)


def same_answers(whole: Run, cut: Run, data: bytes) -> bool:
    """Whether two runs of the same bytes agree.

    A request that its head refuses and whose body is malformed as well may be told of either first. After a refused
    `Expect: 100-continue` the connection lives only if the body is already there.
    """
    one, other = sorted((whole.answers, cut.answers), key=len)
    if b"100-continue" in data.lower():
        return other[: len(one)] == one or one[-1][0] >= 400
    if one == other:
        return True
    differs = next((index for index, answer in enumerate(one) if answer != other[index]), len(one))
    return differs == len(one) - 1 == len(other) - 1 and min(one[-1][0], other[-1][0]) >= 400


def compare(bits: int, data: bytes) -> None:
    """Run the client's bytes whole, cut, and cut short."""
    generator = random.Random(len(data) * 16 + (bits >> CUT_SHIFT))
    # Not too many pieces of what is only filler.
    largest = max(SIZES[bits >> CUT_SHIFT], len(data) // 500)
    pieces = []
    offset = 0
    while offset < len(data):
        size = generator.randint(1, largest)
        pieces.append(data[offset : offset + size])
        offset += size
    whole = run_alone(bits, [data])
    cut = run_alone(bits, pieces)
    assert same_answers(whole, cut, data), f"whole: {whole.answers}; cut: {cut.answers}"
    if b"100-continue" not in data.lower():
        assert whole.submissions == cut.submissions, f"whole: {whole.submissions}; cut: {cut.submissions}"
    short = run_alone(bits, [data[: generator.randint(0, len(data))]])
    assert short.submissions == whole.submissions[: len(short.submissions)], "a request that was cut short ran"


def one_input(data: bytes) -> None:
    """Run an input."""
    if len(data) < 2:
        return
    bits, script_bytes = data[:2]
    # Half of all inputs compare.
    script_bytes = script_bytes >> 1 if script_bytes & 1 else 0
    script = data[2 : 2 + script_bytes]
    client = data[2 + script_bytes :].replace(FILLER_MARK, FILLER, MAX_FILLERS)
    gc_enabled = gc.isenabled()
    # What is made here is dropped here; a collection in the middle would only cost time.
    gc.disable()
    try:
        if script:
            play(bits, script, client)
        else:
            compare(bits, client)
    finally:
        if gc_enabled:
            gc.enable()


HOST = b"Host: h\r\n"
GOOD = b"POST /good HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\ngood"
DECLARED = b"POST /declared HTTP/1.1\r\n" + HOST
DECLARATIONS = (
    DECLARED + b"Content-Length: %d\r\n\r\n" % MAX_BODY_BYTES,
    DECLARED + b"Content-Length: %d\r\n\r\nw" % MAX_BODY_BYTES,
    DECLARED + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % MAX_BODY_BYTES,
    DECLARED + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % MAX_BODY_BYTES,
)
# How long those have declared and not sent when a good request comes.
PARKED_S = 1.5
CLIENTS = [
    b"POST /f HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nabcd",
    b"GET /f?a=b HTTP/1.1\r\n"
    + HOST
    + b"\r\n"
    + b"HEAD /g HTTP/1.1\r\n"
    + HOST
    + b"\r\n"
    + b"OPTIONS * HTTP/1.1\r\n\r\n",
    b"PUT /f HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n",
    (b"POST /f HTTP/1.1\r\n" + HOST + b"X-Gearman-Unique: u\r\nContent-Length: 1\r\n\r\na") * 6,
    (b"POST /f HTTP/1.1\r\n" + HOST + b"X-Gearman-Unique: -\r\nContent-Length: 1\r\n\r\na") * 3,
    b"POST /f HTTP/1.1\r\n"
    + HOST
    + b"X-Gearman-Background: true\r\nX-Gearman-Priority: high\r\nContent-Length: 0\r\n\r\n",
    b"POST /f HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nX-Gearman-Timeout: 0.5\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /f HTTP/1.0\r\n\r\n" + b"GET /f HTTP/1.1\r\n\r\n",
    b"DELETE /f HTTP/1.1\r\n"
    + HOST
    + b"\r\n"
    + b"POST /f?q HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 2\r\n\r\nab"
    + b"AAA\r\n",
    b"GET / HTTP/1.1\r\n"
    + HOST
    + b"\r\n"
    + b"GET /v1/x HTTP/1.1\r\n"
    + HOST
    + b"\r\n"
    + b"GET /%00 HTTP/1.1\r\n"
    + HOST
    + b"\r\n",
    b"POST /f HTTP/1.1\r\n"
    + HOST
    + b"Connection: close\r\nContent-Length: 1500\r\n\r\n"
    + b"w" * 1500
    + b"GET /f HTTP/1.1",
    b"POST /f HTTP/1.1\r\n" + HOST + b"Content-Length: 40001\r\n\r\n" + FILLER_MARK * 6,
    (b"POST /f HTTP/1.1\r\n" + HOST + b"Content-Length: 32768\r\n\r\n" + FILLER_MARK * 4) * 2,
    b"POST /f HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n6000\r\n" + FILLER_MARK * 3 + b"\r\n0\r\n\r\n",
    b"POST /f HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /f HTTP/1.1\r\n" + HOST + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\na" * 2,
    b"GET http://h/f HTTP/1.1\r\n" + HOST + b"X-Gearman-Unique: gatewayx-a\r\n\r\n" + b"GET /f HTTP/2.0\r\n\r\n",
    b"POST /a HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 1\r\n\r\na"
    + b"POST /b HTTP/1.1\r\n"
    + HOST
    + b"X-Gearman-Priority: none\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nb"
    + b"POST /c HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 1\r\n\r\nc",
]


def event(kind: int, argument: int = 0) -> int:
    """A byte of a script."""
    return kind | argument << 4


SCRIPTS = [
    bytes((event(1), event(2), event(10), event(12))),
    bytes((event(0, 8), event(3, 9), event(1), event(10), event(13, 2), event(13, 6), event(6), event(12, 2))),
    bytes((event(4), event(1), event(2), event(11, 9), event(2), event(3, 12), event(5), event(2))),
    bytes((event(1), event(8), event(1), event(2), event(10), event(10), event(10), event(7), event(13), event(12))),
    bytes((event(1), event(10), event(13, 6), event(13, 7), event(15, 10), event(3, 2), event(3, 2), event(1))),
    bytes((event(0, 7), event(9, 15), event(1), event(2), event(9, 14), event(3, 15))),
    bytes((event(1), event(10), event(3, 13), event(12, 8), event(14, 1), event(11), event(15, 14), event(3, 3))),
    bytes((event(15), event(1), event(2), event(3, 5), event(15), event(9, 5), event(10), event(12, 6), event(2))),
    bytes((event(8), event(8), event(8), event(1), event(8, 9), event(1), event(10), event(14), event(11, 1))),
    bytes((event(4, 9), event(1), event(2), event(10), event(12, 8), event(2), event(9, 15), event(2), event(5, 12))),
]


def seeds() -> list[bytes]:
    """Inputs to begin with: every kind of client's bytes compared, and with some script."""
    inputs: list[bytes] = []
    for number, client in enumerate(CLIENTS):
        inputs.append(bytes((number % 16 << CUT_SHIFT, 0)) + client)
        for turn in (0, 4):
            script = SCRIPTS[(number + turn) % len(SCRIPTS)]
            inputs.append(bytes((number % 16, len(script) << 1 | 1)) + script + client)
    for number, script in enumerate(SCRIPTS):
        inputs.append(bytes((number % 16, len(script) << 1 | 1)) + script + CLIENTS[3])
    before = bytes((event(1), event(2), event(15, 14), event(10), event(12), event(15, 14), event(3, 11)))
    between = bytes((event(1), event(2), event(10), event(15, 14), event(3, 11)))
    at_once = bytes((event(1), event(10), event(15, 14)))
    for number in range(len(GARBAGE)):
        # The bytes of a client choose what comes from a broken job server.
        for script, client in ((before, CLIENTS[3]), (before, CLIENTS[0] * 3), (between, CLIENTS[0] * 3)):
            inputs.append(bytes((ONE_CONNECTION, len(script) << 1 | 1)) + script + client + b"\r\n" * number)
        # A head that is not whole waits beside a job whose end is swallowed.
        beginning = b"GET /" + b"f" * number
        inputs.append(bytes((ONE_CONNECTION, len(at_once) << 1 | 1)) + at_once + CLIENTS[0] + beginning)
    for kind in OPTION_ANSWERS:
        inputs.append(bytes((kind << CUT_SHIFT, len(SCRIPTS[0]) << 1 | 1)) + SCRIPTS[0] + CLIENTS[3])
    parked = bytes(event(8, 4 + number % 4) for number in range(MAX_PARKED))
    for bits in (0, TIGHT_BUDGET):
        inputs.append(bytes((bits, len(parked) << 1 | 1)) + parked + CLIENTS[0])
    return inputs


TOKENS = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"OPTIONS ",
    b"CONNECT ",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"\r\n",
    b"\r\n\r\n",
    HOST,
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\n",
    b"X-Gearman-Unique: u\r\n",
    b"X-Gearman-Background: true\r\n",
    b"X-Gearman-Priority: low\r\n",
    b"X-Gearman-Timeout: 1\r\n",
    b"0\r\n\r\n",
    b"1;a=b\r\na\r\n",
    FILLER_MARK,
    CLIENTS[0],
    CLIENTS[2],
    *SCRIPTS,
]
