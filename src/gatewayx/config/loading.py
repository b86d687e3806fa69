"""Where the values come from: defaults < TOML file < GATEWAYX_* environment < flags."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import NoReturn

import msgspec

from gatewayx.address import UNIX_SCHEME, ListenAddress
from gatewayx.config.kinds import LONGEST_SHOWN_VALUE, Size, escaped, printable
from gatewayx.config.setting_table import SETTINGS, VARIABLE_PREFIX, Setting
from gatewayx.config.settings import Settings
from gatewayx.core.budget import LARGEST_SMALL_BYTES, MAX_BYTES_PER_BODY, MAX_BYTES_PER_RESULT, MAX_BYTES_PER_SMALL
from gatewayx.errors import SettingError

CONFIG_FLAG = "--config"
CONFIG_VARIABLE = "GATEWAYX_CONFIG"
CONFIG_HELP = "TOML file with settings; its keys are the flags' names without the dashes."

# How a list without entries is shown.
NO_ENTRIES = "none"

# Kubernetes sets these in every pod of a namespace that has a Service named gatewayx.
_KUBERNETES_VARIABLE = re.compile(
    r"GATEWAYX_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)

_SIZE = Size(0, 0)


class Loaded(msgspec.Struct, frozen=True):
    """The effective settings and where each of them came from."""

    settings: Settings
    # Setting name → `default`, `file PATH`, `environment VARIABLE` or `flag --FLAG`.
    origins: Mapping[str, str]


def load(config_path: str | os.PathLike[str] | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Loaded:
    """Combine defaults, TOML file, environment and flags into the effective settings.

    `config_path` is the value of --config; without it GATEWAYX_CONFIG in `environ` is used. `flags` maps
    setting names to the values given on the command line; None and an empty tuple mean not given.
    Every value on every level must be sound, an overridden one too. Raises SettingError.
    """
    values: dict[str, object] = {}
    origins = {setting.name: "default" for setting in SETTINGS}

    def apply(setting: Setting, value: object, origin: str) -> None:
        values[setting.name] = setting.parse(value, origin)
        origins[setting.name] = origin

    for setting, value, origin in _from_file(config_path, environ):
        apply(setting, value, origin)
    _refuse_unknown_variables(environ)
    for setting in SETTINGS:
        if setting.variable in environ:
            apply(setting, environ[setting.variable], f"environment {setting.variable}")
    for setting in SETTINGS:
        flag_value = flags.get(setting.name)
        if isinstance(flag_value, tuple):
            flag_value = setting.kind.from_flags(flag_value) if flag_value else None
        if flag_value is not None:
            apply(setting, flag_value, f"flag {setting.flag}")
    loaded = Loaded(settings=msgspec.structs.replace(Settings(), **values), origins=origins)
    _check_function_servers(loaded)
    _check_held(loaded)
    _check_origin(loaded)
    _check_tls(loaded)
    _check_proxies(loaded)
    return loaded


def load_again(
    config_path: str | os.PathLike[str] | None, environ: Mapping[str, str], flags: Mapping[str, object]
) -> Loaded:
    """load() in a process that serves, which no file may hold up. Raises SettingError."""
    path = environ.get(CONFIG_VARIABLE) if config_path is None else os.fspath(config_path)
    if path is not None and os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
        # A pipe is empty when it has been read, and is waited at until somebody writes.
        raise SettingError(f"config = {escaped(path)} is no file that can be read twice")
    return load(config_path, environ, flags)


def _check_function_servers(loaded: Loaded) -> None:
    for entry in loaded.settings.function_server:
        if entry.server not in loaded.settings.server:
            raise SettingError(
                f"function-server = {escaped(f'{entry.name}={entry.server}')} ({loaded.origins['function_server']}) "
                f"is not allowed: {entry.server} is none of the job servers ({loaded.origins['server']})"
            )


def _check_held(loaded: Loaded) -> None:
    """Refuse bounds that max-held can never hold: such a request would be told to come again for ever."""
    settings = loaded.settings
    for name, factor in (("max_body_bytes", MAX_BYTES_PER_BODY), ("max_result_bytes", MAX_BYTES_PER_RESULT)):
        most_bytes = settings.max_held_bytes // factor
        bound_bytes: int = getattr(settings, name)
        if bound_bytes > most_bytes:
            raise SettingError(
                f"{_told(loaded, name)} is not allowed with {_told(loaded, 'max_held_bytes')}: it must be at most "
                f"{_SIZE.show(most_bytes)}, or max-held at least {_SIZE.show(bound_bytes * factor)}"
            )
    small_bytes = min(settings.max_body_bytes, LARGEST_SMALL_BYTES)
    least_bytes = MAX_BYTES_PER_SMALL * (settings.max_target_bytes + settings.max_header_bytes + small_bytes)
    if settings.max_held_bytes < least_bytes:
        raise SettingError(
            f"{_told(loaded, 'max_held_bytes')} is not allowed with {_told(loaded, 'max_target_bytes')} and "
            f"{_told(loaded, 'max_header_bytes')}: it must be at least {_SIZE.show(least_bytes)}, of which an eighth "
            f"holds such a head with {_SIZE.show(small_bytes)} of its body"
        )


def _check_origin(loaded: Loaded) -> None:
    """Refuse to let every page try tokens, or use those that it has got hold of."""
    if "*" in loaded.settings.origin and loaded.settings.tokens is not None:
        raise SettingError(
            f"{_told(loaded, 'origin')} is not allowed with {_told(loaded, 'tokens')}: it must name the origins whose "
            "pages may have a token"
        )


def _check_tls(loaded: Loaded) -> None:
    """Refuse TLS without a certificate, and what is of no use without TLS."""
    settings = loaded.settings
    if speaks_tls(settings) and not settings.tls_certificate:
        raise SettingError(f"{_told(loaded, 'listen')} is not allowed without tls-certificate")
    if settings.tls_key and len(settings.tls_key) != len(settings.tls_certificate):
        raise SettingError(
            f"{_told(loaded, 'tls_key')} is not allowed with {_told(loaded, 'tls_certificate')}: there must be as many "
            "keys as certificates, or none"
        )
    if settings.tls_client_ca is not None and not settings.tls_certificate:
        raise SettingError(
            f"{_told(loaded, 'tls_client_ca')} is not allowed without tls-certificate: nobody is asked for one"
        )
    if settings.tls_client_ca is None and loaded.origins["tls_client_verify"] != "default":
        raise SettingError(
            f"{_told(loaded, 'tls_client_verify')} is not allowed without tls-client-ca: no client's certificate is "
            "verified"
        )


def speaks_tls(settings: Settings) -> bool:
    """Whether clients of any address speak TLS."""
    return any(isinstance(address, ListenAddress) and address.tls for address in settings.listen)


def _check_proxies(loaded: Loaded) -> None:
    """Refuse to expect what nobody is trusted to tell."""
    settings = loaded.settings
    if lets_no_proxy_in(settings):
        raise SettingError(
            f"{_told(loaded, 'listen')} is not allowed without an address in trusted-proxy: nobody could connect"
        )
    if settings.client_address != "connection" and not settings.trusted_proxy:
        raise SettingError(
            f"{_told(loaded, 'client_address')} is not allowed without trusted-proxy: nobody is believed"
        )


def lets_no_proxy_in(settings: Settings) -> bool:
    """Whether an address is for proxies that send PROXY headers, and none is trusted to connect to it."""
    listens = any(isinstance(address, ListenAddress) and address.proxy for address in settings.listen)
    return listens and all(text.startswith(UNIX_SCHEME) for text in settings.trusted_proxy)


def _told(loaded: Loaded, name: str) -> str:
    setting = next(setting for setting in SETTINGS if setting.name == name)
    return f"{setting.key} = {setting.kind.show(getattr(loaded.settings, name))} ({loaded.origins[name]})"


def describe(loaded: Loaded) -> str:
    """Return the effective settings as aligned lines of setting, value, kind of change and origin, under a heading."""
    rows = [("setting", "value", "change", "from")]
    for setting in SETTINGS:
        value = setting.kind.show(getattr(loaded.settings, setting.name)) or NO_ENTRIES
        rows.append((setting.key, value, setting.change, loaded.origins[setting.name]))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{key:{widths[0]}}  {value:{widths[1]}}  {change:{widths[2]}}  {origin}" for key, value, change, origin in rows
    )


def _from_file(
    config_path: str | os.PathLike[str] | None, environ: Mapping[str, str]
) -> Iterable[tuple[Setting, object, str]]:
    if config_path is not None:
        path, named_by = os.fspath(config_path), f"flag {CONFIG_FLAG}"
    elif CONFIG_VARIABLE in environ:
        path, named_by = environ[CONFIG_VARIABLE], f"environment {CONFIG_VARIABLE}"
    else:
        return
    origin = f"file {printable(path)}"
    by_key = {setting.key: setting for setting in SETTINGS}
    for key, value in _read_toml(path, named_by).items():
        if key not in by_key:
            nearest = _nearest(key).key
            raise SettingError(f"{escaped(key)} ({origin}) is not a setting: the nearest is {nearest}")
        yield by_key[key], value, origin


def _read_toml(path: str, named_by: str) -> dict[str, object]:
    # Without a file there is no need of these, and pathlib takes 0.6 MiB.
    from pathlib import Path

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    def refuse(reason: str) -> NoReturn:
        shown = escaped(path)
        raise SettingError(f"config = {shown} ({named_by}) {reason}: it must be a readable TOML file") from None

    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        refuse(f"cannot be read, {printable(getattr(error, 'strerror', None) or str(error))}")
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError:
        refuse("is not UTF-8")
    # tomllib lets ValueError (a number of thousands of digits) and RecursionError (deep nesting) through.
    except (ValueError, RecursionError) as error:
        refuse(f"is not TOML, {printable(str(error))}")


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {setting.variable for setting in SETTINGS} | {CONFIG_VARIABLE}
    for variable in sorted(environ):
        if not variable.startswith(VARIABLE_PREFIX) or variable in known or _KUBERNETES_VARIABLE.fullmatch(variable):
            continue
        nearest = _nearest(variable.removeprefix(VARIABLE_PREFIX)).variable
        raise SettingError(
            f"{printable(variable)} = {escaped(environ[variable])} (environment) is not a setting: "
            f"the nearest is {nearest}"
        )


def _nearest(text: str) -> Setting:
    from difflib import SequenceMatcher

    wanted = text.lower().replace("_", "-")[:LONGEST_SHOWN_VALUE]

    def likeness(setting: Setting) -> float:
        # A field's name is known from code and reports, so it counts as a spelling.
        spellings = (setting.key, setting.name.replace("_", "-"))
        return max(SequenceMatcher(None, wanted, spelling).ratio() for spelling in spellings)

    return max(SETTINGS, key=likeness)
