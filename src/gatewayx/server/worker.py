"""A worker process, from its fork to its end. It obeys the master alone, and drains when the master is gone."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import socket
from collections.abc import Callable
from typing import Protocol

import uvloop

from gatewayx.config.settings import Settings
from gatewayx.config.tokens import TokenEntry
from gatewayx.errors import StartError
from gatewayx.net.pem import NoRoomError
from gatewayx.net.sockets import give_memory_back
from gatewayx.server import logs, reloading
from gatewayx.server.certificates import TlsContexts
from gatewayx.server.listeners import BoundSockets
from gatewayx.server.places import Places
from gatewayx.server.process import GatewayProcess
from gatewayx.server.relay_sockets import RelaySockets
from gatewayx.server.tls_files import NO_TLS, TlsFiles
from gatewayx.server.token_file import NO_TOKENS

logger = logging.getLogger("gatewayx")

# What master and worker process tell each other, each a packet of its own.
DRAIN = b"drain"
# Log files are to be opened anew.
REOPEN = b"reopen"
READY = b"ready"
# And the reason.
FAILED = b"failed "
# Settings and what was read of files come with it, or files alone; the answer is that they were taken, that they could
# not be, or that they are to come again.
SETTINGS = b"settings"
FILES = b"files"
TAKEN = b"taken"
NOT_TAKEN = b"not taken"
AGAIN = b"again"
MAX_PACKET_BYTES = 4096


class Control:
    """The worker process's end of its connection with the master.

    `asked` is set when the process shall drain, whether the master says so or is gone; `orphaned` tells which.
    `changed` is set when `tokens` or `tls` are others, and `settings` if `has_settings`. `reopen` is called when log
    files are to be opened anew.
    """

    def __init__(
        self,
        connection: socket.socket,
        settings: Settings,
        tokens: tuple[TokenEntry, ...] = NO_TOKENS,
        tls: TlsFiles = NO_TLS,
    ) -> None:
        self.settings = settings
        self.tokens = tokens
        self.tls = tls
        self.has_settings = False
        self.changed = asyncio.Event()
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self.asked = asyncio.Event()
        self.orphaned = False
        # Nothing is open before the process serves.
        self.reopen: Callable[[], None] = lambda: None
        self._loop.add_reader(connection, self._hear)

    def tell(self, packet: bytes) -> None:
        """Say this to the master; nothing happens if it is gone, which is heard as well."""
        try:
            self._connection.send(packet[:MAX_PACKET_BYTES])
        except OSError:
            self._end(orphaned=True)

    def _hear(self) -> None:
        try:
            packet, settings, tokens, tls = reloading.receive(self._connection, MAX_PACKET_BYTES, self.settings)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            packet, settings, tokens, tls = b"", None, None, None
        if packet in (SETTINGS, FILES):
            if tokens is None or tls is None:
                # No descriptor was left for them.
                self.tell(AGAIN)
                return
            self.tokens = tokens
            self.tls = tls
            if settings is not None:
                self.settings = settings
                self.has_settings = True
            self.changed.set()
            return
        if packet == REOPEN:
            self.reopen()
            return
        self._end(orphaned=packet != DRAIN)

    def _end(self, *, orphaned: bool) -> None:
        self._loop.remove_reader(self._connection)
        if not self.asked.is_set():
            self.orphaned = orphaned
            self.asked.set()


def run(
    settings: Settings,
    sockets: BoundSockets,
    places: Places,
    place: int,
    connection: socket.socket,
    last_words: int,
    log: logs.EventLog,
    tls: TlsContexts,
    relay_sockets: RelaySockets | None = None,
    tokens: tuple[TokenEntry, ...] = NO_TOKENS,
) -> int:
    """Serve at this place until the master ends it or is gone; returns the exit code.

    tls: the master's, made of the files as it has read them last. relay_sockets: None if this is the only place.
    tokens: of the file that the settings name. connection: with the master, of packets, non-blocking. last_words: a
    descriptor for the traceback of a crash.
    """
    # The master ends a process that hangs by SIGABRT. It logs the traceback: a crash waits for no reader.
    faulthandler.enable(file=last_words)
    try:
        return uvloop.run(_serve(settings, sockets, places, place, connection, log, tls, relay_sockets, tokens))
    finally:
        log.finish()


async def _serve(
    settings: Settings,
    sockets: BoundSockets,
    places: Places,
    place: int,
    connection: socket.socket,
    log: logs.EventLog,
    tls: TlsContexts,
    relay_sockets: RelaySockets | None,
    tokens: tuple[TokenEntry, ...],
) -> int:
    control = Control(connection, settings, tokens, tls.files)
    try:
        process = GatewayProcess(
            settings,
            sockets=sockets,
            places=places,
            place=place,
            log=log,
            tls=tls,
            relay_sockets=relay_sockets,
            tokens=tokens,
        )
        control.reopen = process.access_output.reopen
        if not await _started(process, control):
            return int(control.orphaned)
    except StartError as error:
        control.tell(FAILED + str(error).encode())
        return 1
    # The objects that live now live to the end: the collector need not look at them again.
    gc.collect()
    gc.freeze()
    give_memory_back()
    control.tell(READY)
    await obey(control, f"worker process {place}", process)
    if control.orphaned:
        drain_s = process.settings.drain_timeout_s
        logger.error("the master is gone: answering what is in flight, for up to %g s", drain_s)
    await process.drain()
    return int(control.orphaned)


class Obedient(Protocol):
    """A process that takes what the master has read again."""

    def change_tokens(self, tokens: tuple[TokenEntry, ...]) -> None:
        """Go on with these tokens."""

    def change_tls(self, files: TlsFiles) -> None:
        """Go on with what these files of TLS hold. Raises StartError, and then nothing has changed."""

    async def reconfigure(self, settings: Settings, tokens: tuple[TokenEntry, ...] | None = None) -> None:
        """Go on with these settings. Raises StartError if it cannot."""


async def obey(control: Control, title: str, process: Obedient) -> None:
    """Let the process take settings and files as they come, until it shall end. title: of the process, in the log."""
    following = asyncio.create_task(_follow(control, title, process))
    await control.asked.wait()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def _follow(control: Control, title: str, process: Obedient) -> None:
    while True:
        await control.changed.wait()
        control.changed.clear()
        answer = NOT_TAKEN
        has_settings, control.has_settings = control.has_settings, False
        try:
            if control.settings.tokens is not None:
                # They come first, and alone if nothing else can be taken: one that was withdrawn is let in nowhere.
                process.change_tokens(control.tokens)
            process.change_tls(control.tls)
            if has_settings:
                await process.reconfigure(control.settings, control.tokens)
            answer = TAKEN
        except NoRoomError as error:
            logger.warning("%s has no room yet for what is new: %s", title, error)
            answer = AGAIN
        except StartError as error:
            # The master could use the files a moment ago.
            logger.error("%s keeps its settings: %s", title, error)  # noqa: TRY400
        except Exception:
            logger.exception("%s has not taken all settings", title)
        control.tell(answer)


async def _started(process: GatewayProcess, control: Control) -> bool:
    """Whether it listens; False if it was asked to end before. Raises StartError."""
    starting = asyncio.create_task(process.start())
    asked = asyncio.create_task(control.asked.wait())
    await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return False
    await starting
    return True
