"""Fuzzes a whole gateway over fake streams: HttpServer, Gateway, Pool and job server connections.

What must hold for any bytes and any order of events:
- nothing is raised and nothing is logged as an error, the loop comes to rest, no closed stream is written to;
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

What an input is made of, `http_inputs` tells.
"""

from __future__ import annotations

import gc
import random
import re
from typing import NamedTuple

from fuzz.held import OF_JOB_SERVERS, still_held
from fuzz.http_inputs import (
    COMPAT,
    CUT_SHIFT,
    DECLARATIONS,
    FEW_JOBS,
    FILLER,
    FILLER_MARK,
    GARBAGE,
    GOOD,
    MAX_BODY_BYTES,
    MAX_PARKED,
    ONE_CONNECTION,
    OPTION_ANSWERS,
    PARKED_S,
    TIGHT_BUDGET,
    TOKENS,
    seeds,
)
from fuzz.responses import Response, responses_of
from fuzz.world import Failures, FakeStream, JobServer, JobServerStream, Loop, OptionAnswer
from gatewayx.address import ServerAddress
from gatewayx.config.settings import Settings
from gatewayx.gearman.job_table import JobTable
from gatewayx.gearman.packet import PacketType
from gatewayx.server.process import GatewayProcess

__all__ = ["TOKENS", "one_input", "seeds"]

MAX_CLIENTS = 3
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
PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 9.0, 10.0, 11.0, 20.0, 29.0, 31.0, 60.0, 76.0, 200.0)
RESULTS = (b"", b"data", b"x" * 5000, b"y" * 66_000, b"z" * 140_000, b"too large" * 17_000)
# A client that reads slowly takes so many times one of SIZES.
SLOW_READS = 16
# What the kernel takes for a job server that reads no more.
JOB_SERVER_ROOMS_BYTES = (0, 13, 100, 1000, 5000)
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
            half_closed="answer" if bits >> CUT_SHIFT & 1 else "hang-up",
        )
        self.loop.run(self._make())
        starting = self.loop.create_task(self.process.pool.start())
        self.loop.settle()
        self.pass_time(START_S)
        assert starting.done(), "a job server that hangs holds up the start"

    async def _make(self) -> None:
        self.process = GatewayProcess(self.settings, self.server)
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
        assert all(client.gone for client in self.clients)
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
            (table,) = [held for held in gc.get_referents(connection.owner) if type(held) is JobTable]
            known = [held for held in gc.get_referents(table) if isinstance(held, dict)]
            if not connection.told.expects:
                lengths = [len(held) for held in known]
                assert lengths == [0, 0, 0], f"jobs that have ended, their pins or handles are still known: {known}"

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

    def job_server_event(self, connection: JobServerStream, kind: int, argument: int) -> None:
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
                if client.reads or client.closed:
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
