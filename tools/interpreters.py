"""Finds a CPython of a given version on this machine, or unpacks one from Debian into build/interpreters.

An unpacked one runs with the C library of its own release, which it is told with patchelf; nothing is installed. What
is compiled for it is compiled by this machine's compiler against this machine's C library: of the unpacked files only
Python's headers are used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNPACKED = ROOT / "build" / "interpreters"

# The Debian release that has each version; 3.10 and 3.12 were never in one that is still updated.
RELEASES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "sid"}
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# Whether an interpreter can build wheels: CPython with the GIL and with headers. Prints its whole version.
PROBE = """
import pathlib, platform, sys, sysconfig, venv
assert sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
assert pathlib.Path(sysconfig.get_path("include"), "Python.h").exists()
print(platform.python_version())
"""


class InterpreterError(Exception):
    """No interpreter of the version is here, and none could be unpacked."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that can build wheels. `origin` says for a reader where it is from."""

    path: Path
    version: str
    origin: str
    compiler_environment: dict[str, str]


def _version(path: Path) -> str | None:
    """Return the whole version of the interpreter at `path`, None if it cannot build wheels."""
    try:
        process = subprocess.run([path, "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        # Its own loader is not there: the folder has moved since it was unpacked.
        return None
    return process.stdout.strip() if process.returncode == 0 else None


def _on_this_machine(version: str) -> Interpreter | None:
    """Return the first usable interpreter of `version` on the PATH or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    installed = sorted(pyenv.glob(f"{version}.*/bin"), key=lambda folder: (len(str(folder)), folder), reverse=True)
    folders = [Path(folder) for folder in os.get_exec_path()] + installed
    for folder in folders:
        path = folder / f"python{version}"
        found = _version(path) if path.exists() else None
        if found is not None and found.startswith(f"{version}."):
            return Interpreter(path, found, "of the machine", {})
    return None


def _unpack(version: str, release: str, root: Path) -> None:
    """Unpack python`version` of the Debian `release`, all that it needs, and its headers, into `root`."""
    apt = root / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {release} main\n")
    (apt / "apt.conf").write_text(
        f'Dir::Etc::SourceList "{apt}/sources.list"; Dir::Etc::SourceParts "-";\n'
        f'Dir::State::Lists "{apt}/lists"; Dir::State::status "{apt}/status"; Dir::Cache "{apt}/cache";\n'
        'APT::Architecture "amd64"; APT::Sandbox::User "root"; Acquire::Languages "none";\n'
        'APT::Install-Recommends "false";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(apt / "apt.conf"), "LC_ALL": "C"}

    def run(*command: str) -> str:
        return subprocess.run(
            command, env=environment, cwd=apt / "cache", check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    run("apt-get", "-qq", "update")
    plan = run("apt-get", "--simulate", "install", f"python{version}")
    needed = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    # The headers alone: with what that package needs the C library's headers of `release` would come.
    run("apt-get", "-qq", "download", *needed, f"libpython{version}-dev")
    for package in (apt / "cache").glob("*.deb"):
        run("dpkg-deb", "--extract", str(package), str(root))
    shutil.rmtree(apt)
    interpreter = root / "usr/bin" / f"python{version}"
    loader = next(path for path in (root / "usr/lib64", root / "lib64") if path.is_dir()) / "ld-linux-x86-64.so.2"
    libraries = f"{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu"
    # DT_RPATH also holds for the libraries that the standard library's modules load.
    subprocess.run(
        ["patchelf", "--set-interpreter", loader, "--force-rpath", "--set-rpath", libraries, interpreter], check=True
    )


def find(version: str) -> Interpreter:
    """Return an interpreter of `version` ("3.14"); raises InterpreterError if there is none to be had."""
    found = _on_this_machine(version)
    if found is not None:
        return found
    release = RELEASES.get(version)
    if release is None:
        raise InterpreterError(f"no python{version} with headers here, and no Debian release to unpack it from")
    root = UNPACKED / version
    path = root / "usr/bin" / f"python{version}"
    whole = _version(path) if path.exists() else None
    if whole is None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        try:
            _unpack(version, release, root)
        except (OSError, subprocess.CalledProcessError, StopIteration) as error:
            raise InterpreterError(f"python{version} could not be unpacked from Debian {release}: {error}") from error
        whole = _version(path)
    if whole is None:
        raise InterpreterError(f"python{version} of Debian {release} does not run from {root}")
    headers = {"CC": "gcc", "LDSHARED": "gcc -shared", "CPPFLAGS": f"-I{root}/usr/include"}
    return Interpreter(path, whole, f"of Debian {release}, unpacked into a folder of its own", headers)


if __name__ == "__main__":
    import sys

    for wanted in sys.argv[1:]:
        print(find(wanted))
