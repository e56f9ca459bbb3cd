"""Checks the files that deploy Rejoin, as far as that goes without a container engine or a cluster.

Usage: deploy.py FOLDER REJOIN, the root of the checkout and the program. Needs `kubernetes-validate`, which brings the
schemas of Kubernetes, PyYAML and jsonschema. Prints what it checked; the first thing that is wrong ends it.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import jsonschema
import kubernetes_validate
import yaml

ROOT = pathlib.Path(sys.argv[1])
REJOIN = sys.argv[2]
# The oldest that the manifests say they are for, and the newest that this knows.
KUBERNETES = ["1.29", "1.37"]
# Compose's own: its default, or a variable that must be set.
VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:-)([^}]*)|(:\?)[^}]*)?\}")


def check(holds, what):
    if not holds:
        sys.exit(f"deploy.py: {what}")


def env_file(text):
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def interpolate(value, env):
    """What Compose makes of `${…}`, in values only."""
    if isinstance(value, dict):
        return {key: interpolate(item, env) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, env) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match):
        name, otherwise, default, must = match.groups()
        if match.group() == "$$":
            return "$"
        found = env.get(name, "")
        check(found or not must, f"{name} is not set")
        check(found or otherwise, f"{name} has neither a value nor a default")
        return found or default

    return VARIABLE.sub(replace, value)


def rejoin_config(toml, variables):
    """The configuration as Rejoin reads it, with a file and an environment."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(toml)
        file.flush()
        run = subprocess.run(
            [REJOIN, "serve", "--config", file.name, "--print-config"],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
        )
    check(run.returncode == 0, f"rejoin refuses this configuration: {run.stderr}")
    return tomllib.loads(run.stdout)


def check_compose():
    schema = json.loads((ROOT / "tests/schemas/compose-spec.json").read_text())
    raw = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    secrets = {"API_KEY_SHA256": "a" * 64, "POSTGRES_PASSWORD": "secret"}
    for user in ["EDGE", "ARCHIVER", "SERVICE", "VIEWER", "OPERATOR"]:
        secrets[f"NATS_{user}_PASSWORD"] = "secret"
    cluster = env_file((ROOT / "deploy/cluster.env").read_text())
    for env, servers in [(secrets, 1), ({**secrets, **cluster}, 3)]:
        compose = interpolate(raw, env)
        jsonschema.validate(compose, schema)
        profiles = env.get("COMPOSE_PROFILES", "").split(",")
        services = {
            name: service
            for name, service in compose["services"].items()
            if set(service.get("profiles", profiles)) & set(profiles)
        }
        nats = [it for it in services.values() if it["image"].startswith("nats:")]
        check(len(nats) == servers, f"{len(nats)} nats-servers, not {servers}")
        for name, service in services.items():
            check("healthcheck" in service, f"{name} has no health check")
            for other in service.get("depends_on", {}):
                check(other in services, f"{name} depends on {other}, which is not started")
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                there = (ROOT / source).is_file() if source.startswith(".") else source in compose["volumes"]
                check(there, f"{name}: there is no {source}")
            for secret in service.get("secrets", []):
                check(secret in compose["secrets"], f"{name}: there is no secret {secret}")
        for name in ("edge-1", "edge-2"):
            variables = services[name]["environment"]
            config = rejoin_config(
                (ROOT / "deploy/rejoin.toml").read_text(), {key: str(value) for key, value in variables.items()}
            )
            check(config["edge"]["name"] == name, f"{name} is called {config['edge']['name']}")
            backplane = config["backplane"]
            check(len(backplane["urls"]) == servers, f"{name}: {backplane['urls']}")
            check(backplane["replicas"] == (3 if servers == 3 else 1), f"{name}: {backplane['replicas']} replicas")
            drain = config["edge"]["drain"]
            takes_s = (drain["unready_ms"] + drain["spread_ms"] + drain["deadline_ms"]) / 1000
            grace_s = int(services[name]["stop_grace_period"].removesuffix("s"))
            check(grace_s > takes_s, f"{name} is killed after {grace_s} s, a drain takes {takes_s} s")
        print(f"compose: {len(services)} services with {servers} nats-server(s)")


def check_kubernetes():
    objects = []
    for path in sorted((ROOT / "deploy/kubernetes").glob("*.yaml")):
        documents = list(yaml.safe_load_all(path.read_text()))
        # A values file of a chart is no manifest.
        objects += [it for it in documents if "kind" in it]
    for version in KUBERNETES:
        for it in objects:
            kubernetes_validate.validate(it, version, strict=True)
    by_kind = {}
    for it in objects:
        by_kind.setdefault(it["kind"], {})[it["metadata"]["name"]] = it["spec"] if "spec" in it else it
    workloads = {**by_kind["Deployment"], **by_kind["StatefulSet"]}
    for name, workload in workloads.items():
        labels = workload["template"]["metadata"]["labels"]
        budget = by_kind["PodDisruptionBudget"][name]["selector"]["matchLabels"]
        for selector in (workload["selector"]["matchLabels"], budget, by_kind["Service"][name]["selector"]):
            check(selector.items() <= labels.items(), f"{name}: {selector} selects nothing")
        pod = workload["template"]["spec"]
        for container in pod["containers"]:
            for part in ("livenessProbe", "readinessProbe", "lifecycle", "resources"):
                check(part in container, f"{name} has no {part}")
            ports = {port["name"] for port in container["ports"]}
            for port in by_kind["Service"][name]["ports"]:
                known = port.get("targetPort", port["name"])
                check(known in ports or port["name"] == "monitor", f"{name}: no port {known}")
            mounted = {it["name"] for it in container["volumeMounts"]}
            volumes = {it["name"] for it in pod.get("volumes", [])}
            volumes |= {it["metadata"]["name"] for it in workload.get("volumeClaimTemplates", [])}
            check(mounted == volumes, f"{name}: {mounted} are mounted of {volumes}")
    target = by_kind["HorizontalPodAutoscaler"]["rejoin"]["scaleTargetRef"]
    check(target["name"] in by_kind[target["kind"]], "the autoscaler scales nothing")
    # The configuration in it is one that an edge takes, and the pod outlives its drain.
    data = by_kind["ConfigMap"]["rejoin"]["data"]["rejoin.toml"]
    config = rejoin_config(data, {"REJOIN_EDGE__NAME": "rejoin-0"})
    drain = config["edge"]["drain"]
    takes_s = (drain["unready_ms"] + drain["spread_ms"] + drain["deadline_ms"]) / 1000
    pod = by_kind["Deployment"]["rejoin"]["template"]["spec"]
    pause_s = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    grace_s = pod["terminationGracePeriodSeconds"]
    check(grace_s > takes_s + pause_s, f"killed after {grace_s} s, leaving takes {takes_s + pause_s} s")
    print(f"kubernetes: {len(objects)} objects against {' and '.join(KUBERNETES)}")


check_compose()
check_kubernetes()
