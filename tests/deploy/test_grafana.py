"""The dashboard: what of Grafana's model can be checked without Grafana, and its queries, which promtool reads."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import yaml

from support.deployed import DEPLOY, run_quietly

DASHBOARD = json.loads((DEPLOY / "grafana" / "gatewayx.json").read_text(encoding="utf-8"))
PANELS = DASHBOARD["panels"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What Grafana puts in for its own variables.
FILLED = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*", "$function": ".*"}


def queries() -> list[str]:
    """The expressions of all panels and annotations."""
    found = [target["expr"] for panel in PANELS for target in panel.get("targets", [])]
    return found + [shown["expr"] for shown in DASHBOARD["annotations"]["list"] if "expr" in shown]


def test_it_can_be_imported_anywhere():
    # Grafana gives it a number of its own, and asks for the data source by the variable.
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"] == "gatewayx"
    assert DASHBOARD["title"]
    assert DASHBOARD["schemaVersion"] == 39
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"
    assert list(VARIABLES) == ["datasource", "job", "instance", "function"]
    sources = [panel["datasource"] for panel in PANELS if panel["type"] != "row"]
    sources += [target["datasource"] for panel in PANELS for target in panel.get("targets", [])]
    sources += [variable["datasource"] for variable in VARIABLES.values() if variable["type"] == "query"]
    assert all(source == SOURCE for source in sources)


def test_each_panel_is_one_that_grafana_has_with_a_place_of_its_own():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS) > 30
    assert {panel["type"] for panel in PANELS} == {"row", "stat", "table", "timeseries"}
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert panel["title"]
        assert place["x"] + place["w"] <= COLUMNS
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not cells & taken, panel["title"]
        taken |= cells


def test_each_panel_has_queries_with_letters_of_their_own():
    for panel in PANELS:
        letters = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(letters)) == len(letters)
        assert bool(letters) == (panel["type"] != "row"), panel["title"]


def test_prometheus_reads_each_query(tmp_path: Path):
    rules = []
    for number, query in enumerate(queries()):
        for variable, value in FILLED.items():
            query = query.replace(variable, value)
        assert "$" not in query
        rules.append({"record": f"query:{number}", "expr": query})
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    assert f"SUCCESS: {len(rules)} rules found" in run_quietly("promtool", "check", "rules", tmp_path / "queries.yml")


def test_each_query_is_of_what_was_chosen_above():
    for query in queries():
        selectors = re.findall(r"\w+\{([^}]*)\}", query)
        assert selectors
        for selector in selectors:
            assert selector.startswith('job=~"$job", instance=~"$instance"'), query
