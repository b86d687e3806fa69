"""Where values come from: every level, their precedence, and what is refused and how that is told."""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gatewayx.address import ServerAddress
from gatewayx.config.kinds import FunctionServer, Switch
from gatewayx.config.loading import CONFIG_VARIABLE, describe, load
from gatewayx.config.setting_table import SETTINGS, Setting
from gatewayx.config.settings import LARGEST_WORKLOAD_BYTES, Settings
from gatewayx.errors import SettingError
from support.setting_samples import SAMPLES

BY_NAME = {setting.name: setting for setting in SETTINGS}

# What no setting accepts from a TOML file, as TOML.
BAD_TOML = [
    "nan",
    "inf",
    "-inf",
    "-1",
    "1979-05-27",
    "{}",
    "[]",
    "[[]]",
    "[1]",
    "0x" + "f" * 5000,
    '"\\u0000"',
    '"\\n"',
]

every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)


def refusal(load_settings: Callable[[], object]) -> str:
    """Return the message of the SettingError, after checking that it is one printable line."""
    with pytest.raises(SettingError) as caught:
        load_settings()
    message = str(caught.value)
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 500
    return message


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a settings file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "gatewayx.toml"
        path.write_text(text)
        return path

    return write


@every_setting
def test_each_level_sets_it_and_wins_over_the_lower_ones(setting: Setting, toml: Callable[[str], Path]) -> None:
    sample = SAMPLES[setting.name]
    (toml_text, toml_value), (text, environment_value), (flag, flag_value) = sample.toml, sample.variable, sample.flag
    path = toml(f"{setting.key} = {toml_text}\n")
    beside = {BY_NAME[name].variable: beside_text for name, beside_text in sample.beside.items()}
    others = load(None, beside, {})
    environ = {setting.variable: text, "PATH": "/bin", "gatewayx_max_body": "ignored", **beside}
    flags = {setting.name: flag}
    expected = [
        ((path, beside, {}), toml_value, f"file {path}"),
        ((None, environ, {}), environment_value, f"environment {setting.variable}"),
        ((None, beside, flags), flag_value, f"flag {setting.flag}"),
        ((path, environ, {}), environment_value, f"environment {setting.variable}"),
        ((path, beside, flags), flag_value, f"flag {setting.flag}"),
        ((None, environ, flags), flag_value, f"flag {setting.flag}"),
        ((path, environ, flags), flag_value, f"flag {setting.flag}"),
    ]
    for levels, value, origin in expected:
        loaded = load(*levels)

        assert getattr(loaded.settings, setting.name) == value
        assert type(getattr(loaded.settings, setting.name)) is type(value)
        assert loaded.origins == {**others.origins, setting.name: origin}
        assert loaded.settings == msgspec.structs.replace(others.settings, **{setting.name: value})


def test_flags_not_given_leave_the_lower_levels_alone() -> None:
    flags = dict.fromkeys(BY_NAME) | dict.fromkeys(
        ("listen", "server", "function_server", "max_queued", "function", "max_function_jobs"), ()
    )

    assert load(None, {"GATEWAYX_MAX_BODY": "1KiB"}, flags).settings == Settings(max_body_bytes=1024)


@pytest.mark.parametrize("origin", ["flag", "environment", "file"])
def test_a_function_is_mapped_to_one_of_the_job_servers_or_refused(origin: str, toml: Callable[[str], Path]) -> None:
    servers = {"server": ("a:1", "tls://b:2", "each://c:3")}
    given = {
        "flag": (None, {}, {"function_server": ("f=a:1", "g=b:2")}),
        "environment": (None, {"GATEWAYX_FUNCTION_SERVER": "f=a:1,g=b:2"}, {}),
        "file": (toml('function-server = ["f=a:1", "g=b:2"]'), {}, {}),
    }[origin]
    message = refusal(lambda: load(given[0], given[1], servers | given[2]))

    assert message.startswith(f"function-server = 'g=b:2' ({origin} ")
    assert "b:2 is none of the job servers (flag --server)" in message
    assert "c:3 is none of the job servers" in refusal(
        lambda: load(None, {}, servers | {"function_server": ("f=c:3",)})
    )
    mapping = {"function_server": ("f=a:1", "g=tls://b:2", "h=each://c:3")}
    assert load(None, {}, servers | mapping).settings.function_server == (
        FunctionServer("f", ServerAddress("a", 1)),
        FunctionServer("g", ServerAddress("b", 2, tls=True)),
        FunctionServer("h", ServerAddress("c", 3, each=True)),
    )


@pytest.mark.parametrize("scheme", ["https", "proxy+https"])
def test_tls_is_not_spoken_without_a_certificate(scheme: str) -> None:
    listen = {"GATEWAYX_LISTEN": f"a:1,{scheme}://b:2"}
    trusted = {"trusted_proxy": ("10.0.0.1",)}

    assert refusal(lambda: load(None, listen, trusted)) == (
        f"listen = a:1,{scheme}://b:2 (environment GATEWAYX_LISTEN) is not allowed without tls-certificate"
    )
    assert load(None, listen, {**trusted, "tls_certificate": ("a.pem",)}).settings.tls_key == ()


def test_each_certificate_has_a_key_or_none_has() -> None:
    certificates = {"GATEWAYX_TLS_CERTIFICATE": "a.pem,b.pem"}

    assert refusal(lambda: load(None, certificates, {"tls_key": ("a.key",)})) == (
        "tls-key = a.key (flag --tls-key) is not allowed with tls-certificate = a.pem,b.pem (environment "
        "GATEWAYX_TLS_CERTIFICATE): there must be as many keys as certificates, or none"
    )
    assert " is not allowed with tls-certificate = " in refusal(lambda: load(None, {}, {"tls_key": ("a.key",)}))
    assert load(None, certificates, {"tls_key": ("b.key", "a.key")}).settings.tls_key == ("b.key", "a.key")
    assert load(None, certificates, {}).settings.tls_key == ()
    # A certificate that is renewed or split by names may keep its key.
    assert load(None, certificates, {"tls_key": ("a.key", "a.key")}).settings.tls_key == ("a.key", "a.key")


def test_clients_are_not_verified_in_vain() -> None:
    authorities = {"GATEWAYX_TLS_CLIENT_CA": "ca.pem"}
    certificate = {"tls_certificate": ("a.pem",)}

    assert refusal(lambda: load(None, authorities, {})) == (
        "tls-client-ca = ca.pem (environment GATEWAYX_TLS_CLIENT_CA) is not allowed without tls-certificate: nobody is "
        "asked for one"
    )
    for word in ("required", "optional"):
        verify = {**certificate, "tls_client_verify": word}
        assert refusal(lambda verify=verify: load(None, {}, verify)) == (
            f"tls-client-verify = {word} (flag --tls-client-verify) is not allowed without tls-client-ca: no client's "
            "certificate is verified"
        )
        assert load(None, authorities, verify).settings.tls_client_verify == word
    assert load(None, authorities, certificate).settings.tls_client_verify == "required"


@pytest.mark.parametrize("scheme", ["proxy", "proxy+https"])
def test_headers_of_proxies_are_expected_of_nobody_where_nobody_is_trusted(scheme: str) -> None:
    listen = {"listen": (f"{scheme}://a:1",), "tls_certificate": ("a.pem",)}

    assert refusal(lambda: load(None, {}, listen)) == (
        f"listen = {scheme}://a:1 (flag --listen) is not allowed without an address in trusted-proxy: "
        "nobody could connect"
    )
    assert "nobody could connect" in refusal(lambda: load(None, {"GATEWAYX_TRUSTED_PROXY": "unix:"}, listen))
    assert load(None, {"GATEWAYX_TRUSTED_PROXY": "::1"}, listen).settings.trusted_proxy == ("::1/128",)


@pytest.mark.parametrize("header", ["forwarded", "x-forwarded-for"])
def test_no_header_names_the_client_where_nobody_is_believed(header: str) -> None:
    assert refusal(lambda: load(None, {}, {"client_address": header})) == (
        f"client-address = {header} (flag --client-address) is not allowed without trusted-proxy: nobody is believed"
    )


def test_every_page_may_ask_only_where_nobody_has_tokens() -> None:
    pages = {"GATEWAYX_ORIGIN": "*"}
    message = refusal(lambda: load(None, pages, {"tokens": "/etc/tokens"}))

    assert message.startswith(
        "origin = * (environment GATEWAYX_ORIGIN) is not allowed with tokens = /etc/tokens (flag "
    )
    assert load(None, pages, {}).settings.origin == ("*",)
    assert load(None, {}, {"origin": ("https://app.example",), "tokens": "/etc/tokens"}).settings.tokens


@pytest.mark.parametrize("name", ["max_body_bytes", "max_result_bytes"])
@pytest.mark.parametrize("held_bytes", [1 << 20, 400_000, 256 << 20, (1 << 30) + 3])
def test_a_bound_that_max_held_can_never_hold_is_refused_and_both_are_told(name: str, held_bytes: int) -> None:
    other = {"max_body_bytes": "max_result_bytes", "max_result_bytes": "max_body_bytes"}[name]
    flags = {"max_held_bytes": str(held_bytes), other: "1"}
    most_bytes = held_bytes // 4
    key = BY_NAME[name].key

    loaded = load(None, {BY_NAME[name].variable: str(most_bytes)}, flags)
    assert getattr(loaded.settings, name) == most_bytes
    message = refusal(lambda: load(None, {BY_NAME[name].variable: str(most_bytes + 1)}, flags))

    size = BY_NAME[name].kind
    assert message == (
        f"{key} = {size.show(most_bytes + 1)} (environment {BY_NAME[name].variable}) is not allowed with "
        f"max-held = {size.show(held_bytes)} (flag --max-held): it must be at most {size.show(most_bytes)}, "
        f"or max-held at least {size.show(4 * (most_bytes + 1))}"
    )


def test_the_largest_bounds_are_allowed_when_enough_is_held() -> None:
    flags = {"max_held_bytes": "16GiB", "max_body_bytes": "4194296KiB", "max_result_bytes": "4194296KiB"}

    settings = load(None, {}, flags).settings

    assert settings.max_body_bytes == settings.max_result_bytes == LARGEST_WORKLOAD_BYTES


def test_max_held_that_is_too_small_for_the_defaults_is_refused(toml: Callable[[str], Path]) -> None:
    path = toml('max-held = "128MiB"')

    assert refusal(lambda: load(path, {}, {})) == (
        f"max-result = 64MiB (default) is not allowed with max-held = 128MiB (file {path}): it must be at most 32MiB, "
        "or max-held at least 256MiB"
    )


def test_max_held_whose_eighth_can_never_hold_a_head_and_a_small_body_is_refused() -> None:
    flags = {"max_body_bytes": "64KiB", "max_result_bytes": "16KiB"}
    message = refusal(lambda: load(None, {"GATEWAYX_MAX_TARGET": "9KiB"}, flags | {"max_held_bytes": "327KiB"}))

    assert message == (
        "max-held = 327KiB (flag --max-held) is not allowed with max-target = 9KiB (environment GATEWAYX_MAX_TARGET) "
        "and max-header-bytes = 16KiB (default): it must be at least 328KiB, of which an eighth holds such a head with "
        "16KiB of its body"
    )
    assert load(None, {"GATEWAYX_MAX_TARGET": "9KiB"}, flags | {"max_held_bytes": "328KiB"})
    smallest = {"max_target_bytes": "1KiB", "max_header_bytes": "6KiB", "max_body_bytes": "1KiB"}
    assert load(None, {}, flags | smallest | {"max_held_bytes": "64KiB"})


@every_setting
def test_a_bad_variable_is_told_in_one_line(setting: Setting) -> None:
    for text in SAMPLES[setting.name].bad:
        message = refusal(lambda text=text: load(None, {setting.variable: text}, {}))

        shown = ascii(text) if len(text) < 100 else ascii(text)[:100]
        assert message.startswith(f"{setting.key} = {shown}")
        assert f" (environment {setting.variable}) is not allowed: it must be {setting.kind.allowed}" in message


@every_setting
def test_a_bad_flag_is_told_in_one_line(setting: Setting) -> None:
    for text in SAMPLES[setting.name].bad:
        message = refusal(lambda text=text: load(None, {}, {setting.name: text}))

        assert f" (flag {setting.flag}) is not allowed: it must be {setting.kind.allowed}" in message


@every_setting
def test_a_bad_value_in_the_file_is_told_in_one_line(setting: Setting, toml: Callable[[str], Path]) -> None:
    for value in BAD_TOML:
        path = toml(f"{setting.key} = {value}\n")
        message = refusal(lambda path=path: load(path, {}, {}))

        assert message.startswith(f"{setting.key} = ")
        assert f" (file {path}) is not allowed: it must be {setting.kind.allowed}" in message


@every_setting
def test_a_boolean_is_a_value_of_switches_only(setting: Setting, toml: Callable[[str], Path]) -> None:
    path = toml(f"{setting.key} = true\n")
    if isinstance(setting.kind, Switch):
        assert getattr(load(path, {}, {}).settings, setting.name) is True
    else:
        assert "= True (file " in refusal(lambda: load(path, {}, {}))


def test_a_bad_value_is_refused_even_where_a_higher_level_replaces_it(toml: Callable[[str], Path]) -> None:
    path = toml("max-headers = 0\n")

    assert "(file " in refusal(lambda: load(path, {"GATEWAYX_MAX_HEADERS": "5"}, {"max_headers": "6"}))
    assert "(environment " in refusal(lambda: load(None, {"GATEWAYX_MAX_HEADERS": "0"}, {"max_headers": "6"}))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("max_body", "max-body"),
        ("max-body-bytes", "max-body"),
        ("job_timeout_s", "job-timeout"),
        ("servers", "server"),
        ("MAX-HEADERS", "max-headers"),
        ("'\\n\\u001b[31m'", None),
        ("x" * 5000, None),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(toml: Callable[[str], Path], key: str, nearest: str | None) -> None:
    path = toml(f"{key.replace(chr(39), chr(34))} = 1\n")
    message = refusal(lambda: load(path, {}, {}))

    assert f" (file {path}) is not a setting: the nearest is " in message
    if nearest:
        assert message == f"{key!r} (file {path}) is not a setting: the nearest is {nearest}"


def test_a_table_is_an_unknown_key(toml: Callable[[str], Path]) -> None:
    path = toml("[limits]\nmax-body = 1\n")

    assert refusal(lambda: load(path, {}, {})).startswith("'limits' (file ")


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("GATEWAYX_MAX_BODY_BYTES", "GATEWAYX_MAX_BODY"),
        ("GATEWAYX_SERVERS", "GATEWAYX_SERVER"),
        ("GATEWAYX_JOBTIMEOUT", "GATEWAYX_JOB_TIMEOUT"),
        ("GATEWAYX_", None),
        ("GATEWAYX_\n\udcff", None),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest(variable: str, nearest: str | None) -> None:
    message = refusal(lambda: load(None, {variable: "1"}, {}))

    assert " = '1' (environment) is not a setting: the nearest is GATEWAYX_" in message
    if nearest:
        assert message == f"{variable} = '1' (environment) is not a setting: the nearest is {nearest}"


def test_what_kubernetes_sets_for_a_service_of_that_name_is_not_taken_for_a_setting() -> None:
    environ = {
        "GATEWAYX_SERVICE_HOST": "10.0.0.1",
        "GATEWAYX_SERVICE_PORT": "80",
        "GATEWAYX_SERVICE_PORT_HTTP": "80",
        "GATEWAYX_PORT": "tcp://10.0.0.1:80",
        "GATEWAYX_PORT_80_TCP": "tcp://10.0.0.1:80",
        "GATEWAYX_PORT_80_TCP_PROTO": "tcp",
        "GATEWAYX_PORT_80_TCP_PORT": "80",
        "GATEWAYX_PORT_80_TCP_ADDR": "10.0.0.1",
    }

    assert load(None, environ, {}).settings == Settings()


def test_the_variable_names_the_file_and_the_flag_wins_over_it(toml: Callable[[str], Path], tmp_path: Path) -> None:
    path = toml("max-headers = 7\n")
    other = tmp_path / "other.toml"
    other.write_text("max-headers = 8\n")

    assert load(None, {CONFIG_VARIABLE: str(path)}, {}).settings.max_headers == 7
    assert load(other, {CONFIG_VARIABLE: str(path)}, {}).settings.max_headers == 8


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"max-body = \n", "is not TOML, "),
        (b"max-body = 1\nmax-body = 2\n", "is not TOML, "),
        (b"a = " + b"9" * 5000, "is not TOML, "),
        (b"a = " + b"[" * 100_000, "is not TOML, "),
        (b"# \xff\n", "is not UTF-8"),
    ],
    ids=["no value", "twice", "long number", "deep", "not UTF-8"],
)
def test_a_file_that_is_not_toml_is_told_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)

    message = refusal(lambda: load(path, {}, {}))

    assert message.startswith(f"config = '{path}' (flag --config) {reason}")
    assert message.endswith("it must be a readable TOML file")


@pytest.mark.parametrize("name", ["missing.toml", ".", "a\x00b", "missing\n\udcff.toml"])
def test_a_file_that_cannot_be_read_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / name

    assert " (flag --config) cannot be read, " in refusal(lambda: load(path, {}, {}))
    assert f" (environment {CONFIG_VARIABLE}) cannot be read, " in refusal(
        lambda: load(None, {CONFIG_VARIABLE: str(path)}, {})
    )


def test_an_empty_file_changes_nothing(toml: Callable[[str], Path]) -> None:
    assert load(toml(""), {}, {}).settings == Settings()


def test_describe_aligns_settings_values_and_origins() -> None:
    loaded = load(None, {"GATEWAYX_MAX_BODY": "65536"}, {"listen": ("[::1]:80", "a:81"), "header_timeout_s": "2.50"})

    rows = [re.split(r" {2,}", line) for line in describe(loaded).splitlines()]

    assert rows[0] == ["setting", "value", "change", "from"]
    assert [row[0] for row in rows[1:]] == [setting.key for setting in SETTINGS]
    assert ["listen", "[::1]:80,a:81", "restart", "flag --listen"] in rows
    assert ["max-body", "64KiB", "live", "environment GATEWAYX_MAX_BODY"] in rows
    assert ["header-timeout", "2.5", "live", "flag --header-timeout"] in rows
    assert ["plugin-compat", "false", "live", "default"] in rows
    lines = describe(loaded).splitlines()
    for column in (2, 3):
        assert len({line.index(row[column], 40) for line, row in zip(lines, rows, strict=True)}) == 1
