"""The children of the master: how one is forked, heard, replaced and ended, whatever it does."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import msgspec

from gatewayx.config.settings import Settings
from gatewayx.config.tokens import TokenEntry
from gatewayx.core.jitter import random_part
from gatewayx.server import reloading, worker
from gatewayx.server.board import Phase, Record, Restart
from gatewayx.server.tls_files import NO_TLS, TlsFiles
from gatewayx.server.token_file import NO_TOKENS

# A child that was ready for so long is replaced at once when it ends. One that ends sooner is too; with each further
# one in a row that does, the next comes so much later, then twice that, and so on.
STEADY_S = 1.0
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
# A child that hangs has so long for its traceback.
ABORT_S = 2.0
# What is read of its traceback; a pipe holds no more by default.
MAX_LAST_WORDS_BYTES = 64 * 1024


class Child(msgspec.Struct):
    """A process that the master has forked, as the master sees it."""

    process_id: int
    connection: socket.socket
    # The end of a pipe from which its last words are read, if it crashes.
    last_words: int
    # By time.monotonic(): when it became ready, and when it was aborted; None if not.
    ready_s: float | None = None
    aborted_s: float | None = None
    reason: str = ""
    # It is to be sent the settings, or what was read of files; it was, and has not said yet that it has taken them.
    needs_settings: bool = False
    needs_files: bool = False
    takes_settings: bool = False
    # What it was sent last was settings as well, and not files alone.
    sent_settings: bool = False
    # It has not said that it could not take those that it was sent.
    took_settings: bool = True
    took_files: bool = True

    def offer(self, settings: Settings, tokens: tuple[TokenEntry, ...] = NO_TOKENS, tls: TlsFiles = NO_TLS) -> None:
        """Send it the settings or the files if it needs them and has taken those before."""
        if (self.needs_settings or self.needs_files) and not self.takes_settings:
            # One that has no room for them now gets them later, and one that is gone none.
            with contextlib.suppress(OSError):
                if self.needs_settings:
                    reloading.send(self.connection, worker.SETTINGS, settings, tokens, tls)
                else:
                    reloading.send(self.connection, worker.FILES, None, tokens, tls)
                self.sent_settings = self.needs_settings
                self.needs_settings = self.needs_files = False
                self.takes_settings = True

    def answered(self, packet: bytes) -> None:
        """It has said what became of what it was sent."""
        self.takes_settings = False
        if packet == worker.NOT_TAKEN:
            self.took_settings &= not self.sent_settings
            self.took_files = False
        if packet == worker.AGAIN:
            self.needs_settings |= self.sent_settings
            self.needs_files = True


class End(NamedTuple):
    """How a child has ended."""

    child: Child
    exit_code: int
    # In words, to follow its title; and what it has left in its pipe.
    reason: str
    last_words: str


class Post:
    """What a child is there for, and who that is.

    title: of the child, in the log. record: what the admin process shall know of it. serves_clients: it needs the keys
    of what clients are shown.
    """

    def __init__(self, title: str, record: Record, *, serves_clients: bool = True) -> None:
        self.title = title
        self.serves_clients = serves_clients
        self.child: Child | None = None
        # How many in a row have ended too soon, and when the next one is due.
        self.failures = 0
        self.due_s = 0.0
        self._record = record

    @property
    def is_ready(self) -> bool:
        """Whether somebody is there who has said that it serves."""
        return self.child is not None and self.child.ready_s is not None

    @property
    def has_begun(self) -> bool:
        """Whether it has had a first child that was ready, or failed to have one."""
        return self.is_ready or self.failures > 0

    def fork(self, become: Callable[[socket.socket, socket.socket, int], NoReturn]) -> None:
        """Fork a child. Raises OSError.

        become: what the child does: called with the master's end of the connection, which is to be closed, its own end,
        and the pipe for its last words.
        """
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in (ours, theirs):
                undo.callback(end.close)
                end.setblocking(False)
            last_words, own_words = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            undo.callback(os.close, last_words)
            undo.callback(os.close, own_words)
            process_id = os.fork()
            undo.pop_all()
        if process_id == 0:
            become(ours, theirs, own_words)
        theirs.close()
        os.close(own_words)
        self.child = Child(process_id, ours, last_words)
        self._record.set_phase(Phase.STARTING, process_id)

    def leave(self) -> None:
        """In another child: let go of the master's ends; that nobody has them tells a child that the master is gone."""
        if self.child is not None:
            self.child.connection.close()
            os.close(self.child.last_words)

    def hear(self, now_s: float) -> None:
        """Take what the child has told."""
        child = self.child
        while child is not None:
            try:
                packet = child.connection.recv(worker.MAX_PACKET_BYTES)
            except OSError:
                # Nothing is there, or the process is gone, which waitpid tells.
                return
            if packet == worker.READY:
                child.ready_s = now_s
                self._record.set_phase(Phase.READY)
            elif packet in (worker.TAKEN, worker.NOT_TAKEN, worker.AGAIN):
                child.answered(packet)
            elif packet.startswith(worker.FAILED):
                child.reason = packet.removeprefix(worker.FAILED).decode()
            else:
                return

    def send(self, packet: bytes) -> None:
        """Tell the child; one that is gone hears nothing."""
        if self.child is not None:
            with contextlib.suppress(OSError):
                self.child.connection.send(packet)

    def needs_settings(self) -> None:
        """The settings are others, and the child is to have them."""
        if self.child is not None:
            self.child.needs_settings = True
            self.child.took_settings = self.child.took_files = True

    def needs_files(self) -> None:
        """What was read of files is something else, and the child is to have it."""
        if self.child is not None:
            self.child.needs_files = True
            self.child.took_files = True

    def abort(self, now_s: float) -> None:
        """Have the child write its traceback and end."""
        if self.child is not None:
            self.child.aborted_s = now_s
            self._record.set_phase(Phase.ABORTED)
            os.kill(self.child.process_id, signal.SIGABRT)
            # One that was stopped would not hear of it.
            os.kill(self.child.process_id, signal.SIGCONT)

    def kill_aborted(self, now_s: float) -> None:
        """Kill a child that was aborted and has had its time."""
        child = self.child
        if child is not None and child.aborted_s is not None and now_s - child.aborted_s >= ABORT_S:
            os.kill(child.process_id, signal.SIGKILL)

    def kill(self) -> bool:
        """Kill the child and wait for its end; whether there was one."""
        if self.child is None:
            return False
        os.kill(self.child.process_id, signal.SIGKILL)
        os.waitpid(self.child.process_id, 0)
        self.child = None
        self._record.set_phase(Phase.AWAY)
        return True

    def take_end(self, status: int, used: resource.struct_rusage, now_s: float) -> End:
        """The child has ended, as wait4(2) tells."""
        self.hear(now_s)
        child = self.child
        assert child is not None
        self.child = None
        child.connection.close()
        exit_code = os.waitstatus_to_exitcode(status)
        self._record.set_phase(Phase.AWAY)
        # See Record.ended_cpu_s.
        self._record.add_cpu(used.ru_utime + used.ru_stime)
        return End(child, exit_code, child.reason or _reason(exit_code, child), _last_words(child.last_words))

    def count_restart(self, end: End) -> None:
        """It was not asked to end."""
        self._record.count_restart(_restart(end))

    def replace(self, end: End, now_s: float) -> None:
        """Say when the next one is due."""
        if end.child.ready_s is not None and now_s - end.child.ready_s >= STEADY_S:
            self.failures = 0
            self.due_s = now_s
        else:
            self.delay(now_s)

    def delay(self, now_s: float) -> None:
        """One more in a row has ended too soon."""
        self.failures += 1
        delay_s = 0.0 if self.failures == 1 else min(BACKOFF_FIRST_S * 2.0 ** (self.failures - 2), BACKOFF_MAX_S)
        self.due_s = now_s + delay_s / 2 + random_part(delay_s / 2)


def _last_words(pipe: int) -> str:
    """What a process that is gone has left in its pipe, which is read once."""
    try:
        return os.read(pipe, MAX_LAST_WORDS_BYTES).decode("ascii", "replace").rstrip()
    except BlockingIOError:
        return ""
    finally:
        os.close(pipe)


def _reason(exit_code: int, child: Child) -> str:
    if exit_code >= 0:
        return f"has ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    if name == "SIGKILL" and child.aborted_s is None:
        return "was ended by SIGKILL, perhaps for want of memory"
    return f"was ended by {name}"


def _restart(end: End) -> Restart:
    if end.child.aborted_s is not None:
        return Restart.HANG
    if end.exit_code >= 0:
        return Restart.EXIT
    return Restart.OOM if end.exit_code == -signal.SIGKILL else Restart.CRASH
