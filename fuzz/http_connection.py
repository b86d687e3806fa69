"""Fuzzes a whole gateway over fake streams: HttpServer, Gateway, Pool and job server connections; of some inputs two
worker processes in one, and the relay between them.

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
- each line of a batch is answered once, by the end of its own job;
- the job of an idempotency key is submitted once, however often and by whomever it is asked for, and all have the same
  answer;
- two worker processes, of which each owns some uniques, submit and answer the same as one; what gearmand would merge
  comes from one of them;
- each account of the byte budget bounds what is held; at the end nothing is held and no deadline is armed, but for jobs
  whose ends a broken job server has swallowed.

What an input is made of, `http_inputs` tells.
"""

from __future__ import annotations

import gc
import random
from typing import NamedTuple

from fuzz import batches
from fuzz.http_inputs import (
    COMPAT,
    CUT_SHIFT,
    GARBAGE,
    ONE_CONNECTION,
    TOKENS,
    TWO_WORKERS,
    parts_of,
    seeds,
)
from fuzz.keyed import REPLAYED
from fuzz.responses import responses_of
from fuzz.whole_gateway import OWN_UNIQUE, REQUEST_ID, SIZES, Client, World
from fuzz.world import JobServerStream
from gatewayx.gearman.packet import PacketType

__all__ = ["TOKENS", "one_input", "seeds"]

MAX_CLIENTS = 3
PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 9.0, 10.0, 11.0, 20.0, 29.0, 31.0, 60.0, 76.0, 200.0)
RESULTS = (b"", b"data", b"x" * 5000, b"y" * 66_000, b"z" * 140_000, b"too large" * 17_000)
# A client that reads slowly takes so many times one of SIZES.
SLOW_READS = 16
# What the kernel takes for a job server that reads no more.
JOB_SERVER_ROOMS_BYTES = (0, 13, 100, 1000, 5000)
# Arguments of the events on links between worker processes, and what the kernel takes there when nobody reads.
FIRST_LINK_EVENT = 12
LINK_ROOM_BYTES = 700


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
            client.break_off()
        elif kind == 8 and argument < 4:
            self.open_client()
        elif kind == 8 and argument < 8:
            world.park(argument)
        elif kind == 8 and argument >= FIRST_LINK_EVENT and len(world.processes) > 1:
            self.link_event(argument)
        elif kind == 8:
            self.current = argument % len(self.clients)
        elif kind == 9 and argument == 15:
            world.draining = True
            for process in world.processes:
                process.http.drain()
        elif kind == 9 and argument == 14:
            for process in world.processes:
                process.http.refuse_unfinished()
        elif kind == 9:
            world.cut(argument)
        else:
            world.loop.settle()
            connections = world.server.open()
            if connections:
                self.job_server_event(connections[argument % len(connections)], kind, argument >> 1)

    def link_event(self, argument: int) -> None:
        """An event on what the worker processes say to each other."""
        links = self.world.links
        if argument == FIRST_LINK_EVENT + 1:
            links.refusing = not links.refusing
        elif argument == FIRST_LINK_EVENT or (argument == FIRST_LINK_EVENT + 2 and links.room_bytes is None):
            links.stop_taking(LINK_ROOM_BYTES)
        elif argument == FIRST_LINK_EVENT + 2:
            links.take()
        else:
            links.lose(len(self.world.server.submissions))

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


def play(bits: int, workers: int, script: bytes, data: bytes) -> None:
    """Run a script."""
    world = World(bits, workers)
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


def run_alone(bits: int, pieces: list[bytes], workers: int = 1) -> Run:
    """Send the pieces to a gateway whose job server answers everything at once."""
    # Over one connection, since only there the submissions keep the order of the requests.
    world = World(bits & COMPAT | ONE_CONNECTION, workers)
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
        answers = responses_of(bytes(client.written))
        jobs = [b"x-gearman-job-handle" in found.headers and REPLAYED not in found.headers for found in answers]
        jobs += [line["handle"] for found in answers if batches.is_batch(found) for line in batches.answers_in(found)]
        assert sum(map(bool, jobs)) == len(world.server.submissions), "not every job was answered"
        world.finish()
    finally:
        world.close()
    submissions = [
        (packet_type, function, b"" if OWN_UNIQUE.fullmatch(unique) else unique, workload)
        for packet_type, function, unique, workload in world.server.submissions
    ]
    answers = [
        (response.status, b"" if response.status == 200 or response.to_head else REQUEST_ID.sub(b"", response.body))
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


def compare(bits: int, workers: int, data: bytes) -> None:
    """Run the client's bytes whole; cut, with one worker process or two; and cut short."""
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
    cut = run_alone(bits, pieces, workers)
    if any(status == 409 for status, _ in whole.answers + cut.answers):
        # It depends on which jobs with the same unique have ended by then.
        return
    assert same_answers(whole, cut, data), f"whole: {whole.answers}; cut: {cut.answers}"
    if b"100-continue" not in data.lower() and workers > 1:
        # Each of them has connections of its own to the job server.
        assert sorted(whole.submissions) == sorted(cut.submissions), f"one: {whole.submissions}; two: {cut.submissions}"
    elif b"100-continue" not in data.lower():
        assert whole.submissions == cut.submissions, f"whole: {whole.submissions}; cut: {cut.submissions}"
    short = run_alone(bits, [data[: generator.randint(0, len(data))]])
    assert short.submissions == whole.submissions[: len(short.submissions)], "a request that was cut short ran"


def one_input(data: bytes) -> None:
    """Run an input."""
    if len(data) < 2:
        return
    bits, how, script, client = parts_of(data)
    workers = 2 if how & TWO_WORKERS else 1
    gc_enabled = gc.isenabled()
    # What is made here is dropped here; a collection in the middle would only cost time.
    gc.disable()
    try:
        if script:
            play(bits, workers, script, client)
        else:
            compare(bits, workers, client)
    finally:
        if gc_enabled:
            gc.enable()
