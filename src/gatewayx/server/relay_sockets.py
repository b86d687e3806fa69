"""The sockets that worker processes of one gateway use among each other, one a place, and who may use them.

The master binds them before the first fork and keeps them for its life, so who waits at a place waits for the next
worker process there. Each has a name by which the others connect, in the first of these that can be had:

1. a file in `$RUNTIME_DIRECTORY`, if that folder is this user's and nobody else may write to it;
2. a file in a folder of its own, that is open to this user alone;
3. an abstract name (unix(7)), which needs no file system and which every process on the same network may connect to.

A file appears under its name when its socket listens: it is bound under another one and renamed. So a file that refuses
a connection is one that nobody has any more, and not one of a gateway that is just starting.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import stat
from collections.abc import Iterator

from gatewayx.errors import StartError, StateError
from gatewayx.net.poller import TurnPoller
from gatewayx.net.sockets import connected_process
from gatewayx.net.stream import SocketStream, StreamOwner
from gatewayx.server.listeners import BACKLOG

# Where a private folder is made if $TMPDIR is not set or does not do. The first two are there on a read-only root too.
BASES = ("/run", "/dev/shm", "/tmp")
PREFIX = "gatewayx-relay-"
# Of a socket that does not listen yet.
HALF_MADE = ".new"
SOCKET_MODE = 0o600
FOLDER_MODE = 0o700
# Names of files tell gateways apart. An abstract name is one that nobody can have taken before.
FILE_RANDOM_BYTES = 8
ABSTRACT_RANDOM_BYTES = 16
LEFT = re.compile(re.escape(PREFIX) + rf"[0-9a-f]{{{2 * FILE_RANDOM_BYTES}}}\.[0-9]+")
FOLDER_PREFIX = "gatewayx-"
LEFT_FOLDER = re.compile(re.escape(FOLDER_PREFIX) + rf"[0-9a-f]{{{2 * FILE_RANDOM_BYTES}}}")
# How much of a folder is looked at for what was left there; how many sockets of each folder are tried then, and how
# many private folders.
MOST_ENTRIES = 4096
MOST_LEFT = 1024
MOST_LEFT_FOLDERS = 64


class RelaySockets:
    """They are bound and listen. Raises StartError.

    places: how many there are. Whoever makes this is the master; the processes that it forks have the sockets as well,
    and leave the files to it.
    """

    def __init__(self, places: int) -> None:
        self._master = os.getpid()
        self._sockets: list[socket.socket] = []
        self._addresses: list[str | bytes] = []
        # The private folder, if one was made.
        self._folder = ""
        try:
            self._make(places)
        except OSError as error:
            self.close()
            raise StartError(f"worker processes cannot have sockets: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise

    def address(self, place: int) -> str | bytes:
        """Where this place is connected to: a path, or an abstract name with the NUL before it."""
        return self._addresses[place]

    def connect(self, place: int, owner: StreamOwner, poller: TurnPoller | None) -> bool:
        """Give `owner` a stream to the process at a place; False if there is nobody, or somebody else.

        poller: watches the stream. The process there may have ended, or may not accept for a while.
        """
        if poller is None:
            raise StateError("a socket needs somebody who watches it")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            # It is made at once, or not at all: a queue that is full is EAGAIN (connect(2)).
            connection.connect(self._addresses[place])
            if not self.peer_is_ours(connection):
                connection.close()
                return False
            SocketStream(poller, connection.fileno(), owner).start()
        except OSError:
            connection.close()
            return False
        connection.detach()
        return True

    def listening(self, place: int) -> socket.socket:
        """The socket of this place, non-blocking. Whether who connects there `is_ours` is to be asked."""
        return self._sockets[place]

    def is_ours(self, process: tuple[int, int] | None) -> bool:
        """Whether a process, by its number and user, is this gateway's; to be asked at both ends of a connection.

        The kernel tells who connected, and to whoever connected who listens, which is the master (SO_PEERCRED).

        Its user has to be this process's, which is what guards: a process of this user that means harm could attach to
        a worker process as well. But other gateways have the same user, and so have processes of other containers on
        the same network, to whom abstract names are open. So it also has to be a child of the master, in the same
        process group. Neither changes when a worker process is replaced, as a list of process ids would. When the
        master is dead, all its children have the same new parent, and go on with each other; that parent may have
        others of this user, whom the group tells apart. Where /proc does not show the peer, the group alone decides.
        """
        if process is None:
            return False
        process_id, user = process
        # A process that has no number here, being of another PID namespace, has 0: to getpgid(2) the caller.
        if process_id <= 0 or user != os.geteuid():
            return False
        if process_id == self._master:
            return True
        try:
            if os.getpgid(process_id) != os.getpgrp():
                return False
        except ProcessLookupError:
            # It has ended.
            return False
        siblings_parent = self._master if os.getpid() == self._master else os.getppid()
        return _parent_of(process_id) in (siblings_parent, None)

    def peer_is_ours(self, connection: socket.socket) -> bool:
        """Whether the other end of a connection `is_ours`."""
        return self.is_ours(connected_process(connection.fileno()))

    def close(self) -> None:
        """Close all of them in this process; in the master, remove the files and the folder as well."""
        if os.getpid() == self._master:
            for address in self._addresses:
                if isinstance(address, str):
                    _unlink(address)
            if self._folder:
                # What somebody else has put there stays.
                with contextlib.suppress(OSError):
                    os.rmdir(self._folder)  # noqa: PTH106
        for bound in self._sockets:
            bound.close()
        self._addresses.clear()
        self._sockets.clear()
        self._folder = ""

    def _make(self, places: int) -> None:
        """Bind all of them in the first place that does. Raises OSError if none does."""
        runtime_directory = _runtime_directory()
        if runtime_directory is not None:
            _remove_left(runtime_directory)
            if self._bind_files(runtime_directory, places):
                return
        for base in _bases():
            if base in BASES:
                # $TMPDIR may be shared with another host, whose sockets refuse everybody here.
                _remove_left_folders(base)
            folder = _make_private_folder(base)
            if folder is not None:
                self._folder = folder
                if self._bind_files(folder, places):
                    return
        name = os.urandom(ABSTRACT_RANDOM_BYTES).hex()
        for place in range(places):
            self._add(f"\0{PREFIX}{name}.{place}".encode())

    def _bind_files(self, folder: str, places: int) -> bool:
        """Whether all could be made in this folder; otherwise nothing is left of them, nor of a private folder."""
        name = os.urandom(FILE_RANDOM_BYTES).hex()
        try:
            for place in range(places):
                self._add(f"{folder}/{PREFIX}{name}.{place}")
        except OSError:
            self.close()
            return False
        return True

    def _add(self, address: str | bytes) -> None:
        self._sockets.append(_listening_at(address))
        self._addresses.append(address)


def _listening_at(address: str | bytes) -> socket.socket:
    """A socket that listens under this name. Raises OSError, also for a path that is too long for one."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)
        if isinstance(address, bytes):
            bound.bind(address)
            bound.listen(BACKLOG)
            return bound
        half_made = address + HALF_MADE
        bound.bind(half_made)
        try:
            # Before it listens it refuses everybody.
            os.chmod(half_made, SOCKET_MODE)  # noqa: PTH101
            bound.listen(BACKLOG)
            os.rename(half_made, address)  # noqa: PTH104
        except BaseException:
            _unlink(half_made)
            raise
    except BaseException:
        bound.close()
        raise
    return bound


def _runtime_directory() -> str | None:
    """The first folder that systemd gives (systemd.exec(5)), if nobody but this user can put anything there."""
    folder = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if not folder.startswith("/"):
        return None
    try:
        # With DynamicUser= it is a link. The group's bits show what any access list allows at most (acl(5)).
        found = os.stat(folder)  # noqa: PTH116
    except OSError:
        return None
    return folder if found.st_uid == os.geteuid() and not _others_may_write(found) else None


def _bases() -> Iterator[str]:
    """Folders in which a private one may be made: what is made there nobody else can rename or replace."""
    for base in (os.environ.get("TMPDIR", ""), *BASES):
        if not base.startswith("/"):
            continue
        with contextlib.suppress(OSError):
            found = os.stat(base)  # noqa: PTH116
            is_sticky = bool(found.st_mode & stat.S_ISVTX)
            if found.st_uid in (0, os.geteuid()) and (is_sticky or not _others_may_write(found)):
                yield base


def _others_may_write(found: os.stat_result) -> bool:
    return bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _make_private_folder(base: str) -> str | None:
    """A new folder there that only this user may enter; None if it cannot be made."""
    # tempfile would load a good deal into each process.
    folder = f"{base}/{FOLDER_PREFIX}{os.urandom(FILE_RANDOM_BYTES).hex()}"
    try:
        os.mkdir(folder, FOLDER_MODE)  # noqa: PTH102
    except OSError:
        return None
    # There are file systems whose files have one owner and one mode.
    with contextlib.suppress(OSError):
        found = os.lstat(folder)
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o777 == FOLDER_MODE:
            return folder
    with contextlib.suppress(OSError):
        os.rmdir(folder)  # noqa: PTH106
    return None


def _remove_left(folder: str) -> bool:
    """Remove sockets of gateways that were killed, as far as nobody listens there any more; whether there were any.

    A process that a killed master has left behind still does, until it has drained.
    """
    found_any = False
    for name in _names_like(LEFT, folder)[:MOST_LEFT]:
        path = f"{folder}/{name}"
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.lstat(path).st_mode) and _is_refused(path):
                os.unlink(path)  # noqa: PTH108
                found_any = True
    return found_any


def _remove_left_folders(base: str) -> None:
    """Remove private folders of gateways that were killed.

    One without a socket stays: it may be of a gateway that is just starting.
    """
    for name in _names_like(LEFT_FOLDER, base)[:MOST_LEFT_FOLDERS]:
        folder = f"{base}/{name}"
        with contextlib.suppress(OSError):
            found = os.lstat(folder)
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and _remove_left(folder):
                os.rmdir(folder)  # noqa: PTH106


def _names_like(pattern: re.Pattern[str], folder: str) -> list[str]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return [entry.name for entry in itertools.islice(entries, MOST_ENTRIES) if pattern.fullmatch(entry.name)]
    return []


def _is_refused(path: str) -> bool:
    """Whether nobody listens there. Raises OSError if that is not known."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # With a full queue a listener lets nobody wait.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)  # noqa: PTH108


def _parent_of(process_id: int) -> int | None:
    """The parent of a process; None if /proc does not show it, or shows those of another PID namespace."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # noqa: PTH115
            return None
        with open(f"/proc/{process_id}/stat", "rb") as file:  # noqa: PTH123
            # The name of the program, in parentheses, may hold anything (proc(5)).
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return None
