"""Imports all that `gatewayx` needs, and forks a process of it for whoever asks; prepared.py runs it.

Each request is one message on the socket whose number is the only argument: JSON with the folder, the environment, the
Python to run first and the command's arguments; and with it descriptors, the standard streams of the process and where
to tell its id and, once it has ended, its status as os.waitpid has it. It ends with the other end of the socket.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys

# What the commands import when they run.
MODULES = (
    "gatewayx.cli",
    "gatewayx.server.master",
    "gatewayx.server.worker",
    "gatewayx.server.admin",
    "gatewayx.server.process",
)
# More than a request has, by far: an environment and a command line.
MAX_REQUEST_BYTES = 1 << 20
STREAMS = 3
NUMBER = struct.Struct("i")


def requested(requests: socket.socket) -> dict:
    """The next request that is to be served, in the process that serves it; ends with SystemExit in the first one."""
    told_by_process: dict[int, tuple[int, int]] = {}
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in told_by_process:
                poll.unregister(descriptor)
                tell_end(descriptor, *told_by_process.pop(descriptor))
                continue
            message, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, STREAMS + 1)
            if not message:
                sys.exit()
            *streams, told = descriptors
            first = os.getpid()
            process_id = os.fork()
            if process_id == 0:
                # It does not outlive the test's process, with which the first one ends.
                die_with(first)
                take(streams)
                return json.loads(message)
            for stream in streams:
                os.close(stream)
            os.write(told, NUMBER.pack(process_id))
            ended = os.pidfd_open(process_id)
            told_by_process[ended] = (process_id, told)
            poll.register(ended, select.POLLIN)


def tell_end(ended: int, process_id: int, told: int) -> None:
    """Tell whoever waits for the process how it has ended."""
    _, status = os.waitpid(process_id, 0)
    os.close(ended)
    # The test may have ended without waiting.
    with open(told, "wb", buffering=0) as pipe:
        try:
            pipe.write(NUMBER.pack(status))
        except BrokenPipeError:
            return


def die_with(parent: int) -> None:
    """Be killed when the parent is gone, however it went."""
    from support.gearmand import die_with_parent

    die_with_parent()
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def take(streams: list[int]) -> None:
    """Have these as the standard streams, and no other descriptor."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(STREAMS, os.sysconf("SC_OPEN_MAX"))


def main() -> None:
    """Serve requests; each process returns when the command has ended, as the interpreter does after `python -m`."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    for module in MODULES:
        importlib.import_module(module)
    die_with(os.getppid())
    gc.collect()
    gc.freeze()
    request = requested(requests)
    requests.detach()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]
    exec(request["before"], {"__name__": "__main__"})
    runpy.run_module("gatewayx", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
