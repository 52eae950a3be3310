"""What is installed: each release is written down with its hashes, fits what is asked for, and is listed."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
AGENT = [
    *PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["agent"],
]
GROUPS = PROJECT["dependency-groups"]
BUILD = PROJECT["build-system"]["requires"]
ASKED = {
    "agent.txt": AGENT,
    "development.txt": [*AGENT, *GROUPS["dev"], *BUILD],
    "benchmarks.txt": GROUPS["bench"],
}
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked(name: str) -> list[tuple[Requirement, int]]:
    """Give the releases of a file of requirements/, each with the number of its hashes."""
    lines = (ROOT / "requirements" / name).read_text().replace("\\\n", " ").splitlines()
    return [
        (Requirement(HASH.sub("", line)), len(HASH.findall(line)))
        for line in lines
        if not line.lstrip().startswith("#")
    ]


def versions(name: str) -> dict[str, str]:
    """Give which version of what is installed here."""
    return {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each, _ in locked(name)
        if each.marker is None or each.marker.evaluate()
    }


@pytest.mark.parametrize("name", ASKED)
def test_each_release_is_one_with_hashes_and_from_no_address(name: str) -> None:
    for release, hashes in locked(name):
        assert [each.operator for each in release.specifier] == ["=="], release
        assert hashes, release
        assert release.url is None
    assert "://" not in (ROOT / "requirements" / name).read_text()


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_for_is_there_in_a_version_that_fits(name: str) -> None:
    found = versions(name)
    for each in map(Requirement, ASKED[name]):
        version = found[canonicalize_name(each.name)]
        assert each.specifier.contains(version), f"{each}, not {version}: `make lock`"


def test_the_agent_is_tested_with_what_it_is_said_to_be_made_of() -> None:
    assert versions("agent.txt").items() <= versions("development.txt").items()


@pytest.mark.slow
def test_the_list_of_parts_names_each_with_its_licence() -> None:
    subprocess.run(["make", "--silent", "sbom"], cwd=ROOT, check=True, timeout=300)
    listed = json.loads((ROOT / "build" / "sbom.json").read_text())
    assert listed["bomFormat"] == "CycloneDX"
    parts = {canonicalize_name(part["name"]): part for part in listed["components"]}
    assert {name: part["version"] for name, part in parts.items()} == versions("agent.txt")
    without = {name for name, part in parts.items() if not part.get("licenses")}
    assert without <= {"protobuf"}, "its metadata names none"
    assert all(part["purl"].startswith("pkg:pypi/") for part in parts.values())
    edges = {each["ref"]: each.get("dependsOn", []) for each in listed["dependencies"]}
    assert parts["grpcio"]["bom-ref"] in edges["root-component"]
