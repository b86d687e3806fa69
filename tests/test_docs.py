"""What the documents say of the tests is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("document", ["delivery.md", "threat-model.md"])
def test_every_test_that_a_document_names_exists(document: str) -> None:
    named = set(re.findall(r"\b(test_\w+)\b(?!\.py)", (ROOT / "docs" / document).read_text()))
    defined = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        defined |= set(re.findall(r"def (test_\w+)\(", path.read_text())) | {path.stem}

    assert named
    assert sorted(named - defined) == []
