"""docs/bench.md has every field, kind of flood, metric and option that there is, and no field that there is not."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import click
import msgspec
import pytest

from gatewayx.bench import result
from gatewayx.bench.commands import bench
from gatewayx.bench.expectations import METRICS
from gatewayx.bench.flood import KIND_NAMES
from gatewayx.bench.load import ERROR_KINDS
from gatewayx.bench.template import CHECKS

MANUAL = (Path(__file__).parent.parent.parent / "docs" / "bench.md").read_text()
STRUCTS = {
    name: struct
    for name, struct in inspect.getmembers(result, inspect.isclass)
    if issubclass(struct, msgspec.Struct) and struct.__module__ == result.__name__
}


def section(title: str, level: int, text: str = MANUAL) -> str:
    """What stands below a heading, down to the next one of its level or above."""
    headings = re.findall(rf"^#{{{level}}} {re.escape(title)}$", text, re.MULTILINE)
    assert len(headings) == 1, f"{title!r} heads {len(headings)} sections"
    below = text.partition(f"\n{headings[0]}\n")[2]
    return re.split(rf"^#{{1,{level}}} ", below, maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """The names in the first cells of the tables of a text."""
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def schema_section() -> str:
    """All of the tables of fields."""
    return section("The JSON, schema 1", 2)


def options() -> list[tuple[str, str]]:
    """Every command with every spelling of its options."""
    return [
        (name, spelling)
        for name, command in bench.commands.items()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for spelling in parameter.opts
    ]


def command_section(name: str) -> str:
    """Where the manual documents a command's options; plugin and demo share one section."""
    return section("plugin and demo" if name in ("plugin", "demo") else name, 3)


@pytest.mark.parametrize("name", STRUCTS)
def test_the_table_of_a_struct_has_exactly_its_fields(name: str) -> None:
    fields = [field.name for field in msgspec.structs.fields(STRUCTS[name])]

    assert sorted(first_cells(section(name, 3, schema_section()))) == sorted(fields)


def test_there_is_no_table_of_a_struct_that_does_not_exist() -> None:
    assert sorted(re.findall(r"^### (.+)$", schema_section(), re.MULTILINE)) == sorted(STRUCTS)


def test_the_fields_have_type_unit_and_meaning() -> None:
    rows = re.findall(r"^\| `.*$", schema_section(), re.MULTILINE)

    assert rows
    assert [row for row in rows if not re.fullmatch(r"\| `\w+` \| [^|]+ \| [^|]+ \| [^|]+ \|", row)] == []


def test_the_schema_is_the_one_that_is_written() -> None:
    assert f"## The JSON, schema {result.SCHEMA}\n" in MANUAL


def test_the_manual_has_every_kind_of_flood() -> None:
    assert sorted(first_cells(section("Floods", 2))) == sorted(KIND_NAMES)


def test_the_manual_has_every_metric() -> None:
    table = section("Expectations and exit codes", 2).partition("| metric |")[2].partition("\n\n")[0]

    assert set(first_cells(table)) == {*METRICS, "503", "5xx"}


def test_the_manual_has_every_kind_of_error_and_every_check() -> None:
    named = first_cells(section("What counts", 2))

    assert sorted(named) == sorted([*ERROR_KINDS, *CHECKS, "--check"])


def test_the_manual_has_every_command() -> None:
    named = [re.fullmatch(r"gatewayx bench (\w+).*", cell)[1] for cell in first_cells(section("Commands", 2))[:5]]

    assert sorted(named) == sorted(bench.commands)


@pytest.mark.parametrize(("command", "option"), options())
def test_the_manual_has_every_option_of_every_command(command: str, option: str) -> None:
    # The options of the requests and of the target stand below `run` and are those of `flood` as well.
    text = command_section(command) + (command_section("run") if command == "flood" else "")

    assert re.search(rf"`{re.escape(option)}[ `]", text)


def test_the_manual_has_no_option_that_does_not_exist() -> None:
    known = {option for _, option in options()} | {"--max-connections-per-address"}

    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", MANUAL)) - known == set()
