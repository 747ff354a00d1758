"""``make sbom``: adds what a wheel of Penstock bundles to the bill of materials (CycloneDX) that
``cyclonedx-py`` makes of an environment with that wheel.

    python build_backend/sbom.py environment.json penstock.whl sbom.json

The bundled parts are found in the wheel itself: the files of the libraries with their hashes, the
software that their notices name, and the npm packages whose licences lie beside the pages' scripts.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xnnpack_library import REQUIREMENT

PROJECT = "penstock-xnnpack"
NOTICES = "penstock/runtime/engines/xnnpack/NOTICES.txt"
LICENCES = "penstock/pages/assets/LICENSES.txt"
LIBRARIES = (".so", ".dylib", ".dll")
#: Heading in the notices → licence and source. The executorch wheel does not say of which commit
#: its parts are, so that they have its version.
BUNDLED = {
    "ExecuTorch": ("BSD-3-Clause", "https://github.com/pytorch/executorch"),
    "XNNPACK": ("BSD-3-Clause", "https://github.com/google/XNNPACK"),
    "pthreadpool": ("BSD-2-Clause", "https://github.com/google/pthreadpool"),
    "cpuinfo": ("BSD-2-Clause", "https://github.com/pytorch/cpuinfo"),
    "FXdiv": ("MIT", "https://github.com/Maratyszcza/FXdiv"),
    "FP16": ("MIT", "https://github.com/Maratyszcza/FP16"),
    "KleidiAI": ("Apache-2.0", "https://gitlab.arm.com/kleidi/kleidiai"),
    "FlatBuffers": ("Apache-2.0", "https://github.com/google/flatbuffers"),
}
#: A heading of a text that several of them refer to.
_NO_SOFTWARE = ("The Apache License, version 2.0",)
_HEADING = re.compile(r"^(\S[^\n]*)\n=+$", re.MULTILINE)
_PACKAGE = re.compile(r"^((?:@[\w.-]+/)?[\w.-]+) (\d[\w.+-]*) \(([\w.+ -]+)\)$", re.MULTILINE)


def bundled(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """The components in a wheel, by the content of its files.

    Raises ValueError for software that the notices name and :data:`BUNDLED` does not.
    """
    wheel = next((data for name, data in files.items() if name.endswith("/WHEEL")), b"").decode()
    version = REQUIREMENT.partition("==")[2]
    found = [_file(name, data) for name, data in sorted(files.items()) if name.endswith(LIBRARIES)]
    for heading in _HEADING.findall(files[NOTICES].decode()):
        if heading in _NO_SOFTWARE:
            continue
        if heading not in BUNDLED:
            raise ValueError(f"{NOTICES} names {heading}: add it to {Path(__file__).name}")
        if heading == "KleidiAI" and "x86_64" in wheel:
            continue  # it is in the libraries for arm64 alone
        licence, source = BUNDLED[heading]
        part = _component("library", heading, f"bundled-with-executorch-{version}", licence)
        part["externalReferences"] = [{"type": "vcs", "url": source}]
        part["description"] = f"Compiled into the libraries of the wheel {REQUIREMENT}."
        found.append(part)
    for name, number, licence in _PACKAGE.findall(files.get(LICENCES, b"").decode()):
        part = _component("library", name, number, licence)
        part["purl"] = f"pkg:npm/{name.replace('@', '%40')}@{number}"
        found.append(part)
    return found


def _component(kind: str, name: str, version: str, licence: str) -> dict[str, Any]:
    return {
        "type": kind, "bom-ref": f"bundled:{name}@{version}", "name": name, "version": version,
        "licenses": [{"license": {"id": licence}}],
    }  # fmt: skip


def _file(name: str, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    return {
        "type": "file", "bom-ref": f"file:{name}", "name": name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }  # fmt: skip


def with_bundled(bill: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The bill with the parts inside of Penstock's own component.

    Raises ValueError for a bill without Penstock.
    """
    own = next((c for c in bill.get("components", []) if c["name"] == PROJECT), None)
    if own is None:
        raise ValueError(f"the environment has no {PROJECT}")
    return {**bill, "components": [
        {**c, "components": parts} if c is own else c for c in bill["components"]
    ]}  # fmt: skip


def main(environment: str, wheel: str, output: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    bill = with_bundled(json.loads(Path(environment).read_text()), bundled(files))
    text = json.dumps(bill, indent=2) + "\n"
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"error: the bill is not valid CycloneDX 1.6: {problem}")
    Path(output).write_text(text)
    print(f"{output}: {len(bill['components'])} packages")


if __name__ == "__main__":
    main(*sys.argv[1:])
