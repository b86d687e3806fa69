"""The master of `gatewayx serve`: it binds, forks, waits and signals. It has no loop, so every fork is a clean one.

Theory of operation. The master waits for signals with a timeout, and after each looks at everything: who has ended
(waitpid), what the worker processes have told (a connection of packets each), whose loop has not turned (the rows of
the places), whose time has come to be forked. Nothing is remembered between signals and looks, so none can be lost.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import NoReturn

from gatewayx import __version__
from gatewayx.address import Address, ListenAddress, UnixAddress
from gatewayx.config.loading import speaks_tls
from gatewayx.config.settings import Settings
from gatewayx.errors import StartError
from gatewayx.net.names import resolve_at_start
from gatewayx.net.sockets import give_memory_back
from gatewayx.server import logs, output, signals, systemd, worker
from gatewayx.server.admin_socket import bind_admin
from gatewayx.server.children import ABORT_S, End, Post
from gatewayx.server.hand_out import HandOut
from gatewayx.server.listeners import LAST_ACCEPTS_S, BoundSockets
from gatewayx.server.open_files import make_room_for_connections
from gatewayx.server.places import State, Watch
from gatewayx.server.process import LAST_ANSWERS_S, places_for
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
# A worker process that should have ended by its own times has so much longer.
OVERDUE_S = 10.0
# The admin process, which ends last, has so long for the answers that it has begun.
ADMIN_END_S = 1.0


def run(
    settings: Settings,
    load: Callable[[], Settings],
    *,
    listen_is_default: bool = False,
    admin_is_default: bool = False,
) -> int:
    """Serve until a signal stops it; returns the exit code. Raises StartError.

    load: reads the settings again; raises SettingError. listen_is_default: nobody has set where it listens, so that
    inherited sockets take the place of that. admin_is_default: nobody has set the admin address, so that it may be
    missing.
    """
    signals.prepare()
    log = logs.configure(log_format=settings.log_format)
    output.check(settings.access_log)
    processes = worker_processes(settings.workers)
    make_room_for_connections(settings, processes.count)
    sockets = BoundSockets(processes.count)
    relay_sockets: RelaySockets | None = None
    admin_socket: socket.socket | None = None
    try:
        sockets.inherit(systemd.listen_sockets(), settings)
        if not (listen_is_default and sockets.addresses):
            for address in settings.listen:
                _bind(sockets, address, settings)
        if settings.tls_certificate and not speaks_tls(settings):
            logger.warning("tls-certificate is of no use: no address of listen begins with https:// or proxy+https://")
        if processes.count > 1:
            relay_sockets = RelaySockets(processes.count)
        if settings.admin is not None:
            admin_socket = bind_admin(settings.admin, settings.write_timeout_s, is_default=admin_is_default)
        return Master(settings, load, sockets, processes, log, relay_sockets, admin_socket).run()
    finally:
        if admin_socket is not None:
            admin_socket.close()
        sockets.close()
        if relay_sockets is not None:
            relay_sockets.close()
        log.finish()


def _bind(sockets: BoundSockets, address: Address | ListenAddress | UnixAddress, settings: Settings) -> None:
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
    """Keeps a worker process at each place, and the admin process.

    load: reads the settings again. sockets: bound. processes: how many worker processes there are to be, and why. log:
    of this process, and of those that are forked. relay_sockets: of the places, if there are several. admin_socket:
    where the admin process is to answer; None for no such process.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        sockets: BoundSockets,
        processes: WorkerProcesses,
        log: logs.EventLog,
        relay_sockets: RelaySockets | None = None,
        admin_socket: socket.socket | None = None,
    ) -> None:
        self._told_connections = ""
        self._sockets = sockets
        self._relay_sockets = relay_sockets
        self._admin_socket = admin_socket
        self._log = log
        self._manager = systemd.Manager()
        self._processes = processes
        self._places = places_for(settings, processes.count)
        self._shared = self._places.shared()
        self._metrics = self._places.metrics()
        self._board = self._places.board
        self._board.begin(os.getpid())
        self._goods = HandOut(settings, load, self._places)
        # What worker processes were about to change when they died, which is looked at until it is known.
        self._uncertain: list[int] = []
        self._watch = Watch(self._places, 2 * self._look_s(), time.monotonic())
        self._posts = [
            Post(f"worker process {number}", self._board.workers[number]) for number in range(processes.count)
        ]
        self._admin = None if admin_socket is None else Post("admin process", self._board.admin, serves_clients=False)
        # By time.monotonic(): when the admin process, which ends last, is killed; None as long as it is not to end.
        self._admin_kill_s: float | None = None
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
        self._board.beat(now_s)
        self._log.tick()
        self._board.add_dropped(self._log.take_dropped())
        self._reap(now_s)
        for number, post in enumerate(self._posts):
            self._hear(number, post, now_s)
        self._uncertain = [intent for intent in self._uncertain if not self._shared.reconcile(intent)]
        self._tell_start()
        if self._kill_s is None:
            self._goods.look(now_s, self._all_posts())
        if self._goods.hand_out(self._all_posts()):
            self._tell_connections()
        self._manager.tick(now_s, alive=self._is_alive(now_s))
        if self._drain_s is not None and self._kill_s is None and now_s >= self._drain_s:
            self._drain(now_s)
        self._watch.look(now_s)
        if self._kill_s is not None:
            self._tend_admin(now_s)
            self._tell_stop(now_s)
            if now_s >= self._kill_s:
                logger.error("worker processes that have not ended in time are killed")
                self._kill()
            return all(post.child is None for post in self._posts) and self._admin_is_over(now_s)
        self._abort_one(now_s)
        for number, post in enumerate(self._posts):
            if post.child is None and now_s >= post.due_s:
                self._fork_worker(number, now_s)
        # It takes longer to begin, and those who serve come first.
        self._tend_admin(now_s)
        return False

    def _look_s(self) -> float:
        return min(LOOK_S, LOOK_PART * self._settings.worker_timeout_s)

    def _pause_s(self) -> float:
        look_s = self._look_s()
        self._watch.patience_s = 2 * look_s
        changing = (self._kill_s is not None and not self._told_stop) or self._goods.is_handing_out
        # Nothing waits for the admin process to be ready.
        if changing or any(post.child is not None and not post.is_ready for post in self._posts):
            return EARLY_LOOK_S
        now_s = time.monotonic()
        due_s = [look_s, self._goods.pause_s(now_s)]
        if now_s < self._told_at_s:
            # Signals that are only told wait until then.
            due_s.append(self._told_at_s - now_s)
        for post in self._all_posts():
            if post.child is None:
                due_s.append(post.due_s - now_s)
            elif post.child.aborted_s is not None:
                due_s.append(post.child.aborted_s + ABORT_S - now_s)
        due_s.append(max(EARLY_LOOK_S, self._manager.pause_s(now_s)))
        if self._drain_s is not None:
            due_s.append(self._drain_s - now_s)
        return max(0.0, min(due_s)) if self._kill_s is None else look_s

    @property
    def _settings(self) -> Settings:
        """Those that the processes have, or are about to have."""
        return self._goods.settings

    def _all_posts(self) -> list[Post]:
        """Those of the worker processes, and that of the admin process if there is to be one."""
        return self._posts if self._admin is None else [*self._posts, self._admin]

    def _signalled(self, number: signal.Signals | None) -> None:
        if number in signals.TOLD:
            self._told_at_s = time.monotonic() + TOLD_EVERY_S
            if number is signal.SIGUSR1:
                self._reopen_logs()
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
        if self._goods.reload(self._all_posts()):
            self._log.change(self._settings.log_format)
            make_room_for_connections(self._settings, len(self._posts))

    def _reopen_logs(self) -> None:
        if self._settings.access_log is None:
            logger.info("SIGUSR1: there is no access log to be opened anew")
            return
        logger.info("SIGUSR1: the worker processes open the access log anew")
        for post in self._posts:
            post.send(worker.REOPEN)

    def _stop(self) -> None:
        delay_s = self._settings.shutdown_delay_s if self._listens else 0.0
        self._drain_s = time.monotonic() + delay_s
        self._board.drain()
        self._manager.stopping("answering what is in flight", delay_s + self._longest_drain_s())
        if delay_s:
            logger.info("stopping in %g s: accepting and serving as before until then", delay_s)

    def _longest_drain_s(self) -> float:
        return LAST_ACCEPTS_S + self._settings.drain_timeout_s + LAST_ANSWERS_S + OVERDUE_S

    def _drain(self, now_s: float) -> None:
        self._kill_s = now_s + self._longest_drain_s()
        # Whoever has not taken the last settings yet ends with those that it has.
        self._goods.stop()
        # From here on each socket is closed as soon as the worker process there has served who waits.
        self._sockets.close()
        for post in self._posts:
            post.send(worker.DRAIN)

    def _kill(self) -> None:
        for post in self._posts:
            if post.kill():
                self._exit_code = 1

    def _tend_admin(self, now_s: float) -> None:
        """Keep the admin process there, up to the end of everything."""
        post = self._admin
        if post is None:
            return
        post.hear(now_s)
        if self._admin_kill_s is not None:
            return
        if post.child is None:
            if now_s >= post.due_s:
                # As in _fork_worker().
                self._board.admin.beat(now_s)
                self._fork(post, now_s, self._become_admin)
        elif post.child.aborted_s is not None:
            post.kill_aborted(now_s)
        elif self._watch.still_since(self._board.admin.beat_s) >= self._settings.worker_timeout_s:
            logger.error("the admin process (pid %d) has not turned its loop: it is aborted", post.child.process_id)
            post.abort(now_s)

    def _admin_is_over(self, now_s: float) -> bool:
        """Have the admin process end, the last of all; whether it has."""
        if self._admin is None or self._admin.child is None:
            return True
        if self._admin_kill_s is None:
            self._admin_kill_s = now_s + ADMIN_END_S
            self._admin.send(worker.DRAIN)
        elif now_s >= self._admin_kill_s:
            self._admin.kill()
        return self._admin.child is None

    def _fork(self, post: Post, now_s: float, become: Callable[[socket.socket, socket.socket, int], NoReturn]) -> bool:
        """Whether a child was forked; the next attempt comes later if not."""
        try:
            post.fork(become)
        except OSError as error:
            post.delay(now_s)
            logger.error("%s cannot be started: %s", post.title, error.strerror)  # noqa: TRY400
            self._give_up_start(f"a worker process cannot be started: {error.strerror}")
            return False
        return True

    def _fork_worker(self, number: int, now_s: float) -> None:
        # Its loop has as long for the first turn as for any other.
        self._places[number].beat(now_s)
        self._fork(self._posts[number], now_s, functools.partial(self._become_worker, number))

    def _leave_masters(self, master_end: socket.socket, teller: str, place: int | str) -> None:
        """In a child: let go of what is the master's alone."""
        signals.leave_to_master()
        self._log.begin_anew(teller, place)
        master_end.close()
        for post in self._all_posts():
            post.leave()
        self._sockets.leave_files()

    def _become_worker(
        self, number: int, master_end: socket.socket, own_end: socket.socket, own_words: int
    ) -> NoReturn:
        exit_code = 1
        try:
            self._leave_masters(master_end, f"worker process {number}: " if len(self._posts) > 1 else "", number)
            if self._admin_socket is not None:
                self._admin_socket.close()
            exit_code = worker.run(
                self._settings,
                self._sockets,
                self._places,
                number,
                own_end,
                own_words,
                self._log,
                self._goods.tls,
                self._relay_sockets,
                self._goods.tokens,
            )
        except BaseException:
            logger.critical("worker process %d failed", number, exc_info=True)
        finally:
            os._exit(exit_code)

    def _become_admin(self, master_end: socket.socket, own_end: socket.socket, own_words: int) -> NoReturn:
        exit_code = 1
        try:
            self._leave_masters(master_end, "admin process: ", "admin")
            # Whoever has a listening socket last resets who waits there, and this process outlives the others.
            self._sockets.close()
            if self._relay_sockets is not None:
                self._relay_sockets.close()
            self._goods.leave_client_keys()
            assert self._admin_socket is not None
            # Only this process needs what it imports.
            from gatewayx.server import admin

            exit_code = admin.run(
                self._settings,
                self._admin_socket,
                self._places,
                own_end,
                own_words,
                self._log,
                self._goods.tls,
                self._goods.tokens,
            )
        except BaseException:
            logger.critical("the admin process failed", exc_info=True)
        finally:
            os._exit(exit_code)

    def _hear(self, number: int, post: Post, now_s: float) -> None:
        was_ready = post.is_ready
        post.hear(now_s)
        if post.is_ready and not was_ready:
            self._listens = True
            if self._mending == number:
                self._mending = None

    def _reap(self, now_s: float) -> None:
        while True:
            try:
                process_id, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process_id == 0:
                return
            for number, post in enumerate(self._posts):
                if post.child is not None and post.child.process_id == process_id:
                    self._hear(number, post, now_s)
                    self._ended(number, post, post.take_end(status, used, now_s), now_s)
            admin = self._admin
            if admin is not None and admin.child is not None and admin.child.process_id == process_id:
                self._admin_ended(admin, admin.take_end(status, used, now_s), now_s)
            # Any other is an orphan that a container has left to its first process.

    def _ended(self, number: int, post: Post, end: End, now_s: float) -> None:
        self._places[number].end()
        self._uncertain.append(self._shared.give_back(number))
        self._metrics.forget_jobs(number)
        if self._mending == number and end.child.aborted_s is None:
            self._mending = None
        if self._kill_s is not None and end.exit_code == 0:
            return
        self._exit_code = 1 if self._kill_s is not None else 0
        post.count_restart(end)
        post.replace(end, now_s)
        if end.child.reason:
            # It says all that there is to say.
            self._give_up_start(end.reason)
        _tell_end(post, end)
        self._give_up_start(f"{post.title} {end.reason}")

    def _admin_ended(self, post: Post, end: End, now_s: float) -> None:
        if self._admin_kill_s is not None:
            return
        post.count_restart(end)
        post.replace(end, now_s)
        _tell_end(post, end)

    def _give_up_start(self, reason: str) -> None:
        """Raise StartError if each place has failed and none has ever served."""
        if not self._listens and self._kill_s is None and all(post.failures for post in self._posts):
            raise StartError(reason)

    def _is_alive(self, now_s: float) -> bool:
        """Whether the gateway serves, or may yet: what the watchdog is told.

        One worker process that hangs, or several, are this process's to replace: the manager would end the others with
        them. So it is left to the manager only when the loop of none has turned for as long as a hang and its end take.
        """
        for number, post in enumerate(self._posts):
            if post.is_ready and self._watch.still_s(number) < self._settings.worker_timeout_s:
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
        for number, post in enumerate(self._posts):
            child = post.child
            if child is None:
                continue
            if child.aborted_s is not None:
                post.kill_aborted(now_s)
            elif self._mending in (None, number) and self._watch.still_s(number) >= self._settings.worker_timeout_s:
                logger.error(
                    "worker process %d (pid %d) has not turned its loop for %.0f s: it is aborted",
                    number,
                    child.process_id,
                    self._watch.still_s(number),
                )
                self._mending = number
                post.abort(now_s)

    def _tell_start(self) -> None:
        """Tell where it listens, once each place has had its first worker process or failed to."""
        if self._told_start or not self._listens or self._kill_s is not None:
            return
        if not all(post.has_begun for post in self._posts):
            return
        self._told_start = True
        self._board.start()
        addresses = ", ".join(
            f"http://{address}" if isinstance(address, Address) else str(address) for address in self._sockets.addresses
        )
        self._tell_connections()
        if self._admin_socket is not None:
            logger.info("the admin address is http://%s", Address(*self._admin_socket.getsockname()[:2]))
        logger.info("gatewayx %s listens on %s; %s", __version__, addresses, self._processes.told)
        self._manager.ready(f"listens on {addresses}; {self._processes.told}")

    def _tell_connections(self) -> None:
        told = connections_told(self._settings, self._processes.count, with_admin=self._admin is not None)
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


def _tell_end(post: Post, end: End) -> None:
    told = "%s (pid %d) %s"
    arguments = (post.title, end.child.process_id, end.reason)
    logger.handle(
        logger.makeRecord(logger.name, logging.ERROR, __file__, 0, told, arguments, None, sinfo=end.last_words or None)
    )
