"""A real nginx in front of a gateway, configured as docs/operations.md and docs/proxies.md say."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from support.gearmand import die_with_parent
from support.ports import free_port
from support.tools import without_sanitizer

DOCUMENTS = Path(__file__).parent.parent.parent / "docs"
# Where Debian has it; nginx may also have been built with it inside.
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
START_S = 90.0
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

AROUND_STREAM = """
{modules}
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
{user}
events {{}}
{example}
"""


def example() -> str:
    """The configuration in the document."""
    text = (DOCUMENTS / "operations.md").read_text(encoding="utf-8")
    return text.partition("For nginx:\n\n```\n")[2].partition("```")[0]


def stream_example() -> str:
    """The one that passes bytes on behind PROXY headers."""
    text = (DOCUMENTS / "proxies.md").read_text(encoding="utf-8")
    return text.partition("which sends version 1:\n\n```\n")[2].partition("```")[0]


def changed(text: str, old: str, new: str) -> str:
    """The text with a part replaced that it must have."""
    assert old in text, old
    return text.replace(old, new)


@contextlib.contextmanager
def running_nginx(folder: Path, gateway: tuple[str, int], proxy_pass: str = "http://gatewayx") -> Iterator[int]:
    """The port of an nginx in front of the gateway. proxy_pass: instead of the document's. It blocks for a moment."""
    port = free_port()
    text = changed(example(), "127.0.0.1:8080", "{}:{}".format(*gateway))
    # It has no certificate; what it says to the gateway is the same.
    text = changed(text, "listen 443 ssl;", f"listen 127.0.0.1:{port};")
    text = changed(text, "proxy_pass http://gatewayx;", f"proxy_pass {proxy_pass};")
    with _running(folder, AROUND.format(folder=folder, user=_user(), example=text)):
        yield port


@contextlib.contextmanager
def running_stream_nginx(folder: Path, gateway: tuple[str, int]) -> Iterator[int]:
    """The port of an nginx that passes connections on to the gateway, behind PROXY headers. It blocks for a moment."""
    port = free_port()
    text = changed(stream_example(), "10.0.0.5:8443", "{}:{}".format(*gateway))
    text = changed(text, "listen 443;", f"listen 127.0.0.1:{port};")
    modules = f"load_module {STREAM_MODULE};" if STREAM_MODULE.exists() else ""
    with _running(folder, AROUND_STREAM.format(modules=modules, folder=folder, user=_user(), example=text)):
        yield port


def _user() -> str:
    return "user root;" if os.geteuid() == 0 else ""


@contextlib.contextmanager
def _running(folder: Path, text: str) -> Iterator[None]:
    binary = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise FileNotFoundError("nginx is not installed (Debian: nginx-light)")
    configuration = folder / "nginx.conf"
    configuration.write_text(text)
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
        yield
    finally:
        # Its worker processes end with it, as they do not when it is killed.
        process.terminate()
        process.wait()
