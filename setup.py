"""Builds the Cython modules; everything else about the package is in pyproject.toml.

CFLAGS and LDFLAGS in the environment replace optimization and debug flags (sanitizers, debug symbols).
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

# Stated once for every module of the data path.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": True,
}

COMPILER_FLAGS = ["-fno-strict-overflow", "-Wno-unused-function"]
if "CFLAGS" not in os.environ:
    # Python's own flags hold -g, which makes the modules several times as large.
    COMPILER_FLAGS += ["-O2", "-g0"]


def extensions() -> list[Extension]:
    """Return one extension for each .pyx."""
    return [
        Extension(
            ".".join(path.with_suffix("").parts[1:]),
            [str(path)],
            extra_compile_args=COMPILER_FLAGS,
        )
        for path in sorted(Path("src").rglob("*.pyx"))
    ]


setup(
    ext_modules=cythonize(
        extensions(),
        compiler_directives=DIRECTIVES,
        build_dir="build/cython",
        nthreads=os.cpu_count() or 1,
    )
)
