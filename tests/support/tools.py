"""Runs libgearman's command-line tools."""

from __future__ import annotations

import asyncio
import os
import subprocess

from support.gearmand import die_with_parent

TIMEOUT_S = 60.0


async def run_tool(name: str, port: int, *arguments: str, stdin: bytes | None = None) -> tuple[int, bytes]:
    """Exit code and output of `gearman` or `gearadmin` against 127.0.0.1; `stdin` for one that reads it to the end."""
    process = await asyncio.create_subprocess_exec(
        name,
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        *arguments,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=die_with_parent,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(stdin), TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output


def without_sanitizer() -> dict[str, str]:
    """The environment for a process whose memory is measured: the sanitizer's allocator keeps what was freed.

    The path goes too, since the modules that lie on it cannot be loaded without the sanitizer.
    """
    left_out = ("LD_PRELOAD", "PYTHONMALLOC", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name not in left_out}
