"""The container file: what of it can be checked without a builder of containers."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import PurePosixPath

from support.deployed import DEPLOY, ROOT, environment_variables

TEXT = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
IGNORED = (DEPLOY / "Containerfile.dockerignore").read_text(encoding="utf-8").split()


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its arguments, in order."""
    lines = "\n".join(line for line in TEXT.splitlines() if not line.startswith("#")).replace("\\\n", "")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines.splitlines() if line.strip()]


def last_stage() -> dict[str, list[str]]:
    """The arguments of each instruction behind the last FROM."""
    found: dict[str, list[str]] = {}
    for name, arguments in instructions():
        if name == "FROM":
            found = {}
        found.setdefault(name, []).append(arguments)
    return found


def is_sent(path: PurePosixPath) -> bool:
    """Whether a file of the repository reaches the builder: the last pattern that fits it or a folder of it decides."""
    sent = True
    for pattern in IGNORED:
        plain = pattern.removeprefix("!").removeprefix("**/")
        if any(fnmatch(part.name if "**" in pattern else str(part), plain) for part in (path, *path.parents)):
            sent = pattern.startswith("!")
    return sent


def test_it_runs_the_gateway_and_no_shell_as_nobody():
    stage = last_stage()

    assert json.loads(stage["ENTRYPOINT"][0]) == ["gatewayx"]
    assert json.loads(stage["CMD"][0]) == ["serve"]
    assert stage["USER"] == ["65532:65532"]
    assert stage["STOPSIGNAL"] == ["SIGTERM"]
    check = stage["HEALTHCHECK"][0].partition(" CMD ")[2]
    assert json.loads(check) == ["gatewayx", "healthcheck"]
    assert "RUN" not in stage


def test_its_ports_are_the_gateways():
    assert last_stage()["EXPOSE"] == ["8080 8081"]
    assert "GATEWAYX_LISTEN=0.0.0.0:8080" in last_stage()["ENV"][0]
    assert environment_variables(TEXT) == {"GATEWAYX_LISTEN"}


def test_the_python_that_compiles_is_the_one_that_runs():
    versions = re.findall(r"^FROM \S+/python:([0-9.]+)(?:-slim)?-(\w+)", TEXT, re.MULTILINE)

    assert len(versions) == 2
    assert len(set(versions)) == 1


def test_what_is_copied_is_there_and_sent_to_the_builder():
    copied = [
        name
        for _, arguments in instructions()
        if _ == "COPY" and "--from" not in arguments
        for name in arguments.split()[:-1]
    ]

    assert copied == ["pyproject.toml", "setup.py", "README.md", "LICENSE", "src"]
    for name in copied:
        assert (ROOT / name).exists()
    sources = [
        path.relative_to(ROOT) for name in copied for path in (ROOT / name, *(ROOT / name).rglob("*")) if path.is_file()
    ]
    sent = {path for path in sources if is_sent(PurePosixPath(path))}
    suffixes = {path.suffix for path in sent if path.parts[0] == "src"}
    assert suffixes == {".py", ".pyi", ".pyx", ".pxd", ".typed", ".html"}
    assert {str(path) for path in sent} >= {"pyproject.toml", "src/gatewayx/cli.py", "src/gatewayx/core/counters.pyx"}
    assert not is_sent(PurePosixPath(".git/config"))
    assert not is_sent(PurePosixPath("tests/conftest.py"))
