"""Builds the Cython modules; everything else about the package is in pyproject.toml.

CFLAGS and LDFLAGS in the environment replace optimization and debug flags (sanitizers, debug symbols).
GATEWAYX_BUILD=quick compiles in half the time, into a folder of its own: for a first look, not for measurements.
GATEWAYX_BUILD=checked compiles with checks of indexes and for None where an object is used, which are errors then and
wrong memory otherwise: for the sanitizers and the fuzzer.
GATEWAYX_BUILD=none compiles nothing: for an editable installation of modules that were compiled in place, which
setuptools would compile once more into a folder that it throws away.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

BUILD = os.environ.get("GATEWAYX_BUILD")
QUICK = BUILD == "quick"
CHECKED = BUILD == "checked"

# Stated once for every module of the data path.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": CHECKED,
    "nonecheck": CHECKED,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": CHECKED,
    # Plain built-in functions, whose signatures `inspect` reads from their text where it can: with functions that look
    # as Python's do, and with pickling, the modules are 1.4 times as large.
    "binding": False,
    "embedsignature": True,
    "embedsignature.format": "clinic",
    "auto_pickle": False,
}

COMPILER_FLAGS = ["-fno-strict-overflow", "-Wno-unused-function"]

# Where a request spends its time.
DATA_PATH = {"gateway", "gearman", "http"}

PROCESSORS = len(os.sched_getaffinity(0))
C_SOURCES = Path("build/checked" if CHECKED else "build/cython")


def optimization(path: Path) -> list[str]:
    """Return the flags for one .pyx."""
    if "CFLAGS" in os.environ:
        return []
    level = "-O2"
    if QUICK:
        level = "-O1" if path.parent.name in DATA_PATH else "-O0"
    # Python's own flags hold -g, which makes the modules several times as large.
    return [level, "-g0"]


def extensions() -> list[Extension]:
    """Return one extension for each .pyx, the largest first: beginning last it would be waited for."""
    if BUILD == "none":
        return []
    return [
        Extension(
            ".".join(path.with_suffix("").parts[1:]),
            [str(path)],
            extra_compile_args=COMPILER_FLAGS + optimization(path),
        )
        for path in sorted(Path("src").rglob("*.pyx"), key=lambda path: path.stat().st_size, reverse=True)
    ]


def written_before_this_file() -> bool:
    """Return whether a C source is from before the last change here, of which cythonize knows nothing."""
    changed_s = Path(__file__).stat().st_mtime
    paths = [C_SOURCES / path.with_suffix(".c") for path in Path("src").rglob("*.pyx")]
    return any(path.exists() and path.stat().st_mtime < changed_s for path in paths)


def main() -> None:
    """Run what setuptools was asked for."""
    options = {"build_ext": {"parallel": PROCESSORS}}
    if QUICK:
        options["build"] = {"build_base": "build/quick"}
    setup(
        ext_modules=cythonize(
            extensions(),
            compiler_directives=DIRECTIVES,
            build_dir=str(C_SOURCES),
            force=written_before_this_file(),
            nthreads=PROCESSORS,
        ),
        options=options,
    )


# Cython's processes import this file where they are not forks of this one, as with Python 3.14.
if __name__ == "__main__":
    main()
