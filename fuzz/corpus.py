"""The kept inputs of each target: what fuzzing has found worth keeping, one in base64 a line, the shortest first."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

KEPT = Path(__file__).parent / "corpus"


def kept(target: str) -> list[bytes]:
    """The kept inputs of a target."""
    return [base64.b64decode(line, validate=True) for line in (KEPT / f"{target}.txt").read_text().split()]


def keep(target: str, inputs: Iterable[bytes]) -> None:
    """Keep these inputs of a target, and no others."""
    lines = [base64.b64encode(data).decode() for data in sorted(set(inputs), key=lambda data: (len(data), data))]
    (KEPT / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines))
