"""The text commands of the embedded job server, in gearmand's words (libgearman-server/text.cc, server_run_text)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from gatewayx.embedded.queues import leading_number

if TYPE_CHECKING:
    from gatewayx.embedded.job_server import JobServer

# Takes the job server and the words behind the verb; None if those words are not what the command takes.
Command = Callable[["JobServer", list[bytes]], bytes | None]

# Said after "OK " where gearmand says its version.
VERSION = b"gatewayx"


def answer(server: JobServer, words: list[bytes]) -> bytes:
    """The answer to a line, given its words; the first is the verb."""
    verb = words[0].lower() if words else b""
    command = COMMANDS.get(verb)
    if command is None:
        return unknown_command(verb)
    said = command(server, words[1:])
    if said is None:
        return b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+" + verb + b"\r\n"
    return said


def unknown_command(verb: bytes) -> bytes:
    """The answer to a verb that the job server does not know."""
    return b"ERR UNKNOWN_COMMAND Unknown+server+command" + verb + b"\r\n"


def status(server: JobServer, words: list[bytes]) -> bytes | None:
    """One line a function: name, jobs, of which running, workers."""
    lines = [
        b"%b\t%d\t%d\t%d\n"
        % (function.name, function.queued + function.running, function.running, len(function.workers))
        for function in server.functions.values()
    ]
    return b"".join(lines) + b".\n"


def workers(server: JobServer, words: list[bytes]) -> bytes | None:
    """One line a connection: descriptor, address, identifier, functions."""
    lines = []
    for connection in server.open_connections:
        if connection.transport is None:
            continue
        peer = connection.transport.get_extra_info("peername")
        lines.append(
            b"%d %b %b :%b\n"
            % (
                connection.transport.get_extra_info("socket").fileno(),
                peer[0].encode() if peer else b"-",
                connection.client_id,
                b"".join([b" " + name for name in connection.functions]),
            )
        )
    return b"".join(lines) + b".\n"


def cancel(server: JobServer, words: list[bytes]) -> bytes | None:
    """`cancel job HANDLE`: WORK_FAIL to its clients; it is dropped if no worker has it yet, and OK is said anyhow."""
    if len(words) < 2:
        return unknown_command(b"cancel")
    if len(words) > 2 or words[0].lower() != b"job":
        return b"ERR UNKNOWN_ERROR\r\n"
    return b"OK\r\n" if server.cancel(words[1]) else b"ERR UNKNOWN_JOB\r\n"


def show(server: JobServer, words: list[bytes]) -> bytes | None:
    """`show jobs`: handle, retries, dropped, queued; `show unique jobs`: unique."""
    wanted = [word.lower() for word in words]
    if wanted == [b"jobs"]:
        lines = [
            b"%b\t%d\t%d\t%d\n" % (job.handle, job.retries, job.dropped, job.worker is None)
            for job in server.jobs.values()
        ]
    elif wanted == [b"unique", b"jobs"]:
        lines = [job.unique + b"\n" for job in server.jobs.values()]
    else:
        return b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"
    return b"".join(lines) + b".\n"


def create(server: JobServer, words: list[bytes]) -> bytes | None:
    """`create function NAME`."""
    if len(words) != 2 or words[0].lower() != b"function":
        return None
    return b"OK\r\n" if server.create_function(words[1]) else b"ERR CREATE_FUNCTION " + words[1] + b"\r\n"


def drop(server: JobServer, words: list[bytes]) -> bytes | None:
    """`drop function NAME`: refused while it has workers or jobs."""
    if len(words) != 2 or words[0].lower() != b"function":
        return None
    function = server.functions.get(words[1])
    if function is None:
        return b"ERR function not found\r\n"
    if function.workers or function.queued or function.running:
        return b"ERR there are still connected workers or executing clients\r\n"
    del server.functions[words[1]]
    return b"OK\r\n"


def maxqueue(server: JobServer, words: list[bytes]) -> bytes | None:
    """`maxqueue NAME [HIGH [NORMAL LOW]]`: one number is for all priorities, 0 or none lifts the function's bound."""
    if not words:
        return None
    function = server.functions.get(words[0])
    if function is not None:
        priorities = len(function.max_queue)
        limits = [leading_number(word) for word in words[1:4]] or [0]
        function.max_queue[:] = limits if len(limits) == priorities else limits[:1] * priorities
    return b"OK\r\n"


def shutdown(server: JobServer, words: list[bytes]) -> bytes | None:
    """`shutdown`, `shutdown graceful`: the server goes away at once, running jobs included."""
    if words and [word.lower() for word in words] != [b"graceful"]:
        return unknown_command(b"shutdown")
    server.loop.call_soon(server.shut_down)
    return b"OK\r\n"


COMMANDS: dict[bytes, Command] = {
    b"cancel": cancel,
    b"create": create,
    b"drop": drop,
    b"getpid": lambda server, words: b"OK %d\n" % os.getpid(),
    b"maxqueue": maxqueue,
    b"show": show,
    b"shutdown": shutdown,
    b"status": status,
    b"verbose": lambda server, words: b"OK INFO\n",
    b"version": lambda server, words: b"OK " + VERSION + b"\n",
    b"workers": workers,
}
