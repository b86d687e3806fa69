"""What the documents print below a command is what it prints."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from msgspec import structs

from gatewayx.embedded.sample_functions import FUNCTIONS
from gatewayx.embedded.worker import Worker
from support.examples import Example, Reader, examples_of
from support.gateway import running_gateway
from support.http import ask, head

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/http-api.md")


def settings_of(text: str) -> dict[str, object]:
    """Settings as a document says them: fields of Settings, which are whole numbers."""
    return {name: int(value) for name, _, value in (part.partition("=") for part in text.split())}


@pytest.mark.parametrize("page", PAGES)
async def test_every_example_prints_what_the_page_says(page, embedded):
    text = (ROOT / page).read_text(encoding="utf-8")
    examples = list(examples_of(text))
    assert len(examples) == len(re.findall(r"^\$ ", text, re.MULTILINE)) > 0
    # Those of the gateway that the page speaks of, which goes on, and then those of others.
    examples.sort(key=lambda example: example.settings)
    for settings, group in itertools.groupby(examples, key=lambda example: example.settings):
        async with running_gateway([embedded.address], **settings_of(settings)) as gateway:
            worker = Worker(embedded.address, FUNCTIONS)
            await worker.start()
            reader = Reader(gateway.address)
            for example in group:
                printed = await reader.tries(example)
                assert printed is None, f"$ {example.command}\n{printed}\n\nbut the page says\n\n{example.printed}"
            for job_id in reader.jobs:
                await ask(gateway.address, head(b"DELETE", b"/v1/jobs/" + job_id.encode()))
            # And the answers that keys have.
            await gateway.process.reconfigure(structs.replace(gateway.process.settings, kept_ttl_s=0.01))
            await worker.close()


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("a\nb", "a\nb"),
        ("a\nb\nc\nd", "a\n...\nd"),
        ("a\nd", "a\n...\nd"),
        ('{"a":1,"b":2}', '{"a":1,...}'),
        ("H:vm:7 gatewayx-abcdefghij2345672345-00000000000012", "H:host:3 gatewayx-5xcigtvbpd2tuwnvadco-3"),
    ],
)
async def test_what_stands_for_other_text_is_that(printed, told):
    assert await Reader(("", 0)).tries(Example("", f"printf '%s' '{printed}' # -X ", told)) is None


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("a\nc", "a\nb"),
        ("a\nd\n", "a\n...\nc"),
        ('{"a":1}\n', '{"a":2,...}'),
        ("H:vm:7", "G:host:3"),
        ("k" + 40 * "a" + " k" + 40 * "b", "k" + 40 * "c" + " k" + 40 * "c"),
    ],
)
async def test_what_is_not_as_told_is_found(printed, told):
    assert await Reader(("", 0)).tries(Example("", f"printf '%s' '{printed}' # -X ", told)) is not None
