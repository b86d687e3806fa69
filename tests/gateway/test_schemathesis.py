"""schemathesis asks for all that the OpenAPI document has, and for what it has not, and looks at the answers."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from support.gateway import running_gateway
from support.tools import without_sanitizer

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parent.parent / "support" / "schemathesis"
# It takes a few seconds, and on a slow build a minute.
RUN_S = 280.0
# A job for which there is a worker ends at once.
BOUNDS = {"function": ("echo", "reverse"), "job_timeout_s": 10.0, "kept_timeout_s": 10.0, "kept_ttl_s": 5.0}


async def test_the_gateway_answers_as_its_document_says(embedded, samples, tmp_path):
    async with running_gateway([embedded.address], **BOUNDS) as gateway:
        url = "http://{}:{}".format(*gateway.address)
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(FOLDER / "schemathesis.toml")),
            *("run", f"{url}/v1/openapi.json", "--url", url),
            cwd=tmp_path,
            env={**without_sanitizer(), "PYTHONPATH": os.pathsep.join([str(FOLDER), str(FOLDER.parent.parent)])},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), RUN_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, said.decode()
