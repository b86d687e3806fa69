"""The command line: flags, help, exit codes, and what stays unloaded."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

import gatewayx
from gatewayx.address import Address, ServerAddress
from gatewayx.cli import main
from gatewayx.config.loading import NO_ENTRIES
from gatewayx.config.setting_table import SETTINGS, Setting
from gatewayx.config.settings import Settings
from gatewayx.errors import SettingError, StartError
from gatewayx.server import processors
from gatewayx.server.processors import WorkerProcesses
from support.setting_samples import SAMPLES

every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)


def invoke(*arguments: str, environ: dict[str, str] | None = None) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, arguments, env=environ, prog_name="gatewayx")


def row_of(output: str, key: str) -> list[str]:
    """Return value, change and origin of one setting in the output of `check`."""
    return next(line.split(maxsplit=3)[1:] for line in output.splitlines() if line.split()[0] == key)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Stands in for the gateway's master: `run` notes what it was given and returns 0."""
    module = ModuleType("gatewayx.server.master")
    module.given = []
    module.loads = []
    module.run = lambda settings, load, **others: (
        module.given.append((settings, others)) or module.loads.append(load) or 0
    )
    monkeypatch.setitem(sys.modules, "gatewayx.server.master", module)
    return module


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Stands in for the demo."""
    module = ModuleType("gatewayx.demo")
    module.given = []
    module.run = lambda listen, write: module.given.append(listen) or 0
    monkeypatch.setitem(sys.modules, "gatewayx.demo", module)
    return module


def test_the_version_is_the_package_s() -> None:
    assert invoke("--version").output == f"gatewayx {gatewayx.__version__}\n"


def test_python_m_runs_the_same_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "gatewayx", "--version"], capture_output=True, text=True, check=True, timeout=60
    )

    assert result.stdout == f"gatewayx {gatewayx.__version__}\n"


def test_importing_the_command_line_loads_nothing_that_only_the_gateway_needs() -> None:
    code = """
import sys
import gatewayx.cli
heavy = {"asyncio", "httptools", "orjson", "rich", "ssl", "tomllib", "tomli", "uvloop"}
compiled = {name for name in sys.modules if name.startswith(("gatewayx.gateway", "gatewayx.gearman", "gatewayx.http"))}
print(sorted(heavy & set(sys.modules) | compiled))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)

    assert result.stdout == "[]\n"


@every_setting
def test_every_flag_reaches_the_settings(setting: Setting) -> None:
    sample = SAMPLES[setting.name]

    beside = {setting.variable: sample.beside[setting.name] for setting in SETTINGS if setting.name in sample.beside}
    result = invoke("check", *sample.arguments, environ=beside)

    assert result.exit_code == 0
    assert row_of(result.output, setting.key) == [sample.shown, setting.change, f"flag {setting.flag}"]
    assert result.output.count("default") == len(SETTINGS) - 1 - len(beside)


@every_setting
def test_help_shows_flag_key_and_variable(setting: Setting) -> None:
    for command in ("serve", "check"):
        result = CliRunner().invoke(main, [command, "--help"], terminal_width=4000, max_content_width=4000)
        text = " ".join(result.output.split())

        assert result.exit_code == 0
        bounds = f"; {setting.kind.bounds}" if setting.kind.bounds else ""
        assert re.search(rf"{setting.flag} [^.]*{re.escape(setting.help)}", text)
        default = setting.default_text or NO_ENTRIES
        assert f"[default: {default}{bounds}; TOML: {setting.key}; {setting.variable}; {setting.change}]" in text


def test_help_groups_the_settings() -> None:
    lines = invoke("serve", "--help").output.splitlines()

    titles = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    groups = ["Addresses", "Processes", "Job servers", "Functions", "Access", "TLS to clients", "Proxies in front"]
    groups += ["Limits", "Rates", "Timeouts", "Kept jobs", "Answers", "Browsers", "Admin", "Logs"]
    assert titles == [f"{title}:" for title in ("Options", *groups)]


def test_check_reads_the_file_and_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "gatewayx.toml"
    path.write_text('max-body = "1MiB"\nmax-headers = 3\n')

    by_flag = invoke("check", "--config", str(path), environ={"GATEWAYX_MAX_HEADERS": "4"})
    by_variable = invoke("check", environ={"GATEWAYX_CONFIG": str(path)})

    assert row_of(by_flag.output, "max-body") == ["1MiB", "live", f"file {path}"]
    assert row_of(by_flag.output, "max-headers") == ["4", "live", "environment GATEWAYX_MAX_HEADERS"]
    assert row_of(by_variable.output, "max-headers") == ["3", "live", f"file {path}"]


def test_check_tells_how_many_worker_processes_that_makes_and_what_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    by_quota = WorkerProcesses(2, "cgroup quota of 1.5 processors in /sys/fs/cgroup/cpu.max")
    monkeypatch.setattr(processors, "worker_processes", {None: by_quota}.__getitem__)

    told = invoke("check").output.splitlines()[-3:-1]
    assert told == ["", "2 worker processes: cgroup quota of 1.5 processors in /sys/fs/cgroup/cpu.max"]
    monkeypatch.undo()
    assert invoke("check", "--workers", "4").output.splitlines()[-2] == "4 worker processes: as set"
    assert re.fullmatch(
        r"\d+ worker process(es)?: (CPU affinity|cgroup quota) of .+", invoke("check").output.splitlines()[-2]
    )


def test_check_tells_how_many_connections_to_job_servers_that_makes() -> None:
    servers = ("--server", "a:1", "--server", "b:1")
    assert invoke("check", "--workers", "4", *servers, "--connections-per-server", "3").output.splitlines()[-1] == (
        "17 connections to each job server: 3 for jobs and 1 for text from each worker process, and 1 for text from "
        "the admin process; 34 in all"
    )
    each = ("--workers", "1", "--admin", "none", "--server", "each://a:1")
    assert invoke("check", *each).output.splitlines()[-1] == (
        "3 connections to each job server: 2 for jobs and 1 for text from each worker process; 3 in all, "
        "and with each:// as many more as a name has further addresses"
    )


def test_a_switch_that_a_lower_level_turned_on_can_be_turned_off() -> None:
    result = invoke("check", "--no-plugin-compat", environ={"GATEWAYX_PLUGIN_COMPAT": "true"})

    assert row_of(result.output, "plugin-compat") == ["false", "live", "flag --plugin-compat"]


def test_check_finds_a_file_of_TLS_that_cannot_be_used(tmp_path: Path) -> None:  # noqa: N802
    missing = tmp_path / "ca.pem"
    result = invoke("check", "--server", "tls://a:1", "--server-ca", str(missing))

    assert result.exit_code == 2
    assert result.stderr == f"gatewayx: server-ca = '{missing}' cannot be used: No such file or directory\n"
    assert invoke("check", "--server", "a:1", "--server-ca", str(missing)).exit_code == 0


def test_check_finds_an_access_log_that_cannot_be_opened_and_makes_none(tmp_path: Path) -> None:
    missing = tmp_path / "none" / "log"
    result = invoke("check", "--access-log", str(missing))
    assert result.exit_code == 2
    assert result.stderr == f"gatewayx: access-log = '{missing}' cannot be opened: No such file or directory\n"
    assert invoke("check", "--access-log", str(tmp_path / "log")).exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_check_finds_an_owner_of_unix_sockets_that_is_unknown() -> None:
    result = invoke("check", "--listen", "unix:/run/a", "--socket-owner", "no-such-one")

    assert result.exit_code == 2
    assert result.stderr == "gatewayx: socket-owner: there is no user 'no-such-one'\n"
    assert invoke("check", "--listen", "unix:/run/a", "--socket-owner", "root:0").exit_code == 0
    # Without a unix socket nobody asks for it.
    assert invoke("check", "--socket-owner", "no-such-one").exit_code == 0


@pytest.mark.parametrize("command", ["check", "serve"])
@pytest.mark.parametrize(
    ("arguments", "environ", "line"),
    [
        (
            ["--max-headers", "0"],
            {},
            "gatewayx: max-headers = '0' (flag --max-headers) is not allowed: it must be 1 to 10000, a whole number\n",
        ),
        (
            ["--server", ""],
            {},
            "gatewayx: server = '' (flag --server) is not allowed: it must be 1 to 64 different HOST:PORT, "
            "an IPv6 host in brackets, the port from 1 to 65535, tls:// before it for TLS, each:// or each+tls:// "
            "for each address of a name\n",
        ),
        (
            [],
            {"GATEWAYX_JOB_TIMEOUT": "1s\n"},
            "gatewayx: job-timeout = '1s\\n' (environment GATEWAYX_JOB_TIMEOUT) is not allowed: "
            "it must be 0.01 to 86400 seconds, as in 30 or 0.5\n",
        ),
        (
            [],
            {"GATEWAYX_MAX_BDOY": "1"},
            "gatewayx: GATEWAYX_MAX_BDOY = '1' (environment) is not a setting: the nearest is GATEWAYX_MAX_BODY\n",
        ),
        (
            ["--max-body", "1GiB"],
            {"GATEWAYX_MAX_HELD": "512MiB"},
            "gatewayx: max-body = 1GiB (flag --max-body) is not allowed with max-held = 512MiB (environment "
            "GATEWAYX_MAX_HELD): it must be at most 128MiB, or max-held at least 4GiB\n",
        ),
        (
            ["--config", "/nonexistent/gatewayx.toml"],
            {},
            "gatewayx: config = '/nonexistent/gatewayx.toml' (flag --config) cannot be read, "
            "No such file or directory: it must be a readable TOML file\n",
        ),
    ],
    ids=["flag", "empty flag", "environment", "unknown variable", "contradiction", "no file"],
)
def test_a_bad_setting_is_one_line_and_exit_code_2(
    server: ModuleType, command: str, arguments: list[str], environ: dict[str, str], line: str
) -> None:
    result = invoke(command, *arguments, environ=environ)

    assert result.exit_code == 2
    assert result.stderr == line
    assert result.stdout == ""
    assert server.given == []


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["serve", "--nonsense"], ["serve", "extra"], ["check", "--max-body"]]
)
def test_wrong_use_is_exit_code_2(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_serve_runs_the_gateway_with_the_effective_settings(server: ModuleType) -> None:
    result = invoke("serve", "--server", "a:1", environ={"GATEWAYX_MAX_BODY": "1KiB"})

    assert result.exit_code == 0
    assert result.output == ""
    settings = Settings(server=(ServerAddress("a", 1),), max_body_bytes=1024)
    assert server.given == [(settings, {"listen_is_default": True, "admin_is_default": True})]


def test_where_it_listens_is_no_default_if_it_was_set_even_to_that(server: ModuleType) -> None:
    invoke("serve", "--listen", "127.0.0.1:8080")
    invoke("serve", environ={"GATEWAYX_LISTEN": "127.0.0.1:8080"})

    assert server.given == 2 * [(Settings(), {"listen_is_default": False, "admin_is_default": True})]


def test_the_admin_address_is_no_default_if_it_was_set_even_to_that(server: ModuleType) -> None:
    invoke("serve", "--admin", "127.0.0.1:8081")

    assert server.given == [(Settings(), {"listen_is_default": True, "admin_is_default": False})]


def test_serve_can_read_the_file_again_with_the_flags_it_has(server: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "gatewayx.toml"
    path.write_text("max-jobs = 1\nmax-headers = 1\n")
    assert invoke("serve", "--config", str(path), "--max-headers", "9").exit_code == 0

    path.write_text("max-jobs = 2\nmax-headers = 2\n")
    assert server.loads[0]() == Settings(max_jobs=2, max_headers=9)
    path.write_text("max-jobs = 0\n")
    with pytest.raises(SettingError, match="max-jobs = 0"):
        server.loads[0]()
    path.unlink()
    # Whoever reads it would wait for somebody who writes.
    os.mkfifo(path)
    with pytest.raises(SettingError, match="no file that can be read twice"):
        server.loads[0]()


def test_what_the_gateway_returns_is_the_exit_code(server: ModuleType) -> None:
    server.run = lambda *_, **__: 1

    assert invoke("serve").exit_code == 1


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_an_expected_failure_to_start_is_one_line_and_exit_code_1(
    server: ModuleType, demo: ModuleType, command: str
) -> None:
    def fail(*_: object, **__: object) -> int:
        raise StartError("cannot listen at 127.0.0.1:8080: address already in use")

    server.run = demo.run = fail
    result = invoke(command)

    assert result.exit_code == 1
    assert result.stderr == "gatewayx: cannot listen at 127.0.0.1:8080: address already in use\n"
    assert result.stdout == ""


def test_the_demo_listens_where_it_is_told(demo: ModuleType) -> None:
    assert invoke("demo").exit_code == 0
    assert invoke("demo", "--listen", "[::1]:0").exit_code == 0
    assert demo.given == [Address("127.0.0.1", 8080), Address("::1", 0)]


@pytest.mark.parametrize("listen", ["8080", "a:1,b:2", ""])
def test_a_bad_address_of_the_demo_is_one_line_and_exit_code_2(demo: ModuleType, listen: str) -> None:
    result = invoke("demo", "--listen", listen)

    assert result.exit_code == 2
    assert result.stderr == f"gatewayx: listen = '{listen}' (flag --listen) is not allowed: it must be one HOST:PORT\n"
    assert demo.given == []


def test_no_admin_is_another_word_for_none():
    assert "none" in next(
        line for line in invoke("check", "--no-admin").output.splitlines() if line.startswith("admin ")
    )
    assert invoke("check", "--no-admin", "--admin", "127.0.0.1:1").output.count("127.0.0.1:1") == 1
