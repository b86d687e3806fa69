"""What the documents say is so: their tests exist, their links lead somewhere, their tables are those of the code."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from gatewayx.config.loading import CONFIG_FLAG
from gatewayx.config.setting_table import SETTINGS

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").rglob("*.md"))
)

# A reader of the README should not have to scroll for long, nor sideways.
MOST_README_LINES = 200
MOST_README_CHARACTERS = 200

# Flags of other programs that the pages speak of: curl, gearmand, gearadmin, Node.js, systemctl, kubectl and podman,
# and what every command has.
OTHER_FLAGS = {
    "--data-binary",
    "--expires",
    "--san",
    "--live",
    "--timeout",
    "--cap-drop",
    "--env",
    "--file",
    "--filename",
    "--kill-who",
    "--kill-whom",
    "--now",
    "--publish",
    "--read-only",
    "--signal",
    "--tag",
    "--time",
    "--max-http-header-size",
    "--hashtable-buckets",
    "--http-port",
    "--ssl",
    "--status",
    "--help",
    "--version",
}
BENCH_FLAGS = {"--body", "--expect", "--html", "--json", "--process", "--rate"}

every_page = pytest.mark.parametrize("page", PAGES)


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: str) -> set[str]:
    """What a link to a part of the page may name, as GitHub makes it of the headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        number = 0
        while (numbered := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(numbered)
    return found


def broken_links(page: str) -> list[str]:
    """The links of a page to files or headings that do not exist."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.resolve().relative_to(ROOT).as_posix())):
            broken.append(link)
    return broken


@pytest.mark.parametrize("document", ["delivery.md", "threat-model.md"])
def test_every_test_that_a_document_names_exists(document: str) -> None:
    named = set(re.findall(r"\b(test_\w+)\b(?!\.py)", (ROOT / "docs" / document).read_text()))
    defined = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        defined |= set(re.findall(r"def (test_\w+)\(", path.read_text())) | {path.stem}

    assert named
    assert sorted(named - defined) == []


@every_page
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page: str) -> None:
    assert broken_links(page) == []


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[a-z-]+\.md)", prose("README.md")))

    assert sorted(linked) == [page for page in PAGES if page.startswith("docs/")]


def test_the_readme_is_a_door_and_no_manual() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()

    assert len(lines) <= MOST_README_LINES
    assert [line for line in lines if len(line) > MOST_README_CHARACTERS] == []


def test_the_tables_that_come_from_the_code_are_current() -> None:
    writer = runpy.run_path(str(ROOT / "docs" / "write_tables.py"))

    assert writer["TABLES"]
    for page, name, make in writer["TABLES"]:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert writer["filled"](text, name, make()) == text, f"docs/{page} is not what `make docs` writes"


@pytest.mark.parametrize("text", ["", "<!-- a -->\n", "<!-- /a -->\n", "<!-- a -->\n<!-- /a -->\n<!-- a -->\n"])
def test_a_page_without_a_place_for_a_table_is_refused(text: str) -> None:
    writer = runpy.run_path(str(ROOT / "docs" / "write_tables.py"))

    with pytest.raises(ValueError, match="must have one"):
        writer["filled"](text, "a", "| table |")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.startswith(("README", "docs/")) and page != "docs/bench.md"]
)
def test_every_flag_that_a_page_names_exists(page: str) -> None:
    settings = {setting.flag for setting in SETTINGS} | {f"--no-{setting.key}" for setting in SETTINGS}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", (ROOT / page).read_text(encoding="utf-8")))

    assert sorted(named - settings - OTHER_FLAGS - BENCH_FLAGS - {CONFIG_FLAG}) == []


def test_a_word_has_one_meaning() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ", prose("docs/glossary.md"), re.MULTILINE)
    words = [word.strip() for row in rows if row not in ("word", "---") for word in row.split(",")]

    assert len(words) == len(set(words)) > 40
