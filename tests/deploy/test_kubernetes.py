"""The manifests: valid by the schemas of Kubernetes, as strict as its restricted profile, and they fit each other."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gatewayx.config.loading import load
from gatewayx.server.listeners import LAST_ACCEPTS_S
from gatewayx.server.master import OVERDUE_S
from gatewayx.server.process import LAST_ANSWERS_S
from support.admin import ADMIN, admin_of
from support.deployed import DEPLOY, told_address
from support.gateway import ServeProcess
from support.http import ask, head

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MANIFESTS = DEPLOY / "kubernetes"
# Of the first kind that the schemas do not know, since the Prometheus operator brings it along.
POD_MONITOR = MANIFESTS / "optional" / "pod-monitor.yaml"
# The oldest that the docs name, and a new one.
VERSIONS = ["1.27", "1.36"]
# What a stop may take beyond --shutdown-delay and --drain-timeout, as the gateway tells systemd.
STOP_S = LAST_ACCEPTS_S + LAST_ANSWERS_S + OVERDUE_S
# At most this part of a pod's memory may be held for clients.
MOST_HELD = 0.6

PATHS = sorted(MANIFESTS.rglob("*.yaml"))


def manifest(name: str) -> dict[str, Any]:
    """One manifest; a file has no more."""
    [found] = yaml.safe_load_all((MANIFESTS / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


DEPLOYMENT = manifest("deployment")
POD = DEPLOYMENT["spec"]["template"]
[CONTAINER] = POD["spec"]["containers"]
LABELS = POD["metadata"]["labels"]
SETTINGS_TEXT = manifest("configmap")["data"]["gatewayx.toml"]
SETTINGS = tomllib.loads(SETTINGS_TEXT)
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", [path for path in PATHS if path != POD_MONITOR], ids=lambda path: path.stem)
def test_each_manifest_is_valid_without_a_word_too_many(path: Path, version: str):
    [found] = yaml.safe_load_all(path.read_text(encoding="utf-8"))

    kubernetes_validate.validate(found, version, strict=True)


def test_a_manifest_that_is_wrong_is_found_out():
    wrong = {**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replica": 2}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_the_pod_is_what_the_restricted_profile_wants():
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    pod = POD["spec"]["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] == 65532
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & POD["spec"].keys()
    assert all(set(volume) - {"name"} <= {"configMap", "emptyDir", "secret"} for volume in POD["spec"]["volumes"])


def test_the_settings_are_read_by_the_gateway(tmp_path: Path):
    path = tmp_path / "gatewayx.toml"
    path.write_text(SETTINGS_TEXT)

    settings = load(str(path), {}, {}).settings

    assert [(address.host, address.port) for address in settings.listen] == [("0.0.0.0", PORTS["http"])]


def test_the_settings_lie_where_the_gateway_reads_them():
    [mount] = CONTAINER["volumeMounts"]
    [volume] = POD["spec"]["volumes"]

    assert CONTAINER["args"] == ["serve", "--config", f"{mount['mountPath']}/gatewayx.toml"]
    assert mount["name"] == volume["name"]
    assert volume["configMap"]["name"] == manifest("configmap")["metadata"]["name"]


def test_a_pod_has_the_time_that_its_stop_takes():
    longest_s = SETTINGS["shutdown-delay"] + SETTINGS["drain-timeout"] + STOP_S

    assert longest_s <= POD["spec"]["terminationGracePeriodSeconds"] <= longest_s + 15
    # A pod is taken out of the Service meanwhile: as long as it takes until the probe has failed, and as much again.
    probe = CONTAINER["readinessProbe"]
    assert SETTINGS["shutdown-delay"] >= 2 * probe["periodSeconds"] * probe["failureThreshold"]


def test_the_probes_ask_the_admin_port_of_the_pods_own_address():
    environment = {variable["name"]: variable for variable in CONTAINER["env"]}
    assert environment["POD_IP"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert environment["GATEWAYX_ADMIN"]["value"] == f"$(POD_IP):{PORTS['admin']}"
    # Kubernetes puts in only variables that stand before.
    assert list(environment) == ["POD_IP", "GATEWAYX_ADMIN"]
    asked = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in asked.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    for probe in asked.values():
        assert probe["port"] == "admin"
        # Without one kubelet names the pod's address, which the gateway takes.
        assert "host" not in probe
        assert "httpHeaders" not in probe


@pytest.mark.anyio
async def test_the_probes_are_answered_as_kubelet_asks_and_say_that_a_pod_ends_while_it_serves(embedded, tmp_path):
    path = tmp_path / "gatewayx.toml"
    path.write_text(SETTINGS_TEXT)
    server = ("--server", f"{embedded.address[0]}:{embedded.address[1]}")
    async with ServeProcess("--config", str(path), *ADMIN, *server, "--workers", "2") as served:
        admin = await admin_of(served)
        host = f"Host: {admin.address[0]}:{admin.address[1]}".encode()

        async def answers() -> dict[str, int]:
            found = {}
            for name in ("startup", "liveness", "readiness"):
                # https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
                target = CONTAINER[f"{name}Probe"]["httpGet"]["path"].encode()
                agent = b"User-Agent: kube-probe/1.36"
                request = b"\r\n".join((b"GET %b HTTP/1.1" % target, host, agent, b"Accept: */*", b"Connection: close"))
                found[name] = (await admin.send(request + b"\r\n\r\n")).status
            return found

        assert await answers() == {"startup": 200, "liveness": 200, "readiness": 200}

        served.signal(signal.SIGTERM)
        await admin.becomes("/readyz", 503)
        assert await answers() == {"startup": 200, "liveness": 200, "readiness": 503}
        assert (await ask(told_address(served), head(b"OPTIONS", b"*"))).status == 204


def test_what_is_held_for_clients_fits_the_memory():
    limit = CONTAINER["resources"]["limits"]["memory"]
    assert (limit[-2:], SETTINGS["max-held"][-3:]) == ("Mi", "MiB")
    assert int(SETTINGS["max-held"][:-3]) <= MOST_HELD * int(limit[:-2])


def test_everything_is_about_these_pods_and_their_ports():
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == LABELS
    assert manifest("service")["spec"]["selector"] == LABELS
    assert manifest("pod-disruption-budget")["spec"]["selector"]["matchLabels"] == LABELS
    assert manifest("optional/pod-monitor")["spec"]["selector"]["matchLabels"] == LABELS
    target = manifest("optional/horizontal-pod-autoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (DEPLOYMENT["kind"], DEPLOYMENT["metadata"]["name"])
    [port] = manifest("service")["spec"]["ports"]
    [endpoint] = manifest("optional/pod-monitor")["spec"]["podMetricsEndpoints"]
    assert {port["targetPort"], endpoint["port"]} <= PORTS.keys()


def test_only_what_the_gateway_needs_may_come_and_go():
    policy = manifest("network-policy")["spec"]
    assert policy["podSelector"]["matchLabels"] == LABELS
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    clients, prometheus = policy["ingress"]
    assert clients == {"ports": [{"port": "http"}]}
    assert prometheus["ports"] == [{"port": "admin"}]
    assert prometheus["from"]
    job_servers, names = policy["egress"]
    [server] = SETTINGS["server"]
    assert job_servers["ports"] == [{"port": int(server.rpartition(":")[2])}]
    assert {(port["port"], port["protocol"]) for port in names["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert job_servers["to"]
    assert names["to"]
