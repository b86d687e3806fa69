"""The alerts and the scrape configuration: read and run by promtool, each alert seen to fire and to be silent."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from support.deployed import DEPLOY, ROOT, run_quietly

PROMETHEUS = DEPLOY / "prometheus"
ALERTS = PROMETHEUS / "alerts.yml"
ALERTS_TEST = PROMETHEUS / "alerts_test.yml"
SEVERITIES = {"critical", "warning"}

RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


def test_promtool_reads_the_alerts_and_the_configuration():
    assert "SUCCESS" in run_quietly("promtool", "check", "rules", ALERTS)
    assert "SUCCESS: 1 rule files found" in run_quietly("promtool", "check", "config", PROMETHEUS / "prometheus.yml")


def test_the_alerts_pass_their_tests():
    assert "SUCCESS" in run_quietly("promtool", "test", "rules", ALERTS_TEST.name, cwd=PROMETHEUS)


@every_rule
def test_each_alert_fires_in_a_test_and_is_silent_in_others(rule):
    expected: dict[str, list[bool]] = {}
    for test in yaml.safe_load(ALERTS_TEST.read_text())["tests"]:
        for case in test["alert_rule_test"]:
            if case["alertname"] == rule["alert"]:
                expected.setdefault(test["name"], []).append(bool(case["exp_alerts"]))

    # Never while all is well; in its own trouble not at once, as far as it shall wait.
    assert expected == {"all is well": [False, False], rule["alert"]: [False, True]}


def test_alerts_that_never_fire_fail_the_tests(tmp_path: Path):
    shutil.copy(ALERTS_TEST, tmp_path)
    text = re.sub(r"^ +for: \w+\n", "", ALERTS.read_text(), flags=re.MULTILINE)
    (tmp_path / ALERTS.name).write_text(text.replace("        labels:", "        for: 9h\n        labels:"))

    with pytest.raises(AssertionError) as failed:
        run_quietly("promtool", "test", "rules", ALERTS_TEST.name, cwd=tmp_path)

    assert set(re.findall(r"alertname: (\w+), time", str(failed.value))) == {rule["alert"] for rule in RULES}


@every_rule
def test_each_alert_says_how_bad_it_is_and_where_to_read_on(rule):
    assert rule["labels"]["severity"] in SEVERITIES
    assert rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor == rule["alert"].lower()
    assert f"### {rule['alert']}\n" in (ROOT / page).read_text()


def test_the_page_tells_of_no_alert_that_is_not_there():
    told = re.findall(r"^### ((?:Gatewayx|Gearman)\w+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)

    assert told == [rule["alert"] for rule in RULES]


def test_what_is_down_is_found_under_the_name_of_the_job_that_is_scraped():
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    scraped = {scrape["job_name"] for scrape in configuration["scrape_configs"]}
    asked_for = {job for rule in RULES for job in re.findall(r'job="([^"]+)"', rule["expr"])}

    assert asked_for == scraped == {"gatewayx"}
