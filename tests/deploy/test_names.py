"""What the files in deploy/ name is there: settings, metrics, labels, outcomes; and they agree on the ports."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

import pytest
import yaml

from gatewayx.config.loading import load
from gatewayx.config.setting_table import SETTINGS
from gatewayx.http.outcomes import OUTCOMES
from support.admin import ADMIN, admin_of, until
from support.deployed import DEPLOY, environment_variables, told_address
from support.gateway import ServeProcess
from support.http import ask, post
from support.tls import authority

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What is shown, with the labels that it is shown by.
METRICS = {
    "gatewayx_build_info": {"version"},
    "gatewayx_config_last_reload_success_timestamp_seconds": set(),
    "gatewayx_config_last_reload_successful": set(),
    "gatewayx_connections": {"state"},
    "gatewayx_connections_accepted_total": set(),
    "gatewayx_connections_limit": set(),
    "gatewayx_event_loop_lag_seconds": {"worker"},
    "gatewayx_held_bytes": {"account"},
    "gatewayx_held_limit_bytes": {"account"},
    "gatewayx_http_request_duration_seconds": {"function", "le"},
    "gatewayx_http_requests_in_flight": set(),
    "gatewayx_http_requests_total": {"method", "code", "function", "outcome"},
    "gatewayx_job_duration_seconds": {"function", "le"},
    "gatewayx_job_server_reconnects_total": {"server"},
    "gatewayx_job_server_up": {"server"},
    "gatewayx_jobs_in_flight": set(),
    "gatewayx_jobs_in_flight_limit": set(),
    "gatewayx_jobs_total": {"function", "server", "result"},
    "gatewayx_event_streams": set(),
    "gatewayx_event_streams_begun_total": set(),
    "gatewayx_event_streams_cut_total": set(),
    "gatewayx_batch_jobs_total": set(),
    "gatewayx_batches_total": set(),
    "gatewayx_idempotency_keys": set(),
    "gatewayx_idempotency_keys_limit": set(),
    "gatewayx_idempotent_requests_total": {"how"},
    "gatewayx_kept_bytes": set(),
    "gatewayx_tls_certificate_not_after_seconds": {"purpose", "certificate"},
    "gatewayx_tls_files_last_read_successful": {"purpose"},
    "gatewayx_kept_jobs": {"state"},
    "gatewayx_kept_jobs_begun_total": set(),
    "gatewayx_kept_jobs_ended_total": {"state"},
    "gatewayx_kept_jobs_limit": set(),
    "gatewayx_kept_limit_bytes": set(),
    "gatewayx_kept_results_dropped_total": set(),
    "gatewayx_log_dropped_total": {"log"},
    "gatewayx_process_cpu_seconds_total": {"process"},
    "gatewayx_process_resident_memory_bytes": {"process"},
    "gatewayx_refusals_total": {"reason"},
    "gatewayx_rates_forgiven_total": set(),
    "gatewayx_relayed_total": set(),
    "gatewayx_start_time_seconds": set(),
    "gatewayx_status_polls_refused_total": set(),
    "gatewayx_status_polls_total": set(),
    "gatewayx_worker_restarts_total": {"reason"},
    "gatewayx_workers": {"state"},
    "gearman_jobs": {"server", "function"},
    "gearman_jobs_running": {"server", "function"},
    "gearman_jobs_waiting": {"server", "function"},
    "gearman_up": {"server"},
    "gearman_version_info": {"server", "version"},
    "gearman_workers": {"server", "function"},
}
# Prometheus adds these to every series.
OF_EVERY_SERIES = {"job", "instance"}
SERIES = re.compile(r"\b((?:gatewayx|gearman)_[a-z_]+)(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')


def alert_expressions() -> Iterator[str]:
    """Of all alerts."""
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def series_of_the_tests() -> Iterator[str]:
    """The series that the alerts are tested with."""
    for test in yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yml").read_text())["tests"]:
        for series in test["input_series"]:
            yield series["series"]


def dashboard_expressions() -> Iterator[str]:
    """Of the panels and the annotations, and what the variables ask for."""
    dashboard = json.loads((DEPLOY / "grafana" / "gatewayx.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]
    for shown in (*dashboard["annotations"]["list"], *dashboard["templating"]["list"]):
        yield shown.get("expr") or shown.get("definition") or ""


EXPRESSIONS = [*alert_expressions(), *series_of_the_tests(), *dashboard_expressions()]


def series() -> Iterator[tuple[str, dict[str, str]]]:
    """Each series that is named anywhere, without the suffix of a histogram's, and the values of its labels."""
    for expression in EXPRESSIONS:
        for name, labels in SERIES.findall(expression):
            yield re.sub(r"_bucket$", "", name), dict(LABEL.findall(labels))


def test_each_metric_is_shown():
    assert {name for name, _ in series()} == METRICS.keys()


@pytest.mark.anyio
async def test_a_gateway_exports_each_metric_with_these_labels(embedded, samples):
    server = ("--server", f"{embedded.address[0]}:{embedded.address[1]}", "--status-interval", "0.05")
    certificate = ("--tls-certificate", str(authority().certificate("127.0.0.1")))
    async with ServeProcess(*ADMIN, *server, *certificate, "--workers", "1") as served:
        admin = await admin_of(served)
        assert (await ask(told_address(served), post(b"/reverse", b"ab"))).status == 200

        async def job_server_has_told() -> bool:
            return any(name == "gearman_workers" for name, _ in await admin.metrics())

        await until(job_server_has_told)
        exported: dict[str, set[str]] = {}
        for name, labels in await admin.metrics():
            exported.setdefault(re.sub(r"_(bucket|sum|count)$", "", name), set()).update(label for label, _ in labels)

    assert METRICS.keys() <= exported.keys()
    for name in METRICS:
        assert METRICS[name] <= exported[name], name


def test_each_label_is_one_of_its_metric():
    unknown = {(name, label) for name, labels in series() for label in labels.keys() - METRICS[name] - OF_EVERY_SERIES}
    assert unknown == set()
    # What sums are by.
    for expression in EXPRESSIONS:
        known = OF_EVERY_SERIES.union(
            *(METRICS[re.sub(r"_bucket$", "", name)] for name, _ in SERIES.findall(expression))
        )
        for labels in re.findall(r"\bby \(([^)]*)\)", expression):
            assert set(labels.split(", ")) <= known, expression


def test_each_outcome_is_one_of_a_request():
    outcomes = {outcome for _, labels in series() for outcome in labels.get("outcome", "").split("|") if outcome}

    assert {"exception", "job-failed"} <= outcomes
    assert outcomes <= {outcome for outcome, _ in OUTCOMES}


@pytest.mark.parametrize("path", sorted((DEPLOY / "systemd").glob("*.toml")), ids=lambda path: path.name)
def test_a_file_of_settings_is_read_by_the_gateway(path):
    assert load(str(path), {}, {}).settings.server


def test_each_variable_is_one_of_a_setting():
    named = set()
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            named |= environment_variables(path.read_text(encoding="utf-8"))

    assert len(named) > 2
    assert named <= {setting.variable for setting in SETTINGS}


def test_the_ports_are_the_defaults():
    pod = yaml.safe_load((DEPLOY / "kubernetes" / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    defaults = load(None, {}, {}).settings

    assert ports == {"http": defaults.listen[0].port, "admin": defaults.admin.port}
    assert scraped["static_configs"] == [{"targets": [f"127.0.0.1:{ports['admin']}"]}]
    assert f"EXPOSE {ports['http']} {ports['admin']}\n" in (DEPLOY / "Containerfile").read_text()
    assert f"ListenStream={ports['http']}\n" in (DEPLOY / "systemd" / "gatewayx.socket").read_text()
    settings = tomllib.loads((DEPLOY / "systemd" / "gatewayx.toml").read_text())
    assert "listen" not in settings
