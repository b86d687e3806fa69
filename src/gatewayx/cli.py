"""The command line: one thin function a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from gatewayx import __version__
from gatewayx.address import Address, AddressError
from gatewayx.config import tokens
from gatewayx.config.address_kinds import AddressList, OptionalAddress
from gatewayx.config.kinds import FunctionList, Switch
from gatewayx.config.loading import (
    CONFIG_FLAG,
    CONFIG_HELP,
    CONFIG_VARIABLE,
    NO_ENTRIES,
    Loaded,
    describe,
    load,
    load_again,
)
from gatewayx.config.rate_kinds import rate_of_flag
from gatewayx.config.setting_table import SETTINGS, Setting
from gatewayx.errors import SettingError, StartError

EXIT_FAILED = 1
EXIT_WRONG_USE = 2

DEMO_LISTEN = "127.0.0.1:8080"

# Of settings that may be none.
WITHOUT_FLAGS = {
    f"--no-{setting.key}": f"{setting.flag}=none" for setting in SETTINGS if isinstance(setting.kind, OptionalAddress)
}

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., object])


class SettingsCommand(click.Command):
    """A command whose help lists the settings under their headings.

    `--no-admin` is another word for `--admin none`, as there is one for each switch.
    """

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """See click.Command."""
        return super().parse_args(context, [WITHOUT_FLAGS.get(argument, argument) for argument in args])

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section of options for each heading, in the order of the settings."""
        group_of = {setting.name: setting.group for setting in SETTINGS}
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None:
                sections.setdefault(group_of.get(parameter.name or "", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class HealthcheckCommand(click.Command):
    """A command that ends with 0 or 1 whatever happens: another code means nothing to whoever runs health checks."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """See click.Command."""
        try:
            return super().make_context(*arguments, **options)
        except click.UsageError as error:
            error.show()
            sys.exit(EXIT_FAILED)


def _option(setting: Setting) -> Callable[[AnyFunction], AnyFunction]:
    bounds = f"; {setting.kind.bounds}" if setting.kind.bounds else ""
    default = setting.default_text or NO_ENTRIES
    help_text = (
        f"{setting.help}  [default: {default}{bounds}; TOML: {setting.key}; {setting.variable}; {setting.change}]"
    )
    if isinstance(setting.kind, Switch):
        return click.option(f"{setting.flag}/--no-{setting.key}", setting.name, default=None, help=help_text)
    return click.option(
        setting.flag,
        setting.name,
        metavar=setting.kind.metavar,
        multiple=isinstance(setting.kind, (AddressList, FunctionList)),
        help=help_text,
    )


def settings_options(command: AnyFunction) -> AnyFunction:
    """Add --config and the flag of every setting; their values come as texts, which `load` reads and judges."""
    for setting in reversed(SETTINGS):
        command = _option(setting)(command)
    config_help = f"{CONFIG_HELP}  [{CONFIG_VARIABLE}]"
    return click.option(CONFIG_FLAG, "config_path", metavar="FILE", help=config_help)(command)


class MainGroup(click.Group):
    """The commands; `bench` is imported when it is asked for, so that `serve` starts without it."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Every name, `bench` included."""
        return sorted([*super().list_commands(context), "bench"])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return the command of this name."""
        if name != "bench":
            return super().get_command(context, name)
        from gatewayx.bench.commands import bench

        return bench


@click.group(cls=MainGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="gatewayx", message="%(prog)s %(version)s")
def main() -> None:
    """An HTTP/1.1 front for Gearman job servers: a request becomes a job, its result the response.

    Exit codes: 0 stopped cleanly, 1 failed, 2 wrong use.
    """


@main.command(cls=SettingsCommand)
@settings_options
def serve(config_path: str | None, **flags: object) -> None:
    """Run the gateway until SIGTERM, SIGINT or SIGQUIT.

    Every setting is a flag, a TOML key and an environment variable of the same name. Flags win over variables,
    variables over the file.

    At SIGHUP the file is read again: settings marked live change in place, those marked restart when serve is started
    the next time. If anything is wrong, nothing changes.
    """
    loaded = _load(config_path, flags)

    from gatewayx.server.master import run

    _finish(
        lambda: run(
            loaded.settings,
            lambda: load_again(config_path, os.environ, flags).settings,
            listen_is_default=loaded.origins["listen"] == "default",
            admin_is_default=loaded.origins["admin"] == "default",
        )
    )


@main.command()
@click.option("--listen", metavar="HOST:PORT", default=DEMO_LISTEN, show_default=True, help="Where clients connect.")
def demo(listen: str) -> None:
    """Run gateway, job server and sample worker in one process.

    Needs no gearmand. Prints lines to try, and runs until SIGTERM or SIGINT.
    """
    address = _demo_address(listen)

    from gatewayx.demo import run

    _finish(lambda: run(address, _write))


@main.command(cls=SettingsCommand)
@settings_options
def check(config_path: str | None, **flags: object) -> None:
    """Print the effective settings and where each came from, and how many worker processes and connections that makes.

    Whether a running gateway takes a change at SIGHUP (live) or a start does (restart) stands beside each.
    A setting that cannot be used, a file of TLS or an owner of unix sockets, is told in one line on standard error, and
    the exit code is 2.
    """
    loaded = _load(config_path, flags)
    from gatewayx.server.processors import connections_told, worker_processes

    settings = loaded.settings
    processes = worker_processes(settings.workers)
    connections = connections_told(settings, processes.count, with_admin=settings.admin is not None)
    _print(f"{describe(loaded)}\n\n{processes.told}\n{connections}")
    from gatewayx.server.reloading import check_files

    try:
        files = check_files(settings)
    except (SettingError, StartError) as error:
        _stop(error, EXIT_WRONG_USE)
    from gatewayx.server.expiry import Expiry

    Expiry().read(files.tls)


@main.command(cls=HealthcheckCommand)
@click.option(CONFIG_FLAG, "config_path", metavar="FILE", help=f"{CONFIG_HELP}  [{CONFIG_VARIABLE}]")
@click.option("--admin", metavar="HOST:PORT", help="The admin address, where the file and the environment do not say.")
@click.option("--live", is_flag=True, help="Ask /livez, whether it lives, in place of /readyz, whether it serves.")
@click.option(
    "--timeout", "timeout_s", metavar="SECONDS", type=click.FloatRange(0.01, 3600), default=2.0, show_default=True
)
def healthcheck(config_path: str | None, admin: str | None, timeout_s: float, *, live: bool) -> None:
    """Ask a running gateway's admin address whether it is ready.

    The address comes from the same settings as that of serve. Exit code 0 if it is; 1 if not, if nobody answers within
    the timeout or if the settings are wrong, with the reason on standard error.
    """
    address = _load(config_path, {"admin": admin}, EXIT_FAILED).settings.admin

    from gatewayx.healthcheck import ask

    if address is None or not address.port:
        _stop(StartError("the settings have no admin address that could be asked"), EXIT_FAILED)
    try:
        ask(address, "/livez" if live else "/readyz", timeout_s)
    except StartError as error:
        _stop(error, EXIT_FAILED)


@main.group()
def token() -> None:
    """Tokens, of which each request needs one where serve has a file of them."""


@token.command()
@click.argument("name")
@click.option(
    "--function",
    "functions",
    metavar="NAME",
    multiple=True,
    help="A function that it reaches, prefix* for all that begin so; may be repeated. All without it.",
)
@click.option(
    "--san",
    "sans",
    metavar="KIND:NAME",
    multiple=True,
    help="A name of client certificates that stand for it, DNS:, URI:, email: or IP:; may be repeated. No secret then.",
)
@click.option("--rate", metavar="N/s[:BURST]", help="Requests a second on average, and how many may come at once.")
@click.option("--max-jobs", metavar="N", type=int, help="Jobs in flight at once, of all tokens of the name.")
@click.option("--highest-priority", type=click.Choice(tokens.PRIORITIES), help="Of its jobs.")
@click.option("--no-background", is_flag=True, help="No background jobs.")
@click.option(
    "--expires", metavar="DATE", help="2027-01-31, whose beginning in UTC it is, or such as 2027-01-31T12:00:00Z."
)
def new(
    name: str,
    functions: tuple[str, ...],
    sans: tuple[str, ...],
    rate: str | None,
    max_jobs: int | None,
    highest_priority: str | None,
    expires: str | None,
    *,
    no_background: bool,
) -> None:
    """Make a token, and print it and its table for the file of tokens.

    The first line is the token, which is kept nowhere and cannot be had again; there is none with --san. What is not
    given is not limited.
    """
    made = None if sans else tokens.new_token()
    try:
        bound = None if rate is None else rate_of_flag("--rate", rate)
        values = {
            "san": list(sans) or None,
            "functions": list(functions) or None,
            "rate": None if bound is None else bound.per_s,
            "burst": None if bound is None else bound.burst,
            "max_jobs": max_jobs,
            "highest_priority": highest_priority,
            "background": False if no_background else None,
            "expires": None if expires is None else tokens.parse_expiry(expires),
        }
        table = tokens.table_for(made, name, values)
    except SettingError as error:
        _stop(error, EXIT_WRONG_USE)
    _print(table if made is None else f"{made}\n\n{table}")


def _load(config_path: str | None, flags: dict[str, object], exit_code: int = EXIT_WRONG_USE) -> Loaded:
    try:
        return load(config_path, os.environ, flags)
    except SettingError as error:
        _stop(error, exit_code)


def _demo_address(listen: str) -> Address:
    try:
        return Address.parse(listen)
    except AddressError:
        problem = f"listen = {listen!a} (flag --listen) is not allowed: it must be one HOST:PORT"
        _stop(SettingError(problem), EXIT_WRONG_USE)


def _write(text: str) -> None:
    """Print to standard output. Raises StartError, and BrokenPipeError, at which Click ends without a word."""
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        # What could not be written is not tried again at the exit.
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        raise StartError(f"standard output cannot be written: {error.strerror}") from error


def _print(text: str) -> None:
    try:
        _write(text)
    except StartError as error:
        _stop(error, EXIT_FAILED)


def _finish(run: Callable[[], int]) -> None:
    try:
        exit_code = run()
    except SettingError as error:
        # Of a file that a setting names.
        _stop(error, EXIT_WRONG_USE)
    except StartError as error:
        _stop(error, EXIT_FAILED)
    sys.exit(exit_code)


def _stop(error: Exception, exit_code: int) -> NoReturn:
    click.echo(f"gatewayx: {error}", err=True)
    sys.exit(exit_code)
