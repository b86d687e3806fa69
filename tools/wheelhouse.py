"""Builds the sdist and, from it, a wheel for each Python into wheelhouse/, and tries each wheel before it counts.

Run by `make wheelhouse`. What is in wheelhouse/ is replaced at the end, when all of them have passed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path

from tools import interpreters, sources
from tools.interpreters import Interpreter

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# The C library of 2012 and everything since; what the wheels of uvloop and httptools ask for too.
PLATFORM = "manylinux_2_17_x86_64"

# The wheels lie in the repository for good, so they are small.
MAX_FILE_BYTES = 2 * 1024 * 1024
MAX_ALL_BYTES = 11 * 1024 * 1024

# What setup.py and the compiler would read from the environment: every wheel is built alike.
CHANGES_THE_BUILD = {"CC", "CFLAGS", "CPPFLAGS", "GATEWAYX_BUILD", "LDFLAGS", "LDSHARED"}

BUILD = sources.ROOT / "build" / "wheelhouse"
FINISHED = BUILD / "finished"
TRIAL_START_S = 20.0
# A command that has not ended by then hangs; to compile everything takes a few minutes.
MAX_COMMAND_S = 1200.0

README = """# Wheels of gatewayx {version}

For CPython 3.10 to 3.14 on x86_64 Linux with a C library of 2012 or later (glibc 2.17), and the sdist that they were
built from. Install the one for your Python by its file: a bare name would be looked for in the public index, where it
is not ours.

    pip install wheelhouse/gatewayx-{version}-cp311-cp311-{tag}.whl

## How they were made

`make wheelhouse` built the sdist, then each wheel from it, with {compiler} against {c_library}, Cython
{cython} and setuptools {setuptools}. `auditwheel repair` found no symbol newer than {platform} and no foreign
library.

| wheel for | built and tried with | size |
|---|---|---|
{rows}

Each was installed into an empty environment and ran there without a compiler or any other program on the path:
`gatewayx --version`, `check`, `serve` in front of {gearmand} with a request answered by its worker, and `bench demo`.

## How to check them

    (cd wheelhouse && sha256sum --check {sums})   # the files are those that were built
    python3 tools/sources.py hash                     # is {record} while the sources are theirs

The hash covers `src`, `setup.py` and `pyproject.toml` but for the version. `make wheelhouse` builds them anew.
"""


def run(*command: str | Path, **options: object) -> str:
    """Run a command, which must succeed, and return what it prints."""
    return subprocess.run(  # type: ignore[call-overload]
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=MAX_COMMAND_S, **options
    ).stdout


def environment(interpreter: Interpreter, folder: Path, *requirements: str | Path) -> Path:
    """Make an empty environment and install wheels into it; return its interpreter."""
    run(interpreter.path, "-m", "venv", "--clear", "--without-pip", folder)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--only-binary", ":all:")
    run(*pip, *requirements)
    return python


def build_sdist() -> Path:
    """Build the sdist; return it and leave it unpacked in BUILD."""
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", FINISHED, cwd=sources.ROOT)
    (sdist,) = FINISHED.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(BUILD, filter="data") if sys.version_info >= (3, 12) else archive.extractall(BUILD)
    return sdist


def build_wheel(interpreter: Interpreter, tree: Path) -> Path:
    """Build the wheel of the unpacked sdist for one Python; return it."""
    tag = "cp" + "".join(interpreter.version.split(".")[:2])
    build_requirements = [f"{name}=={installed(name)}" for name in ("setuptools", "Cython")]
    python = environment(interpreter, BUILD / f"build-{tag}", *build_requirements)
    raw = BUILD / "raw"
    inherited = {name: value for name, value in os.environ.items() if name not in CHANGES_THE_BUILD}
    run(
        python, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", raw, cwd=tree,
        env=inherited | interpreter.compiler_environment,
    )  # fmt: skip
    (wheel,) = raw.glob(f"*-{tag}-{tag}-*.whl")
    run("auditwheel", "repair", "--strip", "--plat", PLATFORM, "--wheel-dir", FINISHED, wheel)
    (repaired,) = FINISHED.glob(f"*-{tag}-{tag}-*.whl")
    return repaired


def installed(name: str) -> str:
    """Return the version of an installed distribution."""
    from importlib.metadata import version

    return version(name)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answer(port: int) -> bytes:
    """Return the answer to a request of the gateway on `port`; raises OSError if there is none in time."""
    deadline = time.monotonic() + TRIAL_START_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/echo", b"a workload", timeout=5) as response:
                return bytes(response.read())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def try_wheel(interpreter: Interpreter, wheel: Path) -> None:
    """Run what a wheel has to do in an empty environment; raises CalledProcessError, OSError or AssertionError."""
    with tempfile.TemporaryDirectory() as folder:
        python = environment(interpreter, Path(folder, "venv"), wheel)
        gatewayx = python.parent / "gatewayx"
        clean = {"env": {"PATH": str(python.parent)}, "cwd": folder}
        assert run(gatewayx, "--version", **clean).split()[-1] == sources.version()
        run(gatewayx, "check", **clean)
        run(gatewayx, "bench", "demo", "--duration", "1", **clean)
        gearman_port, port = free_port(), free_port()
        gearmand = ["gearmand", "-L", "127.0.0.1", "-p", str(gearman_port), "-l", "stderr"]
        worker = ["gearman", "-w", "-h", "127.0.0.1", "-p", str(gearman_port), "-f", "echo", "cat"]
        serve = [gatewayx, "serve", "--listen", f"127.0.0.1:{port}", "--server", f"127.0.0.1:{gearman_port}"]
        processes = [subprocess.Popen(gearmand, stderr=subprocess.DEVNULL)]
        try:
            while socket.socket().connect_ex(("127.0.0.1", gearman_port)):
                assert processes[0].poll() is None
                time.sleep(0.05)
            processes.append(subprocess.Popen(worker))
            processes.append(subprocess.Popen(serve, stderr=subprocess.DEVNULL, **clean))  # type: ignore[call-overload]
            assert answer(port) == b"a workload"
            processes[-1].terminate()
            assert processes[-1].wait(10) == 0
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()


def write_records(rows: list[str]) -> None:
    """Write the sums, the hash of the sources and the README beside the wheels."""
    files = sorted(FINISHED.iterdir())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (FINISHED / sources.SUMS).write_text("".join(sums))
    (FINISHED / sources.RECORD).write_text(sources.sources_hash() + "\n")
    text = README.format(
        version=sources.version(),
        tag=next(path.name for path in files if "cp311" in path.name).removesuffix(".whl").split("-")[-1],
        platform=PLATFORM,
        compiler=run("gcc", "--version").splitlines()[0],
        c_library=run("ldd", "--version").splitlines()[0].removeprefix("ldd "),
        cython=installed("Cython"),
        setuptools=installed("setuptools"),
        rows="\n".join(rows),
        gearmand=run("gearmand", "--version").split(" - ")[0].strip(),
        sums=sources.SUMS,
        record=sources.RECORD,
    )
    (FINISHED / "README.md").write_text(text)


def main() -> None:
    """Build and try everything; exits with a message if one Python is not to be had or one wheel fails."""
    shutil.rmtree(BUILD, ignore_errors=True)
    FINISHED.mkdir(parents=True)
    try:
        found = [interpreters.find(version) for version in VERSIONS]
    except interpreters.InterpreterError as error:
        sys.exit(str(error))
    unknown = run("git", "ls-files", "--others", "--exclude-standard", *sources.HASHED, cwd=sources.ROOT).split()
    if unknown:
        sys.exit(f"a clone would not have {unknown[0]}: commit or remove it first")
    before = sources.sources_hash()
    sdist = build_sdist()
    tree = BUILD / sdist.name.removesuffix(".tar.gz")
    # What is compiled is what the hash says.
    assert sources.sources_hash(tree) == before, "the sdist has not the sources of the tree"
    rows = []
    for interpreter in found:
        wheel = build_wheel(interpreter, tree)
        try_wheel(interpreter, wheel)
        size_bytes = wheel.stat().st_size
        version = ".".join(interpreter.version.split(".")[:2])
        rows.append(f"| CPython {version} | {interpreter.version} {interpreter.origin} | {size_bytes / 1e6:.2f} MB |")
        print(f"{wheel.name}: built with Python {interpreter.version} {interpreter.origin}, and tried", flush=True)
    assert sources.sources_hash() == before, "the sources have changed meanwhile"
    write_records(rows)
    sizes_bytes = {path.name: path.stat().st_size for path in FINISHED.iterdir()}
    assert max(sizes_bytes.values()) <= MAX_FILE_BYTES, sizes_bytes
    assert sum(sizes_bytes.values()) <= MAX_ALL_BYTES, sizes_bytes
    target = sources.ROOT / sources.WHEELHOUSE
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(FINISHED, target)


if __name__ == "__main__":
    main()
