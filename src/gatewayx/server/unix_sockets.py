"""Unix sockets that listen: files that are made at the start, have an owner and a mode, and go at the end.

A file that an earlier gateway left is replaced. Whether one is left is told by connecting to it: where nobody listens,
the kernel refuses. Between that answer and the removal another gateway might have put its own socket there, and one
that is bound and does not listen yet would pass for an old one. So each gateway holds a lock, as Wayland does: a file
with the socket's name and `.lock`, locked (flock(2)) from before the socket is made until after it is removed. HAProxy
binds under another name and renames, which leaves no moment without a socket; but of two gateways that start together
the first would lose its clients to the second without a word, and all tools would show the other name.

A socket that is bound and does not listen refuses every client, so owner and mode are in force before the first is in.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from typing import TYPE_CHECKING

from gatewayx.errors import StartError

if TYPE_CHECKING:
    from gatewayx.address import UnixAddress
    from gatewayx.config.kinds import SocketOwner

LOCK_SUFFIX = ".lock"
# Only for who opens it: the lock itself asks for no permission.
LOCK_MODE = 0o600
# How often the lock or the socket may vanish just when it is looked at.
TRIES = 10
# Users and groups have no higher number; -1 of chown(2), which is none, is one above it.
HIGHEST_ID = 2**32 - 2
UNCHANGED = -1


class UnixSocket:
    """A unix socket that is bound, not listening yet, and the file that is its address."""

    def __init__(self, address: UnixAddress, bound: socket.socket, lock: int) -> None:
        self.address = address
        self.socket = bound
        # Of the lock's file; -1 once it is let go.
        self._lock = lock
        # Device and inode of the socket's file, which stay its own as long as the socket is open.
        self._identity = _identity(os.lstat(address.path))

    def remove(self) -> None:
        """Remove the file, if it is still this socket's, and let the next gateway have its name.

        Who has connected before is served; who comes later finds nothing. To be called before the socket is closed: the
        file's number may be another's then. Whatever cannot be removed stays for the next start to replace.
        """
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):
            if _identity(os.lstat(self.address.path)) == self._identity:
                _unlink(self.address.path)
        # While it is locked: who has opened it meanwhile sees that it is gone, and makes another.
        with contextlib.suppress(OSError):
            _unlink(self.address.path + LOCK_SUFFIX)
        self.leave()

    def leave(self) -> None:
        """Let go of the file without removing it: a forked process leaves it to the one that made it.

        As long as any process holds the lock, no other gateway gets the name.
        """
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def bind_unix_socket(address: UnixAddress, mode: int, owner: tuple[int, int] | None) -> UnixSocket:
    """Make a unix socket with this mode and owner, in place of one on which nobody listens. Raises StartError.

    owner: numbers of a user and a group, as `owner_numbers` has them; None for this process's.
    """
    try:
        lock = _locked(address.path)
        try:
            _make_way(address.path)
            return _made(address, mode, owner, lock)
        except BaseException:
            with contextlib.suppress(OSError):
                _unlink(address.path + LOCK_SUFFIX)
            os.close(lock)
            raise
    except OSError as error:
        raise StartError(f"cannot listen on {address}: {error.strerror or error}") from error


def owner_numbers(owner: SocketOwner | None) -> tuple[int, int] | None:
    """The numbers of user and group for chown(2), -1 for what was not given; None for none. Raises StartError."""
    if owner is None:
        return None
    # Few gateways need these.
    import grp
    import pwd

    def number(kind: str, name: str) -> int:
        if not name:
            return UNCHANGED
        try:
            return pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
        except KeyError:
            # A name of digits comes first, as with chown(1).
            if name.isascii() and name.isdigit() and len(name) <= len(str(HIGHEST_ID)) and int(name) <= HIGHEST_ID:
                return int(name)
        raise StartError(f"socket-owner: there is no {kind} {name!a}")

    return number("user", owner.user), number("group", owner.group)


def _locked(path: str) -> int:
    """A descriptor of the lock's file, locked. Raises OSError."""
    lock_path = path + LOCK_SUFFIX
    for _ in range(TRIES):
        try:
            lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, LOCK_MODE)
        except OSError as error:
            raise OSError(error.errno, f"{LOCK_SUFFIX} beside it: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its owner may have removed it in between: then the name stands for another file, or none.
            with contextlib.suppress(FileNotFoundError):
                if _identity(os.fstat(lock)) == _identity(os.lstat(lock_path)):
                    return lock
        except BlockingIOError:
            os.close(lock)
            raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}, by another gateway") from None
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
    raise OSError(errno.EADDRINUSE, f"{LOCK_SUFFIX} beside it comes and goes")


def _unlink(path: str) -> None:
    # pathlib takes 0.6 MiB.
    os.unlink(path)  # noqa: PTH108


def _make_way(path: str) -> None:
    """Remove a socket on which nobody listens. Raises OSError for whatever else is there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # With a full queue a listener lets nobody wait.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            _unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            # Somebody listens whose queue is full, or it is a socket of another kind (unix(7)).
            if error.errno not in (errno.EAGAIN, errno.EPROTOTYPE):
                raise OSError(error.errno, f"whether somebody listens there is not told: {error.strerror}") from error
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _made(address: UnixAddress, mode: int, owner: tuple[int, int] | None, lock: int) -> UnixSocket:
    """The socket, once nothing is in the way. Raises OSError."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)
        bound.bind(address.path)
        made = UnixSocket(address, bound, lock)
        try:
            _own(address.path, mode, owner)
        except BaseException:
            with contextlib.suppress(OSError):
                _unlink(address.path)
            raise
    except BaseException:
        bound.close()
        raise
    return made


def _own(path: str, mode: int, owner: tuple[int, int] | None) -> None:
    """Give the file its owner and mode. Raises OSError.

    A name could be made another file's meanwhile, by whoever may write to the folder, and the owner or mode of that one
    be changed: so the file is opened first, as systemd does it, and what is changed is what is open (open(2), O_PATH).
    """
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise OSError(errno.EEXIST, "there is a file that is no socket")
        opened = f"/proc/self/fd/{descriptor}"
        if owner is not None:
            try:
                os.chown(opened, *owner)
            except OSError as error:
                raise OSError(error.errno, f"its owner cannot be set: {error.strerror}") from error
        try:
            os.chmod(opened, mode)  # noqa: PTH101
        except OSError as error:
            raise OSError(error.errno, f"its mode cannot be set: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
