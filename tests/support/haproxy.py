"""A real HAProxy in front of a gateway, by PROXY headers."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from gatewayx.net.ports import accepts
from support.gearmand import die_with_parent
from support.nginx import changed
from support.ports import free_port
from support.tools import without_sanitizer

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "proxies.md"
START_S = 90.0
POLL_S = 0.02

# A check that is late in the time between two of them has failed, as its connection must be there by then.
DEFAULTS = """
defaults
    timeout connect 90s
    timeout client 90s
    timeout server 90s
    timeout check 90s
    default-server inter 90s fall 1 rise 1
"""


def example() -> str:
    """The configuration in the document."""
    return DOCUMENT.read_text(encoding="utf-8").partition("HAProxy, which passes")[2].split("```\n")[1]


def changed_example(gateway: tuple[str, int], port: int, options: Mapping[str, str]) -> str:
    """The same, in front of this gateway and at this port; options: what stands there to what does instead."""
    text = example()
    for old, new in options.items():
        text = changed(text, old, new)
    text = changed(text, "10.0.0.5:8443", "{}:{}".format(*gateway))
    return changed(text, "bind :443", f"bind 127.0.0.1:{port}")


@contextlib.contextmanager
def running_haproxy(
    folder: Path, gateway: tuple[str, int], options: Mapping[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    """The address of an HAProxy in front of the gateway. It blocks for a moment.

    options: what of its configuration is otherwise, as text by what stands there.
    """
    binary = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise FileNotFoundError("HAProxy is not installed (Debian: haproxy)")
    port = free_port()
    configuration = folder / "haproxy.cfg"
    configuration.write_text(DEFAULTS + changed_example(gateway, port, options or {}), encoding="utf-8")
    with (folder / "haproxy.log").open("w") as log:
        process = subprocess.Popen(
            [binary, "-db", "-f", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=without_sanitizer(),
            preexec_fn=die_with_parent,
        )
    try:
        ends_s = time.monotonic() + START_S
        while not accepts("127.0.0.1", port, START_S):
            if process.poll() is not None or time.monotonic() > ends_s:
                raise AssertionError((folder / "haproxy.log").read_text())
            time.sleep(POLL_S)
        yield ("127.0.0.1", port)
    finally:
        process.kill()
        process.wait()
