"""The manifests in deploy/: core kinds by Kubernetes' schemas, KubeRay's by a trimmed one."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import optuna
import pytest
import yaml
from command_line import Background

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = sorted(DEPLOY.glob("kuberay-*.yaml"))
SCHEMA = yaml.safe_load(Path(__file__).with_name("kuberay-schema.yaml").read_text())
# What Pod Security Standards call restricted.
CLOSED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}

MANIFESTS = [
    pytest.param(manifest, id=f"{manifest['kind']}-{manifest['metadata']['name']}")
    for path in FILES
    for manifest in yaml.safe_load_all(path.read_text())
]
KUBERAY = [m for m in MANIFESTS if m.values[0]["apiVersion"] == "ray.io/v1"]
CORE = [m for m in MANIFESTS if m not in KUBERAY]


def cluster_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = manifest["spec"]
    return dict(spec.get("rayClusterSpec", spec))


def pods_of(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pods' templates of any kind of manifest."""
    spec = manifest["spec"]
    if manifest["apiVersion"] == "ray.io/v1":
        cluster = cluster_of(manifest)
        yield cluster["headGroupSpec"]["template"]
        yield from (group["template"] for group in cluster["workerGroupSpecs"])
    elif "template" in spec:
        yield spec["template"]


@pytest.mark.parametrize("manifest", CORE)
def test_core_kinds_are_as_kubernetes_has_them(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("manifest", KUBERAY)
def test_kuberays_kinds_are_as_kuberay_has_them(manifest: dict[str, Any]) -> None:
    jsonschema.validate(manifest, SCHEMA)
    templates = list(pods_of(manifest))
    if "submitterPodTemplate" in manifest["spec"]:
        templates.append(manifest["spec"]["submitterPodTemplate"])
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("wrong", [{"authOptions": {"mod": "token"}}, {"rayVersions": "2.60.0"}])
def test_the_schema_of_kuberays_kinds_is_strict(wrong: dict[str, Any]) -> None:
    manifest = next(m.values[0] for m in KUBERAY if m.values[0]["kind"] == "RayCluster")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest | {"spec": manifest["spec"] | wrong}, SCHEMA)


def test_both_ways_to_search_have_one_cluster() -> None:
    specs = [cluster_of(manifest.values[0]) for manifest in KUBERAY]
    assert specs[0] == specs[1]
    assert specs[0]["authOptions"] == {"mode": "token"}
    assert specs[0]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert specs[0]["enableInTreeAutoscaling"]


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_pods_have_few_rights_and_secrets_by_reference(manifest: dict[str, Any]) -> None:
    for template in pods_of(manifest):
        assert template["spec"]["securityContext"]["runAsNonRoot"]
        for container in template["spec"]["containers"]:
            assert container["securityContext"] == CLOSED
            for variable in container.get("env", []):
                if "PASSWORD" in variable["name"] or "STORAGE" in variable["name"]:
                    assert set(variable) == {"name", "valueFrom"}


def test_who_needs_a_port_is_let_in_by_its_labels() -> None:
    """The labels that policies select are those of pods here; others are KubeRay's own."""
    selected: set[tuple[str, str]] = set()
    given: set[tuple[str, str]] = set()
    for manifest in (m.values[0] for m in MANIFESTS):
        if manifest["kind"] == "NetworkPolicy":
            for rule in manifest["spec"].get("ingress", []):
                for source in rule["from"]:
                    selected |= set(source["podSelector"]["matchLabels"].items())
            selected |= set(manifest["spec"]["podSelector"].get("matchLabels", {}).items())
        templates = [*pods_of(manifest), manifest["spec"].get("submitterPodTemplate", {})]
        for template in templates:
            given |= set(template.get("metadata", {}).get("labels", {}).items())
    kuberays = {("ray.io/is-ray-node", "yes"), ("app.kubernetes.io/name", "kuberay-operator")}
    assert selected - given == kuberays


def test_the_dashboard_listens_on_loopback_and_gets_its_url_as_a_variable(tmp_path: Path) -> None:
    deployment = next(m.values[0] for m in CORE if m.values[0]["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    python, *arguments = container["command"]
    assert (python, [one["name"] for one in container["env"]]) == ("python", ["HPO_STORAGE"])
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=url)
    started = Background(
        *arguments, "--port", "0", program=(sys.executable,), log=tmp_path / "log",
        environment={"HPO_STORAGE": url},
    )  # fmt: skip
    try:
        started.wait_for(lambda: " at http://127.0.0.1:" in started.log.read_text())
    finally:
        started.kill_everything()
