"""The bill of materials of the program `rejoin` from `cargo metadata` and Cargo.lock: what it links, not what its build
and tests use. Usage: sbom.py METADATA LOCK."""

import json
import sys
import tomllib

metadata = json.load(open(sys.argv[1]))
locked = {(it["name"], it["version"]): it for it in tomllib.load(open(sys.argv[2], "rb"))["package"]}
packages = {it["id"]: it for it in metadata["packages"]}
nodes = {it["id"]: it for it in metadata["resolve"]["nodes"]}
root = next(it["id"] for it in metadata["packages"] if it["name"] == "server")


def links(node):
    """Its dependencies, without those of builds and tests."""
    for dependency in node["deps"]:
        if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
            yield dependency["pkg"]


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


seen, waiting = {root}, [root]
while waiting:
    for dependency in links(nodes[waiting.pop()]):
        if dependency not in seen:
            seen.add(dependency)
            waiting.append(dependency)


def component(package):
    found = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package.get("license"):
        # Cargo allows the older way to write "or".
        found["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = locked.get((package["name"], package["version"]), {}).get("checksum")
    if checksum:
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return found


ordered = sorted((packages[it] for it in seen), key=lambda it: (it["name"], it["version"]))
program = packages[root]
json.dump(
    {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**component(program), "type": "application", "name": "rejoin"}},
        "components": [component(it) for it in ordered if it is not program],
        "dependencies": [
            {"ref": reference(it), "dependsOn": sorted({reference(packages[to]) for to in links(nodes[it["id"]])})}
            for it in ordered
        ],
    },
    sys.stdout,
    indent=1,
)
