"""The bill of materials names all that a wheel bundles."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from test_libraries import NOTICES, packed

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "build_backend"))

import libraries  # noqa: E402
import sbom  # noqa: E402

ASSETS = ROOT / "penstock" / "pages" / "assets"


def test_libraries_and_what_is_in_them() -> None:
    files = packed()
    parts = {part["name"]: part for part in sbom.bundled(files)}
    owners = set()
    for name, data in files.items():
        if name.endswith(sbom.LIBRARIES):
            assert parts[name]["hashes"][0]["content"] == hashlib.sha256(data).hexdigest()
            owners |= libraries.owners(Path(name).stem.removeprefix("lib"), libraries.read(data))
    assert owners - {"Penstock"} <= set(parts)
    assert {"XNNPACK", "cpuinfo", "pthreadpool", "FlatBuffers", "FXdiv", "FP16"} <= set(parts)
    assert ("KleidiAI" in parts) == (b"x86_64" not in files["penstock_xnnpack-0.dist-info/WHEEL"])
    assert all("licenses" in part or part["type"] == "file" for part in parts.values())
    arm = dict(files)
    arm["penstock_xnnpack-0.dist-info/WHEEL"] = b"Tag: py3-none-manylinux_2_28_aarch64\n"
    assert "KleidiAI" in {part["name"] for part in sbom.bundled(arm)}


def test_software_that_is_not_known_stops_it() -> None:
    files = packed()
    files[NOTICES] += b"\nMysterious\n==========\nA licence\n"
    with pytest.raises(ValueError, match="names Mysterious"):
        sbom.bundled(files)


def test_npm_packages_in_the_pages() -> None:
    """Those that the pages' scripts contain, with the versions of the lock file."""
    path = ASSETS / "LICENSES.txt"
    if not path.is_file():
        pytest.skip("the pages are not built")
    found = sbom.bundled({**packed(), sbom.LICENCES: path.read_bytes()})
    packages = {p["name"]: p["version"] for p in found if p.get("purl", "").startswith("pkg:npm/")}
    lock = json.loads((ROOT / "web" / "package-lock.json").read_text())["packages"]
    asked = lock[""]["dependencies"]
    assert set(asked) <= set(packages)
    for name, version in packages.items():
        assert lock[f"node_modules/{name}"]["version"] == version
        assert lock[f"node_modules/{name}"]["license"]


def test_they_stand_in_penstocks_component() -> None:
    bill = {"components": [{"name": "numpy"}, {"name": sbom.PROJECT, "version": "1"}]}
    made = sbom.with_bundled(bill, [{"name": "XNNPACK"}])
    assert made["components"][1]["components"] == [{"name": "XNNPACK"}]
    assert "components" not in made["components"][0]
    with pytest.raises(ValueError, match="no penstock-xnnpack"):
        sbom.with_bundled({"components": []}, [])
