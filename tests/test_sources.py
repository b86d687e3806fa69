"""No two different builds share a version, and a wheel is only used in place of the sources it was built from."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from tools import sources

TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"
MAX_FILE_BYTES = 2 * 1024 * 1024
MAX_ALL_BYTES = 11 * 1024 * 1024


def release(root: Path, version: str) -> Path:
    """Record a wheel for this Python of the sources in `root`, and return it."""
    wheelhouse = root / "wheelhouse"
    wheelhouse.mkdir()
    wheel = wheelhouse / f"gatewayx-{version}-{TAG}-{TAG}-manylinux_2_17_x86_64.whl"
    wheel.write_bytes(b"a wheel")
    (wheelhouse / "SOURCES.sha256").write_text(sources.sources_hash(root) + "\n")
    (wheelhouse / "SHA256SUMS").write_text(f"{hashlib.sha256(b'a wheel').hexdigest()}  {wheel.name}\n")
    return wheel


def set_version(root: Path, version: str) -> None:
    """Give the sources in `root` a version."""
    (root / "src/gatewayx/__init__.py").write_text(f'"""A package."""\n\n__version__ = "{version}"\n')


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree of version 1.2.0, without a wheelhouse."""
    (tmp_path / "src/gatewayx/http").mkdir(parents=True)
    set_version(tmp_path, "1.2.0")
    for name in ("src/gatewayx/http/request.pyx", "src/gatewayx/http/request.pyi", "setup.py", "pyproject.toml"):
        (tmp_path / name).write_text(f"# {name}\n")
    return tmp_path


def test_the_tree_has_the_sources_of_its_wheels_or_a_development_version():
    assert sources.conflict() is None


def test_the_wheelhouse_is_whole_and_small():
    root = sources.ROOT / sources.WHEELHOUSE
    if sources.recorded_hash() is None:
        assert not list(root.glob("*.whl"))
        return
    files = [path for path in root.iterdir() if path.suffix in {".whl", ".gz"}]
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == sources.recorded_sums()
    assert sorted(path.name.split("-")[2] for path in files if path.suffix == ".whl") == [
        f"cp3{minor}" for minor in range(10, 15)
    ]
    assert max(path.stat().st_size for path in files) <= MAX_FILE_BYTES
    assert sum(path.stat().st_size for path in root.iterdir()) <= MAX_ALL_BYTES


def test_without_a_wheelhouse_nothing_conflicts_and_no_wheel_is_offered(tree: Path):
    assert sources.conflict(tree) is None
    assert sources.matching_wheel(tree) is None


def test_a_release_offers_its_wheel(tree: Path):
    wheel = release(tree, "1.2.0")
    assert sources.conflict(tree) is None
    assert sources.matching_wheel(tree) == wheel


@pytest.mark.parametrize(
    "changed", ["src/gatewayx/http/request.pyx", "src/gatewayx/http/request.pyi", "setup.py", "pyproject.toml", "new"]
)
def test_a_changed_source_needs_a_development_version_and_gets_no_wheel(tree: Path, changed: str):
    release(tree, "1.2.0")
    path = tree / ("src/gatewayx/new.py" if changed == "new" else changed)
    path.write_text("# another\n")
    assert "no development version" in sources.conflict(tree)
    assert sources.matching_wheel(tree) is None
    set_version(tree, "1.3.0.dev0")
    assert sources.conflict(tree) is None
    assert sources.matching_wheel(tree) is None


def test_the_version_alone_is_no_change_of_the_sources(tree: Path):
    wheel = release(tree, "1.2.0")
    set_version(tree, "1.3.0.dev0")
    assert sources.conflict(tree) is None
    assert sources.matching_wheel(tree) == wheel


def test_a_version_that_is_no_development_version_needs_wheels_of_its_own(tree: Path):
    release(tree, "1.2.0")
    set_version(tree, "1.3.0")
    assert "has no 1.3.0" in sources.conflict(tree)


def test_what_is_built_does_not_count_as_a_source(tree: Path):
    wheel = release(tree, "1.2.0")
    (tree / "src/gatewayx/http/request.cpython-311-x86_64-linux-gnu.so").write_bytes(b"")
    (tree / "src/gatewayx/http/request.c").write_bytes(b"")
    assert sources.matching_wheel(tree) == wheel


def test_a_wheel_that_is_not_the_recorded_one_is_not_offered(tree: Path):
    release(tree, "1.2.0").write_bytes(b"another wheel")
    assert sources.matching_wheel(tree) is None


def test_a_wheel_for_another_python_is_not_offered(tree: Path):
    wheel = release(tree, "1.2.0")
    sums = tree / "wheelhouse/SHA256SUMS"
    other = wheel.rename(wheel.with_name(wheel.name.replace(TAG, "cp39")))
    sums.write_text(sums.read_text().replace(wheel.name, other.name))
    assert sources.matching_wheel(tree) is None
