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
from typing import Any, NamedTuple

import msgspec

from gatewayx.address import UnixAddress
from gatewayx.config import id_keys
from gatewayx.config.loading import lets_no_proxy_in
from gatewayx.config.setting_table import SETTINGS
from gatewayx.config.settings import Settings
from gatewayx.config.tokens import TokenEntry
from gatewayx.errors import SettingError, StartError
from gatewayx.server import output
from gatewayx.server.tls_files import NO_TLS, TlsFiles, read_clients, read_job_servers
from gatewayx.server.token_file import NO_TOKENS, read_tokens

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


class Files(NamedTuple):
    """What was made of the files that settings name."""

    # For clients, and for job servers with TLS.
    tls: TlsFiles
    # None without --tokens.
    tokens: tuple[TokenEntry, ...] | None
    # None without --id-key.
    id_keys: tuple[bytes, ...] | None


class TokensError(StartError):
    """The file of tokens cannot be used."""


class ClientFilesError(StartError):
    """The files of TLS to clients cannot be used."""


class JobServerFilesError(StartError):
    """The files of TLS to job servers cannot be used."""


def read_again(settings: Settings, load: Callable[[], Settings]) -> tuple[Settings, Files] | Exception:
    """What a running gateway goes on with, or why it keeps what it has; the log tells which, and what else differs."""
    try:
        loaded = load()
        _check_proxies(with_live_of(settings, loaded))
        files = check_files(loaded, settings.access_log)
    except (SettingError, StartError) as error:
        logger.error("SIGHUP: no setting changes: %s", error)  # noqa: TRY400
        return error
    except Exception as error:
        logger.exception("SIGHUP: no setting changes")
        return error
    found = changes(settings, loaded)
    logger.info("SIGHUP: %s", f"changed: {', '.join(found.live)}" if found.live else "no live setting differs")
    if found.restart:
        logger.warning("SIGHUP: these need a restart and stay as they were: %s", ", ".join(found.restart))
    return with_live_of(settings, loaded), files


def _check_proxies(settings: Settings) -> None:
    """Refuse to shut all proxies out. Raises SettingError.

    Settings that are sound by themselves may listen elsewhere, which only a restart brings about.
    """
    if lets_no_proxy_in(settings):
        raise SettingError(
            "trusted-proxy is not allowed to be without an address before a restart: the gateway listens for proxies "
            "that send PROXY headers, of which none could connect"
        )


def with_live_of(old: Settings, new: Settings) -> Settings:
    """The old ones with the live ones of the new ones."""
    return msgspec.structs.replace(old, **{name: getattr(new, name) for name in LIVE_NAMES})


def check_files(settings: Settings, open_access_log: str | None = None) -> Files:
    """Find out whether what settings name can be used: files of TLS, of tokens and keys, owners of sockets, a log.

    open_access_log: the one that is open, and need not be again. Raises StartError and SettingError.
    """
    tls = read_tls_files(settings)
    keys = id_keys_of(settings)
    if settings.access_log != open_access_log:
        output.check(settings.access_log)
    if any(isinstance(address, UnixAddress) for address in settings.listen):
        from gatewayx.server.unix_sockets import owner_numbers

        owner_numbers(settings.socket_owner)
    try:
        return Files(tls, read_tokens(settings), keys)
    except StartError as error:
        raise TokensError(str(error)) from None


def read_tls_files(settings: Settings) -> TlsFiles:
    """What the files of TLS hold that the settings name. Raises ClientFilesError and JobServerFilesError."""
    try:
        clients = read_clients(settings)
    except StartError as error:
        raise ClientFilesError(str(error)) from None
    try:
        return TlsFiles(clients, read_job_servers(settings))
    except StartError as error:
        raise JobServerFilesError(str(error)) from None


def id_keys_of(settings: Settings) -> tuple[bytes, ...] | None:
    """The keys by which ids of jobs are signed; None without a file of them. Raises SettingError."""
    if settings.id_key is None:
        return None
    found = id_keys.read(settings.id_key)
    if found.warning is not None:
        logger.warning("%s", found.warning)
    return found.keys


def _sent_type() -> Any:
    types: Mapping[str, object] = typing.get_type_hints(Settings)
    live = msgspec.defstruct("LiveSettings", [(name, types[name]) for name in LIVE_NAMES], frozen=True)
    # Unions are written at run time, which no type checker follows.
    return tuple[live | None, tuple[TokenEntry, ...], TlsFiles]  # type: ignore[valid-type]


def send(
    connection: socket.socket,
    packet: bytes,
    settings: Settings | None,
    tokens: tuple[TokenEntry, ...] = NO_TOKENS,
    tls: TlsFiles = NO_TLS,
) -> None:
    """Send a packet that comes with what was read of files, and with the live ones of these settings. Raises OSError.

    The keys of certificates are in memory alone, there as here.
    """
    live = None if settings is None else {name: getattr(settings, name) for name in LIVE_NAMES}
    descriptor = os.memfd_create("gatewayx-settings", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(msgspec.msgpack.encode((live, tokens, tls)))
        socket.send_fds(connection, [packet], [descriptor])
    finally:
        os.close(descriptor)


class Received(NamedTuple):
    """A packet, and what came with it."""

    packet: bytes
    # Those from before with the live ones that came; None if none came.
    settings: Settings | None
    # None if nothing came.
    tokens: tuple[TokenEntry, ...] | None
    tls: TlsFiles | None


def receive(connection: socket.socket, most_bytes: int, settings: Settings) -> Received:
    """The next packet. Raises OSError."""
    packet, descriptors, _, _ = socket.recv_fds(connection, most_bytes, 1)
    if not descriptors:
        return Received(packet, None, None, None)
    with open(descriptors[0], "rb") as file:  # noqa: PTH123
        file.seek(0)
        content = file.read()
    live, tokens, tls = msgspec.msgpack.decode(content, type=_sent_type())
    if live is not None:
        live = msgspec.structs.replace(settings, **msgspec.structs.asdict(live))
    return Received(packet, live, tokens, tls)
