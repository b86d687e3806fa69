"""The master of `gatewayx serve`: it binds, forks, waits and signals. It has no loop, so every fork is a clean one.

Theory of operation. The master waits for signals with a timeout, and after each looks at everything: who has ended
(waitpid), what the worker processes have told (a connection of packets each), whose loop has not turned (the rows of
the places), whose time has come to be forked. Nothing is remembered between signals and looks, so none can be lost.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import NoReturn

import msgspec

from gatewayx import __version__
from gatewayx.address import Address, UnixAddress
from gatewayx.config.settings import Settings
from gatewayx.core.jitter import random_part
from gatewayx.errors import StartError
from gatewayx.net.names import resolve_at_start
from gatewayx.net.sockets import give_memory_back
from gatewayx.server import logs, reloading, signals, systemd, worker
from gatewayx.server.listeners import LAST_ACCEPTS_S, BoundSockets
from gatewayx.server.places import State, Watch
from gatewayx.server.process import LAST_ANSWERS_S, make_room_for_connections, places_for
from gatewayx.server.processors import WorkerProcesses, connections_told, worker_processes
from gatewayx.server.relay_sockets import RelaySockets

logger = logging.getLogger("gatewayx")

# How often the master looks at everything, and for a short worker timeout so much of it; while somebody starts or ends,
# more often.
LOOK_S = 1.0
LOOK_PART = 0.2
EARLY_LOOK_S = 0.02
# The stop is told so much after it began at the latest.
TOLD_STOP_S = 1.0
# A signal that is only told is told at most so often.
TOLD_EVERY_S = 0.1
# A worker process that was ready for so long is replaced at once when it ends. One that ends sooner is too; with each
# further one in a row that does, the next comes so much later, then twice that, and so on.
STEADY_S = 1.0
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
# A worker process that hangs has so long for its traceback.
ABORT_S = 2.0
# What is read of its traceback; a pipe holds no more by default.
MAX_LAST_WORDS_BYTES = 64 * 1024
# One that should have ended by its own times has so much longer.
OVERDUE_S = 10.0


class Child(msgspec.Struct):
    """A worker process, as the master sees it."""

    process_id: int
    connection: socket.socket
    # The end of a pipe from which its last words are read, if it crashes.
    last_words: int
    # By time.monotonic(): when it became ready, and when it was aborted; None if not.
    ready_s: float | None = None
    aborted_s: float | None = None
    reason: str = ""
    # It is to be sent the settings; it was, and has not said yet that it has taken them.
    needs_settings: bool = False
    takes_settings: bool = False

    def offer(self, settings: Settings) -> None:
        """Send it the settings if it needs them and has taken those before."""
        if self.needs_settings and not self.takes_settings:
            # One that has no room for them now gets them later, and one that is gone none.
            with contextlib.suppress(OSError):
                reloading.send(self.connection, worker.SETTINGS, settings)
                self.needs_settings = False
                self.takes_settings = True


class Post(msgspec.Struct):
    """A place, and who is to be there."""

    child: Child | None = None
    # How many in a row have ended too soon, and when the next one is due.
    failures: int = 0
    due_s: float = 0.0


def run(settings: Settings, load: Callable[[], Settings], *, listen_is_default: bool = False) -> int:
    """Serve until a signal stops it; returns the exit code. Raises StartError.

    load: reads the settings again; raises SettingError. listen_is_default: nobody has set where it listens, so that
    inherited sockets take the place of that.
    """
    signals.prepare()
    log = logs.configure(log_format=settings.log_format)
    processes = worker_processes(settings.workers)
    make_room_for_connections(settings, processes.count)
    sockets = BoundSockets(processes.count)
    relay_sockets: RelaySockets | None = None
    try:
        sockets.inherit(systemd.listen_sockets(), settings)
        if not (listen_is_default and sockets.addresses):
            for address in settings.listen:
                _bind(sockets, address, settings)
        if processes.count > 1:
            relay_sockets = RelaySockets(processes.count)
        return Master(settings, load, sockets, processes, log, relay_sockets).run()
    finally:
        sockets.close()
        if relay_sockets is not None:
            relay_sockets.close()
        log.finish()


def _bind(sockets: BoundSockets, address: Address | UnixAddress, settings: Settings) -> None:
    def tell(reason: str) -> None:
        logger.warning("cannot listen on %s yet: %s", address, reason)

    if isinstance(address, UnixAddress):
        sockets.bind_file(address, settings)
        return
    try:
        hosts = resolve_at_start(address.host, tell)
    except OSError as error:
        raise StartError(f"cannot listen on {address}: {error.strerror or error}") from error
    sockets.bind(address, hosts[0], settings)


class Master:
    """Keeps a worker process at each place.

    load: reads the settings again. sockets: bound. processes: how many worker processes there are to be, and why. log:
    of this process, and of those that are forked. relay_sockets: of the places, if there are several.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        sockets: BoundSockets,
        processes: WorkerProcesses,
        log: logs.EventLog,
        relay_sockets: RelaySockets | None = None,
    ) -> None:
        self._settings = settings
        self._load = load
        # For the job servers with TLS, of the files as they were read last.
        self._context = reloading.tls_context(settings)
        self._told_connections = ""
        # Whether it was told that all worker processes have the settings.
        self._told_settings = True
        # None has said that it could not take them.
        self._all_took = True
        self._sockets = sockets
        self._relay_sockets = relay_sockets
        self._log = log
        self._manager = systemd.Manager()
        self._processes = processes
        self._places = places_for(settings, processes.count)
        self._shared = self._places.shared()
        # What worker processes were about to change when they died, which is looked at until it is known.
        self._uncertain: list[int] = []
        self._watch = Watch(self._places, 2 * self._look_s(), time.monotonic())
        self._posts = [Post() for _ in range(processes.count)]
        # Whether a worker process has ever been ready, and whether that was told.
        self._listens = False
        self._told_start = False
        self._told_stop = False
        # The place whose worker process was aborted, up to the time when another one is ready there.
        self._mending: int | None = None
        # By time.monotonic(): when the drain begins, and when whoever has not ended is killed; None if not known yet.
        self._drain_s: float | None = None
        self._kill_s: float | None = None
        self._told_at_s = 0.0
        self._exit_code = 0
        # By time.monotonic(): when one was last seen that was ready and had turned its loop within the worker timeout.
        self._alive_s = time.monotonic()
        self._told_dead = False

    def run(self) -> int:
        """Return the exit code, once nobody is left. Raises StartError if no worker process could begin."""
        # What lives now lives on in all processes. The collector writes to what it visits: it leaves this shared.
        gc.collect()
        gc.freeze()
        give_memory_back()
        signals.take_over()
        try:
            while not self._is_over(time.monotonic()):
                self._signalled(signals.wait(self._pause_s(), told=time.monotonic() >= self._told_at_s))
        finally:
            self._kill()
        if self._listens:
            logger.info("stopped")
        return self._exit_code

    def _is_over(self, now_s: float) -> bool:
        """Look at everything, do what is due, and return whether nothing is left to do."""
        self._log.tick()
        self._reap(now_s)
        for number, post in enumerate(self._posts):
            if post.child is not None:
                self._hear(number, post, post.child, now_s)
        self._uncertain = [intent for intent in self._uncertain if not self._shared.reconcile(intent)]
        self._tell_start()
        self._hand_out_settings()
        self._manager.tick(now_s, alive=self._is_alive(now_s))
        if self._drain_s is not None and self._kill_s is None and now_s >= self._drain_s:
            self._drain(now_s)
        if self._kill_s is not None:
            self._tell_stop(now_s)
            if now_s >= self._kill_s:
                logger.error("worker processes that have not ended in time are killed")
                self._kill()
            return all(post.child is None for post in self._posts)
        self._abort_one(now_s)
        for number, post in enumerate(self._posts):
            if post.child is None and now_s >= post.due_s:
                self._fork(number, post, now_s)
        return False

    def _look_s(self) -> float:
        return min(LOOK_S, LOOK_PART * self._settings.worker_timeout_s)

    def _pause_s(self) -> float:
        look_s = self._look_s()
        self._watch.patience_s = 2 * look_s
        changing = (self._kill_s is not None and not self._told_stop) or not self._told_settings
        if changing or any(post.child is not None and post.child.ready_s is None for post in self._posts):
            return EARLY_LOOK_S
        now_s = time.monotonic()
        due_s = [look_s]
        if now_s < self._told_at_s:
            # Signals that are only told wait until then.
            due_s.append(self._told_at_s - now_s)
        for post in self._posts:
            if post.child is None:
                due_s.append(post.due_s - now_s)
            elif post.child.aborted_s is not None:
                due_s.append(post.child.aborted_s + ABORT_S - now_s)
        due_s.append(max(EARLY_LOOK_S, self._manager.pause_s(now_s)))
        if self._drain_s is not None:
            due_s.append(self._drain_s - now_s)
        return max(0.0, min(due_s)) if self._kill_s is None else look_s

    def _signalled(self, number: signal.Signals | None) -> None:
        if number in signals.TOLD:
            self._told_at_s = time.monotonic() + TOLD_EVERY_S
            if number is not signal.SIGHUP:
                logger.info("%s has no effect", number.name)
                return
            # With Type=notify-reload systemd waits for both, in a stop as well.
            self._manager.reloading()
            if self._drain_s is None:
                self._reload()
            else:
                logger.info("%s has no effect in a stop", number.name)
            self._manager.reloaded()
        elif number in signals.STOPPING:
            if self._drain_s is not None:
                # The operator has asked twice.
                self._sockets.remove_files()
                if self._relay_sockets is not None:
                    self._relay_sockets.close()
                self._kill()
                self._log.finish()
                os._exit(1)
            self._stop()

    def _reload(self) -> None:
        read = reloading.read_again(self._settings, self._load)
        if read is None:
            return
        settings, self._context = read
        self._settings = settings
        self._log.change(settings.log_format)
        make_room_for_connections(settings, len(self._posts))
        self._told_settings = False
        self._all_took = True
        for post in self._posts:
            if post.child is not None:
                post.child.needs_settings = True

    def _hand_out_settings(self) -> None:
        """Send the settings to whoever needs them and can take them now; say so once all have them."""
        if self._told_settings:
            return
        children = [post.child for post in self._posts if post.child is not None]
        for child in children:
            child.offer(self._settings)
        if not any(child.needs_settings or child.takes_settings for child in children):
            self._told_settings = True
            if self._all_took:
                logger.info("all worker processes have the settings")
            else:
                logger.error("not all worker processes have the settings: SIGHUP makes another attempt")
            self._tell_connections()

    def _stop(self) -> None:
        delay_s = self._settings.shutdown_delay_s if self._listens else 0.0
        self._drain_s = time.monotonic() + delay_s
        self._manager.stopping("answering what is in flight", delay_s + self._longest_drain_s())
        if delay_s:
            logger.info("stopping in %g s: accepting and serving as before until then", delay_s)

    def _longest_drain_s(self) -> float:
        return LAST_ACCEPTS_S + self._settings.drain_timeout_s + LAST_ANSWERS_S + OVERDUE_S

    def _drain(self, now_s: float) -> None:
        self._kill_s = now_s + self._longest_drain_s()
        # Whoever has not taken the last settings yet ends with those that it has.
        self._told_settings = True
        # From here on each socket is closed as soon as the worker process there has served who waits.
        self._sockets.close()
        for post in self._posts:
            if post.child is not None:
                with contextlib.suppress(OSError):
                    # One that is gone needs no order.
                    post.child.connection.send(worker.DRAIN)

    def _kill(self) -> None:
        for post in self._posts:
            if post.child is not None:
                os.kill(post.child.process_id, signal.SIGKILL)
                os.waitpid(post.child.process_id, 0)
                post.child = None
                self._exit_code = 1

    def _fork(self, number: int, post: Post, now_s: float) -> None:
        with contextlib.ExitStack() as undo:
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                for end in (ours, theirs):
                    undo.callback(end.close)
                    end.setblocking(False)
                last_words, own_words = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
                undo.callback(os.close, last_words)
                undo.callback(os.close, own_words)
                # Its loop has as long for the first turn as for any other.
                self._places[number].beat(now_s)
                process_id = os.fork()
            except OSError as error:
                self._delay(post, now_s)
                self._give_up_start(f"a worker process cannot be started: {error.strerror}")
                logger.error("worker process %d cannot be started: %s", number, error.strerror)  # noqa: TRY400
                return
            undo.pop_all()
        if process_id == 0:
            self._become_worker(number, ours, theirs, own_words)
        theirs.close()
        os.close(own_words)
        post.child = Child(process_id, ours, last_words)

    def _become_worker(
        self, number: int, master_end: socket.socket, own_end: socket.socket, own_words: int
    ) -> NoReturn:
        exit_code = 1
        try:
            signals.leave_to_master()
            self._log.begin_anew(f"worker process {number}: " if len(self._posts) > 1 else "", number)
            # A worker process hears that the master is gone only if nobody else has the master's end.
            master_end.close()
            for post in self._posts:
                if post.child is not None:
                    post.child.connection.close()
                    os.close(post.child.last_words)
            self._sockets.leave_files()
            exit_code = worker.run(
                self._settings,
                self._sockets,
                self._places,
                number,
                own_end,
                own_words,
                self._log,
                self._context,
                self._relay_sockets,
            )
        except BaseException:
            logger.critical("worker process %d failed", number, exc_info=True)
        finally:
            os._exit(exit_code)

    def _hear(self, number: int, post: Post, child: Child, now_s: float) -> None:
        while True:
            try:
                packet = child.connection.recv(worker.MAX_PACKET_BYTES)
            except OSError:
                # Nothing is there, or the process is gone, which waitpid tells.
                return
            if packet == worker.READY:
                child.ready_s = now_s
                self._listens = True
                if self._mending == number:
                    self._mending = None
            elif packet in (worker.TAKEN, worker.NOT_TAKEN, worker.AGAIN):
                child.takes_settings = False
                self._all_took &= packet != worker.NOT_TAKEN
                child.needs_settings |= packet == worker.AGAIN
            elif packet.startswith(worker.FAILED):
                child.reason = packet.removeprefix(worker.FAILED).decode()
            else:
                return

    def _reap(self, now_s: float) -> None:
        while True:
            try:
                process_id, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process_id == 0:
                return
            for number, post in enumerate(self._posts):
                if post.child is not None and post.child.process_id == process_id:
                    self._hear(number, post, post.child, now_s)
                    self._ended(number, post, post.child, status, now_s)
            # Any other is an orphan that a container has left to its first process.

    def _ended(self, number: int, post: Post, child: Child, status: int, now_s: float) -> None:
        post.child = None
        child.connection.close()
        last_words = _last_words(child.last_words)
        self._places[number].state = State.EMPTY
        self._uncertain.append(self._shared.give_back(number))
        if self._mending == number and child.aborted_s is None:
            self._mending = None
        exit_code = os.waitstatus_to_exitcode(status)
        if self._kill_s is not None and exit_code == 0:
            return
        self._exit_code = 1 if self._kill_s is not None else 0
        reason = child.reason or _reason(exit_code, child)
        if child.ready_s is not None and now_s - child.ready_s >= STEADY_S:
            post.failures = 0
            post.due_s = now_s
        else:
            self._delay(post, now_s)
        if child.reason:
            # It says all that there is to say.
            self._give_up_start(reason)
        told = "worker process %d (pid %d) %s"
        arguments = (number, child.process_id, reason)
        logger.handle(
            logger.makeRecord(logger.name, logging.ERROR, __file__, 0, told, arguments, None, sinfo=last_words or None)
        )
        self._give_up_start(f"worker process {number} {reason}")

    def _give_up_start(self, reason: str) -> None:
        """Raise StartError if each place has failed and none has ever served."""
        if not self._listens and self._kill_s is None and all(post.failures for post in self._posts):
            raise StartError(reason)

    def _delay(self, post: Post, now_s: float) -> None:
        post.failures += 1
        delay_s = 0.0 if post.failures == 1 else min(BACKOFF_FIRST_S * 2.0 ** (post.failures - 2), BACKOFF_MAX_S)
        post.due_s = now_s + delay_s / 2 + random_part(delay_s / 2)

    def _is_alive(self, now_s: float) -> bool:
        """Whether the gateway serves, or may yet: what the watchdog is told.

        One worker process that hangs, or several, are this process's to replace: the manager would end the others with
        them. So it is left to the manager only when the loop of none has turned for as long as a hang and its end take.
        """
        for number, post in enumerate(self._posts):
            is_ready = post.child is not None and post.child.ready_s is not None
            if is_ready and self._watch.still_s(number) < self._settings.worker_timeout_s:
                self._alive_s = now_s
        dead_s = now_s - self._alive_s
        is_alive = self._kill_s is not None or dead_s < self._settings.worker_timeout_s + OVERDUE_S
        if not is_alive and not self._told_dead:
            logger.critical("no worker process has served for %.0f s", dead_s)
        self._told_dead = not is_alive
        return is_alive

    def _abort_one(self, now_s: float) -> None:
        """End one that hangs, with its traceback; the next only when another is ready in its place.

        If all of them hang it is not their fault, and one that is replaced shows whether it helps. Should that one hang
        before it is ready, it is replaced in its turn.
        """
        self._watch.look(now_s)
        for number, post in enumerate(self._posts):
            child = post.child
            if child is None:
                continue
            if child.aborted_s is not None:
                if now_s - child.aborted_s >= ABORT_S:
                    os.kill(child.process_id, signal.SIGKILL)
            elif self._mending in (None, number) and self._watch.still_s(number) >= self._settings.worker_timeout_s:
                logger.error(
                    "worker process %d (pid %d) has not turned its loop for %.0f s: it is aborted",
                    number,
                    child.process_id,
                    self._watch.still_s(number),
                )
                self._mending = number
                child.aborted_s = now_s
                os.kill(child.process_id, signal.SIGABRT)
                # One that was stopped would not hear of it.
                os.kill(child.process_id, signal.SIGCONT)

    def _tell_start(self) -> None:
        """Tell where it listens, once each place has had its first worker process or failed to."""
        if self._told_start or not self._listens or self._kill_s is not None:
            return
        if any(post.failures == 0 and (post.child is None or post.child.ready_s is None) for post in self._posts):
            return
        self._told_start = True
        addresses = ", ".join(
            str(address) if isinstance(address, UnixAddress) else f"http://{address}"
            for address in self._sockets.addresses
        )
        self._tell_connections()
        logger.info("gatewayx %s listens on %s; %s", __version__, addresses, self._processes.told)
        self._manager.ready(f"listens on {addresses}; {self._processes.told}")

    def _tell_connections(self) -> None:
        told = connections_told(self._settings, self._processes.count)
        if told != self._told_connections:
            logger.info("%s", told)
        self._told_connections = told

    def _tell_stop(self, now_s: float) -> None:
        """Tell that it stops, once all worker processes have begun to, or TOLD_STOP_S later."""
        if self._told_stop:
            return
        is_early = self._drain_s is not None and now_s < self._drain_s + TOLD_STOP_S
        for number, post in enumerate(self._posts):
            if is_early and post.child is not None and self._places[number].state is State.SERVING:
                return
        self._told_stop = True
        if self._listens:
            drain_s = self._settings.drain_timeout_s
            logger.info("stopping: answering what is in flight, for up to %g s", drain_s)


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
