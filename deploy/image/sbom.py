"""What the image is made of, as CycloneDX has it: crates by Cargo.lock, and Debian's packages.

Nothing in it depends on when or where it is made.
"""

import functools
import json
import pathlib
import subprocess
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGETS = {"amd64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}


@functools.cache
def package():
    """The operator's own entry in Cargo.toml."""
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]


def crates(architecture):
    """Every crate that is linked into the programs: no tests, no macros, and nothing that only builds run."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", TARGETS[architecture]]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    packages = {it["id"]: it for it in metadata["packages"]}
    links = {
        node["id"]: [it["pkg"] for it in node["deps"] if any(kind["kind"] is None for kind in it["dep_kinds"])]
        for node in metadata["resolve"]["nodes"]
    }
    macros = {id for id, it in packages.items() if any("proc-macro" in target["kind"] for target in it["targets"])}
    links = {id: [it for it in on if it not in macros] for id, on in links.items()}
    root = metadata["resolve"]["root"]
    seen, waiting = {root}, [root]
    while waiting:
        for it in links[waiting.pop()]:
            if it not in seen:
                seen.add(it)
                waiting.append(it)
    named = lambda it: f"pkg:cargo/{packages[it]['name']}@{packages[it]['version']}"
    return root, {it: packages[it] for it in seen}, {named(it): sorted(map(named, links[it])) for it in seen}


def bill(architecture, debian):
    """The bill of materials of an image with these packages of Debian: name, version, architecture, source."""
    root, linked, links = crates(architecture)
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(it["name"], it["version"]): it.get("checksum") for it in lock}
    components = []
    for identity, crate in linked.items():
        name, version = crate["name"], crate["version"]
        component = {"type": "library", "name": name, "version": version, "purl": f"pkg:cargo/{name}@{version}"}
        component["bom-ref"] = component["purl"]
        if crate.get("license"):
            component["licenses"] = [{"expression": crate["license"].replace("/", " OR ")}]
        if checksum := checksums.get((name, version)):
            component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if identity == root:
            subject = component | {"type": "container"}
        else:
            components.append(component)
    for name, version, arch, source in debian:
        purl = f"pkg:deb/debian/{name}@{version.replace('~', '%7E').replace('+', '%2B')}?arch={arch}&distro=debian-12"
        component = {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}
        component["properties"] = [{"name": "debian:source", "value": source}]
        components.append(component)
    components.sort(key=lambda it: it["purl"])
    depends = [{"ref": ref, "dependsOn": on} for ref, on in sorted(links.items())]
    content = json.dumps([subject, components, depends], sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
        "dependencies": depends,
    }
