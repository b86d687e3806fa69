"""docs/admin.md tells of every metric, every field of the status and every check, and of no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gatewayx.admin import status
from gatewayx.admin.checks import CHECKS
from gatewayx.admin.metrics import GatewayFamilies
from gatewayx.admin.request_metrics import RequestFamilies
from gatewayx.admin.view import RESTART_REASONS, WORKER_STATES
from support.rows import BOUNDS_S, OUTCOMES, Rows
from support.views import view

PAGE = (Path(__file__).parents[2] / "docs" / "admin.md").read_text(encoding="utf-8")


def rows_of(section: str) -> list[list[str]]:
    """The cells of all tables below a heading."""
    text = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    [found] = [part for part in text if part.startswith(f"{section}\n")]
    return [
        [cell.strip() for cell in line.replace("\\|", "/").split("|")[1:-1]]
        for line in found.splitlines()
        if line.startswith("| `")
    ]


def fields(document: object, path: str = "") -> Iterator[str]:
    """The path of every value of a document."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield from fields(value, f"{path}.{name}".lstrip("."))
    elif isinstance(document, list):
        assert document, f"nothing in {path}"
        for value in document:
            yield from fields(value, f"{path}[]")
    else:
        yield path


def test_every_field_of_the_status_is_told_of():
    told = [row[0].strip("`") for row in rows_of("Status")]
    assert len(set(told)) == len(told)
    assert set(told) == set(fields(status.document(view())))


def test_every_metric_is_told_of_with_its_type_and_labels():
    families = [
        *GatewayFamilies(view).families(),
        *RequestFamilies(Rows(b"resize"), OUTCOMES, BOUNDS_S).families(),
    ]
    exported = {}
    for family in families:
        metric = family.metric
        samples = [*metric.samples, *(sample for part in family.parts for sample in part.make().samples)]
        assert samples, metric.name
        labels = {label for sample in samples for label in sample.labels} - {"le"}
        exported[metric.name + "_total" * (metric.type == "counter")] = (metric.type, labels)

    told = {
        row[0].strip("`"): (row[1], {label.strip(" `") for label in row[2].split(",") if label})
        for row in rows_of("Metrics")
    }
    assert told == exported


def test_every_check_is_told_of():
    told = [(row[1].strip("`/"), row[0].strip("`")) for row in rows_of("Health")]
    assert told == [(endpoint, name) for endpoint, names in CHECKS.items() for name in names]


def test_every_state_and_reason_is_told_of():
    cells = {row[0].strip("`"): row[1] for row in rows_of("Status")}
    assert set(WORKER_STATES) <= set(re.findall(r"`(\w+)`", cells["workers[].state"]))
    assert {name.rpartition(".")[2] for name in cells if "by_reason" in name} == set(RESTART_REASONS)
