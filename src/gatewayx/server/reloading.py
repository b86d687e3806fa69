"""Settings that change while the gateway runs: what a change is, and how it comes to the worker processes.

Theory of operation. The master reads the settings again, from where it had them at its start, and judges them whole. A
worker process is told of those that are live by a packet with a descriptor: a list of functions may be longer than any
packet. It says when it has taken them, and hears of the next ones only then, of the newest alone. So a storm of changes
fills no connection, and one that is slow or stopped has the last ones when it comes back.
"""

from __future__ import annotations

import logging
import os
import socket
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gatewayx.address import UnixAddress
from gatewayx.config.setting_table import SETTINGS
from gatewayx.config.settings import Settings
from gatewayx.errors import SettingError, StartError
from gatewayx.server import output

if TYPE_CHECKING:
    import ssl

logger = logging.getLogger("gatewayx")

LIVE_NAMES = tuple(setting.name for setting in SETTINGS if setting.live)


class Changes(NamedTuple):
    """The keys of settings that differ: those that a running gateway takes, and those that need a restart."""

    live: list[str]
    restart: list[str]


def changes(old: Settings, new: Settings) -> Changes:
    """What would change."""
    found = Changes([], [])
    for setting in SETTINGS:
        if getattr(old, setting.name) != getattr(new, setting.name):
            (found.live if setting.live else found.restart).append(setting.key)
    return found


def read_again(settings: Settings, load: Callable[[], Settings]) -> tuple[Settings, ssl.SSLContext | None] | str:
    """What a running gateway goes on with, or why it keeps what it has; the log tells which, and what else differs.

    With the settings comes what tls_context() makes of their files.
    """
    try:
        loaded = load()
        context = check_files(loaded, settings.access_log)
    except (SettingError, StartError) as error:
        logger.error("SIGHUP: no setting changes: %s", error)  # noqa: TRY400
        return str(error)
    except Exception as error:
        logger.exception("SIGHUP: no setting changes")
        return str(error) or type(error).__name__
    found = changes(settings, loaded)
    logger.info("SIGHUP: %s", f"changed: {', '.join(found.live)}" if found.live else "no live setting differs")
    if found.restart:
        logger.warning("SIGHUP: these need a restart and stay as they were: %s", ", ".join(found.restart))
    return with_live_of(settings, loaded), context


def with_live_of(old: Settings, new: Settings) -> Settings:
    """The old ones with the live ones of the new ones."""
    return msgspec.structs.replace(old, **{name: getattr(new, name) for name in LIVE_NAMES})


def check_files(settings: Settings, open_access_log: str | None = None) -> ssl.SSLContext | None:
    """Find out whether what settings name can be used: files of TLS, owners of sockets, a log. Raises StartError.

    open_access_log: the one that is open, and need not be again. Returns tls_context().
    """
    context = tls_context(settings)
    if settings.access_log != open_access_log:
        output.check(settings.access_log)
    if any(isinstance(address, UnixAddress) for address in settings.listen):
        from gatewayx.server.unix_sockets import owner_numbers

        owner_numbers(settings.socket_owner)
    return context


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """For the job servers with TLS; None without any. Raises StartError."""
    if not any(server.tls for server in settings.server):
        return None
    from gatewayx.gearman.tls import client_context

    return client_context(settings.server_ca, settings.server_certificate, settings.server_key)


def _live_type() -> type[msgspec.Struct]:
    types: Mapping[str, object] = typing.get_type_hints(Settings)
    return msgspec.defstruct("LiveSettings", [(name, types[name]) for name in LIVE_NAMES], frozen=True)


def send(connection: socket.socket, packet: bytes, settings: Settings) -> None:
    """Send a packet that comes with the live ones of these settings. Raises OSError."""
    live = {name: getattr(settings, name) for name in LIVE_NAMES}
    descriptor = os.memfd_create("gatewayx-settings", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(msgspec.msgpack.encode(live))
        socket.send_fds(connection, [packet], [descriptor])
    finally:
        os.close(descriptor)


def receive(connection: socket.socket, most_bytes: int, settings: Settings) -> tuple[bytes, Settings | None]:
    """The next packet, and if settings came with it these with those. Raises OSError."""
    packet, descriptors, _, _ = socket.recv_fds(connection, most_bytes, 1)
    if not descriptors:
        return packet, None
    with open(descriptors[0], "rb") as file:  # noqa: PTH123
        file.seek(0)
        live = msgspec.msgpack.decode(file.read(), type=_live_type())
    return packet, msgspec.structs.replace(settings, **msgspec.structs.asdict(live))
