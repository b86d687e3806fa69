"""A real nginx in front of a gateway, configured as docs/operations.md says."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from gatewayx.net.ports import free_port
from support.gearmand import die_with_parent
from support.tools import without_sanitizer

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "operations.md"
START_S = 20.0
POLL_S = 0.02

AROUND = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {example}
}}
"""


def example() -> str:
    """The configuration in the document."""
    return DOCUMENT.read_text(encoding="utf-8").partition("For nginx:\n\n```\n")[2].partition("```")[0]


def changed(text: str, old: str, new: str) -> str:
    """The text with a part replaced that it must have."""
    assert old in text, old
    return text.replace(old, new)


@contextlib.contextmanager
def running_nginx(folder: Path, gateway: tuple[str, int], proxy_pass: str = "http://gatewayx") -> Iterator[int]:
    """The port of an nginx in front of the gateway. proxy_pass: instead of the document's. It blocks for a moment."""
    binary = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise FileNotFoundError("nginx is not installed (Debian: nginx-light)")
    port = free_port()
    text = changed(example(), "127.0.0.1:8080", "{}:{}".format(*gateway))
    # It has no certificate; what it says to the gateway is the same.
    text = changed(text, "listen 443 ssl;", f"listen 127.0.0.1:{port};")
    text = changed(text, "proxy_pass http://gatewayx;", f"proxy_pass {proxy_pass};")
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(AROUND.format(folder=folder, user=user, example=text))
    process = subprocess.Popen(
        [binary, "-p", str(folder), "-c", str(configuration), "-e", str(folder / "error.log")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=without_sanitizer(),
        preexec_fn=die_with_parent,
    )
    try:
        ends_s = time.monotonic() + START_S
        while not (folder / "pid").exists():
            if process.poll() is not None or time.monotonic() > ends_s:
                raise AssertionError((folder / "error.log").read_text())
            time.sleep(POLL_S)
        yield port
    finally:
        # Its worker processes end with it, as they do not when it is killed.
        process.terminate()
        process.wait()
