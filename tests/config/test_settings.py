"""What the settings are: their names, their defaults, and that each is described."""

import inspect
import re
from pathlib import Path

import msgspec
import pytest

from gatewayx.config.loading import load
from gatewayx.config.setting_table import SETTINGS, Setting
from gatewayx.config.settings import Settings
from gatewayx.core.budget import ByteBudget
from gatewayx.gateway.admission import Admission
from gatewayx.gateway.gateway import Gateway
from gatewayx.gearman.keeper import Upkeep
from gatewayx.gearman.pool import Pool
from support.setting_samples import SAMPLES

SOURCES = Path(__file__).parents[2] / "src"

BY_NAME = {setting.name: setting for setting in SETTINGS}

every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)


def test_every_field_is_described_once_and_every_description_has_its_field() -> None:
    assert sorted(BY_NAME) == sorted(Settings.__struct_fields__)
    assert len(SETTINGS) == len(BY_NAME) == len({setting.key for setting in SETTINGS})


def test_defaults_are_the_documented_ones() -> None:
    loaded = load(None, {}, {})

    assert msgspec.structs.asdict(loaded.settings) == {name: sample.default for name, sample in SAMPLES.items()}
    assert loaded.settings == Settings()
    assert loaded.origins == dict.fromkeys(BY_NAME, "default")


def test_what_sockets_processes_and_shared_memory_are_made_of_needs_a_restart() -> None:
    assert {setting.key for setting in SETTINGS if not setting.live} == {
        "listen",
        "tls-certificate",
        "tls-key",
        "tls-min",
        "tls-client-ca",
        "tls-client-verify",
        "socket-mode",
        "socket-owner",
        "workers",
        "max-connections",
        "admin",
    }


@every_setting
def test_names_follow_from_the_key(setting: Setting) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", setting.key)
    assert setting.flag == f"--{setting.key}"
    assert setting.variable == f"GATEWAYX_{setting.key.replace('-', '_').upper()}"
    # The field adds the unit and nothing else.
    assert setting.name.removesuffix("_s").removesuffix("_bytes") == setting.key.replace("-", "_").removesuffix(
        "_bytes"
    )


@every_setting
def test_the_default_is_allowed_and_reads_back(setting: Setting) -> None:
    assert setting.kind.parse(setting.default_text) == setting.default
    assert type(setting.kind.parse(setting.default_text)) is type(setting.default)


def test_no_part_has_a_default_that_differs_from_the_settings() -> None:
    # The name that a part has for a setting, where it is another one.
    other_names = {"check_interval_s": "server_check_interval_s", "max_bytes": "max_held_bytes"}
    defaults = msgspec.structs.asdict(Settings())
    found = []
    for part in (Admission, ByteBudget, Gateway, Pool):
        # The compiled class does not tell its initializer's arguments.
        source = SOURCES.joinpath(*part.__module__.split(".")).with_suffix(".pyx").read_text()
        start = rf"^cdef class {part.__name__}\b.*?^    def __init__\((.*?)\):$"
        arguments = re.search(start, source, re.DOTALL | re.MULTILINE)
        assert arguments
        for name, text in re.findall(r"(\w+)=([^,)]+)", arguments[1]):
            setting = other_names.get(name, name)
            if setting in defaults and not text.startswith("("):
                found.append(setting)
                assert eval(text, {}) == defaults[setting], f"{part.__name__}: {name}={text}"
    for name, parameter in inspect.signature(Upkeep).parameters.items():
        setting = other_names.get(name, name)
        if setting in defaults and parameter.default is not parameter.empty:
            found.append(setting)
            assert parameter.default == defaults[setting], name

    assert {"max_held_bytes", "max_jobs", "max_function_bytes", "server_check_interval_s", "balance"} <= set(found)
    assert "status_interval_s" in found
