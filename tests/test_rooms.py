"""Who may import whom, and what a file may be: the rules of the house, read from the sources.

A room is a folder of `src/gatewayx`, or a module beside them. Every import counts: in a function, behind TYPE_CHECKING,
by cimport, in a stub.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "gatewayx"
SUFFIXES = (".py", ".pyx", ".pxd", ".pyi")

# A room to the rooms, or single modules of one, that it may import; beside its own modules and EVERYONE.
MAY_IMPORT = {
    "address": set(),
    "errors": set(),
    "core": set(),
    "net": {"core"},
    "config": {"core"},
    "http": {"core", "net"},
    "gearman": {"core", "net"},
    "gateway": {"core", "net", "http", "gearman"},
    "admin": {"core", "http", "gearman.admin"},
    "server": {"config", "core", "net", "http", "gearman", "gateway", "admin"},
    "embedded": {"core", "net", "gearman.packet", "gearman.errors"},
    "bench": {"core", "net", "embedded"},
    "demo": {"config", "core", "net", "http", "gearman", "gateway", "admin", "server", "embedded"},
    "healthcheck": set(),
    "cli": {"config", "server", "demo", "bench", "healthcheck", "gearman.tls"},
    "__main__": {"cli", "server"},
}
EVERYONE = {"address", "errors"}
# The only ones that may know both protocols; `demo` puts the whole program together.
KNOW_BOTH = {"gateway", "server", "admin", "demo"}

# Bytes in, values out: in whatever room a module of such a name stands.
WITHOUT_IO = {
    "packet",
    "parser",
    "head",
    "plain",
    "chunks",
    "request",
    "response",
    "limits",
    "problems",
    "routes",
    "headers",
    "batch_lines",
    "batch_answers",
    "proxy",
}
IO = {
    "asyncio",
    "select",
    "selectors",
    "socket",
    "ssl",
    "uvloop",
    "posix.unistd",
    "gatewayx.net.sockets",
    "gatewayx.net.poller",
    "<sys/socket.h>",
    "<sys/epoll.h>",
    "<unistd.h>",
}

# What each request passes through is compiled, and its `.pxd` documents the fields.
DATA_PATH = {"core", "net", "http", "gearman", "gateway"}

MOST_LINES = 600
MOST_LINES_WITH_A_REASON = 700
# Files that read better whole, and why.
LONG: dict[str, str] = {}

# A string, or a comment to the end of its line.
TEXT = re.compile(r"""(\"{3}|'{3})(?:\\.|.)*?\1|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\#[^\n]*""", re.DOTALL)
IMPORT = re.compile(
    r"(?:^|[;:])[ \t]*(?:from[ \t]+(?P<module>[.\w]+)[ \t]+c?import\b[ \t]*(?P<names>[^;\n]+)"
    r"|c?import[ \t]+(?P<modules>[^;\n]+))",
    re.MULTILINE,
)
HEADER = re.compile(r"""\bextern[ \t]+from[ \t]+["'](<?[\w./]+>?)["']""")
INCLUDE = re.compile(r"^[ \t]*include[ \t]+[\"']", re.MULTILINE)


def module_of(path: Path) -> str:
    """The dotted name of a source file, given from `src` on."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


SOURCES = sorted(path for suffix in SUFFIXES for path in PACKAGE.rglob(f"*{suffix}"))
MODULES = {module_of(path.relative_to(PACKAGE.parent)) for path in SOURCES}


def absolute(module: str, path: Path) -> str:
    """A module as an import in the file `path` names it, with its leading dots resolved."""
    level = len(module) - len(module.lstrip("."))
    if level == 0:
        return module
    base = list(path.with_suffix("").parts)[:-level]
    return ".".join([*base, module[level:]]).rstrip(".")


def named(module: str, name: str) -> str:
    """What `from module import name` imports: a module of ours, or something that stands in one."""
    return f"{module}.{name}" if f"{module}.{name}" in MODULES else module


def python_imports(source: str) -> Iterator[tuple[str, str]]:
    """Each import of Python code: a module, and the name taken from it or ""."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)


def cython_imports(source: str) -> Iterator[tuple[str, str]]:
    """The same of Cython code, which `ast` cannot read: statements without their strings and comments."""
    yield from ((header, "") for header in HEADER.findall(source))
    bare = TEXT.sub("", source).replace("\\\n", " ")
    bare = re.sub(r"\([^()]*\)", lambda inner: inner.group().replace("\n", " "), bare)
    for found in IMPORT.finditer(bare):
        if found["modules"]:
            yield from ((part.split()[0], "") for part in found["modules"].split(","))
        else:
            names = found["names"].strip().strip("()").split(",")
            yield from ((found["module"], part.split()[0]) for part in names if part.strip())


def imports(path: Path, source: str) -> set[str]:
    """Every module that a file imports; `path` is from `src` on."""
    found = python_imports(source) if path.suffix in (".py", ".pyi") else cython_imports(source)
    return {named(absolute(module, path), name) for module, name in found}


def room_of(module: str) -> str:
    """The room of a module of ours: "gearman" of `gatewayx.gearman.packet`, "" of `gatewayx`."""
    return module.split(".")[1] if "." in module else ""


def complaints(path: Path, source: str) -> list[str]:
    """Which rules of the house a file breaks by what it imports; `path` is from `src` on."""
    module = module_of(path)
    room = room_of(module)
    targets = imports(path, source)
    ours = sorted(target for target in targets if target.split(".")[0] == "gatewayx")
    found = []
    for target in ours:
        inside = target.removeprefix("gatewayx").removeprefix(".")
        # `gatewayx` itself holds the version.
        allowed = {"", room, *EVERYONE, *MAY_IMPORT.get(room, ())}
        if not any(inside == may or (may and inside.startswith(f"{may}.")) for may in allowed):
            found.append(f"{module} imports {target}")
    if room not in KNOW_BOTH and {"http", "gearman"} <= {room, *map(room_of, ours)}:
        found.append(f"{module} knows both http and gearman")
    if module.rpartition(".")[2] in WITHOUT_IO:
        found += [
            f"{module} does no I/O but imports {target}"
            for target in sorted(targets)
            if any(target == io or target.startswith(f"{io}.") for io in IO)
        ]
    if path.suffix in (".pyx", ".pxd") and INCLUDE.search(source):
        found.append(f"{module} includes a file, whose imports nobody sees")
    return found


def lengths() -> dict[str, int]:
    """How many lines each source file of the repository has, by its path."""
    files = [ROOT / "setup.py"]
    for folder in ("src", "tests", "fuzz", "benchmarks"):
        files += [path for suffix in SUFFIXES for path in (ROOT / folder).rglob(f"*{suffix}")]
    return {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}


def test_every_room_is_in_the_table():
    assert {room_of(module) for module in MODULES} - {""} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_keep_the_rules_of_the_house(path):
    assert complaints(path.relative_to(PACKAGE.parent), path.read_text()) == []


@pytest.mark.parametrize(
    ("path", "source", "target"),
    [
        ("http/idle.py", "import gatewayx.gearman.packet", "gearman.packet"),
        ("http/idle.py", "def f():\n    from gatewayx.gearman import tls", "gearman.tls"),
        ("http/idle.py", "if TYPE_CHECKING:\n    from gatewayx.gearman.tls import Tls", "gearman.tls"),
        ("http/idle.pyx", "from gatewayx.gearman.packet cimport pack", "gearman.packet"),
        ("http/idle.pyx", "import os, gatewayx.gearman.tls as tls", "gearman.tls"),
        ("gearman/job.pxd", "cimport gatewayx.http.request as r", "http.request"),
        ("gearman/job.pyx", "from ..http cimport (\n    request,\n)", "http.request"),
        ("gearman/job.pyx", "if x: from gatewayx.embedded import encode", "embedded.encode"),
        ("gearman/job.pyi", "from gatewayx.http.problems import RequestError", "http.problems"),
        ("core/turns.pyx", "from gatewayx.net cimport sockets", "net.sockets"),
        ("net/stream.pyx", "import asyncio; from gatewayx.http import problems", "http.problems"),
        ("server/master.py", "from gatewayx.embedded.worker import Worker", "embedded.worker"),
        ("server/master.py", "from gatewayx import bench", "bench"),
        ("server/master.py", "import gatewayx.demo", "demo"),
        ("admin/health.py", "from gatewayx.gearman.pool import Pool", "gearman.pool"),
        ("embedded/text.pyx", "from gatewayx.gearman cimport pool", "gearman.pool"),
        ("bench/load.pyx", "from gatewayx.gearman.packet cimport pack", "gearman.packet"),
        ("bench/load.pyx", "from gatewayx.http.limits import Limits", "http.limits"),
        ("config/settings.py", "from gatewayx.cli import main", "cli"),
        ("cli.py", "import gatewayx.http.limits", "http.limits"),
    ],
)
def test_an_import_from_a_room_that_is_closed_to_it_is_found(path, source, target):
    path = Path("gatewayx", path)
    assert f"{module_of(path)} imports gatewayx.{target}" in complaints(path, source)


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("bench/load.py", "import gatewayx.http.limits, gatewayx.gearman.pool", "knows both http and gearman"),
        ("gearman/packet.py", "from asyncio import sleep", "does no I/O but imports asyncio"),
        ("http/parser.pyx", "cimport posix.unistd", "does no I/O but imports posix.unistd"),
        ("http/chunks.pyx", "if True:\n    import socket", "does no I/O but imports socket"),
        ("http/limits.pxd", 'cdef extern from "<unistd.h>":', "does no I/O but imports <unistd.h>"),
        ("net/proxy.pyx", "from gatewayx.net cimport sockets", "does no I/O but imports gatewayx.net.sockets"),
        ("http/idle.pyx", 'include "more.pxi"', "includes a file, whose imports nobody sees"),
    ],
)
def test_another_broken_rule_is_found(path, source, complaint):
    path = Path("gatewayx", path)
    assert f"{module_of(path)} {complaint}" in complaints(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("http/idle.pyx", '"""As in\n\nimport gatewayx.gearman.packet\n"""\n# import gatewayx.gearman.pool\n'),
        ("http/idle.pyx", "from gatewayx.core cimport (\n    budget,  # import gatewayx.gearman\n)\nimport asyncio"),
        ("http/response.pyx", "from gatewayx import __version__\nfrom gatewayx.errors import GatewayxError"),
        ("embedded/output.pyx", "from gatewayx.gearman.packet cimport pack\nfrom gatewayx.gearman import errors"),
        ("gateway/jobs.pyx", "from gatewayx.http cimport request\nfrom gatewayx.gearman.pool cimport Pool"),
    ],
)
def test_what_is_allowed_is_not_complained_of(path, source):
    assert complaints(Path("gatewayx", path), source) == []


def test_the_table_of_rooms_in_the_documents_names_every_module():
    table = (ROOT / "docs" / "architecture.md").read_text().partition("## Rooms")[2].partition("Who may import")[0]
    told = set()
    room = ""
    for cells in (line.split("|")[1:3] for line in table.splitlines() if "`" in line):
        room = cells[0].strip(" `/") or room
        told |= {name if room == "\N{EN DASH}" else f"{room}.{name}" for name in re.findall(r"`(\w+)`", cells[1])}

    modules = {module_of(path.relative_to(PACKAGE)) for path in SOURCES if path.stem not in ("__init__", "__main__")}
    assert told == modules


def test_a_module_is_compiled_or_plain_python():
    compiled = {path.with_suffix("") for path in PACKAGE.rglob("*.pyx")}
    assert sorted(path for path in PACKAGE.rglob("*.py") if path.with_suffix("") in compiled) == []


def test_every_compiled_module_of_the_data_path_has_a_pxd():
    compiled = {path for room in DATA_PATH for path in (PACKAGE / room).rglob("*.pyx")}
    assert sorted(path for path in compiled if not path.with_suffix(".pxd").exists()) == []


def test_no_file_is_too_long_to_be_read():
    too_long = {path: lines for path, lines in lengths().items() if lines > MOST_LINES}
    assert {path: lines for path, lines in too_long.items() if path not in LONG} == {}
    assert {path: lines for path, lines in too_long.items() if lines > MOST_LINES_WITH_A_REASON} == {}


def test_only_long_files_are_listed_as_such():
    found = lengths()
    assert [path for path in sorted(LONG) if found.get(path, 0) <= MOST_LINES] == []
