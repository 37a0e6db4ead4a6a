"""Renders the chart with Helm's own code and checks what comes out. Started by check.sh.

What is checked: `helm lint --strict`; that every file of cases/ renders, and every file of
cases/refused/ is refused with the words of its first line; that Kubernetes knows every field
(its own schemas, strictly, oldest and newest supported version), and KEDA and the Prometheus
operator theirs, by the definitions that are given; what must hold of pods whatever the values; and,
with a worker's program, that the worker reads the configuration.
"""

import argparse
import subprocess
import tempfile
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml
from helm_python import Chart, HelmError, helm_sdk_version, lint

HERE = Path(__file__).parent
CHART = HERE / "cipherscore"
VERSIONS = ["1.27", "1.37"]
CUSTOM = ["ScaledObject", "TriggerAuthentication", "ServiceMonitor"]


def definitions(files):
    """Schemas of custom resources by their kinds, in which no other fields are allowed."""
    schemas = {}
    for file in files:
        for definition in filter(None, yaml.safe_load_all(Path(file).read_text())):
            schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            close(schema)
            # Metadata is Kubernetes' own.
            schema["properties"]["metadata"] = {"type": "object"}
            schemas[definition["spec"]["names"]["kind"]] = schema
    return schemas


def close(schema):
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            close(part)


def render(values):
    with Chart.load(CHART) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name="fleet", namespace="scoring")
    manifests = [yaml.safe_load_all(text) for name, text in files.items() if name.endswith(".yaml")]
    return [manifest for file in manifests for manifest in file if manifest]


def check_fields(manifest, schemas):
    """Returns what was not checked."""
    kind = manifest["kind"]
    if kind in schemas:
        jsonschema.Draft7Validator(schemas[kind]).validate(manifest)
    elif kind in CUSTOM:
        return kind
    else:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def only(manifests, kind):
    [found] = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def invariants(values, manifests):
    pod = only(manifests, "Deployment")["spec"]["template"]["spec"]
    [worker] = pod["containers"]
    text = only(manifests, "ConfigMap")["data"]["worker.toml"]
    config = tomllib.loads(text)
    assert "password" not in text and "amqp" not in text and "redis" not in text

    grace = int(config["worker"]["grace_period"].removesuffix("s"))
    assert pod["terminationGracePeriodSeconds"] >= grace + 15
    budget = int(config["worker"]["memory"].removesuffix("MiB"))
    resources = worker["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"]
    assert int(resources["limits"]["memory"].removesuffix("Mi")) >= max(budget * 1.5, budget + 512)
    assert resources["requests"]["cpu"] == config["worker"]["threads"]
    # There is one thread more than those, of quick jobs.
    most = config["worker"]["threads"] + 1 if values.get("cpuLimit") else None
    assert resources["limits"].get("cpu") == most
    address, _, port = config["health"]["listen"].rpartition(":")
    assert address in ("0.0.0.0", "[::]") and int(port) == worker["ports"][0]["containerPort"]
    assert config["models"].get("folder") == ("/models" if "models" in values else None)

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert worker["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "env" not in worker, "secrets come by files"
    mounts = {mount["name"]: mount["mountPath"] for mount in worker["volumeMounts"]}
    assert all(mount["readOnly"] for mount in worker["volumeMounts"])
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    sources = pod["volumes"][1]["projected"]["sources"]
    paths = {item["path"] for source in sources for item in source["secret"]["items"]}
    named = {config[section][key] for section in ("broker", "store") for key in config[section]}
    assert {f"{mounts['secrets']}/{path}" for path in paths} == named

    for manifest in manifests:
        if manifest["kind"] == "NetworkPolicy":
            assert manifest["spec"]["policyTypes"] == ["Ingress", "Egress"]
            rules = manifest["spec"]["egress"] + manifest["spec"]["ingress"]
            assert all(rule.get("to") or rule.get("from") for rule in rules)
            assert len(manifest["spec"]["egress"]) == 3
        if manifest["kind"] == "ScaledObject":
            [trigger] = manifest["spec"]["triggers"]
            assert trigger["metadata"]["protocol"] == "http"
            assert trigger["metadata"]["excludeUnacknowledged"] == "false"
            assert "replicas" not in only(manifests, "Deployment")["spec"]
    return text


def read_by(program, text):
    """It reads its configuration, and finds that no worker answers."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        command = [program, "health", "--config", file.name]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60).stderr
    assert "no answer from" in said, said


def refused(path):
    text = path.read_text()
    reason = text.splitlines()[0].removeprefix("# ")
    try:
        render(yaml.safe_load(text))
    except HelmError as error:
        assert reason in str(error), f"{path}: {error}"
        return
    raise AssertionError(f"{path} is not refused")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", help="the program cipherscore-worker")
    parser.add_argument("--crd", action="append", default=[], help="file of KEDA, Prometheus")
    arguments = parser.parse_args()
    schemas = definitions(arguments.crd)
    print("helm", helm_sdk_version())
    for path in sorted((HERE / "cases").glob("*.yaml")):
        values = yaml.safe_load(path.read_text())
        for version in VERSIONS:
            report = lint(CHART, values, strict=True, kube_version=f"v{version}.0")
            worst = [said for said in report["messages"] if said["severity"] > 1]
            assert not worst and not report["errors"], report
        manifests = render(values)
        unchecked = {check_fields(manifest, schemas) for manifest in manifests} - {None}
        text = invariants(values, manifests)
        if arguments.worker:
            read_by(arguments.worker, text)
        print(path.name, *[manifest["kind"] for manifest in manifests])
        if unchecked:
            print("    without --crd, the fields were not checked of:", *sorted(unchecked))
    for path in sorted((HERE / "cases/refused").glob("*.yaml")):
        refused(path)
        print(path.name, "refused")


main()
