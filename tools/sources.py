"""The hash of the sources, which the wheelhouse records, and the wheel in it that was built from them.

    python tools/sources.py hash     prints the hash
    python tools/sources.py wheel    prints the wheel for this Python, or nothing

Needs nothing but the standard library: `make demo` asks before anything is installed.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHEELHOUSE = "wheelhouse"
# In the wheelhouse: the hash of the sources of its wheels, and the sums of its files as sha256sum writes them.
RECORD = "SOURCES.sha256"
SUMS = "SHA256SUMS"

# What a wheel is made of; compiled modules and their C sources also lie in src.
SUFFIXES = {".py", ".pyi", ".pyx", ".pxd", ".typed"}
HASHED = ("src", "setup.py", "pyproject.toml")
VERSION_FILE = "src/gatewayx/__init__.py"
VERSION = re.compile(rb'^(__version__ = )"([^"]*)"', re.MULTILINE)


def sources_hash(root: Path = ROOT) -> str:
    """Return the SHA-256, in hexadecimal, of src, setup.py and pyproject.toml; the version does not count."""
    folder, *files = (root / name for name in HASHED)
    paths = [path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()] + files
    total = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in paths):
        content = path.read_bytes()
        if name == VERSION_FILE:
            content = VERSION.sub(rb'\1""', content)
        total.update(f"{name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def version(root: Path = ROOT) -> str:
    """Return the version of the sources; raises LookupError without one."""
    found = VERSION.search((root / VERSION_FILE).read_bytes())
    if found is None:
        raise LookupError(f"{VERSION_FILE} has no __version__")
    return found[2].decode()


def recorded_hash(root: Path = ROOT) -> str | None:
    """Return the hash of the sources of the wheels in the wheelhouse, None without a wheelhouse."""
    record = root / WHEELHOUSE / RECORD
    return record.read_text().strip() if record.exists() else None


def recorded_sums(root: Path = ROOT) -> dict[str, str]:
    """Return the SHA-256 of each file in the wheelhouse by its name, as recorded there."""
    lines = (root / WHEELHOUSE / SUMS).read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def matching_wheel(root: Path = ROOT) -> Path | None:
    """Return the wheel for this Python that was built from the sources as they are, or None.

    A wheel that is not the one which was recorded is not offered.
    """
    if (
        platform.machine() != "x86_64"
        or sys.implementation.name != "cpython"
        or recorded_hash(root) != sources_hash(root)
    ):
        return None
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    for name, digest in recorded_sums(root).items():
        wheel = root / WHEELHOUSE / name
        if f"-{tag}-{tag}-" in name and wheel.exists() and hashlib.sha256(wheel.read_bytes()).hexdigest() == digest:
            return wheel
    return None


def conflict(root: Path = ROOT) -> str | None:
    """Return how two different builds would share a version, None if they cannot.

    The sources of a version whose wheels are in the wheelhouse do not change: the first change makes it a development
    version (PEP 440: `.devN`), which is never released.
    """
    recorded = recorded_hash(root)
    if recorded is None or ".dev" in version(root):
        return None
    if recorded != sources_hash(root):
        return (
            f"the sources are not those of the wheels in {WHEELHOUSE}/, and {version(root)} is no development version"
        )
    others = [name for name in recorded_sums(root) if f"-{version(root)}-" not in name.replace(".tar.gz", "-")]
    return f"{WHEELHOUSE}/ has no {version(root)} but {others}" if others else None


if __name__ == "__main__":
    if sys.argv[1:] == ["hash"]:
        print(sources_hash())
    elif sys.argv[1:] == ["wheel"]:
        print(matching_wheel() or "")
    else:
        sys.exit(__doc__)
